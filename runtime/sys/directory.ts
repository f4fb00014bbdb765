/** Making a directory with its parents. Invariant: it ends, with success or with an error, whatever the file system answers. */
import { mkdirSync } from 'node:fs'
import { constants } from 'node:os'
import { dirname } from 'node:path'
import { errnoOf } from './errno.ts'

const { EEXIST, ENOENT } = constants.errno

/**
 * mkdir -p. Not mkdirSync's own: that one never returns where a parent exists and refuses with ENOENT, as procfs and dying cgroups do.
 * @throws Error with the errno of mkdir(2); ENOENT also when others remove the parents as we make them
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
