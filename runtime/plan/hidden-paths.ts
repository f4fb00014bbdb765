/** Paths that the container must not write, or must not even read. Each is hidden once, by its clean name. */
import type { Op } from '../../proto/init-plan.ts'
import type { Linux } from '../spec/types.ts'
import { cleanPath } from './paths.ts'

/** Read-only paths, then masked ones. */
export function hiddenPaths({ readonlyPaths, maskedPaths }: Linux): readonly Op[] {
  return [
    ...distinct(readonlyPaths).map(
      ({ path, index }): Op => ({ op: 'readonly_path', path, origin: `/linux/readonlyPaths/${index}` }),
    ),
    ...distinct(maskedPaths).map(
      ({ path, index }): Op => ({ op: 'mask_path', path, origin: `/linux/maskedPaths/${index}` }),
    ),
  ]
}

/** Clean paths, each once, with their indexes in the list. An empty path is ignored: cleaned, it would be the root. */
function distinct(paths: readonly string[]): readonly { path: string; index: number }[] {
  const first = new Map<string, number>()
  for (const [index, path] of paths.entries()) {
    const clean = cleanPath(path)
    if (path !== '' && !first.has(clean)) first.set(clean, index)
  }
  return [...first].map(([path, index]) => ({ path, index }))
}
