/**
 * The counters of a container as runc's `events` prints them: its names, its order, its rules of what is left out.
 * Pure. Invariant: a key is there exactly when runc 1.5 writes it. RDMA, which runc leaves out, comes last, and only
 * where there is some.
 */
import type { BlkioEntry, PsiData, PsiStats, RdmaStats } from '../cgroup/stats.ts'
import type { InterfaceStats } from '../host/interfaces.ts'
import type { IntelRdtStats } from '../intelrdt/stats.ts'

/** A part of the document: values in their order. */
export type Part = Readonly<Record<string, unknown>>

/** A limit with the present use and the highest use. */
export interface Usage {
  readonly limit: bigint
  readonly usage: bigint
  readonly max: bigint
  readonly failcnt: bigint
}

/** The cpuset of v1; on v2 all of it counts as zero. */
export type Cpuset = Readonly<Record<(typeof CPUSET_FLAGS)[number], bigint>> & {
  readonly cpus: readonly bigint[]
  readonly mems: readonly bigint[]
}

/** The flags of a v1 cpuset, as the files and the document name them, in the document's order. */
export const CPUSET_FLAGS = [
  'cpu_exclusive',
  'mem_hardwall',
  'mem_exclusive',
  'memory_migrate',
  'memory_spread_page',
  'memory_spread_slab',
  'memory_pressure',
  'sched_load_balance',
  'sched_relax_domain_level',
] as const

/** The tables of block I/O by the names of the document. The kernel's word for the third is "queued". */
const BLKIO_KEYS = [
  ['ioServiceBytesRecursive', 'ioServiceBytesRecursive'],
  ['ioServicedRecursive', 'ioServicedRecursive'],
  ['ioQueueRecursive', 'ioQueuedRecursive'],
  ['ioServiceTimeRecursive', 'ioServiceTimeRecursive'],
  ['ioWaitTimeRecursive', 'ioWaitTimeRecursive'],
  ['ioMergedRecursive', 'ioMergedRecursive'],
  ['ioTimeRecursive', 'ioTimeRecursive'],
  ['sectorsRecursive', 'sectorsRecursive'],
] as const

/** What the document is made of; times are in nanoseconds. */
export interface Counters {
  readonly cpu: {
    readonly total: bigint
    readonly percpu?: readonly bigint[]
    readonly percpuKernel?: readonly bigint[]
    readonly percpuUser?: readonly bigint[]
    readonly kernel: bigint
    readonly user: bigint
    readonly periods: bigint
    readonly throttledPeriods: bigint
    readonly throttledTime: bigint
    readonly psi?: PsiStats | undefined
  }
  readonly cpuset?: Cpuset
  readonly memory: {
    readonly cache: bigint
    readonly usage: Usage
    readonly swap: Usage
    readonly kernel?: Usage
    readonly kernelTcp?: Usage
    readonly raw: ReadonlyMap<string, bigint>
    readonly psi?: PsiStats | undefined
  }
  readonly pids: { readonly current: bigint; readonly limit: bigint }
  readonly blkio: Readonly<Partial<Record<(typeof BLKIO_KEYS)[number][1], readonly Omit<BlkioEntry, 'device'>[]>>> & {
    readonly psi?: PsiStats | undefined
  }
  readonly hugetlb: ReadonlyMap<string, Omit<Usage, 'limit'>>
  readonly rdma: RdmaStats
}

/** The data of one `stats` event. */
export function statsDocument(counters: Counters, network: readonly InterfaceStats[], rdt?: IntelRdtStats): Part {
  const { cpu, memory, pids, rdma } = counters
  const { periods, throttledPeriods, throttledTime } = cpu
  const usage = {
    ...filled({
      total: cpu.total,
      percpu: cpu.percpu,
      percpu_kernel: cpu.percpuKernel,
      percpu_user: cpu.percpuUser,
    }),
    kernel: cpu.kernel,
    user: cpu.user,
  }
  const raw = [...memory.raw].sort(([a], [b]) => (a < b ? -1 : 1))
  return {
    cpu: filled({
      usage: unlessZero(usage),
      throttling: filled({ periods, throttledPeriods, throttledTime }),
      psi: psi(cpu.psi),
    }),
    cpuset: cpuset(counters.cpuset),
    memory: filled({
      cache: memory.cache,
      usage: usageEntry(memory.usage),
      swap: usageEntry(memory.swap),
      kernel: usageEntry(memory.kernel),
      kernelTCP: usageEntry(memory.kernelTcp),
      raw: Object.fromEntries(raw),
      psi: psi(memory.psi),
    }),
    pids: filled({ current: pids.current, limit: pids.limit }),
    blkio: blkio(counters.blkio),
    hugetlb: hugetlb(counters.hugetlb),
    intel_rdt: rdt === undefined ? {} : intelRdt(rdt),
    network_interfaces: network.length === 0 ? null : network.map(interfaceEntry),
    ...(rdma.current.length + rdma.limit.length === 0 ? {} : { rdma: rdmaEntry(rdma) }),
  }
}

/** The entries that have a value: neither zero nor empty. */
function filled(values: Part): Part {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => !isEmpty(value)))
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === 0n || value === '') return true
  if (typeof value !== 'object' || value === null) return false
  return (Array.isArray(value) ? value : Object.keys(value)).length === 0
}

/** The part, or nothing where all of its numbers are zero. */
function unlessZero(part: Part): Part | undefined {
  return Object.values(part).every(isEmpty) ? undefined : part
}

function usageEntry(entry: Usage | undefined): Part | undefined {
  if (entry === undefined) return undefined
  const { limit, usage, max, failcnt } = entry
  return unlessZero({ limit, ...filled({ usage, max }), failcnt })
}

function psi(stats: PsiStats | undefined): Part | undefined {
  if (stats === undefined) return undefined
  const line = (data: PsiData | undefined): Part | undefined => {
    if (data === undefined) return undefined
    const { avg10, avg60, avg300, total } = data
    return avg10 === 0 && avg60 === 0 && avg300 === 0 && total === 0n ? undefined : { avg10, avg60, avg300, total }
  }
  const both = { some: line(stats.some), full: line(stats.full) }
  return Object.fromEntries(Object.entries(both).filter(([, data]) => data !== undefined))
}

function cpuset(found: Cpuset | undefined): Part {
  const [first, ...others] = CPUSET_FLAGS.map((name) => [name, found?.[name] ?? 0n] as const)
  return {
    ...filled({ cpus: found?.cpus }),
    ...Object.fromEntries(first === undefined ? [] : [first]),
    ...filled({ mems: found?.mems }),
    ...Object.fromEntries(others),
  }
}

function blkio(tables: Counters['blkio']): Part {
  const rows = BLKIO_KEYS.map(([key, name]) => {
    const entries = tables[name]?.map(({ major, minor, op, value }) => filled({ major, minor, op, value }))
    return [key, entries] as const
  })
  return filled({ ...Object.fromEntries(rows), psi: psi(tables.psi) })
}

function hugetlb(sizes: Counters['hugetlb']): Part {
  const rows = [...sizes].sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(
    rows.map(([size, { usage, max, failcnt }]) => [size, { ...filled({ usage, max }), failcnt }]),
  )
}

function intelRdt(stats: IntelRdtStats): Part {
  const { l3CacheInfo: l3, memBwInfo: memory, mbmStats, cmtStats } = stats
  const cache = l3 && filled({ cbm_mask: l3.cbmMask, min_cbm_bits: l3.minCbmBits, num_closids: l3.numClosids })
  const bandwidth = memory && {
    ...filled({ bandwidth_gran: memory.bandwidthGran, delay_linear: memory.delayLinear }),
    ...filled({ min_bandwidth: memory.minBandwidth, num_closids: memory.numClosids }),
  }
  // a part that the host has is written even where it is empty
  return {
    ...(cache && { l3_cache_info: cache }),
    ...filled({ l3_cache_schema_root: stats.l3CacheSchemaRoot, l3_cache_schema: stats.l3CacheSchema }),
    ...(bandwidth && { mem_bw_info: bandwidth }),
    ...filled({ mem_bw_schema_root: stats.memBwSchemaRoot, mem_bw_schema: stats.memBwSchema }),
    ...filled({ schemata: stats.schemata }),
    ...(mbmStats && {
      mbm_stats: mbmStats.map((node) => ({ mbm_total_bytes: node.totalBytes, mbm_local_bytes: node.localBytes })),
    }),
    ...(cmtStats && { cmt_stats: cmtStats.map(({ llcOccupancy }) => ({ llc_occupancy: llcOccupancy })) }),
  }
}

function interfaceEntry(counts: InterfaceStats): Part {
  return {
    Name: counts.name,
    RxBytes: counts.rxBytes,
    RxPackets: counts.rxPackets,
    RxErrors: counts.rxErrors,
    RxDropped: counts.rxDropped,
    TxBytes: counts.txBytes,
    TxPackets: counts.txPackets,
    TxErrors: counts.txErrors,
    TxDropped: counts.txDropped,
  }
}

function rdmaEntry({ current, limit }: RdmaStats): Part {
  const rows = (entries: RdmaStats['current']) =>
    entries.map(({ device, hcaHandles, hcaObjects }) => ({ device, hca_handles: hcaHandles, hca_objects: hcaObjects }))
  return { current: rows(current), limit: rows(limit) }
}
