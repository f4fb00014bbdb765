/**
 * What this kernel's seccomp(2) knows. A filter is "loaded" from nowhere: the kernel refuses flags that it does not know before it looks
 * for the program, and misses the program otherwise. Nothing is ever installed.
 */

import { declare, lastErrno } from './libc.ts'
import { EFAULT } from './linux.ts'

const SET_MODE_FILTER = 1

/** Numbers of seccomp(2) where they differ from the generic table's. */
const NUMBERS: Readonly<Partial<Record<NodeJS.Architecture, number>>> = { x64: 317, s390x: 348, ppc64: 358 }
const GENERIC_NUMBER = 277

const syscall = declare('long syscall(long number, unsigned int operation, unsigned int flags, void *program)')

/** True when the kernel knows all of these SECCOMP_FILTER_FLAG_* bits together. */
export function knowsFilterFlags(flags: number): boolean {
  const number = NUMBERS[process.arch] ?? GENERIC_NUMBER
  return syscall(number, SET_MODE_FILTER, flags, null) < 0 && lastErrno() === EFAULT
}
