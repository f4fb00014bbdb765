/**
 * Reading what lies in a container's state folder. The folder belongs to the runtime, but its content decides which process is signalled
 * and which folders are removed; so nothing that could have been put in its place is believed. Invariant: what is read is a regular file
 * of bounded size, in a folder that is one, and no symlink was followed to either.
 */

import { closeSync, constants, fstatSync, lstatSync, openSync, readFileSync, readSync } from 'node:fs'
import { basename, join } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { errnoOf, reasonOf } from '../sys/errno.ts'
import { ELOOP, ENOENT } from '../sys/linux.ts'

/**
 * How large a file of a state folder may be. Four times the largest config.json: a spec that was read can be longer than the text that it
 * came from. Whoever writes is held to it before anything is made.
 */
export const MAX_STATE_BYTES = 64 * 1024 * 1024
/** Of a file that is no state, more than this is not looked at: what matters stands at its beginning. */
const HEAD_BYTES = 1024 * 1024
/** Non-blocking: a fifo in its place must not make us wait. */
const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY

/** The text of a state file, or undefined when it (or its folder) is not there. @throws Internal when it is no such file or too large */
export function readStateFile(folder: string, name: string): string | undefined {
  requireFolder(folder)
  let fd: number
  try {
    fd = openSync(join(folder, name), FLAGS)
  } catch (error) {
    if (errnoOf(error) === ENOENT) return undefined
    throw damagedFile(folder, name, errnoOf(error) === ELOOP ? 'it is a symlink' : reasonOf(error), error)
  }
  try {
    const found = fstatSync(fd)
    if (!found.isFile()) throw damagedFile(folder, name, 'it is not a regular file')
    if (found.size > MAX_STATE_BYTES) throw damagedFile(folder, name, 'it is too large')
    return readFileSync(fd, 'utf8')
  } finally {
    closeSync(fd)
  }
}

/** What can be read of a state file, however it looks: of one that is too large the beginning, of one that is none nothing. @throws Internal when the folder is none */
export function readWhatIsThere(folder: string, name: string): string {
  requireFolder(folder)
  let fd: number
  try {
    fd = openSync(join(folder, name), FLAGS)
  } catch {
    // missing, a link, not to be read: nothing is known then
    return ''
  }
  try {
    const found = fstatSync(fd)
    if (!found.isFile()) return ''
    if (found.size <= MAX_STATE_BYTES) return readFileSync(fd, 'utf8')
    const head = Buffer.alloc(HEAD_BYTES)
    return head.toString('utf8', 0, readSync(fd, head))
  } catch {
    // a disk that fails: nothing is known then either
    return ''
  } finally {
    closeSync(fd)
  }
}

/** The error of a state file that cannot be used; it says what to do, since no other command can help. */
export function damagedFile(folder: string, name: string, why: string, cause?: unknown): RuntimeError {
  const advice = `\`delete --force ${basename(folder)}\` removes the container`
  const message = `cannot read "${join(folder, name)}": ${why}; ${advice}`
  return new RuntimeError('Internal', message, cause === undefined ? {} : { cause })
}

function requireFolder(folder: string): void {
  const found = lstatSync(folder, { throwIfNoEntry: false })
  if (found === undefined || found.isDirectory()) return
  throw new RuntimeError('Internal', `cannot use "${folder}" as a container's state folder: it is not a directory`)
}
