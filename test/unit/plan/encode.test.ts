/** The bytes of a plan, read back by a second implementation of the form that init-plan.ts describes. */
import { describe, expect, test } from 'vitest'
import { type ArgKind, LIMITS, OPS, type Op, PLAN_MAGIC } from '../../../proto/init-plan.ts'
import { PLAN_SCHEMA_HASH } from '../../../proto/plan-hash.gen.ts'
import { describePlan } from '../../../runtime/plan/describe.ts'
import { encodePlan } from '../../../runtime/plan/encode.ts'
import { addUserNamespace } from '../spec/fixture.ts'
import { createPlan, execPlan, FILTER } from './support.ts'

function decodePlan(bytes: Uint8Array): Record<string, unknown>[] {
  const data = Buffer.from(bytes)
  let at = 0
  /** moves over the next bytes and returns where they start */
  const skip = (length: number) => {
    at += length
    return at - length
  }
  const u32 = () => data.readUInt32LE(skip(4))
  const take = (length: number) => {
    const start = skip(length)
    return data.subarray(start, start + length)
  }
  const str = () => {
    const text = take(u32()).toString('utf8')
    expect(take(1)[0]).toBe(0)
    return text
  }
  const read: Record<ArgKind, () => unknown> = {
    u32,
    i32: () => data.readInt32LE(skip(4)),
    u64: () => data.readBigUInt64LE(skip(8)),
    str,
    bytes: () => new Uint8Array(take(u32())),
    strs: () => Array.from({ length: u32() }, str),
    u32s: () => Array.from({ length: u32() }, u32),
  }
  expect([u32(), u32(), u32()]).toEqual([PLAN_MAGIC, PLAN_SCHEMA_HASH, bytes.length])
  const names = new Map(Object.entries(OPS).map(([name, { code }]) => [code as number, name as keyof typeof OPS]))
  const ops = Array.from({ length: u32() }, () => {
    const start = at
    const code = data.readUInt16LE(at)
    expect(data.readUInt16LE(at + 2)).toBe(0)
    at += 4
    const size = u32()
    const op = names.get(code)
    if (op === undefined) throw new Error(`code ${code}`)
    const fields = Object.entries(OPS[op].args).map(([name, kind]) => [name, read[kind as ArgKind]()])
    expect(at - start).toBe(size)
    return { op, ...Object.fromEntries(fields) }
  })
  expect(at).toBe(bytes.length)
  return ops
}

const withoutOrigin = (ops: readonly Op[]) => ops.map(({ origin: _, ...op }) => op)

describe('encodePlan()', () => {
  test.each([
    ['the default container', createPlan(undefined, { seccomp: FILTER })],
    ['a container with a user namespace', createPlan(addUserNamespace)],
    ['an exec', execPlan({ env: ['A=ü€😀', 'B='], args: ['echo', ''], user: { uid: 4294967294, gid: 1 } })],
    ['no operations', []],
  ])('%s is read back as it was', (_, ops) => {
    expect(decodePlan(encodePlan(ops))).toEqual(withoutOrigin(ops))
  })

  test.each<[string, Op]>([
    ['a negative i32', { op: 'oom_score_adj', value: -1000 }],
    ['the largest u64', { op: 'rlimit', resource: 4, soft: 0n, hard: 0xffffffffffffffffn }],
    ['bytes', { op: 'seccomp', flags: 6, filter: new Uint8Array([0, 1, 2, 255, 0, 0, 0, 0]) }],
    ['a string that makes the buffer grow', { op: 'hostname', name: '€'.repeat(100_000) }],
  ])('%s survives', (_, op) => {
    expect(decodePlan(encodePlan([op]))).toEqual([op])
  })

  test('the same operations give the same bytes', () => {
    expect(encodePlan(createPlan())).toEqual(encodePlan(createPlan()))
  })

  test('a text that is too long is refused with its place in the spec', () => {
    const ops: Op[] = [{ op: 'hostname', name: 'x'.repeat(LIMITS.STRING_MAX_BYTES + 1), origin: '/hostname' }]
    expect(() => encodePlan(ops)).toThrow(/^hostname: name is 1048577 bytes long, more than 1048576 \(at \/hostname\)$/)
  })

  test('more operations than the helper takes are refused', () => {
    const ops = Array.from({ length: LIMITS.PLAN_MAX_OPS + 1 }, () => ({ op: 'ready' }) as const)
    expect(() => encodePlan(ops)).toThrow(/the configuration is too large/)
  })

  test.each<[string, Op]>([
    ['a NUL byte', { op: 'hostname', name: 'a\0b' }],
    ['a negative u32', { op: 'umask', mask: -1 }],
    ['a fraction', { op: 'umask', mask: 1.5 }],
    ['a u64 beyond its range', { op: 'unshare', flags: 1n << 64n }],
  ])('%s is a bug of the caller, not a plan', (_, op) => {
    expect(() => encodePlan([op])).toThrow(Error)
  })
})

describe('describePlan()', () => {
  test('numbers the lines as the helper counts operations', () => {
    const ops = createPlan()
    const lines = describePlan(ops).trimEnd().split('\n')
    expect(lines).toHaveLength(ops.length)
    for (const [index, line] of lines.entries())
      expect(line.trimStart()).toMatch(new RegExp(`^${index} ${ops[index]?.op}( |$)`))
  })

  test('escapes text', () => {
    expect(describePlan([{ op: 'hostname', name: 'a"\n\u001b[31m' }])).toBe('0 hostname name="a\\"\\n\\u001b[31m"\n')
  })
})
