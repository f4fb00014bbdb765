/**
 * The `mounts` of a spec as mount operations, in the order of the spec. Invariant: a mount in which later operations
 * make files (tmpfs, /dev) is made writable, and becomes read-only after the pivot.
 */
import { MOUNT_HOW, type Op } from '../../proto/init-plan.ts'
import { specError } from '../errors.ts'
import type { HostFacts } from '../host/facts.ts'
import { MOUNT_ATTR, type MountOptions, PROPAGATION } from '../spec/mount-options.ts'
import { planCgroupMount } from './cgroup-mount.ts'
import { hostSource } from './host-agent.ts'
import { fileSystemOptions, isBind, type MountEntry, type MountInput, understandMount } from './mount-entry.ts'
import { mapText } from './namespaces.ts'
import { cleanPath, withAncestors } from './paths.ts'

/** The operations that mount, and those that come later. */
export interface MountPlan {
  readonly ops: readonly Op[]
  readonly readonlyLater: readonly Op[]
  /** /dev is bound from the host: no device or link is made in it */
  readonly bindsDev: boolean
  /** sets the propagation of each mount again, after a recursive change of the root has overwritten it */
  readonly propagationAgain: readonly Op[]
  /** a cgroup file system shows the cgroup namespace of the process that mounts it */
  readonly needsCgroupNamespace: boolean
}

/** Kernel file systems whose superblock may be shared, so that "ro" must be set on the mount alone. */
const KERNEL_FILE_SYSTEMS: ReadonlySet<string> = new Set([
  'proc',
  'sysfs',
  'tmpfs',
  'ramfs',
  'devpts',
  'devtmpfs',
  'mqueue',
  'cgroup',
  'cgroup2',
  'bpf',
  'debugfs',
  'tracefs',
  'securityfs',
  'configfs',
  'fusectl',
  'binfmt_misc',
  'hugetlbfs',
  'pstore',
  'efivarfs',
  'resctrl',
  'selinuxfs',
  'nsfs',
])

/** Plans all mounts, in their order. @throws InvalidArgument */
export function planMounts(input: MountInput): MountPlan {
  const entries = input.mounts.map((mount, index) => understandMount(mount, `/mounts/${index}`, input.hostRoots))
  const readonlyLater: Op[] = []
  const propagationAgain: Op[] = []
  for (const entry of uncovered(entries)) {
    const { destination: path, origin } = entry
    if (isReadonlyLater(entry, input.host)) readonlyLater.push({ op: 'readonly_mount', path, origin })
    propagationAgain.push(...entry.options.propagation.map((flags): Op => ({ op: 'propagation', path, flags, origin })))
  }
  return {
    ops: entries.flatMap((entry) => planMount(entry, input)),
    readonlyLater,
    propagationAgain,
    bindsDev: entries.some((entry) => entry.destination === '/dev' && isBind(entry)),
    needsCgroupNamespace: entries.some(({ mount }) => mount.type === 'cgroup' || mount.type === 'cgroup2'),
  }
}

/**
 * The mounts that can still be reached when all are made: no later one covers them. The time is linear in their number,
 * since a container may have hundreds.
 */
function uncovered(entries: readonly MountEntry[]): MountEntry[] {
  const later = new Set<string>()
  const reachable: MountEntry[] = []
  for (const entry of entries.toReversed()) {
    if (!withAncestors(entry.destination).some((path) => later.has(path))) reachable.push(entry)
    later.add(entry.destination)
  }
  return reachable.reverse()
}

function isReadonlyLater(entry: MountEntry, host: HostFacts): boolean {
  const { mount, destination, options } = entry
  if (isBind(entry) || (options.attributes.set & MOUNT_ATTR.RDONLY) === 0n) return false
  // on a v1 host the cgroup mount is a tmpfs with directories in it
  return mount.type === 'tmpfs' || destination === '/dev' || (mount.type === 'cgroup' && !host.cgroup2)
}

function planMount(entry: MountEntry, input: MountInput): readonly Op[] {
  const { mount } = entry
  if (isBind(entry)) return [planBind(entry, input)]
  if (mount.type === 'cgroup') return planCgroupMount(entry, input)
  const { own, created } = input.namespaces
  // sysfs shows the network namespace; the kernel lets a user namespace mount it only if it owns the network namespace
  const ownsNetwork = own.has('network') && (created.has('network') || !created.has('user'))
  const ownUsers = own.has('user') || input.host.rootless
  if (mount.type === 'sysfs' && ownUsers && !ownsNetwork) return [planHostSys(entry, input)]
  return [planFileSystem(entry, input)]
}

function planBind(entry: MountEntry, input: MountInput): Op {
  const { mount, destination, options, origin } = entry
  const source = mount.source ?? ''
  const idmapped = howToMap(entry, input)
  return {
    op: 'mount',
    source: source.startsWith('/') ? source : cleanPath(`${input.bundle}/${source}`),
    target: destination,
    fstype: '',
    // options of the superblock are ignored for a bind, as mount(2) does
    options: [],
    how:
      MOUNT_HOW.BIND |
      (options.bind === 'rbind' ? MOUNT_HOW.RECURSIVE : 0) |
      hostSource(input.namespaces, input.host) |
      idmapped,
    set: options.attributes.set,
    clear: options.attributes.clear,
    dropped: options.dropped,
    recSet: options.recursive.set,
    recClear: options.recursive.clear,
    // a mount below a volume must not propagate to the volume's source, even among the caller's mounts
    propagation: [...(input.namespaces.own.has('mount') ? [] : [PROPAGATION.rslave]), ...options.propagation],
    uidMap: mapText(mount.uidMappings),
    gidMap: mapText(mount.gidMappings),
    origin,
  }
}

/**
 * The bits of an id-mapped mount; a mount without maps of its own takes those of the container's user namespace.
 * @throws InvalidArgument
 */
function howToMap({ mount, options: { idmap }, origin }: MountEntry, { namespaces, host }: MountInput): number {
  const ownMaps = mount.uidMappings.length > 0
  if (idmap === 'no' && !ownMaps) return 0
  if (!ownMaps && !namespaces.own.has('user')) {
    const message = 'id-mapped mounts must have both uid and gid mappings specified, or the container a user namespace'
    throw specError(origin, message)
  }
  if (host.rootless) throw specError(origin, 'id-mapped mounts are not supported for rootless containers')
  const tree = idmap === 'ridmap' ? MOUNT_HOW.IDMAP_RECURSIVE : 0
  return MOUNT_HOW.HOST_SOURCE | MOUNT_HOW.IDMAP | tree
}

function planHostSys({ destination, options, origin }: MountEntry, { namespaces, host }: MountInput): Op {
  return {
    op: 'mount',
    source: '/sys',
    target: destination,
    fstype: '',
    options: [],
    // the kernel does not let a user namespace bind a part of a tree from another one, so all of it is bound and gets
    // the attributes
    how: MOUNT_HOW.BIND | MOUNT_HOW.RECURSIVE | hostSource(namespaces, host),
    set: 0n,
    clear: 0n,
    dropped: 0n,
    recSet: options.attributes.set | options.recursive.set,
    recClear: 0n,
    propagation: options.propagation,
    uidMap: '',
    gidMap: '',
    origin,
  }
}

function planFileSystem(entry: MountEntry, input: MountInput): Op {
  const { mount, destination, options, origin } = entry
  const fstype = mount.type ?? ''
  const { attributes, recursive } = options
  const readonly = (attributes.set & MOUNT_ATTR.RDONLY) !== 0n
  const data = [...options.superblock, ...options.data]
  if (readonly && !KERNEL_FILE_SYSTEMS.has(fstype)) data.unshift('ro')
  return {
    op: 'mount',
    source: mount.source ?? fstype,
    target: destination,
    fstype,
    options: fileSystemOptions(fstype, data, { mountLabel: input.mountLabel, origin }),
    how: howToMount(fstype, options),
    set: isReadonlyLater(entry, input.host) ? attributes.set & ~MOUNT_ATTR.RDONLY : attributes.set,
    clear: attributes.clear,
    dropped: 0n,
    recSet: recursive.set,
    recClear: recursive.clear,
    propagation: options.propagation,
    uidMap: '',
    gidMap: '',
    origin,
  }
}

function howToMount(fstype: string, options: MountOptions): number {
  switch (fstype) {
    case 'proc':
    case 'sysfs':
      return MOUNT_HOW.PLAIN_DIRECTORY
    case 'mqueue':
      return MOUNT_HOW.OPTIONAL
    case 'tmpfs': {
      const hasMode = options.data.some((word) => word.startsWith('mode='))
      return (options.copyUp ? MOUNT_HOW.COPY_UP : 0) | (hasMode ? 0 : MOUNT_HOW.INHERIT_MODE)
    }
    default:
      return 0
  }
}
