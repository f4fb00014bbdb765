/**
 * Reading whole small files that another user may have written. Invariant: only a regular file is read, only up to the
 * limit, and the file that was checked is the one that is read. So a fifo without a writer, a device without an end or
 * a file that grows cannot block or fill this process.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { errnoOf, syscallError } from './errno.ts'

/** How much of a file is read. */
export interface ReadLimits {
  /** a file of more bytes is not read whole */
  readonly limitBytes: number
  /** how much of such a file is read; default: nothing */
  readonly headBytes?: number
  /** a symlink at the end of the path is an error (ELOOP); default: it is followed */
  readonly noFollow?: boolean
}

/** What is at a path: a file within the limit, the head of a larger one, or no regular file. */
export type FileContent = { readonly kind: 'whole' | 'head'; readonly bytes: Buffer } | { readonly kind: 'irregular' }

/** Reads a file up to the limit. @throws what open(2) or read(2) fails with, as Node reports it */
export function readUpTo(path: string, { limitBytes, headBytes = 0, noFollow = false }: ReadLimits): FileContent {
  // without O_NONBLOCK the open of a fifo would wait for its other end
  const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY
  const fd = openSync(path, flags | (noFollow ? constants.O_NOFOLLOW : 0))
  try {
    const stat = fstatSync(fd)
    if (!stat.isFile()) return { kind: 'irregular' }
    if (stat.size > limitBytes) return { kind: 'head', bytes: readBytes(fd, headBytes, headBytes) }
    // one byte more than the file should have, so that its end is seen without a larger buffer
    const bytes = readBytes(fd, limitBytes + 1, stat.size + 1)
    if (bytes.length > limitBytes) return { kind: 'head', bytes: bytes.subarray(0, headBytes) }
    return { kind: 'whole', bytes }
  } finally {
    closeSync(fd)
  }
}

/** Reads to the end of the file, but at most `most` bytes; the buffer begins with `expected` bytes and grows. */
function readBytes(fd: number, most: number, expected: number): Buffer {
  let bytes = Buffer.allocUnsafe(expected)
  let length = 0
  for (;;) {
    const count = readSync(fd, bytes, length, bytes.length - length, null)
    length += count
    if (count === 0 || length === most) return bytes.subarray(0, length)
    if (length === bytes.length) bytes = Buffer.concat([bytes], Math.min(length * 2, most))
  }
}

/**
 * The bytes of a file; `what` names it in messages.
 * @throws InvalidArgument for another kind of file or one above the limit; otherwise the error of open(2) or read(2)
 */
export function readRegularFile(path: string, limitBytes: number, what = `"${path}"`): Buffer {
  let found: FileContent
  try {
    found = readUpTo(path, { limitBytes })
  } catch (error) {
    const call = error instanceof Error && 'syscall' in error ? String(error.syscall) : 'read'
    throw syscallError(`cannot read ${what}`, { call, errno: errnoOf(error), path })
  }
  if (found.kind === 'whole') return found.bytes
  const why = found.kind === 'irregular' ? 'it is not a regular file' : `it is larger than ${limitBytes} bytes`
  throw new RuntimeError('InvalidArgument', `cannot read ${what}: ${why}`)
}
