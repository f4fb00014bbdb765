/**
 * The terminal of a process: the shim holds the pty's master, copies it to the client's stdout fifo, and copies the
 * client's stdin fifo to it.
 *
 * The master is read even when no client wants the output, or the process would block. The end of the client's fifo is
 * not passed on: the only end of input on a terminal is a typed character. Reading the master ends with EIO when no
 * process has the other side open. Until the process has ended, the shim holds the other side open as well. An init may
 * close its terminal and open /dev/console anew, and a program that detaches itself may open its terminal again;
 * neither must find a hangup.
 *
 * Invariant: reading and writing use a descriptor each. Input that can no longer be written does not end the reading,
 * and a writer that waits does not poll a terminal that has hung up.
 */

import { type OwnedFd, resizeTerminal } from '../../runtime/index.ts'
import {
  duplicate,
  openPeer,
  pipeSource,
  pollableSocket,
  pollableSource,
  Relay,
  type Sink,
  SocketSink,
} from '../../runtime/internal.ts'
import type { InputFifo } from './fifo.ts'

/** The relays of one terminal. */
export class Console {
  #fd: number
  readonly #peer: OwnedFd
  readonly #output: Relay
  readonly #input: Relay | undefined
  readonly #stdin: InputFifo | undefined

  /**
   * Takes the master; copies it to `stdout`, and from `stdin` when there is one.
   * @throws the error of opening the other side; the master then stays with the caller
   */
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

  /** Resolves when the last output was written to the client. */
  get drained(): Promise<void> {
    return this.#output.done
  }

  /** Sets the size in character cells. */
  resize(size: { readonly width: number; readonly height: number }): void {
    if (this.#fd >= 0) resizeTerminal(this.#fd, size)
  }

  /**
   * The process has ended: stops the input. The output ends when no other process of the container has the terminal
   * open.
   */
  exited(): void {
    this.#stdin?.closeKeepAlive()
    this.#input?.close()
    this.#peer.close()
  }

  /** Closes everything; output that was not read yet is lost. */
  close(): void {
    this.exited()
    this.#fd = -1
    this.#output.close()
  }
}
