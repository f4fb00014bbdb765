/** Bytes for copying: a pattern that shows what is lost or doubled, and a writer that writes like a process. */
import { createHash } from 'node:crypto'
import { Socket } from 'node:net'

/** Lets the event loop do what is due. */
export const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Bytes without a short period, so that a lost or doubled piece shows. */
export function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE((at * 2_654_435_761) % 4_294_967_296, at)
  return bytes
}

/** The hash of bytes that would be too many for a message. */
export const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** Writes all bytes as a process would, and then closes; resolves when they are in the pipe. */
export function writeAll(fd: number, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = new Socket({ fd, readable: false, writable: true })
    socket.on('error', reject)
    socket.write(bytes, () => {
      socket.destroy()
      resolve()
    })
  })
}
