/**
 * Device rules, computed; other files apply them. In the OCI list a later rule overrides an earlier one, but the v1
 * controller and our eBPF program know only a default and exceptions from it. `emulate` folds the list into such a
 * policy, so that both versions decide alike. Invariant: a policy allows exactly what the list says, or `emulate`
 * refuses the list. No rule is applied wider than it was written.
 */
import { RuntimeError } from '../errors.ts'
import type { DeviceRule } from '../spec/types.ts'

/** mknod, read and write, as the kernel numbers them (BPF_DEVCG_ACC_*). */
const ACCESS = { m: 1, r: 2, w: 4 } as const
const ALL_ACCESS = ACCESS.m | ACCESS.r | ACCESS.w

/** A policy: the default, and the exceptions from it by device ("c 1:3", "b *:*") as access bits. */
export interface DevicePolicy {
  readonly allowByDefault: boolean
  readonly exceptions: ReadonlyMap<string, number>
}

/** One write to a v1 devices cgroup. */
export interface DeviceWrite {
  readonly file: 'devices.allow' | 'devices.deny'
  readonly value: string
}

/** The policy of a fresh v1 cgroup below an unrestricted parent. */
export const ALLOW_ALL: DevicePolicy = { allowByDefault: true, exceptions: new Map() }

/**
 * What every container may do in addition to its rules. It may make any node, use the nodes of a default /dev (null,
 * zero, full, random, urandom, tty, the pseudo terminals), and use /dev/net/tun.
 */
export const DEFAULT_DEVICE_RULES: readonly DeviceRule[] = [
  { allow: true, type: 'c', access: 'm' },
  { allow: true, type: 'b', access: 'm' },
  ...[3, 5, 7, 8, 9].map((minor) => ({ allow: true, type: 'c', major: 1, minor, access: 'rwm' }) as const),
  { allow: true, type: 'c', major: 5, minor: 0, access: 'rwm' },
  { allow: true, type: 'c', major: 136, access: 'rwm' },
  { allow: true, type: 'c', major: 5, minor: 2, access: 'rwm' },
  { allow: true, type: 'c', major: 10, minor: 200, access: 'rwm' },
]

/** The devices of one exception. */
export interface Pattern {
  readonly type: 'b' | 'c'
  /** a number in decimal, or "*" */
  readonly major: string
  readonly minor: string
}

/** Reads the key of an exception. */
export function patternOf(key: string): Pattern {
  const [type = '', numbers = ''] = key.split(' ')
  const [major = '*', minor = '*'] = numbers.split(':')
  return { type: type === 'b' ? 'b' : 'c', major, minor }
}

function covers(wide: Pattern, narrow: Pattern): boolean {
  return (
    wide.type === narrow.type &&
    (wide.major === '*' || wide.major === narrow.major) &&
    (wide.minor === '*' || wide.minor === narrow.minor)
  )
}

function overlaps(a: Pattern, b: Pattern): boolean {
  return (
    a.type === b.type &&
    (a.major === '*' || b.major === '*' || a.major === b.major) &&
    (a.minor === '*' || b.minor === '*' || a.minor === b.minor)
  )
}

function accessBits(text: string | undefined): number {
  let bits = 0
  for (const letter of text ?? '') {
    if (letter !== 'm' && letter !== 'r' && letter !== 'w') {
      throw new RuntimeError('InvalidArgument', `device rule has unknown access "${text}": only r, w and m are known`)
    }
    bits |= ACCESS[letter]
  }
  if (bits === 0)
    throw new RuntimeError('InvalidArgument', 'device rule has no access: at least one of r, w and m is needed')
  return bits
}

/** Access bits as letters. */
export function accessText(bits: number): string {
  return (['r', 'w', 'm'] as const).filter((letter) => bits & ACCESS[letter]).join('')
}

function numberText(value: number | undefined, name: string): string {
  if (value === undefined || value === -1) return '*'
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) {
    throw new RuntimeError('InvalidArgument', `device rule has ${name} number ${value}: not a 32-bit number`)
  }
  return String(value)
}

/**
 * Folds a rule list into a policy; the list starts from "deny everything".
 * @throws InvalidArgument for a list that no policy expresses
 */
export function emulate(rules: readonly DeviceRule[]): DevicePolicy {
  let allowByDefault = false
  const exceptions = new Map<string, number>()
  for (const rule of rules) {
    const type = rule.type ?? 'a'
    const bits = accessBits(rule.access)
    const numbers = `${numberText(rule.major, 'major')}:${numberText(rule.minor, 'minor')}`
    if (type !== 'a' && type !== 'b' && type !== 'c') {
      throw new RuntimeError('InvalidArgument', `device rule has type "${type}": only a, b and c are known`)
    }
    if (type === 'a' && numbers === '*:*' && bits === ALL_ACCESS) {
      allowByDefault = rule.allow
      exceptions.clear()
      continue
    }
    // the kernel takes any rule of type "a" for all devices and all access, so a narrower one is written as two rules
    for (const key of type === 'a' ? [`b ${numbers}`, `c ${numbers}`] : [`${type} ${numbers}`]) {
      if (rule.allow !== allowByDefault) exceptions.set(key, (exceptions.get(key) ?? 0) | bits)
      else removeException(exceptions, key, { bits, allow: rule.allow })
    }
  }
  return { allowByDefault, exceptions }
}

/** A rule that returns to the default removes its access from every exception that it covers. */
function removeException(
  exceptions: Map<string, number>,
  key: string,
  { bits, allow }: { readonly bits: number; readonly allow: boolean },
): void {
  const removed = patternOf(key)
  for (const [other, otherBits] of exceptions) {
    const pattern = patternOf(other)
    if ((otherBits & bits) === 0 || !overlaps(removed, pattern)) continue
    if (!covers(removed, pattern)) {
      const rule = `${allow ? 'allow' : 'deny'} ${key} ${accessText(bits)}`
      const hole = `it would be a hole in "${allow ? 'deny' : 'allow'} ${other} ${accessText(otherBits)}"`
      throw new RuntimeError('InvalidArgument', `cannot express the device rule "${rule}": ${hole}`)
    }
    const left = otherBits & ~bits
    if (left === 0) exceptions.delete(other)
    else exceptions.set(other, left)
  }
}

/**
 * Reads devices.list. A cgroup that allows by default says only "a *:* rwm", even when it has exceptions. The result is
 * then undefined: allowed by default, with unknown exceptions.
 */
export function parseDevicesList(text: string): DevicePolicy | undefined {
  const exceptions = new Map<string, number>()
  for (const line of text.split('\n')) {
    const [type, numbers, access] = line.split(' ')
    if (type === undefined || numbers === undefined || access === undefined) continue
    if (type === 'a') return undefined
    exceptions.set(`${type} ${numbers}`, accessBits(access))
  }
  return { allowByDefault: false, exceptions }
}

/**
 * The v1 writes that turn one policy into another. Only differences are written, and additions come before removals, so
 * that a device allowed by both is never denied in between. `from` is undefined for unknown exceptions; the cgroup is
 * then reset.
 */
export function toV1DeviceWrites(from: DevicePolicy | undefined, to: DevicePolicy): DeviceWrite[] {
  const widen = to.allowByDefault ? 'devices.deny' : 'devices.allow'
  const narrow = to.allowByDefault ? 'devices.allow' : 'devices.deny'
  const writes: DeviceWrite[] = []
  let have: ReadonlyMap<string, number> = new Map()
  if (from === undefined || from.allowByDefault !== to.allowByDefault) writes.push({ file: narrow, value: 'a' })
  else have = from.exceptions
  for (const [key, bits] of to.exceptions) {
    const added = bits & ~(have.get(key) ?? 0)
    if (added !== 0) writes.push({ file: widen, value: `${key} ${accessText(added)}` })
  }
  for (const [key, bits] of have) {
    const removed = bits & ~(to.exceptions.get(key) ?? 0)
    if (removed !== 0) writes.push({ file: narrow, value: `${key} ${accessText(removed)}` })
  }
  return writes
}

/** Whether two policies are equal, exception by exception. */
export function samePolicy(a: DevicePolicy, b: DevicePolicy): boolean {
  if (a.allowByDefault !== b.allowByDefault || a.exceptions.size !== b.exceptions.size) return false
  for (const [key, bits] of a.exceptions) if (b.exceptions.get(key) !== bits) return false
  return true
}

// opcodes of the kernel's BPF machine (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE)
const LOAD_WORD = 0x61
const AND = 0x54
const SHIFT_RIGHT = 0x74
const MOVE = 0xbc
const SET = 0xb7
const JUMP_IF_NOT_EQUAL = 0x56
const JUMP_IF_NOT_EQUAL_REGISTER = 0x5e
const JUMP_IF_EQUAL = 0x16
const EXIT = 0x95

const DEVICE_TYPE = { b: 1, c: 2 } as const
// r1 is the context, then scratch; r2 to r5 hold the device and the access that the process asks for
const [R0, R1, TYPE, WANTED, MAJOR, MINOR] = [0, 1, 2, 3, 4, 5] as const

interface Instruction {
  readonly code: number
  readonly to: number
  readonly from?: number
  readonly offset?: number
  readonly value?: number
}

/**
 * The eBPF program of a policy. An allowing exception must cover all of the wanted access; a denying one applies when
 * it covers any of it. The v1 controller decides in the same way.
 */
export function toEbpf(policy: DevicePolicy): Uint8Array {
  const program: Instruction[] = [
    // struct bpf_cgroup_dev_ctx: access_type (low half the type, high half the access), major, minor
    { code: LOAD_WORD, to: TYPE, from: R1, offset: 0 },
    { code: MOVE, to: WANTED, from: TYPE },
    { code: AND, to: TYPE, value: 0xffff },
    { code: SHIFT_RIGHT, to: WANTED, value: 16 },
    { code: LOAD_WORD, to: MAJOR, from: R1, offset: 4 },
    { code: LOAD_WORD, to: MINOR, from: R1, offset: 8 },
  ]
  for (const [key, bits] of policy.exceptions) {
    const pattern = patternOf(key)
    const tests: Instruction[] = [{ code: JUMP_IF_NOT_EQUAL, to: TYPE, value: DEVICE_TYPE[pattern.type] }]
    if (pattern.major !== '*') tests.push({ code: JUMP_IF_NOT_EQUAL, to: MAJOR, value: Number(pattern.major) })
    if (pattern.minor !== '*') tests.push({ code: JUMP_IF_NOT_EQUAL, to: MINOR, value: Number(pattern.minor) })
    if (bits !== ALL_ACCESS) {
      tests.push({ code: MOVE, to: R1, from: WANTED }, { code: AND, to: R1, value: bits })
      if (policy.allowByDefault) tests.push({ code: JUMP_IF_EQUAL, to: R1, value: 0 })
      else tests.push({ code: JUMP_IF_NOT_EQUAL_REGISTER, to: R1, from: WANTED })
    }
    const end = tests.length + 2
    for (const [i, test] of tests.entries()) {
      const jumps = test.code !== MOVE && test.code !== AND
      program.push(jumps ? { ...test, offset: end - i - 1 } : test)
    }
    program.push({ code: SET, to: R0, value: policy.allowByDefault ? 0 : 1 }, { code: EXIT, to: R0 })
  }
  program.push({ code: SET, to: R0, value: policy.allowByDefault ? 1 : 0 }, { code: EXIT, to: R0 })
  return encodeProgram(program)
}

function encodeProgram(program: readonly Instruction[]): Uint8Array {
  const bytes = new Uint8Array(program.length * 8)
  const view = new DataView(bytes.buffer)
  for (const [i, instruction] of program.entries()) {
    view.setUint8(i * 8, instruction.code)
    view.setUint8(i * 8 + 1, ((instruction.from ?? 0) << 4) | instruction.to)
    view.setInt16(i * 8 + 2, instruction.offset ?? 0, true)
    view.setUint32(i * 8 + 4, instruction.value ?? 0, true)
  }
  return bytes
}
