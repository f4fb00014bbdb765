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
import {
  duplicate,
  type OwnedFd,
  openPeer,
  pipeSource,
  pollableSocket,
  pollableSource,
  Relay,
  resizeTerminal,
  type Sink,
  SocketSink,
} from '../../runtime/index.ts'
import type { InputFifo } from './fifo.ts'

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
      this.#output = new Relay(pollableSource(master), stdout)
      void this.#output.done.then(() => (this.#fd = -1))
      if (stdin === undefined || inputMaster === undefined) return
      const sink = new SocketSink(pollableSocket(inputMaster, { readable: false, writable: true }))
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
