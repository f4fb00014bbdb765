/**
 * Copying from a stream to a stream without threads and without an unbounded buffer. A source reads into a buffer that
 * all relays share, and gives each chunk to its sink at once. A sink that cannot take all of it keeps a copy of the
 * rest, and the source is not read again until that is written. So a slow reader stops the writer in the end, as with
 * any pipe. From a pipe to a fifo only the first page of a burst is copied, which is how the relay notices it; the
 * kernel moves the rest. Small writes are always copied: each moved one would take one of the fifo's sixteen places,
 * whatever its size.
 *
 * Invariants: at most one chunk per relay waits in memory. A broken sink never blocks the container (sinks.ts). `done`
 * resolves when the last byte was handed on, or the relay was closed.
 */

import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net'
import { unreadBytes } from '../sys/fd.ts'
import { PAGE_BYTES } from '../sys/linux.ts'

const BUFFER_BYTES = 64 * 1024
/** For files, where a call costs more than its bytes. */
const LARGE_BYTES = 256 * 1024

/** One buffer of each size for all relays: a sink is done with a chunk before the event loop goes on. */
const buffers = new Map<number, Buffer>()

/** The target of a relay. */
export interface Sink {
  /**
   * Takes a chunk, which is valid only during the call (but see `ownBuffer`). False: a part is kept, and nothing may be
   * written until `onReady`.
   */
  write(chunk: Uint8Array): boolean
  /** Moves what waits in a pipe without a copy; the number of bytes. Only called when nothing is kept. */
  moveFrom?(pipe: number): number
  /** the relay reads large chunks into a buffer that no other relay uses, so that a chunk is valid until `onReady` */
  readonly ownBuffer?: boolean
  /** Set by the relay. A sink calls it to have the source closed, so that the writer at its other end gets EPIPE. */
  onGone?: () => void
  /** Set by the relay. A sink calls it when a chunk that it kept is written. */
  onReady: () => void
  /** Ends the writing; the reader can still read what was written. */
  end(): void
  /** Gives up at once. */
  destroy(): void
}

/** The source of a relay. */
export interface Source {
  /** Makes the socket that reads. */
  open(onRead: OnReadOpts): Socket
  /** the descriptor, borrowed; its socket owns it once it was opened */
  readonly fd: number
  /** whether it is a pipe, so that its bytes can be moved */
  readonly isPipe: boolean
}

/** A source on the descriptor of a pipe or fifo, which its socket takes over. */
export function pipeSource(fd: number): Source {
  return {
    fd,
    isPipe: true,
    open(onread) {
      const options: SocketConstructorOpts = { fd, readable: true, writable: false, onread }
      return new Socket(options)
    },
  }
}

function bufferOf(size: number): Buffer {
  let buffer = buffers.get(size)
  if (buffer === undefined) {
    buffer = Buffer.allocUnsafeSlow(size)
    buffers.set(size, buffer)
  }
  return buffer
}

/** One direction of one stream. */
export class Relay {
  /** Resolves when the source has ended and everything was handed on, or the relay was closed; never rejects. */
  readonly done: Promise<void>
  readonly #source: Socket
  readonly #fd: number
  readonly #sink: Sink
  /** whether bytes can go from the source to the sink without a copy */
  readonly #moves: boolean
  readonly #resolve: () => void
  #state: 'open' | 'blocked' | 'closed' = 'open'
  #sourceEnded = false
  #taken = 0
  #handed = 0

  constructor(source: Source, sink: Sink) {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.done = promise
    this.#resolve = resolve
    this.#sink = sink
    sink.onReady = () => this.#ready()
    sink.onGone = () => this.close()
    this.#fd = source.fd
    this.#moves = source.isPipe && sink.moveFrom !== undefined
    const shared = this.#moves ? PAGE_BYTES : BUFFER_BYTES
    const buffer = sink.ownBuffer === true ? Buffer.allocUnsafeSlow(LARGE_BYTES) : bufferOf(shared)
    this.#source = source.open({ buffer, callback: (count) => this.#read(buffer.subarray(0, count)) })
    // a terminal's master fails with EIO when no process has the other side open any more
    this.#source.on('error', () => this.#end())
    this.#source.on('end', () => this.#end())
    this.#source.on('close', () => this.#end())
  }

  /** Whether it has not ended yet. */
  get open(): boolean {
    return this.#state !== 'closed'
  }

  /** How many bytes the source has given so far. */
  get taken(): number {
    return this.#taken
  }

  /** How many of those bytes the sink has handed on. */
  get handed(): number {
    return this.#handed
  }

  /** How many bytes still wait in the source. */
  get unread(): number {
    return this.#sourceEnded || this.#state === 'closed' ? 0 : unreadBytes(this.#fd)
  }

  /** Stops at once; bytes that were not copied are lost. */
  close(): void {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    this.#source.destroy()
    this.#sink.destroy()
    this.#resolve()
  }

  #read(chunk: Uint8Array): boolean {
    if (this.#state !== 'open') return false
    this.#taken += chunk.length
    if (!this.#sink.write(chunk)) {
      // onReady comes from the event loop, never from within write
      this.#state = 'blocked'
      return false
    }
    // a full buffer: there is more
    if (this.#moves && chunk.length === PAGE_BYTES) this.#taken += this.#sink.moveFrom?.(this.#fd) ?? 0
    this.#handed = this.#taken
    return true
  }

  #ready(): void {
    if (this.#state !== 'blocked') return
    this.#state = 'open'
    this.#handed = this.#taken
    if (this.#sourceEnded) this.#finish()
    else this.#source.resume()
  }

  #end(): void {
    this.#sourceEnded = true
    if (this.#state === 'open') this.#finish()
  }

  #finish(): void {
    this.#state = 'closed'
    this.#source.destroy()
    this.#sink.end()
    this.#resolve()
  }
}
