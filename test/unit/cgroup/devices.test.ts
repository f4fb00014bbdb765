/**
 * Device rules: the policy that a list of rules folds into, the v1 writes that lead to it, and the eBPF program.
 * A small interpreter runs that program against the policy, for every device and access that a rule mentions.
 */
import { describe, expect, test } from 'vitest'
import {
  ALLOW_ALL,
  DEFAULT_DEVICE_RULES,
  type DevicePolicy,
  emulate,
  parseDevicesList,
  samePolicy,
  toEbpf,
  toV1DeviceWrites,
} from '../../../runtime/cgroup/devices.ts'
import type { DeviceRule } from '../../../runtime/spec/types.ts'

const DENY_ALL: DeviceRule = { allow: false, access: 'rwm' }
const ALLOW_EVERYTHING: DeviceRule = { allow: true, type: 'a', access: 'rwm' }

function rule(text: string): DeviceRule {
  const [verb, type, numbers, access] = text.split(' ')
  const [major, minor] = (numbers ?? '*:*').split(':').map((part) => (part === '*' ? -1 : Number(part)))
  return {
    allow: verb === 'allow',
    type: type as 'a' | 'b' | 'c',
    major: major ?? -1,
    minor: minor ?? -1,
    access: access ?? '',
  }
}

function exceptions(...rules: string[]): Record<string, number> {
  return Object.fromEntries(emulate(rules.map(rule)).exceptions)
}

describe('emulate', () => {
  test('starts from denying everything', () => {
    expect(emulate([])).toEqual({ allowByDefault: false, exceptions: new Map() })
  })

  test('merges the access of rules for one device', () => {
    expect(exceptions('allow c 1:3 r', 'allow c 1:3 w')).toEqual({ 'c 1:3': 6 })
  })

  test('a later deny takes access away, and the device with the last of it', () => {
    expect(exceptions('allow c 1:3 rwm', 'deny c 1:3 w')).toEqual({ 'c 1:3': 3 })
    expect(exceptions('allow c 1:3 rw', 'deny c 1:3 rwm')).toEqual({})
  })

  test('a deny with a wildcard reaches every device that it covers', () => {
    expect(exceptions('allow c 1:3 rw', 'allow c 2:3 rw', 'deny c 1:* rwm')).toEqual({ 'c 2:3': 6 })
  })

  test.each([
    ['allow c *:* rwm', 'deny c 1:3 r'],
    ['allow c 1:* rw', 'deny c *:3 w'],
  ])('a hole in a wildcard is refused: %s, %s', (first, second) => {
    expect(() => emulate([rule(first), rule(second)])).toThrow(
      /cannot express the device rule "deny .*": it would be a hole in "allow /,
    )
  })

  test('what a wildcard does not grant is no hole in it', () => {
    expect(exceptions('allow c *:* m', 'allow c 1:3 rw', 'deny c 1:3 rw')).toEqual({ 'c *:*': 1 })
  })

  test('a rule for all devices with all access starts over', () => {
    const policy = emulate([rule('allow c 1:3 rwm'), ALLOW_EVERYTHING, rule('deny c 1:9 w')])
    expect(policy).toEqual({ allowByDefault: true, exceptions: new Map([['c 1:9', 4]]) })
  })

  test('a rule for all devices with less than all access means no more than it says', () => {
    expect(exceptions('allow a *:* m')).toEqual({ 'b *:*': 1, 'c *:*': 1 })
  })

  test.each([
    [{ allow: true, type: 'c', major: 1, minor: 3, access: '' }, /has no access/],
    [{ allow: true, type: 'c', major: 1, minor: 3, access: 'rx' }, /unknown access "rx"/],
    [{ allow: true, type: 'c', major: 1, minor: 3 }, /has no access/],
    [{ allow: true, type: 'c', major: 2 ** 32, minor: 3, access: 'r' }, /major number 4294967296/],
    [{ allow: true, type: 'c', major: 1.5, minor: 3, access: 'r' }, /major number 1.5/],
  ] as const)('refuses %j', (bad, message) => {
    expect(() => emulate([bad])).toThrow(message)
  })

  test('the default rules survive a spec that denies everything', () => {
    const policy = emulate([DENY_ALL, ...DEFAULT_DEVICE_RULES])
    expect(policy.allowByDefault).toBe(false)
    expect([...policy.exceptions.keys()].sort()).toEqual(
      ['b *:*', 'c *:*', 'c 1:3', 'c 1:5', 'c 1:7', 'c 1:8', 'c 1:9', 'c 5:0', 'c 136:*', 'c 5:2', 'c 10:200'].sort(),
    )
  })
})

describe('toV1DeviceWrites', () => {
  test('a fresh cgroup is closed first and then opened rule by rule', () => {
    expect(toV1DeviceWrites(ALLOW_ALL, emulate([DENY_ALL, rule('allow c 1:3 rw'), rule('allow b *:* m')]))).toEqual([
      { file: 'devices.deny', value: 'a' },
      { file: 'devices.allow', value: 'c 1:3 rw' },
      { file: 'devices.allow', value: 'b *:* m' },
    ])
  })

  test('a fresh cgroup that may do everything needs no write', () => {
    expect(toV1DeviceWrites(ALLOW_ALL, emulate([ALLOW_EVERYTHING, ...DEFAULT_DEVICE_RULES]))).toEqual([])
  })

  test('only the difference is written, what is new before what is taken away', () => {
    const from = emulate([rule('allow c 1:3 rw'), rule('allow c 1:5 rwm')])
    const to = emulate([rule('allow c 1:3 rm'), rule('allow c 1:8 r')])
    expect(toV1DeviceWrites(from, to)).toEqual([
      { file: 'devices.allow', value: 'c 1:3 m' },
      { file: 'devices.allow', value: 'c 1:8 r' },
      { file: 'devices.deny', value: 'c 1:3 w' },
      { file: 'devices.deny', value: 'c 1:5 rwm' },
    ])
    expect(toV1DeviceWrites(to, to)).toEqual([])
  })

  test('a cgroup with unknown exceptions is reset', () => {
    expect(toV1DeviceWrites(undefined, { allowByDefault: true, exceptions: new Map([['c 1:3', 4]]) })).toEqual([
      { file: 'devices.allow', value: 'a' },
      { file: 'devices.deny', value: 'c 1:3 w' },
    ])
  })
})

test('devices.list is read back as the policy that wrote it', () => {
  const policy = emulate([rule('allow c 1:3 rw'), rule('allow b *:* m')])
  const parsed = parseDevicesList('c 1:3 rw\nb *:* m\n')
  expect(parsed && samePolicy(parsed, policy)).toBe(true)
  expect(parseDevicesList('a *:* rwm\n')).toBeUndefined()
  expect(parseDevicesList('')).toEqual({ allowByDefault: false, exceptions: new Map() })
})

/** What the policy means, said once more without instructions. */
function allowed(policy: DevicePolicy, type: 'b' | 'c', major: number, minor: number, access: number): boolean {
  for (const [key, bits] of policy.exceptions) {
    const [keyType, numbers = ''] = key.split(' ')
    const [keyMajor, keyMinor] = numbers.split(':')
    const matches =
      keyType === type &&
      (keyMajor === '*' || Number(keyMajor) === major) &&
      (keyMinor === '*' || Number(keyMinor) === minor)
    if (!matches) continue
    if (policy.allowByDefault ? (bits & access) !== 0 : (bits & access) === access) return !policy.allowByDefault
  }
  return policy.allowByDefault
}

/** Runs a program of toEbpf as the kernel would; an unknown instruction or a missing exit is a failure. */
function run(program: Uint8Array, context: readonly [number, number, number]): number {
  const view = new DataView(program.buffer, program.byteOffset, program.byteLength)
  const r = new Array<number>(11).fill(0)
  for (let pc = 0; pc * 8 < program.length; pc++) {
    const code = view.getUint8(pc * 8)
    const to = view.getUint8(pc * 8 + 1) & 15
    const from = view.getUint8(pc * 8 + 1) >> 4
    const offset = view.getInt16(pc * 8 + 2, true)
    const value = view.getUint32(pc * 8 + 4, true)
    if (code === 0x61) r[to] = context[offset / 4] ?? Number.NaN
    else if (code === 0x54) r[to] = (r[to]! & value) >>> 0
    else if (code === 0x74) r[to] = r[to]! >>> value
    else if (code === 0xbc) r[to] = r[from]!
    else if (code === 0xb7) r[to] = value
    else if (code === 0x56) pc += r[to] !== value ? offset : 0
    else if (code === 0x5e) pc += r[to] !== r[from] ? offset : 0
    else if (code === 0x16) pc += r[to] === value ? offset : 0
    else if (code === 0x95) return r[0]!
    else throw new Error(`instruction ${pc} has unknown code ${code}`)
  }
  throw new Error('the program has no end')
}

describe('toEbpf', () => {
  const lists: Record<string, readonly DeviceRule[]> = {
    nothing: [],
    everything: [ALLOW_EVERYTHING],
    'a default container': [DENY_ALL, ...DEFAULT_DEVICE_RULES],
    'all but some': [ALLOW_EVERYTHING, rule('deny c 1:3 w'), rule('deny b 8:* rwm'), rule('deny c *:7 r')],
    'large numbers': [rule('allow c 4294967295:4294967295 rwm'), rule('allow b 4095:1048575 r')],
  }
  test.each(Object.keys(lists))('decides as the policy does: %s', (name) => {
    const policy = emulate(lists[name]!)
    const program = toEbpf(policy)
    const numbers = [0, 1, 2, 3, 5, 7, 8, 9, 10, 136, 200, 201, 4095, 1048575, 4294967295]
    for (const type of ['b', 'c'] as const) {
      for (const major of numbers) {
        for (const minor of numbers) {
          for (let access = 1; access < 8; access++) {
            const context = [access * 65536 + (type === 'b' ? 1 : 2), major, minor] as const
            const verdict = run(program, context) === 1
            if (verdict !== allowed(policy, type, major, minor, access)) {
              expect.fail(`${type} ${major}:${minor} access ${access}: ${verdict}`)
            }
          }
        }
      }
    }
  })
})
