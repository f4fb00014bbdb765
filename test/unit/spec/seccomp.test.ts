/**
 * Every refusal of the seccomp profile of a config.json: its actions, flags and architectures, and its rules one by
 * one.
 */
import { describe, expect, test } from 'vitest'
import { type Document, expectRefusal, type RefusedCase, refusal, specText } from './fixture.ts'

const REFUSED: RefusedCase[] = [
  [
    'rules without default action',
    '/linux/seccomp/defaultAction',
    'has no default action',
    (s) => (s.linux.seccomp = { syscalls: [{ names: ['read'], action: 'SCMP_ACT_ALLOW' }] }),
  ],
  [
    'an unknown default action',
    '/linux/seccomp/defaultAction',
    'unknown seccomp action "ALLOW"',
    (s) => (s.linux.seccomp = { defaultAction: 'ALLOW' }),
  ],
  [
    'notify as default action',
    '/linux/seccomp/defaultAction',
    'SCMP_ACT_NOTIFY cannot be used as default action',
    (s) => (s.linux.seccomp = { defaultAction: 'SCMP_ACT_NOTIFY', listenerPath: '/run/agent' }),
  ],
  [
    'notify without a listener',
    '/linux/seccomp/listenerPath',
    'seccomp listenerPath is not set',
    (s) =>
      (s.linux.seccomp = {
        defaultAction: 'SCMP_ACT_ALLOW',
        syscalls: [{ names: ['mkdir'], action: 'SCMP_ACT_NOTIFY' }],
      }),
  ],
  [
    'an unknown architecture',
    '/linux/seccomp/architectures/0',
    'unknown seccomp architecture "amd64"',
    (s) => (s.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', architectures: ['amd64'] }),
  ],
  [
    'an unknown flag',
    '/linux/seccomp/flags/0',
    'flag "SECCOMP_FILTER_FLAG_X"',
    (s) => (s.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', flags: ['SECCOMP_FILTER_FLAG_X'] }),
  ],
  [
    'an errno that cannot be carried',
    '/linux/seccomp/defaultErrnoRet',
    'cannot carry an errno',
    (s) => (s.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', defaultErrnoRet: 1 }),
  ],
  [
    'an errno out of range',
    '/linux/seccomp/defaultErrnoRet',
    'out of range',
    (s) => (s.linux.seccomp = { defaultAction: 'SCMP_ACT_ERRNO', defaultErrnoRet: 4096 }),
  ],
]

const RULE = { names: ['read'], action: 'SCMP_ACT_ALLOW' }
const NOTIFY = { names: ['mkdir'], action: 'SCMP_ACT_NOTIFY' }
const BAD_RULES: [what: string, pointer: string, message: string, rule: Document][] = [
  ['without names', '/names', 'names no system call', { action: 'SCMP_ACT_ALLOW' }],
  ['with an empty name', '/names/1', 'must not be empty', { ...RULE, names: ['read', ''] }],
  ['without action', '/action', 'has no action', { names: ['read'] }],
  ['with an unknown action', '/action', 'unknown seccomp action "SCMP_ACT_DENY"', { ...RULE, action: 'SCMP_ACT_DENY' }],
  [
    'that hands write(2) to an agent',
    '/names/1',
    'SCMP_ACT_NOTIFY cannot be used for the write syscall',
    { ...NOTIFY, names: ['mkdir', 'write'] },
  ],
  ['with an errno that it cannot carry', '/errnoRet', 'cannot carry an errno', { ...RULE, errnoRet: 1 }],
  [
    'with an unknown operator',
    '/args/0/op',
    'unknown seccomp operator "=="',
    { ...RULE, args: [{ index: 0, value: 0, op: '==' }] },
  ],
  ['without operator', '/args/0/op', 'has no operator', { ...RULE, args: [{ index: 0, value: 0 }] }],
  [
    'about a seventh argument',
    '/args/0/index',
    'out of range',
    { ...RULE, args: [{ index: 6, value: 0, op: 'SCMP_CMP_EQ' }] },
  ],
  [
    'with a negative value',
    '/args/0/value',
    'out of range',
    { ...RULE, args: [{ index: 0, value: -1, op: 'SCMP_CMP_EQ' }] },
  ],
]

describe('parseSpec()', () => {
  test.each(REFUSED)('refuses %s at %s', (...row) => expectRefusal(row))

  test.each(BAD_RULES)('refuses a seccomp rule %s', (_, pointer, message, rule) => {
    const error = refusal(
      specText((spec) => (spec.linux.seccomp = { defaultAction: 'SCMP_ACT_ERRNO', syscalls: [RULE, rule] })),
    )
    expect(error).toMatchObject({ code: 'InvalidArgument', detail: { pointer: `/linux/seccomp/syscalls/1${pointer}` } })
    expect(error.message).toContain(message)
  })
})
