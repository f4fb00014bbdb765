/**
 * The processes of a container, as host pids. The cgroup lists them; init is always one of them, although it may have
 * moved itself to a cgroup elsewhere. Without a cgroup, the container's own pid namespace shows them.
 */
import type { Cgroup } from '../cgroup/cgroup.ts'
import { namespaceProcesses } from '../host/facts.ts'
import type { RunningProcess } from './running-process.ts'

/** The container to look at. */
export interface ProcessOwner {
  readonly init: RunningProcess
  readonly cgroup: Cgroup
  /** init has a pid namespace of its own */
  readonly ownsPidNamespace: boolean
}

/** Lists the processes. Unless the container is paused, one may end at any time. */
export function processesOf({ init, cgroup, ownsPidNamespace }: ProcessOwner): number[] {
  if (!cgroup.exists && ownsPidNamespace && init.alive) return namespaceProcesses(init.pid)
  return withInit(init, cgroup.procs())
}

/** As processesOf, without holding the event loop while the kernel lists thousands. */
export async function listProcessesOf(owner: ProcessOwner): Promise<number[]> {
  const { init, cgroup } = owner
  return cgroup.exists ? withInit(init, await cgroup.listProcesses()) : processesOf(owner)
}

function withInit(init: RunningProcess, pids: number[]): number[] {
  if (init.alive && !pids.includes(init.pid)) pids.unshift(init.pid)
  return pids
}
