/** The file that receives the pid of a process. Invariant: a reader sees no file, the old one, or the whole number. */
import { closeSync, constants, openSync, renameSync, unlinkSync, writeSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { reasonOf } from '../sys/errno.ts'
import { getpid } from '../sys/libc.ts'
import { removeFile } from '../sys/remove.ts'

/**
 * Writes a pid file. A relative path counts from the current working directory. The file is not synced to disk, since a
 * pid means nothing after a reboot. @throws InvalidArgument with the path
 */
export function createPidFile(path: string, pid: number): void {
  const target = resolve(path)
  const temporary = join(dirname(target), `.${basename(target)}.${getpid()}`)
  try {
    // a killed process may have left a file of that name. O_EXCL: a symlink put in its place is not followed
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
      // it was not made, or cannot be removed: the error below says what stopped the writing
    }
    throw new RuntimeError('InvalidArgument', `cannot write the pid file "${path}": ${reasonOf(error)}`, {
      cause: error,
    })
  }
}
