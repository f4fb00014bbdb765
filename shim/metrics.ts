/** Stats for containerd: the cgroup's counters in the message of the host's cgroup version, whose fields the runtime's shapes follow. */
import { packAny } from 'ttrpc-ts'
import { type Any, CgroupV1Metrics, CgroupV2Metrics } from 'ttrpc-ts/containerd'
import type { CgroupStats } from '../runtime/index.ts'

/** The counters as io.containerd.cgroups.v1.Metrics or v2.Metrics. */
export function packMetrics(stats: CgroupStats): Any {
  return stats.version === 1 ? packAny(CgroupV1Metrics, stats) : packAny(CgroupV2Metrics, stats)
}
