/**
 * Copying from a stream to a stream without threads and without an unbounded buffer: a source reads into one buffer that all relays of
 * the process share, and gives each chunk to its sink at once. A sink that cannot take all of it keeps a copy of the rest, and the source
 * is not read again until that is gone, so a slow reader in the end stops the writer, as with any pipe. From a pipe to a fifo only the
 * first page of a burst is copied, which is how we learn of it; the kernel moves the rest. (Small writes are always copied: moved ones
 * would each take one of the fifo's sixteen places, whatever their size.)
 *
 * Invariants: at most one chunk per relay waits in memory; a broken sink never blocks the container (sinks.ts); `done` resolves when the
 * last byte has been handed on, or the relay was closed.
 */

import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net'
import { unreadBytes } from '../sys/fd.ts'
import { PAGE_BYTES } from '../sys/linux.ts'

const BUFFER_BYTES = 64 * 1024
/** For a file, where a call costs more than its bytes. */
const LARGE_BYTES = 256 * 1024

/** One of each size for all relays: a chunk is used up before the event loop goes on. */
const buffers = new Map<number, Buffer>()

/** Where a relay puts its bytes. */
export interface Sink {
  /** Takes a chunk, which is only valid during the call (but see `ownBuffer`). False: part of it is kept, write no more until `onReady`. */
  write(chunk: Uint8Array): boolean
  /** Takes what waits in a pipe, without a copy; the number of bytes. Only called when nothing is kept. */
  moveFrom?(pipe: number): number
  /** the relay reads large chunks into a buffer that no other relay uses, so that a chunk is valid until `onReady` */
  readonly ownBuffer?: boolean
  /** Set by the relay; called by a sink after which nobody shall read the source any more, so that who writes there learns of it. */
  onGone?: () => void
  /** Set by the relay; called when a chunk that was kept is gone. */
  onReady: () => void
  /** No more is written; what the reader has not taken yet stays there for it. */
  end(): void
  /** Gives up now. */
  destroy(): void
}

/** What a relay reads from. */
export interface Source {
  /** Makes the socket that reads. */
  open(onRead: OnReadOpts): Socket
  /** the descriptor, borrowed; the relay's own once it was opened */
  readonly fd: number
  /** whether it is a pipe, so that its bytes can be moved */
  readonly isPipe: boolean
}

/** A source on a descriptor of a pipe or fifo, which its socket owns from now on. */
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
    // EIO is how a terminal's master tells that nobody has the other side open any more
    this.#source.on('error', () => this.#end())
    this.#source.on('end', () => this.#end())
    this.#source.on('close', () => this.#end())
  }

  /** Whether it has not come to its end yet. */
  get open(): boolean {
    return this.#state !== 'closed'
  }

  /** How many bytes the source has given so far. */
  get taken(): number {
    return this.#taken
  }

  /** How many of them the sink has handed on. */
  get handed(): number {
    return this.#handed
  }

  /** How many bytes wait in the source, not taken yet. */
  get unread(): number {
    return this.#sourceEnded || this.#state === 'closed' ? 0 : unreadBytes(this.#fd)
  }

  /** Stops, whatever has not been copied yet. */
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
