/**
 * The counters of a cgroup: one complete shape per version, in which a file that this kernel lacks counts as zero. So
 * an encoder never has to ask whether a field exists. All numbers are unsigned 64-bit; "max" is the largest of them.
 * This file has the shapes and parses the three forms that the kernel writes; stats-v1.ts and stats-v2.ts read the
 * files.
 */
import { readTextIfAny } from './files.ts'

/** "max" as a number. */
export const U64_MAX = 0xffff_ffff_ffff_ffffn
const U32_MAX = 0xffff_ffff

/** The counters of a cgroup. */
export type CgroupStats = StatsV1 | StatsV2

/** A limit with the present use, the highest use, and the number of failed charges. */
export interface MemoryEntry {
  limit: bigint
  usage: bigint
  max: bigint
  failcnt: bigint
}

/** The gauges of memory.stat in v1: for the cgroup alone, and (as total*) with its sub-cgroups. */
export type MemoryGauge =
  | 'cache'
  | 'rss'
  | 'rssHuge'
  | 'mappedFile'
  | 'dirty'
  | 'writeback'
  | 'pgPgIn'
  | 'pgPgOut'
  | 'pgFault'
  | 'pgMajFault'
  | 'inactiveAnon'
  | 'activeAnon'
  | 'inactiveFile'
  | 'activeFile'
  | 'unevictable'

/** Memory of v1. */
export type MemoryV1 = Record<MemoryGauge | `total${Capitalize<MemoryGauge>}`, bigint> & {
  hierarchicalMemoryLimit: bigint
  hierarchicalSwapLimit: bigint
  usage: MemoryEntry
  swap: MemoryEntry
  kernel: MemoryEntry
  kernelTcp: MemoryEntry
}

/**
 * One number of one block device for one kind of operation ("Read"), or "" where the kernel does not distinguish them.
 */
export interface BlkioEntry {
  op: string
  device: string
  major: bigint
  minor: bigint
  value: bigint
}

/** RDMA handles and objects of one device. */
export interface RdmaEntry {
  device: string
  hcaHandles: number
  hcaObjects: number
}

/** Pids: threads in use and the limit, 0 for none. */
export interface PidsStats {
  current: bigint
  limit: bigint
}

/** RDMA use and limits. */
export interface RdmaStats {
  current: RdmaEntry[]
  limit: RdmaEntry[]
}

/** The block I/O tables of v1. */
export type BlkioTable =
  | 'ioServiceBytesRecursive'
  | 'ioServicedRecursive'
  | 'ioQueuedRecursive'
  | 'ioServiceTimeRecursive'
  | 'ioWaitTimeRecursive'
  | 'ioMergedRecursive'
  | 'ioTimeRecursive'
  | 'sectorsRecursive'

/** The counters of v1; CPU times are in nanoseconds. */
export interface StatsV1 {
  version: 1
  hugetlb: { usage: bigint; max: bigint; failcnt: bigint; pagesize: string }[]
  pids: PidsStats
  cpu: {
    usage: { total: bigint; kernel: bigint; user: bigint; perCpu: bigint[] }
    throttling: { periods: bigint; throttledPeriods: bigint; throttledTime: bigint }
  }
  memory: MemoryV1
  blkio: Record<BlkioTable, BlkioEntry[]>
  rdma: RdmaStats
  memoryOomControl: { oomKillDisable: bigint; underOom: bigint; oomKill: bigint }
}

/** Pressure stall averages in per cent, and the total in microseconds. */
export interface PsiData {
  avg10: number
  avg60: number
  avg300: number
  total: bigint
}

/** Pressure stall information of one resource. */
export interface PsiStats {
  some: PsiData | undefined
  full: PsiData | undefined
}

/** The gauges of memory.stat in v2. */
export type MemoryGaugeV2 =
  | 'anon'
  | 'file'
  | 'kernelStack'
  | 'slab'
  | 'sock'
  | 'shmem'
  | 'fileMapped'
  | 'fileDirty'
  | 'fileWriteback'
  | 'anonThp'
  | 'inactiveAnon'
  | 'activeAnon'
  | 'inactiveFile'
  | 'activeFile'
  | 'unevictable'
  | 'slabReclaimable'
  | 'slabUnreclaimable'
  | 'pgfault'
  | 'pgmajfault'
  | 'workingsetRefault'
  | 'workingsetActivate'
  | 'workingsetNodereclaim'
  | 'pgrefill'
  | 'pgscan'
  | 'pgsteal'
  | 'pgactivate'
  | 'pgdeactivate'
  | 'pglazyfree'
  | 'pglazyfreed'
  | 'thpFaultAlloc'
  | 'thpCollapseAlloc'
  | 'workingsetRefaultAnon'
  | 'workingsetRefaultFile'
  | 'workingsetActivateAnon'
  | 'workingsetActivateFile'

/** Memory of v2. */
export type MemoryV2 = Record<MemoryGaugeV2, bigint> & {
  usage: bigint
  usageLimit: bigint
  swapUsage: bigint
  swapLimit: bigint
  maxUsage: bigint
  swapMaxUsage: bigint
  psi: PsiStats | undefined
}

/** One line of io.stat. */
export interface IoEntry {
  major: bigint
  minor: bigint
  rbytes: bigint
  wbytes: bigint
  rios: bigint
  wios: bigint
}

/** The counters of v2; CPU times are in microseconds. */
export interface StatsV2 {
  version: 2
  pids: PidsStats
  cpu: {
    usageUsec: bigint
    userUsec: bigint
    systemUsec: bigint
    nrPeriods: bigint
    nrThrottled: bigint
    throttledUsec: bigint
    psi: PsiStats | undefined
    nrBursts: bigint
    burstUsec: bigint
  }
  memory: MemoryV2
  rdma: RdmaStats
  io: { usage: IoEntry[]; psi: PsiStats | undefined }
  hugetlb: { current: bigint; max: bigint; pagesize: string; failcnt: bigint }[]
  memoryEvents: { low: bigint; high: bigint; max: bigint; oom: bigint; oomKill: bigint; oomGroupKill: bigint }
}

/** Parses one number, or "max"; any other text is 0. */
export function parseNumber(text: string | undefined): bigint {
  const word = (text ?? '').trim()
  if (word === 'max') return U64_MAX
  return /^\d+$/.test(word) ? BigInt(word) : 0n
}

/** Parses lines of "key value". */
export function parseKeyed(text: string | undefined): ReadonlyMap<string, bigint> {
  const values = new Map<string, bigint>()
  for (const line of (text ?? '').split('\n')) {
    const space = line.indexOf(' ')
    if (space > 0) values.set(line.slice(0, space), parseNumber(line.slice(space + 1)))
  }
  return values
}

/** Parses lines of "name key=value key=value". */
export function parseNested(text: string | undefined): { name: string; values: ReadonlyMap<string, string> }[] {
  const lines: { name: string; values: ReadonlyMap<string, string> }[] = []
  for (const line of (text ?? '').split('\n')) {
    const [name, ...pairs] = line.split(' ')
    if (name === undefined || name === '') continue
    const values = new Map<string, string>()
    for (const pair of pairs) {
      const equals = pair.indexOf('=')
      if (equals > 0) values.set(pair.slice(0, equals), pair.slice(equals + 1))
    }
    lines.push({ name, values })
  }
  return lines
}

/** Parses rdma.current or rdma.max. */
export function parseRdma(text: string | undefined): RdmaEntry[] {
  const count = (value: string | undefined) => (value === 'max' ? U32_MAX : Number(value ?? 0))
  return parseNested(text).map(({ name, values }) => ({
    device: name,
    hcaHandles: count(values.get('hca_handle')),
    hcaObjects: count(values.get('hca_object')),
  }))
}

/** Parses a pressure file; undefined where there is none. */
export function parsePressure(text: string | undefined): PsiStats | undefined {
  if (text === undefined || text === '') return undefined
  const data = new Map<string, PsiData>()
  for (const { name, values } of parseNested(text)) {
    const average = (key: string) => Number(values.get(key) ?? 0)
    const averages = { avg10: average('avg10'), avg60: average('avg60'), avg300: average('avg300') }
    data.set(name, { ...averages, total: parseNumber(values.get('total')) })
  }
  return { some: data.get('some'), full: data.get('full') }
}

/** The text of a file of a cgroup; undefined without the directory or the file. */
export type ReadFile = (file: string) => string | undefined

/** A reader of the files in one directory. */
export function reader(dir: string | undefined): ReadFile {
  return (file) => (dir === undefined ? undefined : readTextIfAny(`${dir}/${file}`))
}

/** memory_file_name → memoryFileName. */
export function camelCase(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
}
