/**
 * Profiles compiled by the host's libseccomp, run call by call and compared with what the profile says. The reference
 * below reads the profile directly: it shares nothing with the compiler but the numbers of the system calls.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterAll, describe, expect, test } from 'vitest'
import { readCached } from '../../../runtime/seccomp/cache.ts'
import { cacheKey, compileSeccomp, compileSeccompInTurns } from '../../../runtime/seccomp/compile.ts'
import { parseSpec } from '../../../runtime/spec/load.ts'
import type { LinuxSeccomp, SeccompArg } from '../../../runtime/spec/types.ts'
import { resolveSyscallOn } from '../../../runtime/sys/libseccomp.ts'
import { type Call, runBpf } from '../../support/bpf.ts'
import { specText } from '../spec/fixture.ts'
import { defaultProfile } from './profile.ts'

const X86_64 = 0xc000003e
const X86 = 0x40000003
const TOKEN_X32 = 0x4000003e
const AARCH64 = 0xc00000b7
const X32 = 0x40000000
const ALLOW = 0x7fff0000
const KILL = 0
const errno = (number: number) => 0x00050000 | number
const EPERM = errno(1)
const ENOSYS = errno(38)

const installed = ['/usr/lib/x86_64-linux-gnu', '/usr/lib64', '/lib64', '/usr/lib'].some((directory) =>
  existsSync(join(directory, 'libseccomp.so.2')),
)
const onX86 = process.arch === 'x64' && installed

function parsed(profile: object): LinuxSeccomp {
  const { seccomp } = parseSpec(
    specText((spec) => (spec.linux.seccomp = profile)),
    'test',
  ).linux
  if (seccomp === undefined) throw new Error('an empty profile')
  return seccomp
}

function holds({ index, value, valueTwo, op }: SeccompArg, args: readonly bigint[]): boolean {
  const datum = args[index] ?? 0n
  switch (op) {
    case 'SCMP_CMP_EQ':
      return datum === value
    case 'SCMP_CMP_NE':
      return datum !== value
    case 'SCMP_CMP_LT':
      return datum < value
    case 'SCMP_CMP_LE':
      return datum <= value
    case 'SCMP_CMP_GE':
      return datum >= value
    case 'SCMP_CMP_GT':
      return datum > value
    case 'SCMP_CMP_MASKED_EQ':
      return (datum & value) === valueTwo
    default:
      return op satisfies never
  }
}

/**
 * What a profile of ALLOW and ERRNO rules says about a call on one architecture; conditions of a rule are on
 * different arguments.
 */
function expected(profile: LinuxSeccomp, token: number): (nr: number, args: readonly bigint[]) => number {
  const byNumber = new Map<number, { result: number; args: readonly SeccompArg[] }[]>()
  for (const { names, action, errnoRet, args } of profile.syscalls) {
    for (const name of names) {
      const nr = resolveSyscallOn(token, name)
      if (nr === undefined) continue
      const rules = byNumber.get(nr) ?? []
      rules.push({ result: action === 'SCMP_ACT_ALLOW' ? ALLOW : errno(errnoRet ?? 1), args })
      byNumber.set(nr, rules)
    }
  }
  const last = Math.max(...byNumber.keys())
  return (nr, args) => {
    if (nr > last) return ENOSYS
    const rules = byNumber.get(nr) ?? []
    return rules.find((rule) => rule.args.every((arg) => holds(arg, args)))?.result ?? EPERM
  }
}

const INTERESTING = [
  0n,
  1n,
  2n,
  7n,
  8n,
  9n,
  39n,
  40n,
  41n,
  0x1ffffn,
  0x20000n,
  0x20008n,
  0x20009n,
  0x10000000n,
  0x7e020000n,
  0x80000000n,
  0xffffffffn,
  0x100000000n,
  0x100000028n,
  0xffffffff00000000n,
  0xffffffffffffffffn,
]

describe.runIf(onX86)('the default profile', () => {
  const profile = parsed(defaultProfile())
  const { flags, filter } = compileSeccomp(profile)
  const run = (call: Call) => runBpf(filter, call)

  test('fits the kernel, with the default flags', () => {
    expect(filter.length / 8).toBeLessThan(4096)
    expect(filter.length / 8).toBeGreaterThan(300)
    expect(flags).toBe(4)
  })

  test('every x86-64 number, with every interesting first argument', () => {
    const reference = expected(profile, X86_64)
    for (let nr = 0; nr <= 600; nr++) {
      for (const first of INTERESTING) {
        const args = [first, 0n, 0n, 0n, 0n, 0n]
        expect(run({ arch: X86_64, nr, args }), `syscall ${nr}(${first})`).toBe(reference(nr, args))
      }
    }
  })

  test('every x32 number, of whose arguments libseccomp compares the low words', () => {
    const reference = expected(profile, TOKEN_X32)
    for (let nr = X32; nr <= X32 + 700; nr++) {
      for (const first of INTERESTING) {
        const args = [first & 0xffffffffn, 0n, 0n, 0n, 0n, 0n]
        expect(run({ arch: X86_64, nr, args }), `x32 syscall ${nr - X32}(${first})`).toBe(reference(nr, args))
      }
    }
  })

  test('every i386 number but those of socketcall(2) and ipc(2), of which only the low words count', () => {
    const reference = expected(profile, X86)
    const multiplexed = (nr: number) => nr === 337 || nr === 345 || (nr >= 359 && nr <= 373) || (nr >= 393 && nr <= 402)
    for (let nr = 0; nr <= 600; nr++) {
      if (multiplexed(nr)) continue
      for (const first of INTERESTING) {
        const low = [first & 0xffffffffn, 0n, 0n, 0n, 0n, 0n]
        expect(run({ arch: X86, nr, args: low }), `i386 syscall ${nr}(${first})`).toBe(reference(nr, low))
      }
    }
  })

  test.each([1000, 5000, 0x3fffffff])('number %i, which no kernel has yet, does not exist', (nr) => {
    expect(run({ arch: X86_64, nr })).toBe(ENOSYS)
    expect(run({ arch: X86, nr })).toBe(ENOSYS)
  })

  test('another architecture is killed', () => {
    for (const nr of [0, 63, 400, 1000]) expect(run({ arch: AARCH64, nr })).toBe(KILL)
  })
})

describe.runIf(onX86)('compileSeccomp()', () => {
  const run = (profile: object, call: Call) => runBpf(compileSeccomp(parsed(profile)).filter, call)
  const nr = (name: string) => resolveSyscallOn(X86_64, name) ?? -1
  const rule = (name: string, action = 'SCMP_ACT_ALLOW', args: object[] = []) => ({ names: [name], action, args })

  test.each<[string, string, bigint, bigint, allowed: bigint[], refused: bigint[]]>([
    ['EQ', 'SCMP_CMP_EQ', 0x100000005n, 0n, [0x100000005n], [5n, 0x200000005n, 0x100000004n]],
    ['NE', 'SCMP_CMP_NE', 0x100000005n, 0n, [5n, 0n, 0x200000005n], [0x100000005n]],
    ['LT', 'SCMP_CMP_LT', 0x100000000n, 0n, [0n, 0xffffffffn], [0x100000000n, 0xffffffffffffffffn]],
    ['LE', 'SCMP_CMP_LE', 0x100000000n, 0n, [0n, 0x100000000n], [0x100000001n, 0x200000000n]],
    ['GE', 'SCMP_CMP_GE', 0x100000000n, 0n, [0x100000000n, 0x200000000n], [0n, 0xffffffffn]],
    ['GT', 'SCMP_CMP_GT', 0xffffffffn, 0n, [0x100000000n, 0x1ffffffffn], [0xffffffffn, 0n]],
    ['MASKED_EQ', 'SCMP_CMP_MASKED_EQ', 0xff00000000n, 0x100000000n, [0x100000000n, 0x1ffffffffn], [0n, 0x1100000000n]],
  ])('compares all 64 bits: %s', (_, op, value, valueTwo, allowed, refused) => {
    const text = specText((spec) => {
      spec.linux.seccomp = {
        defaultAction: 'SCMP_ACT_ERRNO',
        syscalls: [rule('read', 'SCMP_ACT_ALLOW', [{ index: 2, value: 'VALUE', valueTwo: 'TWO', op }])],
      }
    })
    const spec = parseSpec(text.replace('"VALUE"', String(value)).replace('"TWO"', String(valueTwo)), 'test')
    if (spec.linux.seccomp === undefined) throw new Error('no profile')
    const { filter } = compileSeccomp(spec.linux.seccomp)
    const result = (third: bigint) => runBpf(filter, { arch: X86_64, nr: 0, args: [0n, 0n, third] })
    for (const third of allowed) expect(result(third), `allowed ${third}`).toBe(ALLOW)
    for (const third of refused) expect(result(third), `refused ${third}`).toBe(EPERM)
  })

  test('conditions on different arguments hold together, on the same one each alone', () => {
    const eq = (index: number, value: number) => ({ index, value, op: 'SCMP_CMP_EQ' })
    const profile = {
      defaultAction: 'SCMP_ACT_ERRNO',
      syscalls: [
        rule('read', 'SCMP_ACT_ALLOW', [eq(0, 1), eq(1, 2)]),
        rule('write', 'SCMP_ACT_ALLOW', [eq(0, 1), eq(0, 2)]),
      ],
    }
    const read = (a: bigint, b: bigint) => run(profile, { arch: X86_64, nr: nr('read'), args: [a, b] })
    expect([read(1n, 2n), read(1n, 3n), read(0n, 2n)]).toEqual([ALLOW, EPERM, EPERM])
    const write = (a: bigint) => run(profile, { arch: X86_64, nr: nr('write'), args: [a] })
    expect([write(1n), write(2n), write(3n)]).toEqual([ALLOW, ALLOW, EPERM])
  })

  test('an unconditional rule wins over a conditional one', () => {
    const profile = {
      defaultAction: 'SCMP_ACT_ERRNO',
      syscalls: [rule('read'), rule('read', 'SCMP_ACT_ALLOW', [{ index: 0, value: 1, op: 'SCMP_CMP_EQ' }])],
    }
    expect(run(profile, { arch: X86_64, nr: 0, args: [9n] })).toBe(ALLOW)
  })

  test.each([
    [{ defaultAction: 'SCMP_ACT_ALLOW' }, 'mount', ALLOW],
    [{ defaultAction: 'SCMP_ACT_ERRNO', defaultErrnoRet: 6 }, 'mount', errno(6)],
    [{ defaultAction: 'SCMP_ACT_KILL_PROCESS' }, 'mount', 0x80000000],
    [{ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule('mount', 'SCMP_ACT_KILL')] }, 'mount', KILL],
    [{ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule('mount', 'SCMP_ACT_TRAP')] }, 'mount', 0x00030000],
    [{ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule('mount', 'SCMP_ACT_LOG')] }, 'mount', 0x7ffc0000],
    [
      { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ ...rule('mount', 'SCMP_ACT_TRACE'), errnoRet: 7 }] },
      'mount',
      0x7ff00007,
    ],
    [
      { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ ...rule('mount', 'SCMP_ACT_ERRNO'), errnoRet: 100 }] },
      'mount',
      errno(100),
    ],
    // a rule that says what the default says
    [{ defaultAction: 'SCMP_ACT_ERRNO', syscalls: [rule('mount', 'SCMP_ACT_ERRNO'), rule('read')] }, 'mount', EPERM],
    // a name that no library knows
    [{ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule('frobnicate', 'SCMP_ACT_KILL')] }, 'mount', ALLOW],
  ])('%j: %s gives %i', (profile, name, result) => {
    expect(run(profile, { arch: X86_64, nr: nr(name) })).toBe(result)
  })

  test('a call can be handed to an agent', () => {
    const profile = parsed({
      defaultAction: 'SCMP_ACT_ALLOW',
      listenerPath: '/run/agent',
      syscalls: [rule('mkdir', 'SCMP_ACT_NOTIFY')],
    })
    const { flags, filter } = compileSeccomp(profile)
    expect(flags & 8).toBe(8)
    expect(runBpf(filter, { arch: X86_64, nr: nr('mkdir') })).toBe(0x7fc00000)
    expect(runBpf(filter, { arch: X86_64, nr: nr('read') })).toBe(ALLOW)
  })

  test('names that the library does not know are told', () => {
    const profile = parsed({
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [{ ...rule('frobnicate', 'SCMP_ACT_KILL'), names: ['frobnicate', 'mount'] }, rule('frobnicate')],
    })
    const told: (readonly string[])[] = []
    compileSeccomp(profile, { onUnknown: (names) => told.push(names) })
    expect(told).toEqual([['frobnicate']])
  })

  test('an open profile has no call that does not exist', () => {
    const profile = { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule('mount', 'SCMP_ACT_ERRNO')] }
    expect(run(profile, { arch: X86_64, nr: 5000 })).toBe(ALLOW)
  })

  test('without x32 in the profile its calls are killed, new or not', () => {
    const profile = { defaultAction: 'SCMP_ACT_ERRNO', syscalls: [rule('read')] }
    for (const number of [X32, X32 + 1, X32 + 5000]) expect(run(profile, { arch: X86_64, nr: number })).toBe(KILL)
  })

  test('two rules that contradict each other are refused', async () => {
    const profile = parsed({
      defaultAction: 'SCMP_ACT_ERRNO',
      syscalls: [
        rule('read', 'SCMP_ACT_ALLOW', [{ index: 0, value: 1, op: 'SCMP_CMP_EQ' }]),
        rule('read', 'SCMP_ACT_LOG', [{ index: 0, value: 1, op: 'SCMP_CMP_EQ' }]),
      ],
    })
    const failure = /cannot add a rule for "read" to the seccomp filter: EEXIST/
    expect(() => compileSeccomp(profile)).toThrow(failure)
    await expect(compileSeccompInTurns(profile)).rejects.toThrow(failure)
  })
})

describe.runIf(onX86)('the cache', () => {
  const root = mkdtempSync(join(tmpdir(), 'seccomp-'))
  afterAll(() => rmSync(root, { recursive: true }))
  let unique = 0
  /** a profile that no other test has compiled, so that memory does not answer */
  const fresh = () =>
    parsed({
      defaultAction: 'SCMP_ACT_ERRNO',
      syscalls: [
        { names: ['read'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: unique++, op: 'SCMP_CMP_EQ' }] },
      ],
    })

  test('keeps one file for a profile, in a directory that is ours alone', () => {
    const cacheDir = join(root, 'deep/er')
    const profile = fresh()
    const filter = compileSeccomp(profile, { cacheDir })
    expect(readdirSync(cacheDir)).toEqual([cacheKey(profile)])
    expect(statSync(cacheDir).mode & 0o777).toBe(0o700)
    expect(statSync(join(cacheDir, cacheKey(profile))).mode & 0o777).toBe(0o600)
    expect(readCached(join(cacheDir, cacheKey(profile)))).toEqual({
      flags: filter.flags,
      filter: Buffer.from(filter.filter),
    })
  })

  test('has the same from turns of the event loop between which others have theirs', async () => {
    // a default that no other test has: memory does not answer for either
    const long = (value: number) => parsed({ ...defaultProfile(), defaultErrnoRet: value })
    let turns = 0
    const compiled = compileSeccompInTurns(long(77)).then((filter) => ({ filter }))
    let result: Awaited<typeof compiled> | undefined
    for (; result === undefined; turns++) result = await Promise.race([compiled, nextTurn(undefined)])
    expect(turns).toBeGreaterThan(10)
    const same = JSON.stringify([...compileSeccomp(long(78)).filter])
    // ERRNO with 77 is 0x0005004d in a program of little-endian words
    const words = new Uint32Array(Uint8Array.from(result.filter.filter).buffer).map((word) =>
      word === 0x5004d ? 0x5004e : word,
    )
    expect(JSON.stringify([...new Uint8Array(words.buffer)])).toBe(same)
  })

  test('answers from memory the second time', () => {
    const profile = fresh()
    expect(compileSeccomp(profile)).toBe(compileSeccomp(profile))
  })

  test('is used: what the file says is what is loaded', () => {
    const cacheDir = join(root, 'used')
    const first = fresh()
    const second = fresh()
    compileSeccomp(first, { cacheDir })
    const bytes = readFileSync(join(cacheDir, cacheKey(first)))
    writeFileSync(join(cacheDir, cacheKey(second)), bytes)
    expect(compileSeccomp(second, { cacheDir }).filter).toEqual(bytes.subarray(44))
  })

  test.each<[string, (bytes: Buffer) => Buffer]>([
    ['empty', () => Buffer.alloc(0)],
    ['cut short', (bytes) => bytes.subarray(0, bytes.length - 8)],
    ['too long', (bytes) => Buffer.concat([bytes, Buffer.alloc(8)])],
    ['of another format', (bytes) => flip(bytes, 0)],
    ['damaged in its flags', (bytes) => flip(bytes, 4)],
    ['damaged in its length', (bytes) => flip(bytes, 8)],
    ['damaged in its digest', (bytes) => flip(bytes, 20)],
    ['damaged in its program', (bytes) => flip(bytes, bytes.length - 4)],
  ])('a file that is %s is made anew', (what, damage) => {
    const cacheDir = join(root, what)
    const donor = fresh()
    const profile = fresh()
    compileSeccomp(donor, { cacheDir })
    const path = join(cacheDir, cacheKey(profile))
    writeFileSync(path, damage(readFileSync(join(cacheDir, cacheKey(donor)))))
    expect(readCached(path)).toBeUndefined()
    const { filter } = compileSeccomp(profile, { cacheDir })
    expect(readCached(path)?.filter).toEqual(Buffer.from(filter))
    expect(readdirSync(cacheDir).sort()).toEqual([cacheKey(donor), cacheKey(profile)].sort())
  })

  test('a directory that cannot be written costs nothing but time', () => {
    expect(compileSeccomp(fresh(), { cacheDir: '/proc/none' }).filter.length).toBeGreaterThan(0)
  })

  test('the key depends on everything that the filter depends on', () => {
    const base = parsed(defaultProfile())
    const variants: LinuxSeccomp[] = [
      base,
      { ...base, defaultErrnoRet: 2 },
      { ...base, defaultAction: 'SCMP_ACT_KILL' },
      { ...base, architectures: [] },
      { ...base, flags: [] },
      { ...base, syscalls: base.syscalls.slice(1) },
      { ...base, syscalls: base.syscalls.map((rule) => ({ ...rule, errnoRet: 3 })) },
    ]
    expect(new Set(variants.map(cacheKey)).size).toBe(variants.length)
    expect(cacheKey(parsed(defaultProfile()))).toBe(cacheKey(base))
  })

  function flip(bytes: Buffer, at: number): Buffer {
    const copy = Buffer.from(bytes)
    copy[at] = (copy[at] ?? 0) ^ 1
    return copy
  }
})
