/** The file in which a caller wants the pid of a process. Invariant: a reader sees no file, the old one, or the whole number. */
import { closeSync, constants, openSync, renameSync, unlinkSync, writeSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { reasonOf } from '../sys/errno.ts'
import { getpid } from '../sys/libc.ts'
import { removeFile } from '../sys/remove.ts'

/**
 * Writes a pid file; a relative path counts from the working directory of this moment. It is not synced to a disk: no pid outlives the
 * kernel that gave it. @throws InvalidArgument with the path
 */
export function createPidFile(path: string, pid: number): void {
  const target = resolve(path)
  const temporary = join(dirname(target), `.${basename(target)}.${getpid()}`)
  try {
    // one of that name is left of a process that was killed here; and exclusively, so that a link put in its place is not followed
    removeFile(temporary)
    const fd = openSync(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o666)
    try {
      writeSync(fd, String(pid))
    } finally {
      closeSync(fd)
    }
    renameSync(temporary, target)
  } catch (error) {
    try {
      unlinkSync(temporary)
    } catch {
      // not made, or not to be removed: what stopped the writing is told
    }
    throw new RuntimeError('InvalidArgument', `cannot write the pid file "${path}": ${reasonOf(error)}`, {
      cause: error,
    })
  }
}
