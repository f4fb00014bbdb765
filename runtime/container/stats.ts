/**
 * The counters of one container: those of its cgroups, and those of the interfaces in its network namespace. A
 * container whose owner does not ask loads no such module.
 */
import type { Cgroup } from '../cgroup/cgroup.ts'
import type { CgroupStats } from '../cgroup/stats.ts'
import { type InterfaceStats, readInterfaces } from '../host/interfaces.ts'
import type { IntelRdtStats } from '../intelrdt/stats.ts'
import type { Spec } from '../spec/types.ts'
import type { SavedIntelRdt } from '../state/intel-rdt.ts'
import type { RunningProcess } from './running-process.ts'

/** What a container has used. */
export interface ContainerStats {
  readonly cgroup: CgroupStats
  /** one entry for each interface; empty for a container that shares the host's network, and after its end */
  readonly network: readonly InterfaceStats[]
  /** of a container with Intel RDT */
  readonly intelRdt?: IntelRdtStats
}

/** The container whose counters are read. */
export interface CountedContainer {
  readonly cgroup: Cgroup
  readonly init: RunningProcess
  readonly spec: Spec
}

/** Reads all counters. */
export async function readContainerStats(
  { cgroup, init, spec }: CountedContainer,
  groups: SavedIntelRdt | undefined,
): Promise<ContainerStats> {
  const stats = { cgroup: cgroup.stats(), network: network(init, spec) }
  if (groups === undefined) return stats
  const { IntelRdt } = await import('../intelrdt/intel-rdt.ts')
  return { ...stats, intelRdt: IntelRdt.load(groups).stats() }
}

function network(init: RunningProcess, { linux }: Spec): readonly InterfaceStats[] {
  if (!linux.namespaces.some(({ type }) => type === 'network') || !init.alive) return []
  const interfaces = readInterfaces(init.pid)
  // a process that is still alive has owned its pid all the time
  return init.alive ? interfaces : []
}
