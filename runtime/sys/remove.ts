/**
 * Removing files and folders. Node's rmSync is not used: most of its errors have neither an errno nor a beginning (",
 * Unknown error"). Invariants: no symlink is followed; a missing file counts as removed; an error names the path that
 * stayed, and why.
 */
import { readdirSync, rmdirSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { errnoCode, errnoOf, errnoWords } from './errno.ts'
import { EISDIR, ENOENT } from './linux.ts'

/**
 * Removes a file of any kind but a folder; a missing one is no error.
 * @throws the system's error with the path
 */
export function removeFile(path: string): void {
  const errno = tried(() => unlinkSync(path))
  if (errno !== 0 && errno !== ENOENT) throw failed('unlink', path, errno)
}

/**
 * Removes a folder with everything below it, or a file of any kind; a missing one is no error.
 * @throws the system's error with the path that stayed
 */
export function removeTree(path: string): void {
  // unlink first: it also removes a symlink to a folder
  const errno = tried(() => unlinkSync(path))
  if (errno === 0 || errno === ENOENT) return
  if (errno !== EISDIR) throw failed('unlink', path, errno)
  let names: readonly string[] = []
  const listed = tried(() => {
    names = readdirSync(path)
  })
  if (listed !== 0 && listed !== ENOENT) throw failed('readdir', path, listed)
  for (const name of names) removeTree(join(path, name))
  const removed = tried(() => rmdirSync(path))
  if (removed !== 0 && removed !== ENOENT) throw failed('rmdir', path, removed)
}

/** The errno of a failed call, or 0; throws errors that have none. */
function tried(work: () => void): number {
  try {
    work()
    return 0
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === 0) throw error
    return errno
  }
}

function failed(call: string, path: string, errno: number): RuntimeError {
  const detail = { source: 'syscall', call, errno, path } as const
  return new RuntimeError(errnoCode(errno), `cannot remove "${path}": ${errnoWords(errno)}`, { detail })
}
