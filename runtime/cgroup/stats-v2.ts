/**
 * Reads the counters of a v2 cgroup. The counters of a controller that is not enabled are zero, except that processes
 * are then counted one by one.
 */
import { readdirSync } from 'node:fs'
import {
  camelCase,
  type MemoryGaugeV2,
  type MemoryV2,
  parseKeyed,
  parseNested,
  parseNumber,
  parsePressure,
  parseRdma,
  type ReadFile,
  reader,
  type StatsV2,
} from './stats.ts'
import { processesIn } from './tree.ts'

const HUGETLB_CURRENT = /^hugetlb\.(\d+[KMG]B)\.current$/

const MEMORY_GAUGES = [
  'anon',
  'file',
  'kernel_stack',
  'slab',
  'sock',
  'shmem',
  'file_mapped',
  'file_dirty',
  'file_writeback',
  'anon_thp',
  'inactive_anon',
  'active_anon',
  'inactive_file',
  'active_file',
  'unevictable',
  'slab_reclaimable',
  'slab_unreclaimable',
  'pgfault',
  'pgmajfault',
  'workingset_refault',
  'workingset_activate',
  'workingset_nodereclaim',
  'pgrefill',
  'pgscan',
  'pgsteal',
  'pgactivate',
  'pgdeactivate',
  'pglazyfree',
  'pglazyfreed',
  'thp_fault_alloc',
  'thp_collapse_alloc',
  'workingset_refault_anon',
  'workingset_refault_file',
  'workingset_activate_anon',
  'workingset_activate_file',
] as const

/** All counters of the container with this directory. */
export function readStatsV2(dir: string): StatsV2 {
  const read = reader(dir)
  return {
    version: 2,
    pids: pids(dir, read),
    cpu: cpu(read),
    memory: memory(read),
    rdma: { current: parseRdma(read('rdma.current')), limit: parseRdma(read('rdma.max')) },
    io: io(read),
    hugetlb: hugetlb(dir, read),
    memoryEvents: memoryEvents(read),
  }
}

function pids(dir: string, read: ReadFile): StatsV2['pids'] {
  const current = read('pids.current')
  const limit = read('pids.max')?.trim()
  return {
    current: current === undefined ? BigInt(processesIn(dir).length) : parseNumber(current),
    limit: limit === 'max' ? 0n : parseNumber(limit),
  }
}

function cpu(read: ReadFile): StatsV2['cpu'] {
  const stat = parseKeyed(read('cpu.stat'))
  const value = (key: string) => stat.get(key) ?? 0n
  return {
    usageUsec: value('usage_usec'),
    userUsec: value('user_usec'),
    systemUsec: value('system_usec'),
    nrPeriods: value('nr_periods'),
    nrThrottled: value('nr_throttled'),
    throttledUsec: value('throttled_usec'),
    psi: pressure(read, 'cpu.pressure'),
    nrBursts: value('nr_bursts'),
    burstUsec: value('burst_usec'),
  }
}

function pressure(read: ReadFile, file: string): ReturnType<typeof parsePressure> {
  try {
    return parsePressure(read(file))
  } catch {
    // where pressure accounting is off, for one cgroup or for all, the file exists but cannot be read
    return undefined
  }
}

function memory(read: ReadFile): MemoryV2 {
  const stat = parseKeyed(read('memory.stat'))
  const gauges: Record<string, bigint> = {}
  for (const key of MEMORY_GAUGES) gauges[camelCase(key)] = stat.get(key) ?? 0n
  return {
    ...(gauges as Record<MemoryGaugeV2, bigint>),
    usage: parseNumber(read('memory.current')),
    usageLimit: parseNumber(read('memory.max')),
    swapUsage: parseNumber(read('memory.swap.current')),
    swapLimit: parseNumber(read('memory.swap.max')),
    maxUsage: parseNumber(read('memory.peak')),
    swapMaxUsage: parseNumber(read('memory.swap.peak')),
    psi: pressure(read, 'memory.pressure'),
  }
}

function io(read: ReadFile): StatsV2['io'] {
  const usage = parseNested(read('io.stat')).flatMap(({ name, values }) => {
    const match = /^(\d+):(\d+)$/.exec(name)
    if (match === null) return []
    const value = (key: string) => parseNumber(values.get(key))
    const [, major = '0', minor = '0'] = match
    const counts = { rbytes: value('rbytes'), wbytes: value('wbytes'), rios: value('rios'), wios: value('wios') }
    return [{ major: BigInt(major), minor: BigInt(minor), ...counts }]
  })
  return { usage, psi: pressure(read, 'io.pressure') }
}

function hugetlb(dir: string, read: ReadFile): StatsV2['hugetlb'] {
  let names: string[] = []
  try {
    names = readdirSync(dir)
  } catch {
    // removed in the meantime: no counters, as for every other file of it
  }
  return names.flatMap((name) => {
    const pagesize = HUGETLB_CURRENT.exec(name)?.[1]
    if (pagesize === undefined) return []
    const file = (suffix: string) => read(`hugetlb.${pagesize}.${suffix}`)
    const failcnt = parseKeyed(file('events')).get('max') ?? 0n
    return [{ current: parseNumber(file('current')), max: parseNumber(file('max')), pagesize, failcnt }]
  })
}

function memoryEvents(read: ReadFile): StatsV2['memoryEvents'] {
  const events = parseKeyed(read('memory.events'))
  const value = (key: string) => events.get(key) ?? 0n
  return {
    low: value('low'),
    high: value('high'),
    max: value('max'),
    oom: value('oom'),
    oomKill: value('oom_kill'),
    oomGroupKill: value('oom_group_kill'),
  }
}
