/**
 * System-call failures as RuntimeError: the call, the errno by name, and the code that callers branch on. Invariant: a
 * libc call of this folder fails through syscallError, so no message shows a bare number.
 */
import { constants } from 'node:os'
import { messageOf, RuntimeError, type RuntimeErrorCode } from '../errors.ts'
import {
  EACCES,
  EBUSY,
  EEXIST,
  EINVAL,
  EMFILE,
  ENFILE,
  ENOENT,
  ENOMEM,
  ENOSPC,
  ENOSYS,
  ENOTEMPTY,
  EOPNOTSUPP,
  EPERM,
  ERANGE,
  EROFS,
  ESRCH,
} from './linux.ts'
import { errnoText } from './words.ts'

/** What failed with an errno: a system call in general, or the use of a file of a cgroup. */
export type ErrnoOrigin = 'call' | 'cgroupFile'

let names: Map<number, string> | undefined

/** The symbolic name of an errno ("ENOENT"), or its number when the system has no name for it. */
export function errnoName(errno: number): string {
  if (names === undefined) {
    names = new Map()
    // some numbers have two names; Node lists the customary one first (EAGAIN before EWOULDBLOCK, ENOTSUP before
    // EOPNOTSUPP)
    for (const [name, value] of Object.entries(constants.errno)) if (!names.has(value)) names.set(value, name)
  }
  return names.get(errno) ?? String(errno)
}

/** The name and libc's words for it, which tools match on: "ENOENT: no such file or directory". */
export function errnoWords(errno: number): string {
  return `${errnoName(errno)}: ${errnoText(errno)}`
}

/** The reason of a failure, for the end of a message: the errno in words, or the message of another error. */
export function reasonOf(error: unknown): string {
  const errno = errnoOf(error)
  if (errno !== 0) return errnoWords(errno)
  return messageOf(error)
}

/**
 * The codes of each errno: of a system call in general, and of a file of a cgroup. An errno that is missing here is
 * Internal. The columns differ because a caller names a limit or a state, and never a file of a cgroup. A missing file
 * means that the cgroup is gone or lacks a controller, and EINVAL that the kernel refuses the value of a limit.
 */
const CODES: ReadonlyMap<number, Readonly<Record<ErrnoOrigin, RuntimeErrorCode>>> = new Map([
  [ENOENT, { call: 'NotFound', cgroupFile: 'FailedPrecondition' }],
  [ESRCH, { call: 'NotFound', cgroupFile: 'Internal' }],
  [EEXIST, { call: 'AlreadyExists', cgroupFile: 'Internal' }],
  [EACCES, { call: 'PermissionDenied', cgroupFile: 'PermissionDenied' }],
  [EPERM, { call: 'PermissionDenied', cgroupFile: 'PermissionDenied' }],
  [EROFS, { call: 'Internal', cgroupFile: 'PermissionDenied' }],
  [ENOSYS, { call: 'Unimplemented', cgroupFile: 'Internal' }],
  [EOPNOTSUPP, { call: 'Unimplemented', cgroupFile: 'Internal' }],
  [ENOMEM, { call: 'ResourceExhausted', cgroupFile: 'ResourceExhausted' }],
  [ENOSPC, { call: 'ResourceExhausted', cgroupFile: 'ResourceExhausted' }],
  [EMFILE, { call: 'ResourceExhausted', cgroupFile: 'Internal' }],
  [ENFILE, { call: 'ResourceExhausted', cgroupFile: 'Internal' }],
  [EINVAL, { call: 'Internal', cgroupFile: 'InvalidArgument' }],
  [ERANGE, { call: 'Internal', cgroupFile: 'InvalidArgument' }],
  [EBUSY, { call: 'Internal', cgroupFile: 'FailedPrecondition' }],
  [ENOTEMPTY, { call: 'Internal', cgroupFile: 'FailedPrecondition' }],
])

/** The code of the error class for an errno. */
export function errnoCode(errno: number, origin: ErrnoOrigin = 'call'): RuntimeErrorCode {
  return CODES.get(errno)?.[origin] ?? 'Internal'
}

/** Which system call failed, and how; `path` only where the call was about one. */
export interface SyscallFailure {
  readonly call: string
  readonly errno: number
  readonly path?: string
}

/** A failed system call; `what` is the action with its object in quotes ("cannot mount \"proc\" on \"/proc\""). */
export function syscallError(what: string, failure: SyscallFailure): RuntimeError {
  const detail = { source: 'syscall', ...failure } as const
  return new RuntimeError(errnoCode(failure.errno), `${what}: ${errnoWords(failure.errno)}`, { detail })
}

/** The errno of an error thrown by node:fs or by this folder, or 0. */
export function errnoOf(error: unknown): number {
  if (error instanceof RuntimeError) return error.detail.source === 'syscall' ? error.detail.errno : 0
  if (error instanceof Error && 'errno' in error && typeof error.errno === 'number') return Math.abs(error.errno)
  return 0
}
