/**
 * An eventfd(2) in the event loop, without a thread. libuv refuses an anonymous inode as a stream, and a blocking read
 * would take one of the pool's four threads for the whole life of a container. So a net.Socket is made around the read
 * end of a pipe, which libuv accepts. dup3(2) then puts the eventfd in the place of that fd, before the loop has polled
 * it for the first time. From then on epoll reports the eventfd, and a read returns its eight bytes like any other
 * data. Measured: an event arrives within a millisecond. Invariant: there is no await between making the socket and
 * dup3, so the loop never polls the pipe.
 */

import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import { syscallError } from './errno.ts'
import { declare, lastErrno, pipe } from './libc.ts'
import { O_CLOEXEC } from './linux.ts'

const EFD_CLOEXEC = 0o2000000
const EFD_NONBLOCK = 0o4000

const eventfd = declare('int eventfd(unsigned int initval, int flags)')
const dup3 = declare('int dup3(int oldfd, int newfd, int flags)')

/** A stream of the event loop with the descriptor that stands in it. */
export type PlacedSocket = Socket & { readonly placedFd: number }

/**
 * A stream around a copy of `source`, a descriptor that libuv refuses to make one of; `what` is for messages. Errors
 * are the caller's to handle.
 */
export function loopSocket(source: number, what: string): PlacedSocket {
  const ends = pipe()
  const socket = new Socket({ fd: ends.read, readable: true, writable: false })
  const replaced = dup3(source, ends.read, O_CLOEXEC)
  const errno = lastErrno()
  closeSync(ends.write)
  if (replaced < 0) {
    socket.destroy()
    throw syscallError(`cannot place ${what}`, { call: 'dup3', errno })
  }
  return Object.assign(socket, { placedFd: ends.read })
}

/** An eventfd whose signals arrive as calls; closing it ends every registration that the kernel made for it. */
export interface EventCounter {
  /** The descriptor, borrowed, for the text of a registration (cgroup.event_control). */
  readonly fd: number
  close(): void
}

/** Where the eventfd of a counter comes from, and whether it keeps the process alive; default: a new one, no. */
interface EventCounterOptions {
  /** an eventfd that another process has made, taken over */
  readonly event?: number
  readonly keepsAlive?: boolean
}

/**
 * Calls `onEvent` after each signal of an eventfd (signals in between are merged).
 */
export function openEventCounter(onEvent: () => void, options: EventCounterOptions = {}): EventCounter {
  const event = options.event ?? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
  if (event < 0) throw syscallError('cannot make an eventfd', { call: 'eventfd', errno: lastErrno() })
  let socket: PlacedSocket
  try {
    socket = loopSocket(event, 'an eventfd')
  } finally {
    closeSync(event)
  }
  socket.on('data', onEvent)
  // an error can only mean that the descriptor is no longer usable; the owner reads its counter again anyway
  socket.on('error', () => socket.destroy())
  if (options.keepsAlive !== true) socket.unref()
  return { fd: socket.placedFd, close: () => void socket.destroy() }
}
