/**
 * System-call failures as RuntimeError: the call, the errno by name, and the code that callers branch on. Invariant: a
 * wrapper in this folder fails through syscallError, so no message shows a bare number.
 */
import { constants } from 'node:os'
import { RuntimeError, type RuntimeErrorCode } from '../errors.ts'
import { errnoText } from './words.ts'

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
  return error instanceof Error ? error.message : String(error)
}

/** The code of the error class for an errno. */
export function errnoCode(errno: number): RuntimeErrorCode {
  const e = constants.errno
  switch (errno) {
    case e.ENOENT:
    case e.ESRCH:
      return 'NotFound'
    case e.EEXIST:
      return 'AlreadyExists'
    case e.EACCES:
    case e.EPERM:
      return 'PermissionDenied'
    case e.ENOSYS:
    case e.EOPNOTSUPP:
      return 'Unimplemented'
    case e.ENOMEM:
    case e.ENOSPC:
    case e.EMFILE:
    case e.ENFILE:
      return 'ResourceExhausted'
    default:
      return 'Internal'
  }
}

/** A failed system call; `what` is the action with its object in quotes ("cannot mount \"proc\" on \"/proc\""). */
export function syscallError(what: string, call: string, errno: number, path?: string): RuntimeError {
  const detail =
    path === undefined ? { source: 'syscall' as const, call, errno } : { source: 'syscall' as const, call, errno, path }
  return new RuntimeError(errnoCode(errno), `${what}: ${errnoWords(errno)}`, { detail })
}

/** The errno of an error thrown by node:fs or by this folder, or 0. */
export function errnoOf(error: unknown): number {
  if (error instanceof RuntimeError) return error.detail.source === 'syscall' ? error.detail.errno : 0
  if (error instanceof Error && 'errno' in error && typeof error.errno === 'number') return Math.abs(error.errno)
  return 0
}
