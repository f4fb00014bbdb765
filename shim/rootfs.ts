/**
 * The container's root file system: the mounts of the Create request, on <bundle>/rootfs in the shim's own mount
 * namespace, where containerd and its clients expect it.
 *
 * Invariant: either all of them are mounted or none.
 */
import { existsSync, lstatSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Mount } from 'ttrpc-ts/containerd'
import { RuntimeError } from '../runtime/index.ts'
import { type MountHelpers, mountEntry, reasonOf, unmountTree } from '../runtime/internal.ts'

/** The mount point of the root file system. */
export function rootfsOf(bundle: string): string {
  return join(bundle, 'rootfs')
}

/**
 * Mounts the list in its order; returns whether there is anything to unmount.
 * @throws the error of the mount that failed, after unmounting the others
 */
export async function mountRootfs(bundle: string, mounts: readonly Mount[], helpers: MountHelpers): Promise<boolean> {
  if (mounts.length === 0) return false
  const rootfs = rootfsOf(bundle)
  makeRootfs(rootfs)
  let mounted = 0
  try {
    for (const { type, source, target, options } of mounts) {
      await mountEntry({ type, source, target: targetBelow(rootfs, target), options }, helpers)
      mounted++
    }
  } catch (error) {
    if (mounted > 0) await unmountTree(rootfs)
    throw error
  }
  return true
}

/**
 * The path of a mount's target inside the root. The mounts before it come from an image, so a symbolic link on the way
 * could lead anywhere on the host; it is refused. The check cannot be raced: no process of the container exists yet.
 */
function targetBelow(rootfs: string, target: string): string {
  let path = rootfs
  for (const part of target.split('/')) {
    if (part === '' || part === '.') continue
    if (part === '..')
      throw new RuntimeError('InvalidArgument', `cannot mount on "${target}": it leaves the root file system`)
    path = join(path, part)
    const stat = lstatSync(path, { throwIfNoEntry: false })
    if (stat === undefined)
      throw new RuntimeError(
        'InvalidArgument',
        `cannot mount on "${target}": it does not exist in the root file system`,
      )
    if (stat.isSymbolicLink())
      throw new RuntimeError('InvalidArgument', `cannot mount on "${target}": "${part}" is a symbolic link`)
  }
  return path
}

function makeRootfs(path: string): void {
  if (existsSync(path)) return
  try {
    mkdirSync(path, { mode: 0o711 })
  } catch (error) {
    throw new RuntimeError('Internal', `cannot make the folder "${path}": ${reasonOf(error)}`, {
      cause: error,
    })
  }
}
