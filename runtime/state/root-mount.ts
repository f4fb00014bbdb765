/**
 * The mounts of a container without a mount namespace. They are made in the caller's mount namespace, all below the
 * container's root, which is bind-mounted on itself for them. Invariant: no mount is removed that was at that path
 * before or, once the create is complete, that another program put on top. Of an interrupted create the ids are not
 * known: there, every mount that was added counts as the container's.
 */

import { constants, openSync } from 'node:fs'
import type { Logger } from '../logger.ts'
import { mountsAmongCallers } from '../plan/namespaces.ts'
import type { Spec } from '../spec/types.ts'
import { OwnedFd } from '../sys/fd.ts'
import { O_PATH } from '../sys/linux.ts'
import { detachTree, mountIdOf, mountIdsAt } from '../sys/mount.ts'

/**
 * The mounts at the root: a cover, and the tree on top of it. They are known by their mount ids; before they are made,
 * by the ids of the mounts that were there already.
 */
export type RootMount = { readonly path: string } & (
  | { readonly ids: readonly number[] }
  | { readonly before: readonly number[] }
)

/** The record before the mount is made; undefined for a container that makes none. */
export function futureRootMount(spec: Spec, path: string): RootMount | undefined {
  return mountsAmongCallers(spec) ? { path, before: mountIdsAt(path) } : undefined
}

/** The record after the mount was made: the root mount of a process, and the one below it. */
export function rootMountOf(pid: number, path: string): RootMount {
  using root = new OwnedFd(openSync(`/proc/${pid}/root`, O_PATH | constants.O_DIRECTORY))
  const ids = mountIdsAt(path)
  const tree = ids.indexOf(mountIdOf(root.fd))
  return { path, ids: ids.slice(Math.max(tree - 1, 0), tree + 1) }
}

/** Reads a record back; undefined for a value of any other shape. */
export function readRootMount(value: unknown): RootMount | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { path, ids, before }: Record<string, unknown> = { ...value }
  if (typeof path !== 'string') return undefined
  const numbers = (list: unknown[]) => list.filter((item) => typeof item === 'number')
  if (Array.isArray(ids)) return { path, ids: numbers(ids) }
  return Array.isArray(before) ? { path, before: numbers(before) } : undefined
}

/**
 * Removes the mounts with all below them, once the container has no process left. It is no error when there is no
 * record, or when the mounts have gone.
 */
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
