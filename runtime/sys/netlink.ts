/**
 * Sockets that speak rtnetlink(7) with the kernel: a request, and its answers. The kernel carries a request out within
 * send(2), even one that takes time, and has answered when send returns. It makes the next part of a list when the
 * previous one has been read. So a read never needs to wait, and an answer that is missing then will not come.
 * Invariant: only messages of the kernel are read; the socket is connected to it, so that no other process can send to
 * it.
 */

import { syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { declare, ioctlNumber, lastErrno } from './libc.ts'
import {
  AF_NETLINK,
  EINTR,
  EMSGSIZE,
  EPROTO,
  EPROTONOSUPPORT,
  MSG_DONTWAIT,
  MSG_TRUNC,
  SOCK_CLOEXEC,
  SOCK_RAW,
  SOL_SOCKET,
} from './linux.ts'
import { connect, getsockopt, socket } from './socket.ts'

const NETLINK_ROUTE = 0
const SO_PROTOCOL = 38
const SOL_NETLINK = 270
const NETLINK_GET_STRICT_CHK = 12
const SIOCGSKNS = 0x894c

/**
 * struct nlmsghdr: length u32, type u16, flags u16, sequence u32, port u32; messages lie at multiples of four bytes.
 */
const HEADER_BYTES = 16
const NLM_F_REQUEST = 1
const NLM_F_ACK = 4
const NLM_F_DUMP = 0x300
const NLM_F_DUMP_INTR = 0x10
const NLMSG_ERROR = 2
const NLMSG_DONE = 3
/**
 * struct sockaddr_nl: family u16, padding u16, port u32, groups u32. The kernel's own address is zero but for the
 * family.
 */
const ADDRESS_BYTES = 12
/** How often a list is asked for again when it changed while the kernel made it. */
const LIST_TRIES = 16
/** The largest part of a list that the kernel sends at once (netlink(7)). */
const ANSWER_BYTES = 32768

const setsockopt = declare('int setsockopt(int fd, int level, int name, const void *value, unsigned int length)')
const send = declare('long send(int fd, const void *data, unsigned long size, int flags)')
const recvfrom = declare('long recvfrom(int fd, void *data, unsigned long size, int flags, void *from, void *length)')

/** A request: its type (RTM_*), its body, and NLM_F_* flags beside the customary ones. */
export interface RouteRequest {
  readonly type: number
  readonly body: Uint8Array
  readonly flags?: number
}

/** One message from the kernel. */
export interface RouteMessage {
  readonly type: number
  readonly body: Buffer
  /** part of a list that changed while the kernel made it */
  readonly interrupted: boolean
}

/** A socket in the network namespace of this process. */
export function openRouteSocket(): OwnedFd {
  const fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)
  if (fd < 0) throw syscallError('cannot make a netlink socket', { call: 'socket', errno: lastErrno() })
  const owned = new OwnedFd(fd)
  try {
    connectToKernel(fd)
  } catch (error) {
    owned.close()
    throw error
  }
  return owned
}

/**
 * Connects a route socket to the kernel and sets it up; another program may have opened it.
 * @throws EPROTONOSUPPORT for a socket of another netlink family
 */
export function connectToKernel(fd: number): void {
  const address = Buffer.alloc(ADDRESS_BYTES)
  address.writeUInt16LE(AF_NETLINK)
  // the kernel has many netlink families, and the same numbers mean other things in each
  const [protocol, size] = [Buffer.alloc(4), Buffer.from([4, 0, 0, 0])]
  if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, protocol, size) < 0)
    throw syscallError('cannot use a netlink socket', { call: 'getsockopt', errno: lastErrno() })
  if (protocol.readInt32LE(0) !== NETLINK_ROUTE)
    throw syscallError('cannot use a netlink socket', { call: 'socket', errno: EPROTONOSUPPORT })
  if (connect(fd, address, address.length) < 0)
    throw syscallError('cannot use a netlink socket', { call: 'connect', errno: lastErrno() })
  // without strict checks the kernel answers a request for one device with all of them
  const on = Buffer.from([1, 0, 0, 0])
  if (setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, on, on.length) < 0)
    throw syscallError('cannot use a netlink socket', { call: 'setsockopt', errno: lastErrno() })
}

/** The network namespace that a socket was made in (SIOCGSKNS). */
export function namespaceOfSocket(fd: number): OwnedFd {
  return new OwnedFd(ioctlNumber(fd, SIOCGSKNS, 0))
}

/**
 * Asks the kernel to change something.
 * @throws the kernel's errno
 */
export function change(fd: number, request: RouteRequest): void {
  transmit(fd, request, NLM_F_ACK)
  const [answer] = receive(fd)
  if (answer?.type !== NLMSG_ERROR) throw failure(EPROTO)
  refuseError(answer)
}

/**
 * Asks for one object; the answer.
 * @throws the kernel's errno
 */
export function get(fd: number, request: RouteRequest): RouteMessage {
  transmit(fd, request, 0)
  const [answer] = receive(fd)
  if (answer === undefined) throw failure(EPROTO)
  refuseError(answer)
  return answer
}

/**
 * Asks for all objects of a kind.
 * @throws the kernel's errno; EINTR when the list changed during every try
 */
export function list(fd: number, request: RouteRequest): readonly RouteMessage[] {
  for (let tries = 0; tries < LIST_TRIES; tries++) {
    const all = listOnce(fd, request)
    if (!all.some(({ interrupted }) => interrupted)) return all.slice(0, -1)
  }
  throw failure(EINTR)
}

/** One try: the messages of a list, with the NLMSG_DONE that ends it. */
function listOnce(fd: number, request: RouteRequest): readonly RouteMessage[] {
  transmit(fd, request, NLM_F_DUMP)
  const all: RouteMessage[] = []
  for (;;) {
    const part = receive(fd)
    if (part.length === 0) throw failure(EPROTO)
    for (const message of part) {
      refuseError(message)
      all.push(message)
      if (message.type === NLMSG_DONE) return all
    }
  }
}

function failure(errno: number, call = 'netlink'): Error {
  return syscallError('cannot talk to the kernel', { call, errno })
}

/** An acknowledgement is an error of 0; the end of a list carries the errno that ended it. */
function refuseError({ type, body }: RouteMessage): void {
  if (type !== NLMSG_ERROR && type !== NLMSG_DONE) return
  const errno = body.length < 4 ? EPROTO : -body.readInt32LE(0)
  if (errno !== 0) throw failure(errno)
}

function transmit(fd: number, { type, body, flags = 0 }: RouteRequest, more: number): void {
  const message = Buffer.alloc(HEADER_BYTES + body.length)
  message.writeUInt32LE(message.length, 0)
  message.writeUInt16LE(type, 4)
  message.writeUInt16LE(NLM_F_REQUEST | flags | more, 6)
  message.set(body, HEADER_BYTES)
  if (send(fd, message, message.length, 0) < 0) throw failure(lastErrno(), 'send')
}

/**
 * The messages of the next datagram. A datagram from another sender can only have come before the socket was connected,
 * and is skipped.
 */
function receive(fd: number): RouteMessage[] {
  const data = Buffer.alloc(ANSWER_BYTES)
  const from = Buffer.alloc(ADDRESS_BYTES)
  const length = Buffer.alloc(4)
  for (;;) {
    length.writeUInt32LE(ADDRESS_BYTES)
    const size = recvfrom(fd, data, data.length, MSG_DONTWAIT | MSG_TRUNC, from, length)
    if (size < 0) throw failure(lastErrno(), 'recvfrom')
    if (length.readUInt32LE(0) !== ADDRESS_BYTES || from.readUInt32LE(4) !== 0) continue
    if (size > data.length) throw failure(EMSGSIZE)
    return messagesIn(data.subarray(0, size))
  }
}

function messagesIn(data: Buffer): RouteMessage[] {
  const messages: RouteMessage[] = []
  for (let at = 0; at + HEADER_BYTES <= data.length; ) {
    const length = data.readUInt32LE(at)
    if (length < HEADER_BYTES || at + length > data.length) break
    messages.push({
      type: data.readUInt16LE(at + 4),
      body: data.subarray(at + HEADER_BYTES, at + length),
      interrupted: (data.readUInt16LE(at + 6) & NLM_F_DUMP_INTR) !== 0,
    })
    at += (length + 3) & ~3
  }
  return messages
}
