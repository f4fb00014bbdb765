/**
 * Resource limits as properties of a unit. Pure. systemd writes what it knows again whenever it applies the settings of
 * a unit, so it must know every limit that it could overwrite. Other limits stay files alone (resources.ts). Invariant:
 * a property means what the file means that this runtime writes. Only a quota is coarser: systemd keeps whole percents,
 * and the property is rounded up.
 */
import type { CpuResources, LinuxResources, MemoryResources } from '../../spec/types.ts'
import type { DbusProperty } from '../../sys/dbus-value.ts'
import { type CurrentLimits, cpuWeight, ioWeight, swapOnlyLimit } from '../resources.ts'

/** What the properties depend on besides the limits. */
export interface PropertyInput {
  /** systemd's version, its first number */
  readonly version: number
  /** the host has pure v2 */
  readonly v2: boolean
  /** the kernel has io.bfq.weight: the file that a weight is written to */
  readonly bfq: boolean
  readonly current?: CurrentLimits
}

/** systemd's value for "no limit". */
const INFINITY = 0xffff_ffff_ffff_ffffn
const DEFAULT_PERIOD_US = 100_000n
const SECOND_US = 1_000_000n
/** one percent of a second: the unit in which systemd keeps a quota */
const PERCENT_US = 10_000n

/** The versions of systemd that brought a property. */
const SINCE = { quotaPeriod: 242, cpuset: 244, idle: 252, oomPolicy: 253 } as const

type Add = (name: string, signature: string, data: DbusProperty['data']) => void

/** The properties of the limits, each name once; a limit that is not named has none. @throws InvalidArgument */
export function limitProperties(resources: LinuxResources, input: PropertyInput): DbusProperty[] {
  const found = new Map<string, DbusProperty>()
  // what comes later overrides: `unified` comes last
  const add: Add = (name, signature, data) => {
    found.delete(name)
    found.set(name, { name, signature, data })
  }
  const { memory, cpu, pids, blockIO } = resources
  if (memory !== undefined) addMemory(add, memory, input)
  if (cpu !== undefined) addCpu(add, cpu, input)
  if (pids !== undefined) add('TasksMax', 't', pids.limit < 0n ? INFINITY : pids.limit === 0n ? 1n : pids.limit)
  const weight = blockIO?.weight ?? 0
  if (weight !== 0) {
    if (input.v2) add('IOWeight', 't', BigInt(input.bfq ? fromBfqWeight(weight) : ioWeight(weight)))
    else add('BlockIOWeight', 't', BigInt(weight))
  }
  if (input.v2)
    for (const [file, text] of Object.entries(resources.unified)) addUnified(add, { file, text: text.trim() }, input)
  return [...found.values()]
}

/** The weight that systemd turns into this one for BFQ: from 100 on it is spread over eleven times the range. */
function fromBfqWeight(weight: number): number {
  return weight <= 100 ? weight : 100 + (weight - 100) * 11
}

function limitOf(value: bigint): bigint {
  return value < 0n ? INFINITY : value
}

function addMemory(add: Add, memory: MemoryResources, { v2, current }: PropertyInput): void {
  const { limit = 0n, reservation = 0n } = memory
  if (limit !== 0n) add(v2 ? 'MemoryMax' : 'MemoryLimit', 't', limitOf(limit))
  // v1 has no property for the others
  if (!v2) return
  if (reservation !== 0n) add('MemoryLow', 't', limitOf(reservation))
  const swap = swapOnlyLimit(memory, current?.memory)
  if (swap !== undefined) add('MemorySwapMax', 't', limitOf(swap))
}

function addCpu(add: Add, cpu: CpuResources, input: PropertyInput): void {
  const { shares = 0n, quota = 0n, period = 0n, cpus = '', mems = '' } = cpu
  if (!input.v2) {
    if (shares !== 0n) add('CPUShares', 't', shares)
  } else if (cpu.idle === 1 && input.version >= SINCE.idle) add('CPUWeight', 't', 0n)
  else if (shares !== 0n) add('CPUWeight', 't', cpuWeight(shares))
  if (quota !== 0n || period !== 0n) addQuota(add, { quota, period }, input)
  addCpuset(add, { cpus, mems }, input)
}

function addQuota(
  add: Add,
  { quota, period }: { readonly quota: bigint; readonly period: bigint },
  { version, current }: PropertyInput,
): void {
  const [oldQuota = 'max', oldPeriod = ''] = (current?.cpuMax ?? '').split(' ')
  const wholePeriod = period !== 0n ? period : /^\d+$/.test(oldPeriod) ? BigInt(oldPeriod) : DEFAULT_PERIOD_US
  const wholeQuota = quota !== 0n ? quota : /^\d+$/.test(oldQuota) ? BigInt(oldQuota) : -1n
  if (period !== 0n && version >= SINCE.quotaPeriod) add('CPUQuotaPeriodUSec', 't', period)
  const perSecond = wholeQuota < 0n ? INFINITY : roundUp((wholeQuota * SECOND_US) / wholePeriod)
  add('CPUQuotaPerSecUSec', 't', perSecond)
}

function roundUp(perSecond: bigint): bigint {
  return ((perSecond + PERCENT_US - 1n) / PERCENT_US) * PERCENT_US
}

function addCpuset(add: Add, { cpus, mems }: { cpus: string; mems: string }, { v2, version }: PropertyInput): void {
  // systemd has no cpuset on v1
  if (!v2 || version < SINCE.cpuset) return
  for (const [name, list] of [
    ['AllowedCPUs', cpus],
    ['AllowedMemoryNodes', mems],
  ] as const) {
    const bits = bitsOf(list)
    // the kernel says better what is wrong with a list
    if (bits !== undefined) add(name, 'ay', bits)
  }
}

/** A list of numbers and ranges ("0-2,4") as bits, the lowest first; undefined for an empty or a malformed list. */
function bitsOf(list: string): Uint8Array | undefined {
  const numbers: number[] = []
  for (const part of list.trim().split(',')) {
    const [, from, to = from] = /^\s*(\d{1,5})(?:-(\d{1,5}))?\s*$/.exec(part) ?? []
    if (from === undefined || Number(to) < Number(from)) return undefined
    for (let n = Number(from); n <= Number(to); n++) numbers.push(n)
  }
  const bits = new Uint8Array(Math.floor(Math.max(...numbers) / 8) + 1)
  for (const n of numbers) bits[n >> 3] = (bits[n >> 3] ?? 0) | (1 << (n & 7))
  return bits
}

const UNIFIED_LIMITS: ReadonlyMap<string, string> = new Map([
  ['memory.min', 'MemoryMin'],
  ['memory.low', 'MemoryLow'],
  ['memory.high', 'MemoryHigh'],
  ['memory.max', 'MemoryMax'],
  ['memory.swap.max', 'MemorySwapMax'],
  ['memory.zswap.max', 'MemoryZSwapMax'],
  ['pids.max', 'TasksMax'],
])

const REFUSES_ZERO = new Set(['MemoryMax', 'TasksMax'])

/** systemd has MemoryZSwapMax since this version. */
const ZSWAP_SINCE = 253

/** The property of a v2 file, where there is one; a text that is not understood is left to the kernel. */
function addUnified(
  add: Add,
  { file, text }: { readonly file: string; readonly text: string },
  input: PropertyInput,
): void {
  const limit = UNIFIED_LIMITS.get(file)
  if (limit !== undefined) {
    if (file === 'memory.zswap.max' && input.version < ZSWAP_SINCE) return
    if (text === 'max') add(limit, 't', INFINITY)
    // systemd refuses a 0 that the kernel takes: then only the file has it
    else if (/^\d+$/.test(text) && !(REFUSES_ZERO.has(limit) && BigInt(text) === 0n)) add(limit, 't', BigInt(text))
    return
  }
  switch (file) {
    case 'cpu.weight':
      if (/^\d+$/.test(text)) add('CPUWeight', 't', BigInt(text))
      return
    case 'cpu.idle':
      if (text === '1' && input.version >= SINCE.idle) add('CPUWeight', 't', 0n)
      return
    case 'cpu.max': {
      const [, quota, period = '0'] = /^(max|\d+)(?:\s+(\d+))?$/.exec(text) ?? []
      if (quota !== undefined)
        addQuota(add, { quota: quota === 'max' ? -1n : BigInt(quota), period: BigInt(period) }, input)
      return
    }
    case 'cpuset.cpus':
      addCpuset(add, { cpus: text, mems: '' }, input)
      return
    case 'cpuset.mems':
      addCpuset(add, { cpus: '', mems: text }, input)
      return
    case 'io.weight': {
      const weight = /^(?:default\s+)?(\d+)$/.exec(text)?.[1]
      if (weight !== undefined) add('IOWeight', 't', BigInt(weight))
      return
    }
    case 'memory.oom.group':
      if (text === '1' && input.version >= SINCE.oomPolicy) add('OOMPolicy', 's', 'kill')
  }
}

/** What a new unit is, before its limits. */
export interface UnitShape {
  readonly name: string
  readonly slice: string
  readonly id: string
  /** the container's first process, which systemd moves; a slice holds no process itself */
  readonly pid: number
}

/** The properties that every new unit has, and those that the caller's annotations or limits may override. */
export function unitProperties(
  { name, slice, id, pid }: UnitShape,
  { version, v2 }: Pick<PropertyInput, 'version' | 'v2'>,
): DbusProperty[] {
  const properties: DbusProperty[] = []
  const add: Add = (property, signature, data) => properties.push({ name: property, signature, data })
  add('Description', 's', `container ${id}`)
  if (name.endsWith('.slice')) add('Wants', 'as', [slice])
  else {
    add('Slice', 's', slice)
    // below its own directory, systemd leaves everything to the container
    add('Delegate', 'b', true)
    add('PIDs', 'au', [BigInt(pid)])
    // else the death of one process for lack of memory would end the whole container
    if (version >= SINCE.oomPolicy) add('OOMPolicy', 's', 'continue')
  }
  for (const what of ['Memory', 'CPU', v2 ? 'IO' : 'BlockIO', 'Tasks']) add(`${what}Accounting`, 'b', true)
  // the unit neither waits for others at its start nor ends before them when the machine shuts down
  add('DefaultDependencies', 'b', false)
  return properties
}

/** Joins lists of properties: of one name, the last list's count, all of them and in its order. */
export function joinProperties(...lists: readonly (readonly DbusProperty[])[]): DbusProperty[] {
  let joined: DbusProperty[] = []
  for (const list of lists) {
    const names = new Set(list.map(({ name }) => name))
    joined = [...joined.filter(({ name }) => !names.has(name)), ...list]
  }
  return joined
}
