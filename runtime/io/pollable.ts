/**
 * Sockets on descriptors that can be polled but are not sockets: terminals and their masters. net.Socket chooses
 * libuv's handle by the kind of descriptor, and refuses a terminal; libuv's own tty handle writes blocking to a master.
 * The pipe handle reads and writes whatever epoll accepts, so its class is taken from a socket on a real pipe. Node is
 * pinned: in a version without that class the first terminal is an error.
 *
 * Invariant: O_NONBLOCK is set on the given description, so the caller must not share it.
 */
import { Socket, type SocketConstructorOpts } from 'node:net'
import { type OwnedFd, pipePair } from '../sys/fd.ts'
import type { Source } from './relay.ts'

/**
 * Keeps Node from opening fd 2 as a stream. A closing socket compares itself with process.stderr, whose getter makes
 * the descriptor non-blocking, for the caller of the program too. The main file of a program calls this once; a program
 * that embeds the library decides for itself.
 */
export function leaveStderrAlone(): void {
  Object.defineProperty(process, 'stderr', { value: null })
}

/** libuv's handle behind a net.Socket. */
interface PipeHandle {
  open(fd: number): number
}

type PipeConstructor = new (type: number) => PipeHandle

const SOCKET_HANDLE = 0

let pipeConstructor: PipeConstructor | undefined

function isPipeConstructor(value: unknown): value is PipeConstructor {
  return typeof value === 'function' && value.name === 'Pipe'
}

function pipeHandleClass(): PipeConstructor {
  if (pipeConstructor !== undefined) return pipeConstructor
  const { read, write } = pipePair()
  const probe = new Socket({
    fd: read.take(),
    readable: true,
    writable: false,
    manualStart: true,
  } as SocketConstructorOpts)
  const handle: unknown = Reflect.get(probe, '_handle')
  const found: unknown = typeof handle === 'object' && handle !== null ? handle.constructor : undefined
  probe.destroy()
  write.close()
  if (!isPipeConstructor(found)) throw new Error('cannot relay a terminal: this Node has no pipe handle')
  pipeConstructor = found
  return found
}

/**
 * A socket on a pollable descriptor, which it takes over.
 * @throws Error when libuv refuses it; the descriptor then stays the caller's
 */
export function pollableSocket(owned: OwnedFd, options: SocketConstructorOpts): Socket {
  const handle = new (pipeHandleClass())(SOCKET_HANDLE)
  const failure = handle.open(owned.fd)
  if (failure !== 0) throw new Error(`cannot relay a terminal: libuv error ${failure}`)
  owned.take()
  // `handle` is how net itself wraps accepted connections; its public types do not have it
  return Reflect.construct(Socket, [{ handle, ...options }])
}

/** A relay's source on a pollable descriptor that is not a pipe; taken over when the relay opens it. */
export function pollableSource(owned: OwnedFd): Source {
  const { fd } = owned
  return { fd, isPipe: false, open: (onread) => pollableSocket(owned, { readable: true, writable: false, onread }) }
}
