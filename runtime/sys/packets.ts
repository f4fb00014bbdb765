/**
 * Messages of a SOCK_SEQPACKET socket with any number of descriptors beside them (unix(7)). A message arrives whole or
 * not at all. All received fds are CLOEXEC.
 */

import koffi from 'koffi'
import { syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { lastErrno } from './libc.ts'
import { EAGAIN, EINTR, MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_NOSIGNAL, SOL_SOCKET } from './linux.ts'
import { recvmsg, sendmsg } from './socket.ts'

const SCM_RIGHTS = 1
const ECONNRESET = 104
/** Offsets in a frame: struct msghdr (56 bytes on x86_64 and arm64), its one iovec, a control message, the bytes. */
const IOV = 56
const CONTROL = 72
const CONTROL_HEAD = 16
const MOST_FDS = 32
const CONTROL_ROOM = CONTROL_HEAD + MOST_FDS * 4
const DATA = CONTROL + CONTROL_ROOM

/** A received message. */
export interface Packet {
  readonly data: Buffer
  readonly fds: readonly OwnedFd[]
}

/** A message header that points into its own buffer, so that all parts live as long as the call. */
function frame(room: number, controlBytes: number): Buffer {
  const buffer = Buffer.alloc(DATA + room)
  const at = koffi.address(buffer)
  buffer.writeBigUInt64LE(at + BigInt(IOV), 16)
  buffer.writeBigUInt64LE(1n, 24)
  buffer.writeBigUInt64LE(controlBytes === 0 ? 0n : at + BigInt(CONTROL), 32)
  buffer.writeBigUInt64LE(BigInt(controlBytes), 40)
  buffer.writeBigUInt64LE(at + BigInt(DATA), IOV)
  buffer.writeBigUInt64LE(BigInt(room), IOV + 8)
  return buffer
}

/** Sends one message with borrowed fds. Waits while the socket is full. */
export function sendPacket(socket: number, data: Uint8Array, fds: readonly number[]): void {
  if (fds.length > MOST_FDS) throw new Error(`${fds.length} descriptors do not fit into a message`)
  // CMSG_SPACE rounds up to eight bytes; the length in the control head does not
  const buffer = frame(data.length, fds.length === 0 ? 0 : CONTROL_HEAD + Math.ceil(fds.length / 2) * 8)
  buffer.set(data, DATA)
  buffer.writeBigUInt64LE(BigInt(CONTROL_HEAD + fds.length * 4), CONTROL)
  buffer.writeInt32LE(SOL_SOCKET, CONTROL + 8)
  buffer.writeInt32LE(SCM_RIGHTS, CONTROL + 12)
  for (const [i, fd] of fds.entries()) buffer.writeInt32LE(fd, CONTROL + CONTROL_HEAD + i * 4)
  while (sendmsg(socket, buffer, MSG_NOSIGNAL) < 0) {
    const errno = lastErrno()
    if (errno !== EINTR) throw syscallError('cannot send a message', { call: 'sendmsg', errno })
  }
}

/**
 * Receives one message of at most `room` bytes. `wait: false`: undefined when there is none. 'end': the peer has closed
 * the connection.
 */
export function receivePacket(
  socket: number,
  { room, wait }: { room: number; wait: boolean },
): Packet | 'end' | undefined {
  const buffer = frame(room, CONTROL_ROOM)
  for (;;) {
    const received = recvmsg(socket, buffer, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT))
    const errno = lastErrno()
    if (received < 0 && errno === EAGAIN) return undefined
    // a peer that ends with unread messages is reported once, before the rest of what it sent
    if (received < 0 && (errno === EINTR || errno === ECONNRESET)) continue
    if (received < 0) throw syscallError('cannot receive a message', { call: 'recvmsg', errno })
    const control = Number(buffer.readBigUInt64LE(40)) < CONTROL_HEAD ? 0 : Number(buffer.readBigUInt64LE(CONTROL))
    const fds = Array.from({ length: Math.max(0, control - CONTROL_HEAD) >> 2 }, (_, i) => {
      return new OwnedFd(buffer.readInt32LE(CONTROL + CONTROL_HEAD + i * 4))
    })
    if (received === 0 && fds.length === 0) return 'end'
    return { data: buffer.subarray(DATA, DATA + received), fds }
  }
}
