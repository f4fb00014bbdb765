/**
 * The mounts of a container without a mount namespace: they are among its caller's, all below its root directory, which
 * is bound on itself for them. Invariant: only those are taken away, never one that was at the place before, or that came on top later.
 */

import { constants, openSync } from 'node:fs'
import type { Logger } from '../logger.ts'
import { mountsAmongCallers } from '../plan/namespaces.ts'
import type { Spec } from '../spec/types.ts'
import { OwnedFd } from '../sys/fd.ts'
import { O_PATH } from '../sys/linux.ts'
import { detachTree, mountIdOf, mountIdsAt } from '../sys/mount.ts'

// Linux's, which Node does not name

/** The mounts at the root, a cover and on it the tree: by their numbers, or before they are made by those that were there. */
export type RootMount = { readonly path: string } & (
  | { readonly ids: readonly number[] }
  | { readonly before: readonly number[] }
)

/** What to write down before the mount is made; undefined for a container that makes none. */
export function futureRootMount(spec: Spec, path: string): RootMount | undefined {
  return mountsAmongCallers(spec) ? { path, before: mountIdsAt(path) } : undefined
}

/** The mount that is the root of a process, and the one that it lies on. */
export function rootMountOf(pid: number, path: string): RootMount {
  using root = new OwnedFd(openSync(`/proc/${pid}/root`, O_PATH | constants.O_DIRECTORY))
  const ids = mountIdsAt(path)
  const tree = ids.indexOf(mountIdOf(root.fd))
  return { path, ids: ids.slice(Math.max(tree - 1, 0), tree + 1) }
}

/** Reads what was written down; undefined for what is no such thing. */
export function readRootMount(value: unknown): RootMount | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { path, ids, before }: Record<string, unknown> = { ...value }
  if (typeof path !== 'string') return undefined
  const numbers = (list: unknown[]) => list.filter((item) => typeof item === 'number')
  if (Array.isArray(ids)) return { path, ids: numbers(ids) }
  return Array.isArray(before) ? { path, before: numbers(before) } : undefined
}

/** Takes the mounts away with all below them, once no process of the container is left; none, or one that is gone, is fine. */
export function removeRootMount(mount: RootMount | undefined, logger: Logger): void {
  if (mount === undefined) return
  const { path } = mount
  const isOurs = (id: number) => ('ids' in mount ? mount.ids.includes(id) : !mount.before.includes(id))
  let ids = mountIdsAt(path)
  for (let top = ids.at(-1); top !== undefined && isOurs(top); top = ids.at(-1)) {
    detachTree(path)
    ids = mountIdsAt(path)
  }
  if (ids.some(isOurs)) logger.warn({}, `the mounts of the container stay: others were mounted on "${path}" since`)
}
