/**
 * A plan as text, one numbered line per operation: what `runts plan` prints and what tests compare. Flags appear by
 * name, filters by their size, and empty or zero arguments are left out. A note in parentheses says what the runtime
 * does at an operation.
 */
import { CREDENTIALS, MOUNT_HOW, OPS, type Op, PIVOT_MODE, ROOTFS_HOW, SYNC_POINTS } from '../../proto/init-plan.ts'
import { CAPABILITIES } from '../spec/capabilities.ts'
import { MOUNT_ATTR, PROPAGATION } from '../spec/mount-options.ts'
import { RLIMITS } from '../spec/rlimits.ts'
import { IO_CLASSES, MEMORY_FLAGS, MEMORY_MODES, SCHEDULER_FLAGS, SCHEDULER_POLICIES } from '../spec/scheduling.ts'
import { CLONE_FLAGS } from './namespaces.ts'

type Bits = readonly (readonly [name: string, bits: bigint])[]
type Formatter = (value: unknown) => string

const HOW: Bits = Object.entries(MOUNT_HOW).map(([name, bits]) => [name.toLowerCase(), BigInt(bits)])
const ATTRIBUTES: Bits = Object.entries(MOUNT_ATTR).map(([name, bits]) => [name.toLowerCase(), bits])
const NAMESPACES: Bits = Object.entries(CLONE_FLAGS)
const CREDENTIAL_FLAGS: Bits = Object.entries(CREDENTIALS).map(([name, bits]) => [name.toLowerCase(), BigInt(bits)])
const CAPABILITY_BITS: Bits = CAPABILITIES.map((name, number) => [
  name.slice('CAP_'.length).toLowerCase(),
  1n << BigInt(number),
])
const PROPAGATION_NAMES = new Map(Object.entries(PROPAGATION).map(([name, value]) => [value, name]))
const RLIMIT_NAMES = new Map([...RLIMITS].map(([name, number]) => [number, name.slice('RLIMIT_'.length).toLowerCase()]))
const PIVOT_NAMES = namesOf(PIVOT_MODE)
const ROOTFS_NAMES = namesOf(ROOTFS_HOW)
const POINT_NAMES = namesOf(SYNC_POINTS)
const POLICY_NAMES = namesOf(SCHEDULER_POLICIES, 'SCHED_')
const SCHEDULER_BITS: Bits = Object.entries(SCHEDULER_FLAGS).map(([name, bits]) => [
  name.slice('SCHED_FLAG_'.length).toLowerCase(),
  bits,
])
const IO_NAMES = namesOf(IO_CLASSES, 'IOPRIO_CLASS_')
const MEMORY_MODE_NAMES = namesOf(MEMORY_MODES, 'MPOL_')
const MEMORY_BITS: Bits = Object.entries(MEMORY_FLAGS).map(([name, bits]) => [
  name.slice('MPOL_F_'.length).toLowerCase(),
  BigInt(bits),
])
/** The bits of the mode, below its flags. */
const MEMORY_MODE_MASK = (1 << 13) - 1
const INFINITY_64 = 0xffffffffffffffffn
const SOCK_FILTER_BYTES = 8
const FILE_TYPES = new Map([
  [0o020000, 'c'],
  [0o060000, 'b'],
  [0o010000, 'p'],
])

function namesOf(values: Readonly<Record<string, number>>, prefix = ''): ReadonlyMap<number, string> {
  return new Map(Object.entries(values).map(([name, value]) => [value, name.slice(prefix.length).toLowerCase()]))
}

function flags(table: Bits): Formatter {
  return (value) => {
    let rest = BigInt(value as bigint | number)
    const names: string[] = []
    // wide fields first, so that a field of several bits is not printed as its parts
    for (const [name, bits] of [...table].sort(([, a], [, b]) => Number(bitCount(b) - bitCount(a)))) {
      if (bits === 0n || (rest & bits) !== bits) continue
      names.push(name)
      rest &= ~bits
    }
    if (rest !== 0n) names.push(`0x${rest.toString(16)}`)
    return names.length === 0 ? '0' : names.join('|')
  }
}

function bitCount(bits: bigint): number {
  return bits.toString(2).replaceAll('0', '').length
}

const named =
  (names: ReadonlyMap<number, string>): Formatter =>
  (value) =>
    names.get(value as number) ?? String(value)
const octal: Formatter = (value) => `0${(value as number).toString(8)}`
const limit: Formatter = (value) => (value === INFINITY_64 ? 'unlimited' : String(value))
const propagation: Formatter = (value) =>
  PROPAGATION_NAMES.get(value as number) ?? `0x${(value as number).toString(16)}`
const fileMode: Formatter = (value) => {
  const mode = value as number
  return `${FILE_TYPES.get(mode & 0o170000) ?? '?'}${octal(mode & 0o7777)}`
}

/** The numbers of a bit mask, as a list of ranges. */
function list(value: unknown): string {
  const mask = value as Uint8Array
  const ranges: string[] = []
  const has = (number: number) => ((mask[number >> 3] ?? 0) & (1 << (number & 7))) !== 0
  for (let from = 0; from < mask.length * 8; from++) {
    if (!has(from)) continue
    let to = from
    while (has(to + 1)) to++
    ranges.push(from === to ? `${from}` : `${from}-${to}`)
    from = to
  }
  return ranges.join(',')
}

function cpus(value: unknown): string {
  return (value as Uint8Array).length === 0 ? 'all' : list(value)
}

function memoryMode(value: unknown): string {
  const mode = value as number
  const name = MEMORY_MODE_NAMES.get(mode & MEMORY_MODE_MASK) ?? String(mode & MEMORY_MODE_MASK)
  const bits = mode & ~MEMORY_MODE_MASK
  return bits === 0 ? name : `${name}|${flags(MEMORY_BITS)(bits)}`
}

/** How to print an argument that is more than a number or a string: by op.name, else by name. */
const FORMATTERS: Readonly<Record<string, Formatter>> = {
  'mount.how': flags(HOW),
  set: flags(ATTRIBUTES),
  clear: flags(ATTRIBUTES),
  dropped: flags(ATTRIBUTES),
  recSet: flags(ATTRIBUTES),
  recClear: flags(ATTRIBUTES),
  propagation: (value) => (value as readonly number[]).map(propagation).join(','),
  'propagation.flags': propagation,
  'clone.flags': flags(NAMESPACES),
  'unshare.flags': flags(NAMESPACES),
  'join_process.flags': flags(NAMESPACES),
  'open_ns.type': flags(NAMESPACES),
  'credentials.flags': flags(CREDENTIAL_FLAGS),
  bounding: flags(CAPABILITY_BITS),
  effective: flags(CAPABILITY_BITS),
  permitted: flags(CAPABILITY_BITS),
  inheritable: flags(CAPABILITY_BITS),
  ambient: flags(CAPABILITY_BITS),
  'seccomp.filter': (value) => `${(value as Uint8Array).length / SOCK_FILTER_BYTES} instructions`,
  'device.mode': fileMode,
  'pivot.mode': named(PIVOT_NAMES),
  'rootfs.how': named(ROOTFS_NAMES),
  'sync.point': named(POINT_NAMES),
  resource: named(RLIMIT_NAMES),
  hard: limit,
  soft: limit,
  'umask.mask': octal,
  'affinity.mask': cpus,
  'initial_affinity.mask': cpus,
  'memory_policy.nodes': list,
  'memory_policy.mode': memoryMode,
  'scheduler.policy': named(POLICY_NAMES),
  'scheduler.flags': flags(SCHEDULER_BITS),
  'io_priority.value': (value) => `${IO_NAMES.get((value as number) >> 13) ?? '?'}/${(value as number) & 0x1fff}`,
  // a single empty string means the program's own environment (see the op)
  'hook.env': (value) => ((value as readonly string[]).join() === '' ? "the program's" : plain(value)),
}

/** Arguments that are written even when they are zero or empty. */
const ALWAYS: ReadonlySet<string> = new Set([
  'oom_score_adj.value',
  'pivot.mode',
  'umask.mask',
  'rlimit.soft',
  'rlimit.hard',
  'raise_rlimit.hard',
  'rlimit.resource',
  'raise_rlimit.resource',
  'device.major',
  'device.minor',
  'credentials.uid',
  'credentials.gid',
  'credentials.bounding',
  'sysctl.value',
  'personality.domain',
  'affinity.mask',
  'initial_affinity.mask',
  'scheduler.policy',
  'memory_policy.mode',
  'hook.index',
])

/** Arguments that are never printed, since they follow from others. */
const NEVER: ReadonlySet<string> = new Set(['hook.stateHead', 'hook.stateTail'])

/** Describes a plan, one line per operation. */
export function describePlan(ops: readonly Op[]): string {
  const width = String(ops.length - 1).length
  return ops.map((op, index) => `${String(index).padStart(width)} ${describeOp(op)}\n`).join('')
}

/** Describes one operation. */
export function describeOp(op: Op): string {
  const values: Readonly<Record<string, unknown>> = op
  const words = [op.op as string]
  for (const name of Object.keys(OPS[op.op].args)) {
    const key = `${op.op}.${name}`
    const value = values[name]
    if (NEVER.has(key) || (isNothing(value) && !ALWAYS.has(key))) continue
    const format = FORMATTERS[key] ?? FORMATTERS[name] ?? plain
    words.push(`${name}=${format(value)}`)
  }
  if (op.note !== undefined) words.push(`(${op.note})`)
  return words.join(' ')
}

function isNothing(value: unknown): boolean {
  if (value instanceof Uint8Array) return value.length === 0
  return value === '' || value === 0 || value === 0n || (Array.isArray(value) && value.length === 0)
}

function plain(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(plain).join(', ')}]`
  return typeof value === 'string' ? JSON.stringify(value) : String(value)
}
