/**
 * A profile's words as libseccomp's values: actions with their errno as numbers, conditions as sets that must hold
 * together, flags as bits. Pure.
 */

import { SECCOMP_FLAGS } from '../spec/seccomp.ts'
import type { LinuxSeccomp, SeccompAction, SeccompArg } from '../spec/types.ts'
import {
  ENOSYS,
  EPERM,
  SECCOMP_FILTER_FLAG_NEW_LISTENER,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW,
  SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
  SECCOMP_RET_ERRNO,
} from '../sys/linux.ts'

/** SECCOMP_RET_* of an action; ERRNO and TRACE carry `errno` in the low 16 bits. */
export function actionCode(action: SeccompAction, errno = EPERM): number {
  switch (action) {
    case 'SCMP_ACT_KILL':
    case 'SCMP_ACT_KILL_THREAD':
      return 0x00000000
    case 'SCMP_ACT_KILL_PROCESS':
      return 0x80000000
    case 'SCMP_ACT_TRAP':
      return 0x00030000
    case 'SCMP_ACT_ERRNO':
      return SECCOMP_RET_ERRNO | errno
    case 'SCMP_ACT_TRACE':
      return 0x7ff00000 | errno
    case 'SCMP_ACT_LOG':
      return 0x7ffc0000
    case 'SCMP_ACT_NOTIFY':
      return 0x7fc00000
    case 'SCMP_ACT_ALLOW':
      return 0x7fff0000
    default:
      return action satisfies never
  }
}

/**
 * The rules of one entry's conditions: one rule if each condition is on another argument, else one rule per condition.
 */
export function conditionSets(args: readonly SeccompArg[]): readonly (readonly SeccompArg[])[] {
  const distinct = new Set(args.map(({ index }) => index)).size === args.length
  return distinct ? [args] : args.map((arg) => [arg])
}

/** True when a call is passed to an agent, so that the filter needs a listener. */
export function usesNotify({ syscalls }: LinuxSeccomp): boolean {
  return syscalls.some(({ action }) => action === 'SCMP_ACT_NOTIFY')
}

/**
 * SECCOMP_FILTER_FLAG_* bits. A profile without flags gets SPEC_ALLOW, so that the filter does not turn on slower
 * speculation controls.
 */
export function filterFlags(profile: LinuxSeccomp): number {
  const { flags } = profile
  const named =
    flags?.reduce((bits, flag) => bits | (SECCOMP_FLAGS.get(flag) ?? 0), 0) ?? SECCOMP_FILTER_FLAG_SPEC_ALLOW
  // the kernel refuses a flag about waiting for answers without a listener
  return usesNotify(profile)
    ? named | SECCOMP_FILTER_FLAG_NEW_LISTENER
    : named & ~SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
}

/**
 * True when the profile refuses calls that it does not name, so that the filter must distinguish newer calls from
 * refused ones.
 */
export function needsEnosys({ defaultAction, defaultErrnoRet }: LinuxSeccomp): boolean {
  if (defaultAction === 'SCMP_ACT_ALLOW' || defaultAction === 'SCMP_ACT_LOG' || defaultAction === 'SCMP_ACT_TRACE')
    return false
  return !(defaultAction === 'SCMP_ACT_ERRNO' && defaultErrnoRet === ENOSYS)
}
