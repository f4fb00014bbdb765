/**
 * A mount of type "cgroup": what the container sees below /sys/fs/cgroup.
 * - With a cgroup namespace the kernel shows only the container's own part.
 * - Without one, on v1 or in a user namespace, the container's own directories are bound there, which hides the names
 *   of other containers.
 * - Without one, on v2, the whole tree is bound as the host has it.
 * On v1 the destination is a tmpfs with one directory per hierarchy, and links for merged controllers.
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
  // the kernel lets only the owner of the cgroup namespace mount it: a new user namespace does not own an older cgroup
  // namespace
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
    options: fileSystemOptions('cgroup2', options.data, { mountLabel: undefined, origin: entry.origin }),
    propagation: options.propagation,
    uidMap: '',
    gidMap: '',
  })
}

/**
 * Without a cgroup namespace a container of the host's root sees the tree as the host does. A container in a user
 * namespace must not: it could write all cgroups that were delegated to its user (CVE-2023-25809). It sees its own
 * cgroup, or an empty folder if it has none.
 */
function bindV2(entry: MountEntry, { namespaces, host, cgroup }: MountInput): Op {
  const { destination, options } = entry
  if (!namespaces.created.has('user') && !host.rootless) return bind(entry, '/sys/fs/cgroup', destination)
  if (cgroup.kind === 'dir') return bind(entry, cgroup.path, destination)
  const [placed] = cgroup.kind === 'placed' ? cgroup.dirs : []
  if (placed !== undefined) return bind(entry, placed, destination)
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
    options: fileSystemOptions('tmpfs', ['mode=755'], { mountLabel: input.mountLabel, origin: entry.origin }),
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
    // the whole tree: with "ro" no part of it may stay writable
    set: 0n,
    clear: 0n,
    dropped: 0n,
    recSet: attributes.set,
    recClear: attributes.clear,
    propagation,
  })
}

/** The container's directory in a hierarchy; if it has none of its own, the runtime's, which it inherits. */
function ownDirectory({ mountpoint, ownPath }: CgroupMount, cgroup: CgroupJoin): string {
  const placed = cgroup.kind === 'placed' ? cgroup.dirs.find((dir) => isWithin(dir, mountpoint)) : undefined
  if (placed !== undefined) return placed
  const joined = cgroup.kind === 'tasks' ? cgroup.paths.find((path) => isWithin(path, mountpoint)) : undefined
  if (joined !== undefined) return parentPath(joined)
  return ownPath === '/' ? mountpoint : `${mountpoint}${ownPath}`
}
