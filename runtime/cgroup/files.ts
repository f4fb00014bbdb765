/**
 * Reading and writing the small files of cgroups, synchronously: the kernel answers from memory, and one call costs microseconds where
 * the asynchronous API costs a thread switch. Symbolic links are never followed. A failure becomes a RuntimeError that says what was
 * attempted on which cgroup; whoever expects a failure asks for the errno instead.
 */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs'
import { RuntimeError, type RuntimeErrorCode } from '../errors.ts'
import { errnoName, errnoOf } from '../sys/errno.ts'

/** The errno values that decide something here. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  EROFS: 30,
  ENOTEMPTY: 39,
  EOPNOTSUPP: 95,
} as const

const INITIAL_BYTES = 16384
// Less than this from one read(2): no line of a cgroup file is so long that it would not have fitted into the page.
const SHORT_READ_BYTES = 2048
let scratch: Buffer | undefined

/** The whole text of a file. Throws node's own error, with its errno. */
export function readText(path: string): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    scratch ??= Buffer.allocUnsafe(INITIAL_BYTES)
    let length = 0
    // A read of a kernel file may end early, but not before a page is full; only an empty one is the end for sure.
    for (;;) {
      const count = readSync(fd, scratch, length, scratch.length - length, null)
      length += count
      if (count < SHORT_READ_BYTES) return scratch.toString('utf8', 0, length)
      if (length === scratch.length) scratch = Buffer.concat([scratch, Buffer.allocUnsafe(scratch.length)])
    }
  } finally {
    closeSync(fd)
  }
}

/** The text of a file, or undefined where this kernel or this cgroup has none. */
export function readTextIfAny(path: string): string | undefined {
  try {
    return readText(path)
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === ERRNO.ENOENT || errno === ERRNO.ENODEV || errno === ERRNO.EOPNOTSUPP) return undefined
    throw error
  }
}

/** Writes each value by a write(2) of its own, as the kernel wants it. Throws node's own error, with its errno. */
export function writeValues(path: string, values: Iterable<string>): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW)
  try {
    for (const value of values) writeSync(fd, value)
  } finally {
    closeSync(fd)
  }
}

/** Writes one value. Throws node's own error, with its errno. */
export function writeText(path: string, value: string): void {
  writeValues(path, [value])
}

function codeOf(errno: number): RuntimeErrorCode {
  switch (errno) {
    case ERRNO.EINVAL:
    case 34: // ERANGE
      return 'InvalidArgument'
    case ERRNO.EPERM:
    case ERRNO.EACCES:
    case ERRNO.EROFS:
      return 'PermissionDenied'
    case ERRNO.EBUSY:
    case ERRNO.ENOTEMPTY:
    case ERRNO.ENOENT:
      return 'FailedPrecondition'
    case 28: // ENOSPC
    case 12: // ENOMEM
      return 'ResourceExhausted'
    default:
      return 'Internal'
  }
}

/** The failure of `what` ("cannot freeze cgroup \"/x\""); what is not a system error is a bug and passes unchanged. */
export function cgroupError(what: string, error: unknown, call: string, path: string, note = ''): unknown {
  const errno = errnoOf(error)
  if (errno === 0 || error instanceof RuntimeError) return error
  const detail = { source: 'syscall', call, errno, path } as const
  return new RuntimeError(codeOf(errno), `${what}: ${errnoName(errno)}${note}`, { detail, cause: error })
}
