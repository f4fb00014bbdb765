/** Reads the counters of a v1 cgroup: about thirty small files of seven hierarchies. A missing file counts as zero. */
import { readdirSync } from 'node:fs'
import { readTextIfAny } from './files.ts'
import type { CgroupPaths } from './request.ts'
import {
  type BlkioEntry,
  type BlkioTable,
  type MemoryEntry,
  type MemoryGauge,
  type MemoryV1,
  parseKeyed,
  parseNumber,
  parseRdma,
  type ReadFile,
  reader,
  type StatsV1,
} from './stats.ts'

const NANOS_PER_TICK = 10_000_000n // USER_HZ is 100 on every architecture that we run on
const HUGETLB_USAGE = /^hugetlb\.(\d+[KMG]B)\.usage_in_bytes$/

const GAUGES: Readonly<Record<MemoryGauge, string>> = {
  cache: 'cache',
  rss: 'rss',
  rssHuge: 'rss_huge',
  mappedFile: 'mapped_file',
  dirty: 'dirty',
  writeback: 'writeback',
  pgPgIn: 'pgpgin',
  pgPgOut: 'pgpgout',
  pgFault: 'pgfault',
  pgMajFault: 'pgmajfault',
  inactiveAnon: 'inactive_anon',
  activeAnon: 'active_anon',
  inactiveFile: 'inactive_file',
  activeFile: 'active_file',
  unevictable: 'unevictable',
}

const BLKIO_TABLES: Readonly<Record<BlkioTable, string>> = {
  ioServiceBytesRecursive: 'io_service_bytes',
  ioServicedRecursive: 'io_serviced',
  ioQueuedRecursive: 'io_queued',
  ioServiceTimeRecursive: 'io_service_time',
  ioWaitTimeRecursive: 'io_wait_time',
  ioMergedRecursive: 'io_merged',
  ioTimeRecursive: 'time',
  sectorsRecursive: 'sectors',
}

/** All counters of the container with these directories. */
export function readStatsV1(paths: CgroupPaths): StatsV1 {
  return {
    version: 1,
    hugetlb: hugetlb(paths['hugetlb']),
    pids: pids(reader(paths['pids'])),
    cpu: cpu(reader(paths['cpu']), reader(paths['cpuacct'])),
    memory: memory(reader(paths['memory'])),
    blkio: blkio(paths['blkio']),
    rdma: rdma(reader(paths['rdma'])),
    memoryOomControl: oomControl(reader(paths['memory'])),
  }
}

function hugetlb(dir: string | undefined): StatsV1['hugetlb'] {
  const read = reader(dir)
  return namesIn(dir).flatMap((name) => {
    const pagesize = HUGETLB_USAGE.exec(name)?.[1]
    if (pagesize === undefined) return []
    const value = (file: string) => parseNumber(read(`hugetlb.${pagesize}.${file}`))
    return [{ pagesize, usage: value('usage_in_bytes'), max: value('max_usage_in_bytes'), failcnt: value('failcnt') }]
  })
}

function namesIn(dir: string | undefined): string[] {
  try {
    return dir === undefined ? [] : readdirSync(dir)
  } catch {
    // removed in the meantime: no counters, as for every other file of it
    return []
  }
}

function pids(read: ReadFile): StatsV1['pids'] {
  const limit = read('pids.max')?.trim()
  return { current: parseNumber(read('pids.current')), limit: limit === 'max' ? 0n : parseNumber(limit) }
}

function cpu(read: ReadFile, readAccounting: ReadFile): StatsV1['cpu'] {
  const ticks = parseKeyed(readAccounting('cpuacct.stat'))
  const stat = parseKeyed(read('cpu.stat'))
  const perCpu = (readAccounting('cpuacct.usage_percpu') ?? '').split(' ').filter((word) => /^\d+$/.test(word))
  return {
    usage: {
      total: parseNumber(readAccounting('cpuacct.usage')),
      kernel: (ticks.get('system') ?? 0n) * NANOS_PER_TICK,
      user: (ticks.get('user') ?? 0n) * NANOS_PER_TICK,
      perCpu: perCpu.map(BigInt),
    },
    throttling: {
      periods: stat.get('nr_periods') ?? 0n,
      throttledPeriods: stat.get('nr_throttled') ?? 0n,
      throttledTime: stat.get('throttled_time') ?? 0n,
    },
  }
}

function memory(read: ReadFile): MemoryV1 {
  const stat = parseKeyed(read('memory.stat'))
  const gauges: Record<string, bigint> = {}
  for (const [name, key] of Object.entries(GAUGES)) {
    gauges[name] = stat.get(key) ?? 0n
    gauges[`total${name[0]?.toUpperCase()}${name.slice(1)}`] = stat.get(`total_${key}`) ?? 0n
  }
  const entry = (kind: string): MemoryEntry => ({
    limit: parseNumber(read(`memory.${kind}limit_in_bytes`)),
    usage: parseNumber(read(`memory.${kind}usage_in_bytes`)),
    max: parseNumber(read(`memory.${kind}max_usage_in_bytes`)),
    failcnt: parseNumber(read(`memory.${kind}failcnt`)),
  })
  return {
    ...(gauges as Record<MemoryGauge | `total${Capitalize<MemoryGauge>}`, bigint>),
    hierarchicalMemoryLimit: stat.get('hierarchical_memory_limit') ?? 0n,
    hierarchicalSwapLimit: stat.get('hierarchical_memsw_limit') ?? 0n,
    usage: entry(''),
    swap: entry('memsw.'),
    kernel: entry('kmem.'),
    kernelTcp: entry('kmem.tcp.'),
  }
}

function blkio(dir: string | undefined): StatsV1['blkio'] {
  const read = reader(dir)
  const present = new Set(namesIn(dir))
  let devices: ReadonlyMap<string, string> | undefined
  const table = (name: string): BlkioEntry[] => {
    // the I/O scheduler of each device decides which file counts: the first one with entries is taken
    const throttle = name.startsWith('io_service') ? [`blkio.throttle.${name}_recursive`, `blkio.throttle.${name}`] : []
    for (const file of [`blkio.bfq.${name}_recursive`, `blkio.${name}_recursive`, ...throttle]) {
      if (!present.has(file)) continue
      const rows = parseBlkio(read(file))
      if (rows.length === 0) continue
      devices ??= diskNames()
      const names = devices
      return rows.map((row) => ({ ...row, device: names.get(`${row.major}:${row.minor}`) ?? '' }))
    }
    return []
  }
  const tables: Record<string, BlkioEntry[]> = {}
  for (const [name, file] of Object.entries(BLKIO_TABLES)) tables[name] = table(file)
  return tables as Record<BlkioTable, BlkioEntry[]>
}

/** Lines of "major:minor Operation value" or "major:minor value"; the last line, a sum, is skipped. */
function parseBlkio(text: string | undefined): Omit<BlkioEntry, 'device'>[] {
  const rows: Omit<BlkioEntry, 'device'>[] = []
  for (const line of (text ?? '').split('\n')) {
    const match = /^(\d+):(\d+) (?:([A-Za-z]+) )?(\d+)$/.exec(line)
    if (match === null) continue
    const [, major = '0', minor = '0', op = '', value = '0'] = match
    rows.push({ op, major: BigInt(major), minor: BigInt(minor), value: BigInt(value) })
  }
  return rows
}

function diskNames(): Map<string, string> {
  const names = new Map<string, string>()
  for (const line of (readTextIfAny('/proc/diskstats') ?? '').split('\n')) {
    const [major, minor, name] = line.trim().split(/\s+/)
    if (name !== undefined) names.set(`${major}:${minor}`, `/dev/${name}`)
  }
  return names
}

function rdma(read: ReadFile): StatsV1['rdma'] {
  return { current: parseRdma(read('rdma.current')), limit: parseRdma(read('rdma.max')) }
}

function oomControl(read: ReadFile): StatsV1['memoryOomControl'] {
  const values = parseKeyed(read('memory.oom_control'))
  const value = (key: string) => values.get(key) ?? 0n
  return { oomKillDisable: value('oom_kill_disable'), underOom: value('under_oom'), oomKill: value('oom_kill') }
}
