/**
 * Reading and writing the small files of cgroups, synchronously: the kernel answers from memory, and one call costs microseconds where
 * the asynchronous API costs a thread switch. What the kernel answers by walking all processes of a cgroup takes milliseconds where there
 * are thousands: for that there are the functions whose names end in "Aside", on a thread of the pool. Symbolic links are never followed. A failure becomes a RuntimeError that says what was
 * attempted on which cgroup; whoever expects a failure asks for the errno instead.
 */

import { close, closeSync, constants, open, openSync, read, readSync, write, writeSync } from 'node:fs'
import { promisify } from 'node:util'
import { RuntimeError, type RuntimeErrorCode } from '../errors.ts'
import { errnoOf, errnoWords } from '../sys/errno.ts'
import { EACCES, EBUSY, EINVAL, ENODEV, ENOENT, ENOTEMPTY, EOPNOTSUPP, EPERM, EROFS } from '../sys/linux.ts'

const SCRATCH_BYTES = 16384
let scratch: Buffer | undefined

/** The whole text of a file. Throws node's own error, with its errno. */
export function readText(path: string): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    scratch ??= Buffer.allocUnsafe(SCRATCH_BYTES)
    // A file that does not fit gets a larger buffer, which nobody keeps.
    let bytes = scratch
    let length = 0
    for (;;) {
      const count = readSync(fd, bytes, length, bytes.length - length, null)
      // The kernel may end a read at a page or a record, so only an empty read is the end of the file.
      if (count === 0) return bytes.toString('utf8', 0, length)
      length += count
      // A read without room would be empty too, and mean nothing.
      if (length === bytes.length) bytes = Buffer.concat([bytes], 2 * length)
    }
  } finally {
    closeSync(fd)
  }
}

const openAside = promisify(open)
const readAside = promisify(read)
const writeAside = promisify(write)
const closeAside = promisify(close)

/** The whole text of a file, read aside. Throws node's own error, with its errno. */
export async function readTextAside(path: string): Promise<string> {
  const fd = await openAside(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    const parts: Buffer[] = []
    for (;;) {
      const part = Buffer.allocUnsafe(SCRATCH_BYTES)
      const { bytesRead } = await readAside(fd, part, 0, part.length, null)
      if (bytesRead === 0) return Buffer.concat(parts).toString('utf8')
      parts.push(part.subarray(0, bytesRead))
    }
  } finally {
    await closeAside(fd)
  }
}

/** Writes one value aside. Throws node's own error, with its errno. */
export async function writeTextAside(path: string, value: string): Promise<void> {
  const fd = await openAside(path, constants.O_WRONLY | constants.O_NOFOLLOW)
  try {
    await writeAside(fd, value)
  } finally {
    await closeAside(fd)
  }
}

/** The text of a file, or undefined where this kernel or this cgroup has none. */
export function readTextIfAny(path: string): string | undefined {
  try {
    return readText(path)
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === ENOENT || errno === ENODEV || errno === EOPNOTSUPP) return undefined
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
    case EINVAL:
    case 34: // ERANGE
      return 'InvalidArgument'
    case EPERM:
    case EACCES:
    case EROFS:
      return 'PermissionDenied'
    case EBUSY:
    case ENOTEMPTY:
    case ENOENT:
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
  return new RuntimeError(codeOf(errno), `${what}: ${errnoWords(errno)}${note}`, { detail, cause: error })
}
