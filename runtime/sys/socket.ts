/**
 * Socket calls for which Node has no API: socketpair(2), messages with fds beside them by SCM_RIGHTS (unix(7)), peer
 * credentials, and a connection to a unix socket without the event loop. All received fds are CLOEXEC.
 */

import koffi from 'koffi'
import { syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { declare, lastErrno } from './libc.ts'
import {
  AF_UNIX,
  EAGAIN,
  ECONNRESET,
  EINTR,
  MSG_CMSG_CLOEXEC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SOCK_CLOEXEC,
  SOCK_STREAM,
  SOL_SOCKET,
} from './linux.ts'
import { withPathAddress } from './unix-path.ts'

const SO_PEERCRED = 17
const SCM_RIGHTS = 1

const socketpair = declare('int socketpair(int domain, int type, int protocol, void *fds)')
const recvmsg = declare('long recvmsg(int fd, void *msg, int flags)')
const sendmsg = declare('long sendmsg(int fd, const void *msg, int flags)')
/** getsockopt(2), as it is. */
export const getsockopt = declare('int getsockopt(int fd, int level, int name, void *value, void *length)')
/** socket(2), as it is. */
export const socket = declare('int socket(int domain, int type, int protocol)')
/** connect(2), as it is. */
export const connect = declare('int connect(int fd, const void *address, unsigned int length)')

/** A connected pair of unix sockets: of streams, or with SOCK_SEQPACKET of packets. */
export function socketPair(type: number = SOCK_STREAM): { ours: OwnedFd; theirs: OwnedFd } {
  const fds = Buffer.alloc(8)
  if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) < 0) {
    throw syscallError('cannot make a socket pair', { call: 'socketpair', errno: lastErrno() })
  }
  return { ours: new OwnedFd(fds.readInt32LE(0)), theirs: new OwnedFd(fds.readInt32LE(4)) }
}

/** Offsets in a frame: struct msghdr (56 bytes on x86_64 and arm64), its one iovec, a control message, the bytes. */
const IOV = 56
const CONTROL = 72
const CONTROL_HEAD = 16
const MOST_FDS = 32
const DATA = CONTROL + CONTROL_HEAD + MOST_FDS * 4

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

/** A message with borrowed fds. */
function messageWith(data: Uint8Array, fds: readonly number[]): Buffer {
  if (fds.length > MOST_FDS) throw new Error(`${fds.length} descriptors do not fit into a message`)
  // CMSG_SPACE rounds up to eight bytes; the length in the control head does not
  const buffer = frame(data.length, fds.length === 0 ? 0 : CONTROL_HEAD + Math.ceil(fds.length / 2) * 8)
  buffer.set(data, DATA)
  buffer.writeBigUInt64LE(BigInt(CONTROL_HEAD + fds.length * 4), CONTROL)
  buffer.writeInt32LE(SOL_SOCKET, CONTROL + 8)
  buffer.writeInt32LE(SCM_RIGHTS, CONTROL + 12)
  for (const [i, fd] of fds.entries()) buffer.writeInt32LE(fd, CONTROL + CONTROL_HEAD + i * 4)
  return buffer
}

/** A received message. */
export interface Packet {
  readonly data: Buffer
  readonly fds: readonly OwnedFd[]
}

/** How to receive: the most bytes and fds that are taken, and whether to wait for a message. */
export interface Reception {
  readonly room: number
  readonly mostFds: number
  readonly wait: boolean
}

/**
 * Receives one message. Without `wait`: undefined when there is none. 'end': the peer has closed the connection. The
 * kernel closes fds beyond `mostFds`.
 */
export function receivePacket(socketFd: number, { room, mostFds, wait }: Reception): Packet | 'end' | undefined {
  const buffer = frame(room, CONTROL_HEAD + Math.min(mostFds, MOST_FDS) * 4)
  for (;;) {
    const received = recvmsg(socketFd, buffer, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT))
    const errno = lastErrno()
    if (received < 0 && errno === EAGAIN) return undefined
    // a peer that ends with unread messages is reported once, before the rest of what it sent
    if (received < 0 && (errno === EINTR || errno === ECONNRESET)) continue
    if (received < 0) throw syscallError('cannot receive from a socket', { call: 'recvmsg', errno })
    const isOfFds = buffer.readInt32LE(CONTROL + 8) === SOL_SOCKET && buffer.readInt32LE(CONTROL + 12) === SCM_RIGHTS
    const hasFds = Number(buffer.readBigUInt64LE(40)) >= CONTROL_HEAD && isOfFds
    const control = hasFds ? Number(buffer.readBigUInt64LE(CONTROL)) : 0
    const fds = Array.from({ length: Math.max(0, control - CONTROL_HEAD) >> 2 }, (_, i) => {
      return new OwnedFd(buffer.readInt32LE(CONTROL + CONTROL_HEAD + i * 4))
    })
    if (received === 0 && fds.length === 0) return 'end'
    return { data: buffer.subarray(DATA, DATA + received), fds }
  }
}

/** Sends one message with borrowed fds. Waits while the socket is full. */
export function sendPacket(socketFd: number, data: Uint8Array, fds: readonly number[]): void {
  const message = messageWith(data, fds)
  while (sendmsg(socketFd, message, MSG_NOSIGNAL) < 0) {
    const errno = lastErrno()
    if (errno !== EINTR) throw syscallError('cannot send a message', { call: 'sendmsg', errno })
  }
}

/** Receives one fd that the peer has already sent; undefined when none is waiting. Never blocks. */
export function receiveFd(socketFd: number): OwnedFd | undefined {
  return receiveMessage(socketFd, 64)?.fd
}

/** Like receiveFd, with up to `room` of the bytes that came with the fd. */
export function receiveMessage(
  socketFd: number,
  room: number,
): { readonly fd: OwnedFd; readonly data: Buffer } | undefined {
  const packet = receivePacket(socketFd, { room, mostFds: 1, wait: false })
  if (packet === undefined || packet === 'end') return undefined
  const [fd] = packet.fds
  return fd === undefined ? undefined : { fd, data: packet.data }
}

/**
 * Sends bytes, and one borrowed fd with the first of them, over a connected unix socket; the number of bytes sent.
 * Never blocks.
 */
export function sendFd(socketFd: number, data: Uint8Array, fd: number): number {
  const sent = sendmsg(socketFd, messageWith(data, [fd]), MSG_DONTWAIT | MSG_NOSIGNAL)
  if (sent < 0) throw syscallError('cannot send a file descriptor', { call: 'sendmsg', errno: lastErrno() })
  return sent
}

/** The peer of a connected unix socket (SO_PEERCRED): its pid, uid and gid at the time of connect(2). */
export function peerCredentials(fd: number): { pid: number; uid: number; gid: number } {
  const value = Buffer.alloc(12)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(12)
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, value, length) < 0) {
    throw syscallError('cannot read the peer of a connection', { call: 'getsockopt', errno: lastErrno() })
  }
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) }
}

/** Connects to a unix stream socket by a path of any length; blocks while the peer's backlog is full. */
export function connectUnix(path: string): OwnedFd {
  return withPathAddress({ call: 'connect', path, what: 'cannot connect to' }, (address) => {
    const fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
    if (fd < 0) throw syscallError('cannot make a socket', { call: 'socket', errno: lastErrno() })
    const owned = new OwnedFd(fd)
    if (connect(fd, address, address.length) === 0) return owned
    const errno = lastErrno()
    owned.close()
    throw syscallError(`cannot connect to "${path}"`, { call: 'connect', errno, path })
  })
}
