/**
 * Reads what runc's `events` prints and the statistics of stats.ts lack: the processor time of each processor by its
 * modes, the cpuset, all of memory.stat, and the huge pages that are reserved. The rest is taken from there.
 */
import { readdirSync } from 'node:fs'
import type { Cgroup } from '../cgroup/cgroup.ts'
import {
  type CgroupStats,
  parseKeyed,
  parseNumber,
  type ReadFile,
  reader,
  type StatsV1,
  type StatsV2,
  U64_MAX,
} from '../cgroup/stats.ts'
import { type Counters, CPUSET_FLAGS, type Cpuset, type Usage } from './document.ts'

const NANOS_PER_MICRO = 1000n

/** The counters of a cgroup, of which `stats` were read already. */
export function readCounters({ paths }: Pick<Cgroup, 'paths'>, stats: CgroupStats): Counters {
  return stats.version === 1 ? countersV1(paths, stats) : countersV2(Object.values(paths)[0], stats)
}

function countersV1(paths: Readonly<Record<string, string>>, stats: StatsV1): Counters {
  const { usage, throttling } = stats.cpu
  const modes = perCpuModes(reader(paths['cpuacct'])('cpuacct.usage_all'))
  const { hugetlb } = paths
  const readHuge = reader(hugetlb)
  return {
    cpu: {
      total: usage.total,
      percpu: usage.perCpu,
      ...modes,
      kernel: usage.kernel,
      user: usage.user,
      periods: throttling.periods,
      throttledPeriods: throttling.throttledPeriods,
      throttledTime: throttling.throttledTime,
    },
    cpuset: cpuset(reader(paths['cpuset'])),
    memory: {
      cache: stats.memory.cache,
      usage: stats.memory.usage,
      swap: stats.memory.swap,
      kernel: stats.memory.kernel,
      kernelTcp: stats.memory.kernelTcp,
      raw: parseKeyed(reader(paths['memory'])('memory.stat')),
    },
    pids: stats.pids,
    blkio: stats.blkio,
    hugetlb: hugePages(hugetlb, 'usage_in_bytes', (size) => ({
      usage: parseNumber(readHuge(`${size}.usage_in_bytes`)),
      max: parseNumber(readHuge(`${size}.max_usage_in_bytes`)),
      failcnt: parseNumber(readHuge(`${size}.failcnt`)),
    })),
    rdma: stats.rdma,
  }
}

/** The lines of cpuacct.usage_all: "cpu user system", in nanoseconds. */
function perCpuModes(text: string | undefined): { percpuKernel: bigint[]; percpuUser: bigint[] } {
  const rows = (text ?? '').split('\n').flatMap((line) => {
    const match = /^\d+ (\d+) (\d+)/.exec(line)
    return match === null ? [] : [{ user: BigInt(match[1] ?? 0), kernel: BigInt(match[2] ?? 0) }]
  })
  return { percpuKernel: rows.map(({ kernel }) => kernel), percpuUser: rows.map(({ user }) => user) }
}

function cpuset(read: ReadFile): Cpuset {
  // the hierarchy may be mounted with noprefix
  const text = (name: string) => (read(`cpuset.${name}`) ?? read(name) ?? '').trim()
  const flags = CPUSET_FLAGS.map((name) => [name, BigInt(/^-?\d+$/.exec(text(name))?.[0] ?? 0)])
  return {
    ...(Object.fromEntries(flags) as Record<(typeof CPUSET_FLAGS)[number], bigint>),
    cpus: parseList(text('cpus')),
    mems: parseList(text('mems')),
  }
}

/** "0-2,7" as [0, 1, 2, 7]. */
function parseList(text: string): bigint[] {
  return text.split(',').flatMap((range) => {
    const match = /^(\d+)(?:-(\d+))?$/.exec(range)
    if (match === null) return []
    const from = Number(match[1])
    return Array.from({ length: Number(match[2] ?? from) - from + 1 }, (_, i) => BigInt(from + i))
  })
}

function countersV2(dir: string | undefined, stats: StatsV2): Counters {
  const { cpu, memory, io } = stats
  const read = reader(dir)
  const usage: Usage = { limit: memory.usageLimit, usage: memory.usage, max: memory.maxUsage, failcnt: 0n }
  return {
    cpu: {
      total: cpu.usageUsec * NANOS_PER_MICRO,
      kernel: cpu.systemUsec * NANOS_PER_MICRO,
      user: cpu.userUsec * NANOS_PER_MICRO,
      periods: cpu.nrPeriods,
      throttledPeriods: cpu.nrThrottled,
      throttledTime: cpu.throttledUsec * NANOS_PER_MICRO,
      psi: cpu.psi,
    },
    memory: {
      cache: memory.file,
      usage,
      swap: memoryAndSwap(usage, { usage: memory.swapUsage, limit: memory.swapLimit }),
      raw: parseKeyed(read('memory.stat')),
      psi: memory.psi,
    },
    pids: stats.pids,
    blkio: {
      ioServiceBytesRecursive: io.usage.flatMap(({ rbytes, wbytes, ...device }) =>
        readAndWrite(device, rbytes, wbytes),
      ),
      ioServicedRecursive: io.usage.flatMap(({ rios, wios, ...device }) => readAndWrite(device, rios, wios)),
      psi: io.psi,
    },
    hugetlb: hugePages(dir, 'current', (size) => ({
      usage: parseNumber(read(`${size}.current`)),
      max: 0n,
      failcnt: parseKeyed(read(`${size.replace('.rsvd', '')}.events`)).get('max') ?? 0n,
    })),
    rdma: stats.rdma,
  }
}

/** v1 counts memory and swap together, and the document says it so for v2 too; the highest sum is not known there. */
function memoryAndSwap(memory: Usage, swap: { readonly usage: bigint; readonly limit: bigint }): Usage {
  const limit = swap.limit + memory.limit
  return { limit: limit > U64_MAX ? U64_MAX : limit, usage: memory.usage + swap.usage, max: 0n, failcnt: 0n }
}

function readAndWrite(
  { major, minor }: { readonly major: bigint; readonly minor: bigint },
  read: bigint,
  write: bigint,
) {
  return [
    { major, minor, op: 'Read', value: read },
    { major, minor, op: 'Write', value: write },
  ]
}

type Reserved = Omit<Usage, 'limit'>

/** Each page size of a folder; the files of reservations count where there are any. */
function hugePages(
  dir: string | undefined,
  suffix: string,
  read: (prefix: string) => Reserved,
): ReadonlyMap<string, Reserved> {
  const sizes = new Map<string, Reserved>()
  const names = namesIn(dir)
  for (const name of names) {
    const [, size] = /^hugetlb\.(\d+[KMGTP]B)\./.exec(name) ?? []
    if (size === undefined || name !== `hugetlb.${size}.${suffix}`) continue
    const rsvd = names.includes(`hugetlb.${size}.rsvd.${suffix}`) ? '.rsvd' : ''
    sizes.set(size, read(`hugetlb.${size}${rsvd}`))
  }
  return sizes
}

function namesIn(dir: string | undefined): string[] {
  try {
    return dir === undefined ? [] : readdirSync(dir)
  } catch {
    // removed in the meantime: no counters, as for every other file of it
    return []
  }
}
