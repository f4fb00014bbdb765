/**
 * Reads the files of a container's state folder. The folder belongs to the runtime, but its content decides which
 * process is signalled and which folders are removed. So a file is not trusted if it could be a substitute.
 * Invariant: only a regular file of bounded size is read, its folder is a directory, and neither is a symlink.
 */
import { lstatSync, type Stats } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { errnoOf, reasonOf, syscallError } from '../sys/errno.ts'
import { ELOOP, ENOENT } from '../sys/linux.ts'
import { type FileContent, readUpTo } from '../sys/regular-file.ts'

/**
 * The largest file of a state folder. It is four times the largest config.json, since a parsed spec can be longer than
 * its text. Create checks this limit before it makes anything.
 */
export const MAX_STATE_BYTES = 64 * 1024 * 1024
/** Of a larger file only so much is read: the fields that matter stand at its beginning. */
const HEAD_BYTES = 1024 * 1024

/**
 * The text of a state file; undefined when the file or its folder does not exist.
 * @throws Internal when it is no regular file, too large, or unreadable
 */
export function readStateFile(folder: string, name: string): string | undefined {
  requireFolder(folder)
  const path = join(folder, name)
  let found: FileContent
  try {
    found = readUpTo(path, { limitBytes: MAX_STATE_BYTES, noFollow: true })
  } catch (error) {
    if (errnoOf(error) === ENOENT) return undefined
    throw damagedFile(path, errnoOf(error) === ELOOP ? 'it is a symlink' : reasonOf(error), error)
  }
  if (found.kind === 'whole') return found.bytes.toString()
  throw damagedFile(path, found.kind === 'irregular' ? 'it is not a regular file' : 'it is too large')
}

/**
 * What can be read of a state file in any condition. Of one that is too large, that is the beginning; of one that
 * cannot be read or is no regular file, it is ''. @throws Internal when the folder is no directory
 */
export function readWhatIsThere(folder: string, name: string): string {
  requireFolder(folder)
  try {
    const limits = { limitBytes: MAX_STATE_BYTES, headBytes: HEAD_BYTES, noFollow: true }
    const found = readUpTo(join(folder, name), limits)
    return found.kind === 'irregular' ? '' : found.bytes.toString()
  } catch {
    // missing, a symlink, unreadable, or the disk fails: the caller has other sources
    return ''
  }
}

/** The error for a state file that cannot be used. It names `delete --force`, the only command that helps. */
export function damagedFile(path: string, why: string, cause?: unknown): RuntimeError {
  const advice = `\`delete --force ${basename(dirname(path))}\` removes the container`
  const message = `cannot read "${path}": ${why}; ${advice}`
  return new RuntimeError('Internal', message, cause === undefined ? {} : { cause })
}

/** Whether a file or folder of the state exists. @throws PermissionDenied, and whatever else lstat(2) fails with */
export function isOnDisk(path: string): boolean {
  return look(path) !== undefined
}

function look(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })
  } catch (error) {
    throw syscallError(`cannot look at "${path}"`, { call: 'lstat', errno: errnoOf(error), path })
  }
}

function requireFolder(folder: string): void {
  const found = look(folder)
  if (found === undefined || found.isDirectory()) return
  throw new RuntimeError('Internal', `cannot use "${folder}" as a container's state folder: it is not a directory`)
}
