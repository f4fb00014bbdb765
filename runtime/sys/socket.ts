/**
 * The socket calls that Node has no API for: socketpair(2), receiving one fd by SCM_RIGHTS (unix(7)), peer credentials, and
 * connecting to a unix socket without an event loop. All fds are CLOEXEC.
 */
import koffi from 'koffi'
import { syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { declare, lastErrno } from './libc.ts'

const AF_UNIX = 1
const SOCK_STREAM = 1
const SOCK_CLOEXEC = 0o2000000
const SOL_SOCKET = 1
const SO_PEERCRED = 17
const SCM_RIGHTS = 1
const MSG_CMSG_CLOEXEC = 0x40000000
const MSG_DONTWAIT = 0x40

const socketpair = declare('int socketpair(int domain, int type, int protocol, void *fds)')
const recvmsg = declare('long recvmsg(int fd, void *msg, int flags)')
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

/** Receives one fd that a peer has already sent; undefined when none is there. Never blocks. */
export function receiveFd(fd: number): OwnedFd | undefined {
  // struct msghdr (x86-64 and arm64): name, namelen, iov, iovlen, control, controllen, flags: 56 bytes
  const data = Buffer.alloc(64)
  const control = Buffer.alloc(24)
  const iov = Buffer.alloc(16)
  const message = Buffer.alloc(56)
  iov.writeBigUInt64LE(koffi.address(data), 0)
  iov.writeBigUInt64LE(BigInt(data.length), 8)
  message.writeBigUInt64LE(koffi.address(iov), 16)
  message.writeBigUInt64LE(1n, 24)
  message.writeBigUInt64LE(koffi.address(control), 32)
  message.writeBigUInt64LE(BigInt(control.length), 40)
  const received = recvmsg(fd, message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)
  if (received < 0) {
    const errno = lastErrno()
    if (errno === 11) return undefined
    throw syscallError('cannot receive a file descriptor', 'recvmsg', errno)
  }
  const length = Number(message.readBigUInt64LE(40))
  if (length < 20 || control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) return undefined
  return new OwnedFd(control.readInt32LE(16))
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

/** Connects to a unix stream socket by path; blocks no longer than the peer's backlog makes it. */
export function connectUnix(path: string): OwnedFd {
  const bytes = Buffer.from(path)
  if (bytes.length > 107) throw syscallError(`cannot connect to "${path}"`, 'connect', 36, path)
  const fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
  if (fd < 0) throw syscallError('cannot make a socket', 'socket', lastErrno())
  const owned = new OwnedFd(fd)
  const address = Buffer.alloc(110)
  address.writeUInt16LE(AF_UNIX, 0)
  bytes.copy(address, 2)
  if (connect(fd, address, 2 + bytes.length + 1) < 0) {
    const errno = lastErrno()
    owned.close()
    throw syscallError(`cannot connect to "${path}"`, 'connect', errno, path)
  }
  return owned
}
