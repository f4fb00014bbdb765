/**
 * Stats for containerd: the counters of the container's cgroup as the message for the host's cgroup version. The
 * runtime names its fields as these messages do, so nothing is converted.
 */
import { packAny } from 'ttrpc-ts'
import { type Any, CgroupV1Metrics, CgroupV2Metrics } from 'ttrpc-ts/containerd'
import type { CgroupStats } from '../runtime/index.ts'

/** Packs the counters as io.containerd.cgroups.v1.Metrics or io.containerd.cgroups.v2.Metrics. */
export function packMetrics(stats: CgroupStats): Any {
  return stats.version === 1 ? packAny(CgroupV1Metrics, stats) : packAny(CgroupV2Metrics, stats)
}
