/**
 * Namespaces: which are made with the clone, which are joined before it, and what a new user namespace needs. Invariant: the cgroup
 * namespace is never among the clone's flags, because its root is the cgroup that the process sits in when it is made; nor is the time
 * namespace, whose offsets can be set only before a process is in it.
 */
import type { Op } from '../../proto/init-plan.ts'
import { specError } from '../errors.ts'
import type { HostFacts } from '../host/facts.ts'
import type { IdMapping, Linux, NamespaceType, Spec, User } from '../spec/types.ts'
import { NAMESPACES } from '../sys/linux.ts'

/** CLONE_NEW* flags by the kind of namespace, as the plan has them. */
export const CLONE_FLAGS = Object.fromEntries(NAMESPACES.map(({ type, flag }) => [type, BigInt(flag)])) as Readonly<
  Record<NamespaceType, bigint>
>

/** The namespaces of a container. */
export interface NamespacePlan {
  readonly created: ReadonlySet<NamespaceType>
  /** created or joined: not the runtime's own */
  readonly own: ReadonlySet<NamespaceType>
  /** opens every namespace to be joined, then joins them */
  readonly join: readonly Op[]
  /** makes the container process, in the new namespaces */
  readonly clone: Op
  /** what the process makes new for itself, once it is root of its new user namespace */
  readonly unshare: readonly Op[]
  /** makes its time namespace, after these: the offsets are its own to set, as root of its user namespace */
  readonly clocks: readonly Op[]
}

/** Sorts the namespaces of a spec into those to make and those to join. */
export function planNamespaces(linux: Linux, host: HostFacts): NamespacePlan {
  const created = new Set<NamespaceType>()
  const own = new Set<NamespaceType>()
  const join: Op[] = []
  let flags = 0n
  for (const [index, { type, path }] of linux.namespaces.entries()) {
    own.add(type)
    if (path !== undefined) {
      join.push({ op: 'open_ns', path, type: CLONE_FLAGS[type], origin: `/linux/namespaces/${index}/path` })
    } else {
      created.add(type)
      if (type !== 'cgroup' && type !== 'time') flags |= CLONE_FLAGS[type]
    }
  }
  if (join.length > 0) join.push({ op: 'join', origin: '/linux/namespaces' })
  const mapped = created.has('user')
  // the kernel gives what a namespace is born with (the root of mqueue, its label) to whoever makes it: that should be a mapped root
  const later = mapped ? flags & ~(CLONE_FLAGS.user | CLONE_FLAGS.pid) : 0n
  return {
    created,
    own,
    join,
    clone: {
      op: 'clone',
      flags: flags & ~later,
      uidMap: mapped ? mapText(linux.uidMappings) : '',
      gidMap: mapped ? mapText(linux.gidMappings) : '',
      // without privileges other programs must write them, and only the runtime may start those
      runtimeMaps: mapped && host.unprivileged ? 1 : 0,
      origin: '/linux/namespaces',
    },
    unshare: later === 0n ? [] : [{ op: 'unshare', flags: later, origin: '/linux/namespaces' }],
    clocks: created.has('time')
      ? [{ op: 'time_offsets', offsets: offsetsText(linux), origin: '/linux/timeOffsets' }]
      : [],
  }
}

/** Whether the mounts of a container go among its caller's: it has no mount namespace to have them in. */
export function mountsAmongCallers({ linux, mounts, root }: Spec): boolean {
  return !linux.namespaces.some(({ type }) => type === 'mount') && (mounts.length > 0 || root.readonly)
}

/** The text of timens_offsets (time_namespaces(7)). */
function offsetsText({ timeOffsets = {} }: Linux): string {
  return Object.entries(timeOffsets)
    .map(([clock, { secs, nanosecs }]) => `${clock} ${secs} ${nanosecs}\n`)
    .join('')
}

/** The text of uid_map or gid_map (user_namespaces(7)). */
export function mapText(mappings: readonly IdMapping[]): string {
  return mappings.map(({ containerID, hostID, size }) => `${containerID} ${hostID} ${size}\n`).join('')
}

/** Refuses ids that have no counterpart outside the user namespace, where its maps are known: the kernel would only say EINVAL. */
export function requireMappedIds(linux: Linux, user: User, at: string): void {
  if (linux.uidMappings.length === 0 || linux.gidMappings.length === 0) return
  if (!isMapped(linux.uidMappings, user.uid)) {
    throw specError(`${at}/uid`, `cannot setuid to unmapped uid ${user.uid} in user namespace`)
  }
  if (!isMapped(linux.gidMappings, user.gid)) {
    throw specError(`${at}/gid`, `cannot setgid to unmapped gid ${user.gid} in user namespace`)
  }
  const group = user.additionalGids.findIndex((gid) => !isMapped(linux.gidMappings, gid))
  if (group >= 0) {
    const gid = user.additionalGids[group]
    throw specError(`${at}/additionalGids/${group}`, `cannot setgroups to unmapped gid ${gid} in user namespace`)
  }
}

/** Refuses owners of a new file system that the user namespace which mounts it does not know. */
export function requireMappedOptions({ mounts, linux }: Spec): void {
  const namespace = linux.namespaces.find(({ type }) => type === 'user')
  if (namespace === undefined || namespace.path !== undefined) return
  for (const [index, { options }] of mounts.entries()) {
    for (const option of options) {
      const [, kind, digits] = /^(uid|gid)=(\d+)$/.exec(option) ?? []
      if (kind === undefined || isMapped(kind === 'uid' ? linux.uidMappings : linux.gidMappings, Number(digits)))
        continue
      const message = `cannot specify ${kind}= mount options for unmapped ${kind} in rootless containers: "${option}"`
      throw specError(`/mounts/${index}/options`, message)
    }
  }
}

function isMapped(mappings: readonly IdMapping[], id: number): boolean {
  return mappings.some(({ containerID, size }) => id >= containerID && id < containerID + size)
}
