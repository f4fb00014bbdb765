/**
 * Reading and writing the small files of cgroups. Most calls are synchronous: the kernel answers from memory within
 * microseconds, and the asynchronous API would cost a thread switch. Some files make the kernel walk all processes of a
 * cgroup, which takes milliseconds for thousands of them. For those, the functions whose names end in "Aside" use a
 * thread of the pool. Symbolic links are never followed. A failure becomes a RuntimeError that names the action and the
 * cgroup; callers that expect a failure ask for its errno instead.
 */

import { close, closeSync, constants, open, openSync, read, readSync, write, writeSync } from 'node:fs'
import { promisify } from 'node:util'
import { RuntimeError } from '../errors.ts'
import { errnoCode, errnoOf, errnoWords } from '../sys/errno.ts'
import { ENODEV, ENOENT, EOPNOTSUPP } from '../sys/linux.ts'

const SCRATCH_BYTES = 16384
let scratch: Buffer | undefined

/**
 * The whole text of a file.
 * @throws node's own error, with its errno
 */
export function readText(path: string): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    scratch ??= Buffer.allocUnsafe(SCRATCH_BYTES)
    // a file that does not fit gets a larger buffer, for this call only
    let bytes = scratch
    let length = 0
    for (;;) {
      const count = readSync(fd, bytes, length, bytes.length - length, null)
      // the kernel may end a read at a page or a record, so only an empty read is the end of the file
      if (count === 0) return bytes.toString('utf8', 0, length)
      length += count
      // a read into a full buffer would also return 0
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

/**
 * The whole text of a file, read on a thread of the pool.
 * @throws node's own error, with its errno
 */
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

/**
 * Writes one value on a thread of the pool.
 * @throws node's own error, with its errno
 */
export async function writeTextAside(path: string, value: string): Promise<void> {
  const fd = await openAside(path, constants.O_WRONLY | constants.O_NOFOLLOW)
  try {
    await writeAside(fd, value)
  } finally {
    await closeAside(fd)
  }
}

/** Whether a failure means that the cgroup of a file was removed. */
export function isGone(error: unknown): boolean {
  const errno = errnoOf(error)
  return errno === ENOENT || errno === ENODEV
}

/** The text of a file; undefined where this kernel or this cgroup has no such file. */
export function readTextIfAny(path: string): string | undefined {
  try {
    return readText(path)
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === ENOENT || errno === ENODEV || errno === EOPNOTSUPP) return undefined
    throw error
  }
}

/**
 * Writes each value by its own write(2), as the kernel requires.
 * @throws node's own error, with its errno
 */
export function writeValues(path: string, values: Iterable<string>): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW)
  try {
    for (const value of values) writeSync(fd, value)
  } finally {
    closeSync(fd)
  }
}

/**
 * Writes one value.
 * @throws node's own error, with its errno
 */
export function writeText(path: string, value: string): void {
  writeValues(path, [value])
}

/** The call that failed, the file or directory it was for, and what to say after the reason. */
export interface CgroupFailure {
  readonly call: string
  readonly path: string
  readonly note?: string
}

/**
 * The error of a failed `what` ("cannot freeze cgroup \"/x\""). An error without an errno is a bug and passes
 * unchanged.
 */
export function cgroupError(what: string, error: unknown, { call, path, note = '' }: CgroupFailure): unknown {
  const errno = errnoOf(error)
  if (errno === 0 || error instanceof RuntimeError) return error
  const detail = { source: 'syscall', call, errno, path } as const
  return new RuntimeError(errnoCode(errno, 'cgroupFile'), `${what}: ${errnoWords(errno)}${note}`, {
    detail,
    cause: error,
  })
}
