/**
 * How a process enters its cgroups, and what must wait for that. Invariant: a plan that opens a cgroup waits for it
 * exactly once.
 */
import { type Op, SYNC_POINTS } from '../../proto/init-plan.ts'
import type { CgroupJoin } from '../cgroup/cgroup.ts'
import { CLONE_FLAGS } from './namespaces.ts'

/** Opens the cgroups on the host side. */
export function openCgroup(cgroup: CgroupJoin): readonly Op[] {
  const { rdt = [] } = cgroup
  // after the cgroups: an error of theirs says more
  return [...openOwn(cgroup), ...rdt.map((path) => ({ op: 'cgroup_tasks', path, origin: '/linux/intelRdt' }) as const)]
}

function openOwn(cgroup: CgroupJoin): readonly Op[] {
  if (cgroup.kind === 'dir') return [{ op: 'cgroup_dir', path: cgroup.path, origin: '/linux/cgroupsPath' }]
  if (cgroup.kind === 'none' || cgroup.kind === 'placed') return []
  const tasks: Op[] = cgroup.paths.map((path) => ({ op: 'cgroup_tasks', path, origin: '/linux/cgroupsPath' }))
  // the v2 tree of a hybrid host, beside the hierarchies of v1
  if (cgroup.dir !== undefined) tasks.unshift({ op: 'cgroup_dir', path: cgroup.dir, origin: '/linux/cgroupsPath' })
  return tasks
}

/** Waits until the process is in its cgroups. On v1 that can take milliseconds, so the plan waits as late as it can. */
export function waitForCgroup(cgroup: CgroupJoin): readonly Op[] {
  const placed = cgroup.kind === 'placed'
  const moved = (cgroup.kind !== 'none' && !placed) || (cgroup.rdt ?? []).length > 0
  return [
    ...(placed ? [{ op: 'sync', point: SYNC_POINTS.CGROUP, origin: '/linux/cgroupsPath' } as const] : []),
    ...(moved ? [{ op: 'wait_cgroup' } as const] : []),
  ]
}

/** The root of a new cgroup namespace is the cgroup that the process is in. */
export function enterCgroupNamespace(): Op {
  return { op: 'unshare', flags: CLONE_FLAGS.cgroup, origin: '/linux/namespaces' }
}
