/**
 * Mounts on the host whose ids are mapped by a user namespace (mount_setattr(2), MOUNT_ATTR_IDMAP). A mount can be
 * mapped only before it is attached. So everything is made in a private tmpfs on the target and taken out as a detached
 * tree, which then takes the place of the tmpfs. Invariants: no other mount namespace sees the steps. Whatever fails,
 * even if this process is killed half-way, what is left is mounted at or below the target, where unmountTree finds it.
 */

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { errnoOf, syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { declare, lastErrno, mount, umount2 } from './libc.ts'
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_RECURSIVE,
  EINVAL,
  MNT_DETACH,
  MS_PRIVATE,
  O_CLOEXEC,
  UMOUNT_NOFOLLOW,
} from './linux.ts'
import { type FsMount, mountFs } from './mount.ts'

// since Linux 5.1 all architectures give new system calls the same numbers
const OPEN_TREE = 428
const MOVE_MOUNT = 429
const MOUNT_SETATTR = 442
const OPEN_TREE_CLONE = 1
const MOVE_MOUNT_F_EMPTY_PATH = 4
const MOUNT_ATTR_IDMAP = 0x100000n
const MOUNT_ATTR_BYTES = 32

const openTreeCall = declare('long syscall(long number, int dir, const char *path, unsigned int flags)')
const moveMountCall = declare(
  'long syscall(long number, int from, const char *fromPath, int to, const char *toPath, unsigned int flags)',
)
const setAttrCall = declare(
  'long syscall(long number, int dir, const char *path, unsigned int flags, void *attr, unsigned long size)',
)

/**
 * Mounts one entry with the ids of its files mapped; of an overlay, those of its lower layers. `userns` is borrowed.
 * @throws InvalidArgument where the file system cannot map ids
 */
export async function mountMapped(entry: FsMount, userns: number): Promise<void> {
  const { target } = entry
  mount({ source: 'tmpfs', target, fstype: 'tmpfs', flags: 0, data: 'mode=700' })
  let tree: OwnedFd
  try {
    mount({ target, flags: MS_PRIVATE })
    const place = join(target, 'root')
    mkdirSync(place)
    const map = entry.type === 'overlay' ? mappedOverlay : mappedTree
    tree = await map(entry, place, userns)
  } finally {
    // the detached tree is a copy of the mounts there, so it survives this
    umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW)
  }
  using owned = tree
  if (moveMountCall(MOVE_MOUNT, owned.fd, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
    throw syscallError(`cannot mount "${entry.source}" on "${target}"`, {
      call: 'move_mount',
      errno: lastErrno(),
      path: target,
    })
}

async function mappedTree(entry: FsMount, place: string, userns: number): Promise<OwnedFd> {
  await mountFs({ ...entry, target: place })
  return mappedCopy(place, entry.options.includes('rbind'), userns)
}

/**
 * overlayfs cannot map ids itself, but its layers can be mapped mounts. It clones them when it is mounted, so they need
 * their places only until then.
 */
async function mappedOverlay(entry: FsMount, place: string, userns: number): Promise<OwnedFd> {
  let count = 0
  const mapLowers = (option: string): string => {
    const [name, value] = [option.slice(0, option.indexOf('=')), option.slice(option.indexOf('=') + 1)]
    if (name !== 'lowerdir') return option
    const layers = value.split(':').map((layer) => {
      using copy = mappedCopy(layer, false, userns)
      const path = join(place, '..', String(count++))
      mkdirSync(path)
      if (moveMountCall(MOVE_MOUNT, copy.fd, '', AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        throw syscallError(`cannot mount "${layer}" on "${path}"`, { call: 'move_mount', errno: lastErrno(), path })
      return path
    })
    return `lowerdir=${layers.join(':')}`
  }
  await mountFs({ ...entry, target: place, options: entry.options.map(mapLowers) })
  return copyOf(place, false)
}

function copyOf(path: string, recursive: boolean): OwnedFd {
  const fd = openTreeCall(OPEN_TREE, AT_FDCWD, path, OPEN_TREE_CLONE | O_CLOEXEC | (recursive ? AT_RECURSIVE : 0))
  if (fd < 0) throw syscallError(`cannot copy the mount "${path}"`, { call: 'open_tree', errno: lastErrno(), path })
  return new OwnedFd(fd)
}

function mappedCopy(path: string, recursive: boolean, userns: number): OwnedFd {
  const tree = copyOf(path, recursive)
  const attr = Buffer.alloc(MOUNT_ATTR_BYTES)
  attr.writeBigUInt64LE(MOUNT_ATTR_IDMAP, 0)
  attr.writeBigUInt64LE(BigInt(userns), 24)
  const flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0)
  if (setAttrCall(MOUNT_SETATTR, tree.fd, '', flags, attr, attr.length) >= 0) return tree
  const error = syscallError(`cannot map the ids of "${path}"`, { call: 'mount_setattr', errno: lastErrno(), path })
  tree.close()
  if (errnoOf(error) !== EINVAL) throw error
  throw new RuntimeError('InvalidArgument', `${error.message} (its file system may be one that cannot)`, {
    cause: error,
  })
}
