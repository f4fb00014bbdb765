/**
 * Socket calls for which Node has no API: socketpair(2), one fd by SCM_RIGHTS (unix(7)) in both directions, peer
 * credentials, and a connection to a unix socket without the event loop. All fds are CLOEXEC.
 */

import koffi from 'koffi'
import { syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { declare, lastErrno } from './libc.ts'
import {
  AF_UNIX,
  EAGAIN,
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
/** recvmsg(2), as it is. */
export const recvmsg = declare('long recvmsg(int fd, void *msg, int flags)')
/** sendmsg(2), as it is. */
export const sendmsg = declare('long sendmsg(int fd, const void *msg, int flags)')
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

/**
 * Offsets in a frame: struct msghdr (56 bytes on x86_64 and arm64), its one iovec, room for one fd, and room for
 * received bytes.
 */
const IOV = 56
const CONTROL = 72
const CONTROL_BYTES = 24
const DATA = 96

/**
 * One buffer for a message, which points into itself, so that all parts live as long as the call. Bytes to send stay in
 * the caller's buffer.
 */
function frameOf(data: Uint8Array | undefined, room: number): Buffer {
  const frame = Buffer.alloc(DATA + room)
  const at = koffi.address(frame)
  frame.writeBigUInt64LE(at + BigInt(IOV), 16)
  frame.writeBigUInt64LE(1n, 24)
  frame.writeBigUInt64LE(at + BigInt(CONTROL), 32)
  frame.writeBigUInt64LE(BigInt(CONTROL_BYTES), 40)
  frame.writeBigUInt64LE(data === undefined ? at + BigInt(DATA) : koffi.address(data), IOV)
  frame.writeBigUInt64LE(BigInt(data?.length ?? room), IOV + 8)
  return frame
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
  const packet = receivePacket(socketFd, room)
  return packet?.fd === undefined ? undefined : { fd: packet.fd, data: packet.data }
}

/**
 * Receives what the peer has already sent, and the fd that came with it, if one did; undefined when nothing is waiting.
 * No bytes mean that the peer has gone. Never blocks.
 */
export function receivePacket(
  socketFd: number,
  room: number,
): { readonly fd: OwnedFd | undefined; readonly data: Buffer } | undefined {
  const frame = frameOf(undefined, room)
  const received = recvmsg(socketFd, frame, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)
  if (received < 0) {
    const errno = lastErrno()
    if (errno === EAGAIN) return undefined
    throw syscallError('cannot receive from a socket', { call: 'recvmsg', errno })
  }
  const control = frame.subarray(CONTROL, DATA)
  const length = Number(frame.readBigUInt64LE(40))
  const hasFd = length >= 20 && control.readInt32LE(8) === SOL_SOCKET && control.readInt32LE(12) === SCM_RIGHTS
  const data = frame.subarray(DATA, DATA + received)
  return { fd: hasFd ? new OwnedFd(control.readInt32LE(16)) : undefined, data }
}

/**
 * Sends bytes, and one borrowed fd with the first of them, over a connected unix socket; the number of bytes sent.
 * Never blocks.
 */
export function sendFd(socketFd: number, data: Uint8Array, fd: number): number {
  const frame = frameOf(data, 0)
  frame.writeBigUInt64LE(20n, CONTROL)
  frame.writeInt32LE(SOL_SOCKET, CONTROL + 8)
  frame.writeInt32LE(SCM_RIGHTS, CONTROL + 12)
  frame.writeInt32LE(fd, CONTROL + 16)
  const sent = sendmsg(socketFd, frame, MSG_DONTWAIT | MSG_NOSIGNAL)
  if (sent < 0) throw syscallError('cannot send a file descriptor', { call: 'sendmsg', errno: lastErrno() })
  return Math.min(sent, data.length)
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
