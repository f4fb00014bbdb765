/**
 * Copying from a stream to a stream without threads and without an unbounded buffer: a source reads into one buffer that all relays of
 * the process share, and gives each chunk to its sink at once. A sink that cannot take all of it keeps a copy of the rest, and the source
 * is not read again until that is gone, so a slow reader in the end stops the writer, as with any pipe. From a pipe to a fifo only the
 * first page of a burst is copied, which is how we learn of it; the kernel moves the rest. (Small writes are always copied: moved ones
 * would each take one of the fifo's sixteen places, whatever their size.)
 *
 * Invariants: at most one chunk per relay waits in memory; a sink that fails swallows what still comes, so that the container is never
 * blocked by a broken log; `done` resolves when the last byte has been handed on.
 */
import { close, closeSync, constants, openSync, write, writeSync } from 'node:fs'
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net'
import { constants as osConstants } from 'node:os'
import { dirname } from 'node:path'
import { errnoName, errnoOf, makeDirectories, movePipeBytes, RuntimeError } from '../runtime/index.ts'
import type { OutputFifo } from './fifo.ts'

const BUFFER_BYTES = 64 * 1024
const PAGE_BYTES = 4096
/** What is moved at once, and how often before other work gets its turn. */
const MOVE_BYTES = 1024 * 1024
const MOVES = 16

/** How soon a device that is full is tried again: at first, and in the end. */
const FULL_MS = 1
const LONG_FULL_MS = 250

/** One of each size for all relays: a chunk is used up before the event loop goes on. */
const buffers = new Map<number, Buffer>()

/** Where a relay puts its bytes. */
export interface Sink {
  /** Takes a chunk, which is only valid during the call. False: part of it is kept, write no more until `onReady`. */
  write(chunk: Uint8Array): boolean
  /** Takes what waits in a pipe, without a copy; only called when nothing is kept. */
  moveFrom?(pipe: number): void
  /** Set by the relay; called by a sink after which nobody shall read the source any more, so that who writes there learns of it. */
  onGone?: () => void
  /** Set by the relay; called when a chunk that was kept is gone. */
  onReady: () => void
  /** No more is written; what the reader has not taken yet stays there for it. */
  end(): void
  /** Gives up now. */
  destroy(): void
}

/** Takes everything and keeps nothing. */
export function discardSink(): Sink {
  return { write: () => true, onReady: () => {}, end() {}, destroy() {} }
}

/** Writes what fits into a non-blocking descriptor; the number of bytes taken. */
function writeSome(fd: number, chunk: Uint8Array): number {
  try {
    return writeSync(fd, chunk)
  } catch (error) {
    if (errnoOf(error) === osConstants.errno.EAGAIN) return 0
    throw error
  }
}

/** A sink that is a client's fifo. */
export class FifoSink implements Sink {
  onReady: () => void = () => {}
  readonly #fifo: OutputFifo
  readonly #onError: (error: Error) => void
  /** made when the fifo is full for the first time; owns the descriptor then */
  #socket: Socket | undefined
  #broken = false

  constructor(fifo: OutputFifo, options: { onError: (error: Error) => void }) {
    this.#fifo = fifo
    this.#onError = options.onError
  }

  write(chunk: Uint8Array): boolean {
    if (this.#broken) return true
    try {
      const taken = writeSome(this.#fifo.fd, chunk)
      if (taken === chunk.length) return true
      this.#socket ??= this.#open()
      this.#socket.write(Buffer.from(chunk.subarray(taken)), () => this.onReady())
      return false
    } catch (error) {
      // we hold the reading end ourselves, so it is no vanished client
      this.#fail(error)
      return true
    }
  }

  moveFrom(pipe: number): void {
    if (this.#broken) return
    try {
      for (let i = 0; i < MOVES && movePipeBytes(pipe, this.#fifo.fd, MOVE_BYTES) > 0; i++);
    } catch (error) {
      this.#fail(error)
    }
  }

  end(): void {
    this.#fifo.release((fd) => this.#close(fd))
  }

  destroy(): void {
    this.#fifo.close((fd) => this.#close(fd))
  }

  #open(): Socket {
    const socket = new Socket({ fd: this.#fifo.fd, readable: false, writable: true })
    socket.on('error', (error) => {
      this.#fail(error)
      this.onReady()
    })
    return socket
  }

  #fail(error: unknown): void {
    this.#broken = true
    this.#onError(new Error(`cannot write to a stream: ${errnoName(errnoOf(error))}`))
  }

  #close(fd: number): void {
    if (this.#socket === undefined) closeSync(fd)
    else this.#socket.destroy()
    this.#socket = undefined
  }
}

/** A sink that is a socket of its own: the pipe to a process's stdin or to a log program, or a terminal. */
export class SocketSink implements Sink {
  onReady: () => void = () => {}
  onGone: () => void = () => {}
  readonly #socket: Socket
  #broken = false

  /** `endsSource`: when nobody reads the socket, nobody reads the source. */
  constructor(socket: Socket, options: { endsSource?: boolean } = {}) {
    this.#socket = socket
    socket.on('error', () => {
      this.#broken = true
      if (options.endsSource === true) this.onGone()
      else this.onReady()
    })
  }

  write(chunk: Uint8Array): boolean {
    if (this.#broken || !this.#socket.writable) return true
    this.#socket.write(Buffer.from(chunk), (error) => {
      if (error === undefined || error === null) this.onReady()
    })
    return false
  }

  end(): void {
    this.#socket.destroy()
  }

  destroy(): void {
    this.#socket.destroy()
  }
}

/** A sink that is a file: appended to, one write at a time, in the thread pool since a disk may be slow. */
export class FileSink implements Sink {
  onReady: () => void = () => {}
  readonly #path: string
  readonly #onError: (error: Error) => void
  #fd: number
  #fullMs = FULL_MS
  #writing = false
  #ended = false
  #broken = false

  /** `make`: missing folders and the file are made. */
  constructor(path: string, options: { make: boolean; onError: (error: Error) => void }) {
    this.#path = path
    this.#onError = options.onError
    try {
      if (options.make) makeDirectories(dirname(path), 0o755)
      const { O_APPEND, O_CREAT, O_NOCTTY, O_NONBLOCK, O_WRONLY } = constants
      this.#fd = openSync(path, O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK | (options.make ? O_CREAT : 0), 0o644)
    } catch (error) {
      throw new RuntimeError('Internal', `cannot open the stream "${path}": ${errnoName(errnoOf(error))}`, {
        cause: error,
      })
    }
  }

  write(chunk: Uint8Array): boolean {
    if (this.#broken) return true
    this.#writing = true
    this.#writeAll(Buffer.from(chunk))
    return false
  }

  end(): void {
    this.#ended = true
    if (!this.#writing && this.#fd >= 0) {
      close(this.#fd, () => {})
      this.#fd = -1
    }
  }

  destroy(): void {
    this.end()
  }

  /** A file always takes something; a terminal, say, that nobody reads does not, and not every device can tell when it will. */
  #later(rest: Buffer): void {
    setTimeout(() => this.#writeAll(rest), this.#fullMs).unref()
    this.#fullMs = Math.min(2 * this.#fullMs, LONG_FULL_MS)
  }

  #writeAll(rest: Buffer): void {
    write(this.#fd, rest, (error, taken) => {
      if (!this.#ended) {
        if (error?.code === 'EAGAIN') return this.#later(rest)
        this.#fullMs = FULL_MS
        if (error === null && taken < rest.length) return this.#writeAll(rest.subarray(taken))
      }
      if (error !== null) {
        this.#broken = true
        this.#onError(new Error(`cannot write to "${this.#path}": ${error.code ?? error.message}`))
      }
      this.#writing = false
      if (this.#ended) this.end()
      else this.onReady()
    })
  }
}

/** What a relay reads from. */
export interface Source {
  /** Makes the socket that reads. */
  open(onRead: OnReadOpts): Socket
  /** the descriptor, borrowed, when it is a pipe; else -1 */
  readonly pipe: number
}

/** A source on a descriptor of a pipe or fifo, which its socket owns from now on. */
export function pipeSource(fd: number): Source {
  return {
    pipe: fd,
    open(onread) {
      const options: SocketConstructorOpts = { fd, readable: true, writable: false, onread }
      return new Socket(options)
    },
  }
}

function bufferOf(size: typeof BUFFER_BYTES | typeof PAGE_BYTES): Buffer {
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
  readonly #sink: Sink
  /** the source, when its bytes can be moved */
  readonly #pipe: number
  readonly #resolve: () => void
  #state: 'open' | 'blocked' | 'ended' | 'closed' = 'open'
  #sourceEnded = false

  constructor(source: Source, sink: Sink) {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.done = promise
    this.#resolve = resolve
    this.#sink = sink
    sink.onReady = () => this.#ready()
    sink.onGone = () => this.close()
    this.#pipe = sink.moveFrom === undefined ? -1 : source.pipe
    const buffer = bufferOf(this.#pipe < 0 ? BUFFER_BYTES : PAGE_BYTES)
    this.#source = source.open({ buffer, callback: (count) => this.#read(buffer.subarray(0, count)) })
    // EIO is how a terminal's master tells that nobody has the other side open any more
    this.#source.on('error', () => this.#end())
    this.#source.on('end', () => this.#end())
    this.#source.on('close', () => this.#end())
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
    if (this.#sink.write(chunk)) {
      // a full buffer: there is more
      if (this.#pipe >= 0 && chunk.length === PAGE_BYTES) this.#sink.moveFrom?.(this.#pipe)
      return true
    }
    // onReady comes from the event loop, never from within write
    this.#state = 'blocked'
    return false
  }

  #ready(): void {
    if (this.#state !== 'blocked') return
    this.#state = 'open'
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
