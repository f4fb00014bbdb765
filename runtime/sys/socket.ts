/**
 * The socket calls that Node has no API for: socketpair(2), one fd by SCM_RIGHTS (unix(7)) in both directions, peer credentials, and
 * connecting to a unix socket without an event loop. All fds are CLOEXEC.
 */

import koffi from 'koffi'
import { syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { declare, lastErrno } from './libc.ts'
import {
  AF_UNIX,
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
const getsockopt = declare('int getsockopt(int fd, int level, int name, void *value, void *length)')
const socket = declare('int socket(int domain, int type, int protocol)')
const connect = declare('int connect(int fd, void *address, unsigned int length)')

/** A connected pair of unix stream sockets. */
export function socketPair(): { ours: OwnedFd; theirs: OwnedFd } {
  const fds = Buffer.alloc(8)
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
    throw syscallError('cannot make a socket pair', 'socketpair', lastErrno())
  }
  return { ours: new OwnedFd(fds.readInt32LE(0)), theirs: new OwnedFd(fds.readInt32LE(4)) }
}

/** Places in a frame: struct msghdr (x86-64 and arm64: 56 bytes), its one iovec, room for one fd, and room for received bytes. */
const IOV = 56
const CONTROL = 72
const CONTROL_BYTES = 24
const DATA = 96

/** A frame points into itself, so that it is alive as long as the call that uses it; bytes to be sent lie outside, with the caller. */
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

/** Receives one fd that a peer has already sent; undefined when none is there. Never blocks. */
export function receiveFd(socketFd: number): OwnedFd | undefined {
  return receiveMessage(socketFd, 64)?.fd
}

/** The same with up to `room` bytes of what came with it. */
export function receiveMessage(
  socketFd: number,
  room: number,
): { readonly fd: OwnedFd; readonly data: Buffer } | undefined {
  const frame = frameOf(undefined, room)
  const received = recvmsg(socketFd, frame, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)
  if (received < 0) {
    const errno = lastErrno()
    if (errno === 11) return undefined
    throw syscallError('cannot receive a file descriptor', 'recvmsg', errno)
  }
  const control = frame.subarray(CONTROL, DATA)
  const length = Number(frame.readBigUInt64LE(40))
  if (length < 20 || control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) return undefined
  return { fd: new OwnedFd(control.readInt32LE(16)), data: frame.subarray(DATA, DATA + received) }
}

/** Sends bytes and, with the first of them, one fd over a connected unix socket, without waiting; how many of the bytes went out. */
export function sendFd(socketFd: number, data: Uint8Array, fd: number): number {
  const frame = frameOf(data, 0)
  frame.writeBigUInt64LE(20n, CONTROL)
  frame.writeInt32LE(SOL_SOCKET, CONTROL + 8)
  frame.writeInt32LE(SCM_RIGHTS, CONTROL + 12)
  frame.writeInt32LE(fd, CONTROL + 16)
  const sent = sendmsg(socketFd, frame, MSG_DONTWAIT | MSG_NOSIGNAL)
  if (sent < 0) throw syscallError('cannot send a file descriptor', 'sendmsg', lastErrno())
  return Math.min(sent, data.length)
}

/** Who is at the other end of a connected unix socket (SO_PEERCRED): pid, uid and gid at the time of connect(2). */
export function peerCredentials(fd: number): { pid: number; uid: number; gid: number } {
  const value = Buffer.alloc(12)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(12)
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, value, length) < 0) {
    throw syscallError('cannot read the peer of a connection', 'getsockopt', lastErrno())
  }
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) }
}

/** Connects to a unix stream socket by path, of any length; blocks no longer than the peer's backlog makes it. */
export function connectUnix(path: string): OwnedFd {
  return withPathAddress('connect', path, 'cannot connect to', (address) => {
    const fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
    if (fd < 0) throw syscallError('cannot make a socket', 'socket', lastErrno())
    const owned = new OwnedFd(fd)
    if (connect(fd, address, address.length) === 0) return owned
    const errno = lastErrno()
    owned.close()
    throw syscallError(`cannot connect to "${path}"`, 'connect', errno, path)
  })
}
