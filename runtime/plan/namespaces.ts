/**
 * Namespaces: which are made by the clone, which are joined before it, and what a new user namespace needs. Invariant:
 * two kinds are never among the clone's flags. The root of a cgroup namespace is the cgroup of the process that makes
 * it, so the process must be in its cgroup first. The offsets of a time namespace can be set only while no process is
 * in it.
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
  /** created or joined, so different from the runtime's */
  readonly own: ReadonlySet<NamespaceType>
  /** opens every namespace to be joined, then joins them */
  readonly join: readonly Op[]
  /** makes the container process, in the new namespaces */
  readonly clone: Op
  /** the namespaces that the process makes itself, once it is root of its new user namespace */
  readonly unshare: readonly Op[]
  /** makes the time namespace after those: as root of its user namespace the process may set the offsets */
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
  // the maker of a namespace owns the objects in it, such as the root of mqueue: the maker should be the mapped root
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
      // for an unprivileged user the runtime writes the maps, mostly by setuid programs that ts-init cannot start
      runtimeMaps: mapped && host.unprivileged ? 1 : 0,
      origin: '/linux/namespaces',
    },
    unshare: later === 0n ? [] : [{ op: 'unshare', flags: later, origin: '/linux/namespaces' }],
    clocks: created.has('time')
      ? [{ op: 'time_offsets', offsets: offsetsText(linux), origin: '/linux/timeOffsets' }]
      : [],
  }
}

/** Whether the container's mounts are made among the caller's, since it has no mount namespace. */
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

/**
 * Refuses ids that are not mapped outside the user namespace, where its maps are known: the kernel would only say
 * EINVAL.
 */
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

/** Refuses options that give a new file system an owner that is not mapped in the user namespace. */
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
