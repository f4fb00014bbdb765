/**
 * Unix datagram sockets, which Node has no API for: made bound or connected, then used like files (read(2) takes one datagram, write(2)
 * sends one). All fds are CLOEXEC and non-blocking.
 */
import { readSync } from 'node:fs'
import { errnoOf, syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { declare, lastErrno } from './libc.ts'

const AF_UNIX = 1
const SOCK_DGRAM = 2
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const PATH_BYTES = 108
const EAGAIN = 11
const ENAMETOOLONG = 36

type Call = 'bind' | 'connect'

const socket = declare('int socket(int domain, int type, int protocol)')
const calls: Readonly<Record<Call, (...args: readonly unknown[]) => number>> = {
  bind: declare('int bind(int fd, const void *address, unsigned int length)'),
  connect: declare('int connect(int fd, const void *address, unsigned int length)'),
}

/** struct sockaddr_un; "@name" is the abstract socket of that name, as sd_notify(3) writes it. */
function address(path: string, what: string): Buffer {
  const bytes = Buffer.from(path)
  if (bytes.length >= PATH_BYTES) throw syscallError(`${what} "${path}"`, 'connect', ENAMETOOLONG, path)
  const abstract = path.startsWith('@')
  if (abstract) bytes[0] = 0
  const family = Buffer.alloc(2)
  family.writeUInt16LE(AF_UNIX)
  return Buffer.concat([family, bytes, Buffer.alloc(abstract ? 0 : 1)])
}

function open(call: Call, path: string, what: string): OwnedFd {
  const name = address(path, what)
  const fd = new OwnedFd(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0))
  if (fd.fd < 0) throw syscallError('cannot make a socket', 'socket', lastErrno())
  if (calls[call](fd.fd, name, name.length) === 0) return fd
  const errno = lastErrno()
  fd.close()
  throw syscallError(`${what} "${path}"`, call, errno, path)
}

/** A socket that receives what is sent to a path. */
export function bindDatagram(path: string): OwnedFd {
  return open('bind', path, 'cannot listen on')
}

/** A socket that sends to a path. */
export function connectDatagram(path: string): OwnedFd {
  return open('connect', path, 'cannot connect to')
}

/** The next datagram, cut at `bytes`; undefined when none is there. */
export function receiveDatagram(fd: number, bytes: number): Buffer | undefined {
  const buffer = Buffer.alloc(bytes)
  try {
    return buffer.subarray(0, readSync(fd, buffer))
  } catch (error) {
    if (errnoOf(error) === EAGAIN) return undefined
    throw error
  }
}
