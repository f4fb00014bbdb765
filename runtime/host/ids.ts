/** Facts that follow from a spec: which namespaces are new, and which host ids the container's ids are. Pure. */
import type { IdMapping, Spec } from '../spec/types.ts'

/** The kinds of namespaces that the spec makes new: those without a path. */
export function newNamespaces(spec: Spec): ReadonlySet<string> {
  return new Set(spec.linux.namespaces.filter((ns) => ns.path === undefined).map((ns) => ns.type))
}

/** The default of /proc/sys/kernel/overflowuid and overflowgid (user_namespaces(7)). */
const OVERFLOW_ID = 65534

function mapId(mappings: readonly IdMapping[], id: number): number {
  if (mappings.length === 0) return id
  for (const { containerID, hostID, size } of mappings) {
    if (id >= containerID && id < containerID + size) return hostID + (id - containerID)
  }
  return OVERFLOW_ID
}

/** The host's uid for a uid of the container; for an unmapped one the overflow id. */
export function hostUid(spec: Spec, uid: number): number {
  return mapId(spec.linux.uidMappings, uid)
}

/** The host's gid for a gid of the container; for an unmapped one the overflow id. */
export function hostGid(spec: Spec, gid: number): number {
  return mapId(spec.linux.gidMappings, gid)
}

/**
 * The host's uid that is to own the container's cgroup, where the container may manage it; else undefined. It may where
 * its spec mounts the cgroup for writing, and a new cgroup namespace hides all cgroups above. The owner is the user of
 * the container's process.
 */
export function cgroupOwner(spec: Spec): number | undefined {
  const writable = spec.mounts.some(
    ({ type, destination, options }) =>
      (type === 'cgroup' || type === 'cgroup2') &&
      /^\/+sys\/+fs\/+cgroup\/*$/.test(destination) &&
      options.findLast((option) => option === 'ro' || option === 'rw') !== 'ro' &&
      options.findLast((option) => option === 'rro' || option === 'rrw') !== 'rro',
  )
  return writable && newNamespaces(spec).has('cgroup') ? hostUid(spec, spec.process.user.uid) : undefined
}
