/**
 * Making a directory with its parents. Invariant: the call ends, with success or with an error, whatever the file
 * system answers.
 */
import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { errnoOf } from './errno.ts'
import { EEXIST, ENOENT } from './linux.ts'

/**
 * mkdir -p. The `recursive` option of mkdirSync is not used: it never returns where a parent exists and mkdir(2) in it
 * fails with ENOENT, as in procfs and in dying cgroups.
 * @throws Error with the errno of mkdir(2); ENOENT also when another process removes the parents while they are made
 */
export function makeDirectories(path: string, mode: number): void {
  for (const retry of [true, false]) {
    try {
      mkdirSync(path, mode)
      return
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === EEXIST) return
      if (errno !== ENOENT || !retry || dirname(path) === path) throw error
      makeDirectories(dirname(path), mode)
    }
  }
}
