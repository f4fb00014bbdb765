/**
 * Unix datagram sockets, for which Node has no API. They are made bound or connected, then used like files: read(2)
 * takes one datagram, write(2) sends one. All fds are CLOEXEC and non-blocking.
 */

import { readSync } from 'node:fs'
import { errnoOf, syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { declare, lastErrno } from './libc.ts'
import { AF_UNIX, EAGAIN, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK } from './linux.ts'
import { connect, socket } from './socket.ts'
import { type AddressUse, abstractAddress, withPathAddress } from './unix-path.ts'

const calls: Readonly<Record<AddressUse, (...args: readonly unknown[]) => number>> = {
  bind: declare('int bind(int fd, const void *address, unsigned int length)'),
  connect,
}

/** "@name" is the abstract socket of that name, as sd_notify(3) writes it. */
function open(call: AddressUse, path: string, what: string): OwnedFd {
  const use = (address: Buffer): OwnedFd => {
    const fd = new OwnedFd(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0))
    if (fd.fd < 0) throw syscallError('cannot make a socket', { call: 'socket', errno: lastErrno() })
    if (calls[call](fd.fd, address, address.length) === 0) return fd
    const errno = lastErrno()
    fd.close()
    throw syscallError(`${what} "${path}"`, { call, errno, path })
  }
  return path.startsWith('@') ? use(abstractAddress(path.slice(1), what)) : withPathAddress({ call, path, what }, use)
}

/** A socket that receives what is sent to a path. */
export function bindDatagram(path: string): OwnedFd {
  return open('bind', path, 'cannot listen on')
}

/** A socket that sends to a path. */
export function connectDatagram(path: string): OwnedFd {
  return open('connect', path, 'cannot connect to')
}

/** The next datagram, cut at `bytes`; undefined when none is waiting. */
export function receiveDatagram(fd: number, bytes: number): Buffer | undefined {
  const buffer = Buffer.alloc(bytes)
  try {
    return buffer.subarray(0, readSync(fd, buffer))
  } catch (error) {
    if (errnoOf(error) === EAGAIN) return undefined
    throw error
  }
}
