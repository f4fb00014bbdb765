/**
 * A mount of type "cgroup": what the container sees below /sys/fs/cgroup. With a cgroup namespace the kernel shows only the container's
 * own part; without one the container's directories are bound there, so that it sees no other container's by name (v1, and v2 in a user
 * namespace), or the whole tree as the host has it (v2). On v1 the destination is a tmpfs with one directory per hierarchy, and links for merged controllers.
 */
import { MOUNT_HOW, type Op } from '../../proto/init-plan.ts'
import type { CgroupJoin } from '../cgroup/cgroup.ts'
import { specError } from '../errors.ts'
import type { CgroupMount } from '../host/facts.ts'
import { MOUNT_ATTR } from '../spec/mount-options.ts'
import { fileSystemOptions, type MountEntry, type MountInput } from './mount-entry.ts'
import { baseName, isWithin, parentPath } from './paths.ts'

/** Plans one cgroup mount. @throws InvalidArgument when the host has no cgroup file system */
export function planCgroupMount(entry: MountEntry, input: MountInput): readonly Op[] {
  const { own, created } = input.namespaces
  // the kernel mounts for the owner of the cgroup namespace, which a new user namespace is not of one that was there before
  const ownNamespace = own.has('cgroup') && (created.has('cgroup') || !created.has('user'))
  if (input.host.cgroup2) return [ownNamespace ? mountV2(entry) : bindV2(entry, input)]
  const hierarchies = input.host.cgroupMounts.filter(({ controllers }) => controllers.length > 0)
  if (hierarchies.length === 0)
    throw specError(entry.origin, 'cannot mount "cgroup": the host has no cgroup file system')
  const ops: Op[] = [mountParent(entry, input)]
  for (const hierarchy of hierarchies) {
    const name = baseName(hierarchy.mountpoint)
    const target = `${entry.destination}/${name}`
    ops.push(
      ownNamespace ? mountV1(entry, hierarchy, target) : bind(entry, ownDirectory(hierarchy, input.cgroup), target),
    )
    for (const controller of hierarchy.controllers) {
      if (controller === name || controller.includes('=')) continue
      ops.push({
        op: 'symlink',
        target: name,
        path: `${entry.destination}/${controller}`,
        replace: 0,
        origin: entry.origin,
      })
    }
  }
  return ops
}

type MountOp = Extract<Op, { op: 'mount' }>

function mountOp(entry: MountEntry, parts: Partial<MountOp> & Pick<MountOp, 'source' | 'fstype' | 'target'>): Op {
  const { attributes } = entry.options
  return {
    op: 'mount',
    options: [],
    how: 0,
    set: attributes.set,
    clear: attributes.clear,
    dropped: 0n,
    recSet: 0n,
    recClear: 0n,
    propagation: [],
    uidMap: '',
    gidMap: '',
    origin: entry.origin,
    ...parts,
  }
}

function mountV2(entry: MountEntry): Op {
  const { destination, options } = entry
  return mountOp(entry, {
    source: 'cgroup',
    fstype: 'cgroup2',
    target: destination,
    options: fileSystemOptions('cgroup2', options.data, { mountLabel: undefined }, entry.origin),
    propagation: options.propagation,
    uidMap: '',
    gidMap: '',
  })
}

/**
 * Without a namespace of its own a container of the host's root sees the tree as the host does. One of a user must not: all of what was
 * delegated to the user would be in its hands (CVE-2023-25809). It sees its own cgroup, or an empty folder when it has none.
 */
function bindV2(entry: MountEntry, { namespaces, host, cgroup }: MountInput): Op {
  const { destination, options } = entry
  if (!namespaces.created.has('user') && !host.rootless) return bind(entry, '/sys/fs/cgroup', destination)
  if (cgroup.kind === 'dir') return bind(entry, cgroup.path, destination)
  const set = options.attributes.set | MOUNT_ATTR.RDONLY
  const words = ['mode=755', 'nr_inodes=1']
  return mountOp(entry, { source: 'tmpfs', fstype: 'tmpfs', target: destination, options: words, set })
}

function mountParent(entry: MountEntry, input: MountInput): Op {
  const { destination, options } = entry
  return mountOp(entry, {
    source: 'tmpfs',
    fstype: 'tmpfs',
    target: destination,
    options: fileSystemOptions('tmpfs', ['mode=755'], input, entry.origin),
    set: options.attributes.set & ~MOUNT_ATTR.RDONLY,
    propagation: options.propagation,
    uidMap: '',
    gidMap: '',
  })
}

function mountV1(entry: MountEntry, { controllers }: CgroupMount, target: string): Op {
  return mountOp(entry, { source: 'cgroup', fstype: 'cgroup', target, options: controllers })
}

function bind(entry: MountEntry, source: string, target: string): Op {
  const { attributes, propagation } = entry.options
  return mountOp(entry, {
    source,
    fstype: '',
    target,
    how: MOUNT_HOW.BIND | MOUNT_HOW.RECURSIVE,
    // all of the tree: with "ro" nothing of it may stay writable
    set: 0n,
    clear: 0n,
    dropped: 0n,
    recSet: attributes.set,
    recClear: attributes.clear,
    propagation,
  })
}

/** The container's directory in a hierarchy; where it has none of its own, the one that it inherits from us. */
function ownDirectory({ mountpoint, ownPath }: CgroupMount, cgroup: CgroupJoin): string {
  const joined = cgroup.kind === 'tasks' ? cgroup.paths.find((path) => isWithin(path, mountpoint)) : undefined
  if (joined !== undefined) return parentPath(joined)
  return ownPath === '/' ? mountpoint : `${mountpoint}${ownPath}`
}
