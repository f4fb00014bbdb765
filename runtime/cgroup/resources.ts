/**
 * Resource limits as file writes. Pure: what to write, in which order, and how each write may fail; apply.ts makes the
 * writes. There is one table per cgroup version, in the order in which the controllers must be set. Invariant: a limit
 * in the spec becomes a write or an error. Exceptions are what the OCI specification calls unsupported (kernel memory)
 * and what has no counterpart in v2.
 */
import { RuntimeError, specError } from '../errors.ts'
import type { BlockIoResources, CpuResources, LinuxResources, MemoryResources } from '../spec/types.ts'

/** One value for one file of a cgroup. */
export interface ResourceWrite {
  /** v1: the hierarchy; v2: the controller that must be enabled, or "" for none */
  readonly controller: string
  readonly file: string
  readonly value: string
  /** for messages: "memory limit 1024" */
  readonly what: string
  /** the kernel's value in a new cgroup, where an equal `value` need not be written */
  readonly initial?: string
  /** a missing file is no failure */
  readonly optional?: true
  /** what to write where `file` does not exist */
  readonly fallback?: { readonly file: string; readonly value: string }
  /** EINVAL may mean only "not yet": write it again after the rest of the controller */
  readonly defer?: true
  /** the kernel clamps the value silently: read it back and refuse a difference */
  readonly readBack?: true
  /** the file has one line per `key`; writing `unset` removes the line, for the undo */
  readonly line?: { readonly key: string; readonly unset: string }
}

/** The present limits on which the order or the text of some writes depends; empty for a new cgroup. */
export interface CurrentLimits {
  /** v1: memory.memsw.limit_in_bytes */
  readonly memorySwap?: bigint
  /** v2: memory.max, -1 for "max" */
  readonly memory?: bigint
  /** v2: cpu.max */
  readonly cpuMax?: string
}

const UNLIMITED = -1n
const IO_RATE_UNSET = '0'

function checkMemory(memory: MemoryResources): void {
  for (const name of ['limit', 'swap', 'reservation'] as const) {
    const value = memory[name]
    if (value !== undefined && value < UNLIMITED)
      throw specError(`/linux/resources/memory/${name}`, `memory ${name} ${value} is negative`)
  }
  const { limit = 0n, swap = 0n, swappiness } = memory
  if (limit > 0n && swap > 0n && swap < limit) {
    throw specError(
      '/linux/resources/memory/swap',
      `memory+swap limit ${swap} is smaller than the memory limit ${limit}`,
    )
  }
  if (swappiness !== undefined && (swappiness < 0 || swappiness > 100)) {
    throw specError('/linux/resources/memory/swappiness', `swappiness ${swappiness} is not between 0 and 100`)
  }
}

function hugepageWrites(resources: LinuxResources, suffix: string): ResourceWrite[] {
  const writes: ResourceWrite[] = []
  for (const { pageSize, limit } of resources.hugepageLimits) {
    if (!/^[1-9][0-9]*[KMG]B$/.test(pageSize)) {
      throw specError('/linux/resources/hugepageLimits', `huge page size "${pageSize}" is not of the form 2MB`)
    }
    const common = { controller: 'hugetlb', value: String(limit), what: `limit ${limit} of ${pageSize} pages` }
    writes.push({ ...common, file: `hugetlb.${pageSize}.${suffix}` })
    writes.push({ ...common, file: `hugetlb.${pageSize}.rsvd.${suffix}`, optional: true })
  }
  return writes
}

function rdmaWrites(resources: LinuxResources): ResourceWrite[] {
  return Object.entries(resources.rdma).map(([device, { hcaHandles, hcaObjects }]) => {
    const parts = [device]
    if (hcaHandles !== undefined) parts.push(`hca_handle=${hcaHandles}`)
    if (hcaObjects !== undefined) parts.push(`hca_object=${hcaObjects}`)
    const value = parts.join(' ')
    const line = { key: device, unset: `${device} hca_handle=max hca_object=max` }
    return { controller: 'rdma', file: 'rdma.max', value, what: `rdma limit "${value}"`, line }
  })
}

function pidsWrites(resources: LinuxResources): ResourceWrite[] {
  if (resources.pids === undefined) return []
  const { limit } = resources.pids
  // 0 would let no process run: a container with that limit gets the smallest possible one
  const value = limit < 0n ? 'max' : limit === 0n ? '1' : String(limit)
  return [{ controller: 'pids', file: 'pids.max', value, what: `pids limit ${limit}`, initial: 'max' }]
}

const THROTTLES = [
  ['throttleReadBpsDevice', 'read_bps', 'rbps'],
  ['throttleWriteBpsDevice', 'write_bps', 'wbps'],
  ['throttleReadIOPSDevice', 'read_iops', 'riops'],
  ['throttleWriteIOPSDevice', 'write_iops', 'wiops'],
] as const

/** The writes for cgroup v1, hierarchy by hierarchy. */
export function toV1Writes(resources: LinuxResources, current: CurrentLimits = {}): ResourceWrite[] {
  if (Object.keys(resources.unified).length > 0) {
    throw specError(
      '/linux/resources/unified',
      'invalid configuration: cannot set unified resources: this host has cgroup v1',
    )
  }
  const { cpu, memory, blockIO } = resources
  return [
    ...(cpu === undefined ? [] : cpusetWrites(cpu)),
    ...(memory === undefined ? [] : v1MemoryWrites(memory, current)),
    ...(cpu === undefined ? [] : v1CpuWrites(cpu)),
    ...pidsWrites(resources),
    ...(blockIO === undefined ? [] : v1BlockWrites(blockIO)),
    ...hugepageWrites(resources, 'limit_in_bytes'),
    ...v1NetworkWrites(resources),
    ...rdmaWrites(resources),
  ]
}

function cpusetWrites(cpu: CpuResources): ResourceWrite[] {
  const writes: ResourceWrite[] = []
  for (const file of ['cpus', 'mems'] as const) {
    const value = cpu[file]
    if (value === undefined || value === '') continue
    // the v1 hierarchy may be mounted with noprefix
    const fallback = { file, value }
    writes.push({ controller: 'cpuset', file: `cpuset.${file}`, value, what: `cpuset ${file} "${value}"`, fallback })
  }
  return writes
}

function v1MemoryWrites(memory: MemoryResources, current: CurrentLimits): ResourceWrite[] {
  checkMemory(memory)
  const { limit = 0n, reservation = 0n, swappiness } = memory
  // an unlimited memory limit also lifts the one on memory+swap, which would otherwise still hold
  const implied = limit === UNLIMITED && (memory.swap ?? 0n) === 0n
  const swap = implied ? UNLIMITED : (memory.swap ?? 0n)
  const limitWrite: ResourceWrite[] = []
  const swapWrite: ResourceWrite[] = []
  const base = { controller: 'memory', initial: String(UNLIMITED) } as const
  if (limit !== 0n) {
    limitWrite.push({ ...base, file: 'memory.limit_in_bytes', value: String(limit), what: `memory limit ${limit}` })
  }
  if (swap !== 0n) {
    const write = {
      ...base,
      file: 'memory.memsw.limit_in_bytes',
      value: String(swap),
      what: `memory+swap limit ${swap}`,
    }
    swapWrite.push(implied ? { ...write, optional: true } : write)
  }
  // the kernel requires memory <= memory+swap at every moment: when growing, memory+swap is written first
  const growing = current.memorySwap !== undefined && (swap === UNLIMITED || swap > current.memorySwap)
  const writes = growing ? [...swapWrite, ...limitWrite] : [...limitWrite, ...swapWrite]
  if (reservation !== 0n) {
    const what = `memory reservation ${reservation}`
    writes.push({ ...base, file: 'memory.soft_limit_in_bytes', value: String(reservation), what })
  }
  if (swappiness !== undefined) {
    const what = `swappiness ${swappiness}`
    writes.push({ controller: 'memory', file: 'memory.swappiness', value: String(swappiness), what })
  }
  if (memory.disableOOMKiller === true) {
    writes.push({ controller: 'memory', file: 'memory.oom_control', value: '1', what: 'the OOM killer off' })
  }
  return writes
}

function cpuIdleWrite(cpu: CpuResources): ResourceWrite[] {
  if (cpu.idle === undefined) return []
  const value = String(cpu.idle)
  return [{ controller: 'cpu', file: 'cpu.idle', value, what: `cpu idle ${value}`, initial: '0' }]
}

function v1CpuWrites(cpu: CpuResources): ResourceWrite[] {
  const writes: ResourceWrite[] = []
  const { shares = 0n, quota = 0n, period = 0n, burst, realtimePeriod = 0n, realtimeRuntime = 0n } = cpu
  const add = (file: string, value: bigint, more: Pick<ResourceWrite, 'what'> & Partial<ResourceWrite>) =>
    writes.push({ controller: 'cpu', file, value: String(value), ...more, what: `${more.what} ${value}` })
  // an idle group has no weight: leave idle before the shares are set, enter it after
  if (cpu.idle === 0) writes.push(...cpuIdleWrite(cpu))
  if (shares !== 0n) add('cpu.shares', shares, { what: 'cpu shares', initial: '1024', readBack: true })
  if (cpu.idle !== undefined && cpu.idle !== 0) writes.push(...cpuIdleWrite(cpu))
  if (realtimePeriod !== 0n) {
    add('cpu.rt_period_us', realtimePeriod, { what: 'cpu realtime period', initial: '1000000', defer: true })
  }
  if (realtimeRuntime !== 0n) add('cpu.rt_runtime_us', realtimeRuntime, { what: 'cpu realtime runtime', initial: '0' })
  // a shorter period or a longer burst may be invalid with the old quota and valid with the new one
  if (period !== 0n) add('cpu.cfs_period_us', period, { what: 'cpu period', initial: '100000', defer: true })
  if (burst !== undefined)
    add('cpu.cfs_burst_us', burst, { what: 'cpu burst', initial: '0', defer: true, optional: true })
  if (quota !== 0n) add('cpu.cfs_quota_us', quota < 0n ? UNLIMITED : quota, { what: 'cpu quota', initial: '-1' })
  return writes
}

function v1BlockWrites(block: BlockIoResources): ResourceWrite[] {
  const writes: ResourceWrite[] = []
  const add = (file: string, value: string, more: Pick<ResourceWrite, 'what'> & Partial<ResourceWrite>) =>
    writes.push({ controller: 'blkio', file, value, ...more, what: `${more.what} ${value}` })
  const either = (name: string, value: string) => ({ fallback: { file: `blkio.bfq.${name}`, value } })
  if ((block.weight ?? 0) !== 0)
    add('blkio.weight', String(block.weight), { what: 'block I/O weight', ...either('weight', String(block.weight)) })
  if ((block.leafWeight ?? 0) !== 0)
    add('blkio.leaf_weight', String(block.leafWeight), { what: 'block I/O leaf weight' })
  for (const { major, minor, weight, leafWeight } of block.weightDevice) {
    const key = `${major}:${minor}`
    const line = { key, unset: `${key} 0` }
    if (weight !== undefined) {
      const value = `${key} ${weight}`
      add('blkio.weight_device', value, { what: 'block I/O weight of device', ...either('weight_device', value), line })
    }
    if (leafWeight !== undefined) {
      add('blkio.leaf_weight_device', `${key} ${leafWeight}`, { what: 'block I/O leaf weight of device', line })
    }
  }
  for (const [field, file] of THROTTLES) {
    for (const { major, minor, rate } of block[field]) {
      const key = `${major}:${minor}`
      const line = { key, unset: `${key} ${IO_RATE_UNSET}` }
      add(`blkio.throttle.${file}_device`, `${key} ${rate}`, { what: `block I/O limit ${file}`, line })
    }
  }
  return writes
}

function v1NetworkWrites(resources: LinuxResources): ResourceWrite[] {
  const writes: ResourceWrite[] = []
  const { classID = 0, priorities = [] } = resources.network ?? {}
  if (classID !== 0) {
    writes.push({
      controller: 'net_cls',
      file: 'net_cls.classid',
      value: String(classID),
      what: `network class ${classID}`,
    })
  }
  for (const { name, priority } of priorities) {
    const value = `${name} ${priority}`
    const line = { key: name, unset: `${name} 0` }
    const what = `network priority "${value}"`
    writes.push({ controller: 'net_prio', file: 'net_prio.ifpriomap', value, what, line })
  }
  return writes
}

/** The writes for cgroup v2; `unified` comes last, since it overrides the rest. */
export function toV2Writes(resources: LinuxResources, current: CurrentLimits = {}): ResourceWrite[] {
  const { cpu, memory, blockIO } = resources
  return [
    ...pidsWrites(resources),
    ...(memory === undefined ? [] : v2MemoryWrites(memory, current)),
    ...(blockIO === undefined ? [] : v2BlockWrites(blockIO)),
    ...(cpu === undefined ? [] : v2CpuWrites(cpu, current)),
    ...(cpu === undefined ? [] : cpusetWrites(cpu).map(({ fallback: _, ...write }) => write)),
    ...hugepageWrites(resources, 'max'),
    ...rdmaWrites(resources),
    ...unifiedWrites(resources),
  ]
}

function maxOr(value: bigint): string {
  return value === UNLIMITED ? 'max' : String(value)
}

/** The v2 limit on swap alone, from the limit on memory+swap; undefined when none was asked for. */
export function swapOnlyLimit(memory: MemoryResources, currentMemory?: bigint): bigint | undefined {
  const swap = memory.swap ?? 0n
  const limit = (memory.limit ?? 0n) !== 0n ? memory.limit! : (currentMemory ?? 0n)
  if (swap === 0n) return memory.limit === UNLIMITED ? UNLIMITED : undefined
  if (swap === UNLIMITED) return UNLIMITED
  if (limit <= 0n)
    throw specError('/linux/resources/memory/swap', `cannot set memory+swap limit ${swap} without a memory limit`)
  if (swap < limit) {
    throw specError(
      '/linux/resources/memory/swap',
      `memory+swap limit ${swap} is smaller than the memory limit ${limit}`,
    )
  }
  return swap - limit
}

function v2MemoryWrites(memory: MemoryResources, current: CurrentLimits): ResourceWrite[] {
  checkMemory(memory)
  const writes: ResourceWrite[] = []
  const { limit = 0n, reservation = 0n } = memory
  const swapOnly = swapOnlyLimit(memory, current.memory)
  if (swapOnly !== undefined) {
    const what = `memory+swap limit ${memory.swap ?? limit}`
    const write = { controller: 'memory', file: 'memory.swap.max', value: maxOr(swapOnly), what, initial: 'max' }
    // without swap accounting there is no such file; that is harmless if no swap, or all of it, is wanted
    writes.push(swapOnly <= 0n ? { ...write, optional: true } : write)
  }
  if (limit !== 0n) {
    const what = `memory limit ${limit}`
    writes.push({ controller: 'memory', file: 'memory.max', value: maxOr(limit), what, initial: 'max' })
  }
  if (reservation !== 0n) {
    const what = `memory reservation ${reservation}`
    writes.push({ controller: 'memory', file: 'memory.low', value: maxOr(reservation), what, initial: '0' })
  }
  return writes
}

/** cpu.weight (1 to 10000) from cpu shares (2 to 262144); 1024 shares give the default weight of 100. */
export function cpuWeight(shares: bigint): bigint {
  if (shares <= 2n) return 1n
  if (shares >= 262144n) return 10000n
  const log = Math.log2(Number(shares))
  return BigInt(Math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34)))
}

function v2CpuWrites(cpu: CpuResources, current: CurrentLimits): ResourceWrite[] {
  const writes: ResourceWrite[] = []
  const { shares = 0n, quota = 0n, period = 0n, burst } = cpu
  if (cpu.idle === 0) writes.push(...cpuIdleWrite(cpu))
  if (shares !== 0n) {
    const value = String(cpuWeight(shares))
    writes.push({ controller: 'cpu', file: 'cpu.weight', value, what: `cpu shares ${shares}`, initial: '100' })
  }
  if (cpu.idle !== undefined && cpu.idle !== 0) writes.push(...cpuIdleWrite(cpu))
  if (burst !== undefined) {
    const value = String(burst)
    const what = `cpu burst ${burst}`
    writes.push({ controller: 'cpu', file: 'cpu.max.burst', value, what, initial: '0', defer: true, optional: true })
  }
  if (quota !== 0n || period !== 0n) {
    const [oldQuota = 'max', oldPeriod = '100000'] = (current.cpuMax ?? '').split(' ').filter((word) => word !== '')
    const newQuota = quota === 0n ? oldQuota : quota < 0n ? 'max' : String(quota)
    const value = `${newQuota} ${period === 0n ? oldPeriod : period}`
    writes.push({
      controller: 'cpu',
      file: 'cpu.max',
      value,
      what: `cpu quota and period "${value}"`,
      initial: 'max 100000',
    })
  }
  return writes
}

/** io.weight (1 to 10000) from a block I/O weight (10 to 1000). */
export function ioWeight(weight: number): number {
  return 1 + Math.floor(((weight - 10) * 9999) / 990)
}

function v2BlockWrites(block: BlockIoResources): ResourceWrite[] {
  const writes: ResourceWrite[] = []
  const weight = block.weight ?? 0
  if (weight !== 0) {
    const fallback = { file: 'io.weight', value: String(ioWeight(weight)) }
    const what = `block I/O weight ${weight}`
    writes.push({ controller: 'io', file: 'io.bfq.weight', value: String(weight), what, fallback })
  }
  for (const { major, minor, weight: deviceWeight } of block.weightDevice) {
    if (deviceWeight === undefined) continue
    const key = `${major}:${minor}`
    const value = `${key} ${deviceWeight}`
    const line = { key, unset: `${key} default` }
    writes.push({ controller: 'io', file: 'io.bfq.weight', value, what: `block I/O weight of device ${value}`, line })
  }
  for (const [field, , name] of THROTTLES) {
    for (const { major, minor, rate } of block[field]) {
      const key = `${major}:${minor}`
      const value = `${key} ${name}=${rate === 0n ? 'max' : rate}`
      const line = { key, unset: `${key} ${name}=max` }
      writes.push({ controller: 'io', file: 'io.max', value, what: `block I/O limit "${value}"`, line })
    }
  }
  return writes
}

function unifiedWrites(resources: LinuxResources): ResourceWrite[] {
  const writes: ResourceWrite[] = []
  for (const [file, text] of Object.entries(resources.unified)) {
    const controller = /^([a-z_]+)\.[^/]+$/.exec(file)?.[1]
    if (controller === undefined) {
      throw specError('/linux/resources/unified', `unified resource "${file}" must be in the form CONTROLLER.PARAMETER`)
    }
    for (const value of text.split('\n')) {
      if (value === '' && text !== '') continue
      writes.push({ controller, file, value, what: `unified resource "${file}" to "${value}"` })
    }
  }
  return writes
}

/**
 * Refuses a limit that is not above the present use; `usage` and `swapUsage` are memory.current and
 * memory.swap.current.
 * @throws FailedPrecondition
 */
export function checkMemoryBeforeUpdate(memory: MemoryResources, usage: bigint, swapUsage: bigint): void {
  const { limit = 0n, swap = 0n } = memory
  if (limit > 0n && limit <= usage) {
    throw new RuntimeError('FailedPrecondition', `rejecting memory limit ${limit} <= usage ${usage}`)
  }
  if (swap > 0n && swap <= usage + swapUsage) {
    throw new RuntimeError('FailedPrecondition', `rejecting memory+swap limit ${swap} <= usage ${usage + swapUsage}`)
  }
}
