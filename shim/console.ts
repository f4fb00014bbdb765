/**
 * The terminal of a process: its pty's master is ours, and is copied to the client's stdout fifo, and from its stdin fifo. The master is
 * always read, also when nobody wants the output, or the process would block. The end of the client's input ends nothing here: a
 * terminal has no end of input but what is typed. The end of the terminal is EIO, when no process has the other side open. Until its
 * process has ended we have that open ourselves, since a process may let go of its terminal and come back (an init that opens
 * /dev/console anew, a program that detaches itself): it must find no hangup.
 *
 * Invariant: reading and writing have a descriptor each, so that what cannot be written any more neither ends the reading nor, waiting,
 * keeps us awake on a terminal that has hung up.
 */
import { Socket, type SocketConstructorOpts } from 'node:net'
import { duplicate, type OwnedFd, openPeer, pipePair, resizeTerminal } from '../runtime/index.ts'
import type { InputFifo } from './fifo.ts'
import { pipeSource, Relay, type Sink, SocketSink } from './relay.ts'

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

/**
 * libuv's pipe handle reads and writes any descriptor that can be polled; its tty handle would do blocking writes to a master. net.Socket
 * picks the handle by the kind of descriptor, so we take the class from a socket around a real pipe. (Node is pinned; a version without
 * it is an error at the first terminal, not a silent change.)
 */
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

/** A socket on a master of its own. */
function masterSocket(master: OwnedFd, options: SocketConstructorOpts): Socket {
  const handle = new (pipeHandleClass())(SOCKET_HANDLE)
  const failure = handle.open(master.fd)
  if (failure !== 0) throw new Error(`cannot relay a terminal: libuv error ${failure}`)
  master.take()
  // `handle` is how net itself wraps the connections that it accepts; its public types do not name it
  return Reflect.construct(Socket, [{ handle, ...options }])
}

/** A relayed terminal. */
export class Console {
  #fd: number
  readonly #peer: OwnedFd
  readonly #output: Relay
  readonly #input: Relay | undefined
  readonly #stdin: InputFifo | undefined

  /** Takes the master; copies it to `stdout`, and from `stdin` when there is one. @throws what opening met: the master stays the caller's then */
  constructor(master: OwnedFd, options: { stdin: InputFifo | undefined; stdout: Sink }) {
    const { stdin, stdout } = options
    this.#fd = master.fd
    this.#stdin = stdin
    using inputMaster = stdin === undefined ? undefined : duplicate(master.fd)
    const peer = openPeer(master.fd)
    this.#peer = peer
    try {
      const open = (onread: SocketConstructorOpts['onread']): Socket =>
        masterSocket(master, { readable: true, writable: false, onread })
      this.#output = new Relay({ open, pipe: -1 }, stdout)
      void this.#output.done.then(() => (this.#fd = -1))
      if (stdin === undefined || inputMaster === undefined) return
      const sink = new SocketSink(masterSocket(inputMaster, { readable: false, writable: true }))
      this.#input = new Relay(pipeSource(stdin.takeReader()), sink)
    } catch (error) {
      peer.close()
      throw error
    }
  }

  /** Resolves when the last output was handed on. */
  get drained(): Promise<void> {
    return this.#output.done
  }

  /** Sets the size in character cells. */
  resize(size: { readonly width: number; readonly height: number }): void {
    if (this.#fd >= 0) resizeTerminal(this.#fd, size)
  }

  /** The process has ended: takes no more input, and the terminal ends when nobody else in the container has it open. */
  exited(): void {
    this.#stdin?.closeKeepAlive()
    this.#input?.close()
    this.#peer.close()
  }

  close(): void {
    this.exited()
    this.#fd = -1
    this.#output.close()
  }
}
