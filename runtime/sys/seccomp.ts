/**
 * Which filter flags this kernel knows. The probe loads a filter from a null pointer: the kernel refuses unknown flags
 * before it looks at the pointer, and otherwise fails with EFAULT. No filter is ever installed.
 */

import { declare, lastErrno } from './libc.ts'
import { EFAULT } from './linux.ts'

const SET_MODE_FILTER = 1

/** The numbers of seccomp(2) on architectures that do not use the generic table. */
const NUMBERS: Readonly<Partial<Record<NodeJS.Architecture, number>>> = { x64: 317, s390x: 348, ppc64: 358 }
const GENERIC_NUMBER = 277

const syscall = declare('long syscall(long number, unsigned int operation, unsigned int flags, void *program)')

/** True when the kernel knows all of these SECCOMP_FILTER_FLAG_* bits together. */
export function knowsFilterFlags(flags: number): boolean {
  const number = NUMBERS[process.arch] ?? GENERIC_NUMBER
  return syscall(number, SET_MODE_FILTER, flags, null) < 0 && lastErrno() === EFAULT
}
