/**
 * Reading whole small files that another user may have written. Invariant: only a regular file is read, only up to the
 * limit, and the file that was checked is the one that is read. So a fifo without a writer, a device without an end or
 * a file that grows cannot block or fill this process.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { errnoOf, syscallError } from './errno.ts'

/**
 * The bytes of a file; `what` names it in messages.
 * @throws InvalidArgument for another kind of file or one above the limit; otherwise the error of open(2) or read(2)
 */
export function readRegularFile(path: string, limitBytes: number, what = `"${path}"`): Buffer {
  let fd: number
  try {
    // without O_NONBLOCK the open of a fifo would wait for its other end
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY)
  } catch (error) {
    throw syscallError(`cannot read ${what}`, { call: 'open', errno: errnoOf(error), path })
  }
  try {
    return readBounded(fd, limitBytes, what)
  } catch (error) {
    if (error instanceof RuntimeError) throw error
    throw syscallError(`cannot read ${what}`, { call: 'read', errno: errnoOf(error), path })
  } finally {
    closeSync(fd)
  }
}

function readBounded(fd: number, limitBytes: number, what: string): Buffer {
  const stat = fstatSync(fd)
  if (!stat.isFile()) throw new RuntimeError('InvalidArgument', `cannot read ${what}: it is not a regular file`)
  // one byte more than the file should have, so that its end is seen without a larger buffer
  let bytes = Buffer.allocUnsafe(Math.min(stat.size, limitBytes) + 1)
  let length = 0
  while (stat.size <= limitBytes) {
    const count = readSync(fd, bytes, length, bytes.length - length, null)
    length += count
    if (count === 0) return bytes.subarray(0, length)
    if (length > limitBytes) break
    if (length === bytes.length) bytes = Buffer.concat([bytes], Math.min(length * 2, limitBytes + 1))
  }
  throw new RuntimeError('InvalidArgument', `cannot read ${what}: it is larger than ${limitBytes} bytes`)
}
