/**
 * Reading what lies in a container's state folder. The folder belongs to the runtime, but its content decides which process is signalled
 * and which folders are removed; so nothing that could have been put in its place is believed. Invariant: what is read is a regular file
 * of bounded size, in a folder that is one, and no symlink was followed to either.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { errnoOf, reasonOf } from '../sys/errno.ts'

const MAX_BYTES = 4 * 1024 * 1024
const ENOENT = 2
const ELOOP = 40

/** The text of a state file, or undefined when it (or its folder) is not there. @throws Internal when it is no such file or too large */
export function readStateFile(folder: string, name: string): string | undefined {
  const path = join(folder, name)
  const refuse = (why: string, cause?: unknown): RuntimeError =>
    new RuntimeError('Internal', `cannot read "${path}": ${why}`, cause === undefined ? {} : { cause })
  let fd: number
  try {
    if (!lstatSync(folder).isDirectory()) throw refuse(`"${folder}" is not a directory`)
    // non-blocking: a fifo in its place must not make us wait
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if (error instanceof RuntimeError) throw error
    if (errnoOf(error) === ENOENT) return undefined
    throw refuse(errnoOf(error) === ELOOP ? 'it is a symlink' : reasonOf(error), error)
  }
  try {
    const found = fstatSync(fd)
    if (!found.isFile()) throw refuse('it is not a regular file')
    if (found.size > MAX_BYTES) throw refuse('it is too large')
    return readFileSync(fd, 'utf8')
  } finally {
    closeSync(fd)
  }
}
