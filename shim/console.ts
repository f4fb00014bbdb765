/**
 * The terminal of a process: its pty's master is ours, and is copied to the client's stdout fifo, and from its stdin fifo. The master is
 * always read, also when nobody wants the output, or the process would block. The end of the client's input ends nothing here: a
 * terminal has no end of input but what is typed. The end of the terminal is EIO, when no process has the other side open.
 */
import { Socket, type SocketConstructorOpts } from 'node:net'
import { type OwnedFd, pipePair, resizeTerminal } from '../runtime/index.ts'
import type { InputFifo } from './fifo.ts'
import { pipeSource, Relay, type Sink, SocketSink, type Source } from './relay.ts'

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

/** A source on the master of a pty; the socket can be written to as well. */
function masterSource(master: OwnedFd): Source {
  const open: Source['open'] = (onread) => {
    const handle = new (pipeHandleClass())(SOCKET_HANDLE)
    const failure = handle.open(master.fd)
    if (failure !== 0) throw new Error(`cannot relay a terminal: libuv error ${failure}`)
    master.take()
    // `handle` is how net itself wraps the connections that it accepts; its public types do not name it
    const socket: Socket = Reflect.construct(Socket, [{ handle, readable: true, writable: true, onread }])
    return socket
  }
  return { open, pipe: -1 }
}

/** A relayed terminal. */
export class Console {
  readonly #fd: number
  readonly #output: Relay
  readonly #input: Relay | undefined
  readonly #stdin: InputFifo | undefined

  /** Takes the master; copies it to `stdout`, and from `stdin` when there is one. */
  constructor(master: OwnedFd, options: { stdin: InputFifo | undefined; stdout: Sink }) {
    this.#fd = master.fd
    this.#stdin = options.stdin
    this.#output = new Relay(masterSource(master), options.stdout)
    if (this.#stdin === undefined) return
    const sink = new SocketSink(this.#output.source, { owned: false })
    this.#input = new Relay(pipeSource(this.#stdin.takeReader()), sink)
  }

  /** Resolves when the last output was handed on. */
  get drained(): Promise<void> {
    return this.#output.done
  }

  /** Sets the size in character cells. */
  resize(size: { readonly width: number; readonly height: number }): void {
    if (!this.#output.source.destroyed) resizeTerminal(this.#fd, size)
  }

  /** Takes no more input. */
  closeInput(): void {
    this.#stdin?.closeKeepAlive()
    this.#input?.close()
  }

  close(): void {
    this.closeInput()
    this.#output.close()
  }
}
