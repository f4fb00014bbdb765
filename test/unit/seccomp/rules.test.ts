/** What the words of a profile mean, without any library. */
import { describe, expect, test } from 'vitest'
import { actionCode, conditionSets, filterFlags, needsEnosys, usesNotify } from '../../../runtime/seccomp/rules.ts'
import type { SeccompAction, SeccompArg } from '../../../runtime/spec/types.ts'

const profile = { defaultAction: 'SCMP_ACT_ERRNO', architectures: [], syscalls: [] } as const
const arg = (index: number): SeccompArg => ({ index, value: 1n, valueTwo: 0n, op: 'SCMP_CMP_EQ' })

describe('actionCode()', () => {
  test.each<[SeccompAction, number | undefined, number]>([
    ['SCMP_ACT_KILL', undefined, 0],
    ['SCMP_ACT_KILL_THREAD', undefined, 0],
    ['SCMP_ACT_KILL_PROCESS', undefined, 0x80000000],
    ['SCMP_ACT_TRAP', undefined, 0x00030000],
    ['SCMP_ACT_ERRNO', undefined, 0x00050001],
    ['SCMP_ACT_ERRNO', 38, 0x00050026],
    ['SCMP_ACT_ERRNO', 0, 0x00050000],
    ['SCMP_ACT_TRACE', 4095, 0x7ff00fff],
    ['SCMP_ACT_LOG', undefined, 0x7ffc0000],
    ['SCMP_ACT_NOTIFY', undefined, 0x7fc00000],
    ['SCMP_ACT_ALLOW', undefined, 0x7fff0000],
  ])('%s with errno %s', (action, errno, code) => {
    expect(actionCode(action, errno)).toBe(code)
  })
})

describe('conditionSets()', () => {
  test('no conditions are one rule that always holds', () => {
    expect(conditionSets([])).toEqual([[]])
  })

  test('conditions on different arguments hold together', () => {
    expect(conditionSets([arg(0), arg(2)])).toEqual([[arg(0), arg(2)]])
  })

  test('two conditions on one argument are alternatives', () => {
    expect(conditionSets([arg(0), arg(1), arg(0)])).toEqual([[arg(0)], [arg(1)], [arg(0)]])
  })
})

describe('filterFlags()', () => {
  test.each([
    [undefined, 4],
    [[], 0],
    [['SECCOMP_FILTER_FLAG_LOG'], 2],
    [['SECCOMP_FILTER_FLAG_TSYNC'], 0],
    [['SECCOMP_FILTER_FLAG_LOG', 'SECCOMP_FILTER_FLAG_SPEC_ALLOW'], 6],
    // about answers that nobody gives
    [['SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV'], 0],
  ])('%j is %i', (flags, bits) => {
    expect(filterFlags(flags === undefined ? profile : { ...profile, flags })).toBe(bits)
  })

  test.each([
    [undefined, 4 | 8],
    [[], 8],
    [['SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV', 'SECCOMP_FILTER_FLAG_LOG'], 0x20 | 8 | 2],
  ])('with an agent to notify %j is %i', (flags, bits) => {
    const syscalls = [{ names: ['mkdir'], action: 'SCMP_ACT_NOTIFY', args: [] }] as const
    const notifying = { ...profile, syscalls }
    expect(usesNotify(notifying)).toBe(true)
    expect(filterFlags(flags === undefined ? notifying : { ...notifying, flags })).toBe(bits)
  })
})

describe('needsEnosys()', () => {
  test.each<[SeccompAction, number | undefined, boolean]>([
    ['SCMP_ACT_ERRNO', undefined, true],
    ['SCMP_ACT_ERRNO', 1, true],
    ['SCMP_ACT_ERRNO', 38, false],
    ['SCMP_ACT_KILL', undefined, true],
    ['SCMP_ACT_KILL_PROCESS', undefined, true],
    ['SCMP_ACT_TRAP', undefined, true],
    ['SCMP_ACT_ALLOW', undefined, false],
    ['SCMP_ACT_LOG', undefined, false],
    ['SCMP_ACT_TRACE', 38, false],
  ])('default %s with errno %s: %s', (defaultAction, defaultErrnoRet, expected) => {
    expect(
      needsEnosys({ ...profile, defaultAction, ...(defaultErrnoRet === undefined ? {} : { defaultErrnoRet }) }),
    ).toBe(expected)
  })
})
