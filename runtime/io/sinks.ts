/**
 * Where a relay's bytes go: a pipe or fifo of a client, a socket, a file, or nowhere. A client that stops reading must
 * not hurt the container, so a broken sink discards what still comes. With `endsSource` it closes the source instead:
 * the process learns that its output has no reader, as it would without a relay.
 *
 * Invariant: no sink blocks the event loop for long more than once.
 */
import { close, closeSync, constants, fstatSync, openSync, write, writeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { dirname } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { makeDirectories } from '../sys/directory.ts'
import { reasonOf } from '../sys/errno.ts'
import { movePipeBytes, OwnedFd, writeAvailable } from '../sys/fd.ts'
import { pollableSocket } from './pollable.ts'
import type { Sink } from './relay.ts'

/** How much is moved at once, and how often before other work has its turn. */
const MOVE_BYTES = 1024 * 1024
const MOVES = 16

/** How long to wait before a full device is tried again: the first and the longest time. */
const FULL_MS = 1
const LONG_FULL_MS = 250
/**
 * After a write that took longer, a thread of the pool does the writes. The number is above the usual wait for a CPU.
 */
const SLOW_MS = 50

/** How a sink treats a failure. */
export interface SinkOptions {
  /** called with the first failure */
  readonly onError?: (error: Error) => void
  /** a broken sink closes the source (default: it discards what comes) */
  readonly endsSource?: boolean
}

/** A non-blocking description of a pipe or fifo with a reader in another process. */
export interface OutputPipe {
  /** borrowed; -1 once it was released */
  readonly fd: number
  /**
   * Releases the descriptor; the reader can still read what was written. `closeFd` closes it, if another object owns it
   * by now.
   */
  release(closeFd?: (fd: number) => void): void
  /** Closes at once. */
  close(closeFd?: (fd: number) => void): void
}

/** A sink that discards everything. */
export function discardSink(): Sink {
  return { write: () => true, onReady: () => {}, end() {}, destroy() {} }
}

/** A sink on a pipe or fifo with a reader. */
export class PipeSink implements Sink {
  onReady: () => void = () => {}
  onGone: () => void = () => {}
  readonly #pipe: OutputPipe
  readonly #options: SinkOptions
  /** made when the fifo is full for the first time; it then owns the descriptor */
  #socket: Socket | undefined
  #broken = false

  constructor(pipe: OutputPipe, options: SinkOptions) {
    this.#pipe = pipe
    this.#options = options
  }

  write(chunk: Uint8Array): boolean {
    if (this.#broken) return true
    try {
      const taken = writeAvailable(this.#pipe.fd, chunk)
      if (taken === chunk.length) return true
      this.#socket ??= this.#open()
      this.#socket.write(Buffer.from(chunk.subarray(taken)), () => this.onReady())
      return false
    } catch (error) {
      this.#fail(error)
      return true
    }
  }

  moveFrom(pipe: number): number {
    let sum = 0
    if (this.#broken) return sum
    try {
      for (let i = 0; i < MOVES; i++) {
        const moved = movePipeBytes(pipe, this.#pipe.fd, MOVE_BYTES)
        if (moved === 0) break
        sum += moved
      }
    } catch (error) {
      this.#fail(error)
    }
    return sum
  }

  end(): void {
    this.#pipe.release((fd) => this.#close(fd))
  }

  destroy(): void {
    this.#pipe.close((fd) => this.#close(fd))
  }

  #open(): Socket {
    const socket = pollableSocket(new OwnedFd(this.#pipe.fd), { readable: false, writable: true })
    socket.on('error', (error) => {
      this.#fail(error)
      this.onReady()
    })
    return socket
  }

  #fail(error: unknown): void {
    if (this.#broken) return
    this.#broken = true
    this.#options.onError?.(streamError('a stream', error))
    if (this.#options.endsSource === true) this.onGone()
  }

  #close(fd: number): void {
    if (this.#socket === undefined) closeSync(fd)
    else this.#socket.destroy()
    this.#socket = undefined
  }
}

/** A sink on a socket of its own: the pipe to a process's stdin or to a log program, or a terminal. */
export class SocketSink implements Sink {
  onReady: () => void = () => {}
  onGone: () => void = () => {}
  readonly #socket: Socket
  #broken = false

  /** `endsSource`: a socket without a reader closes the source. */
  constructor(socket: Socket, options: Pick<SinkOptions, 'endsSource'> = {}) {
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

/**
 * A sink on a file or a device. A thread of the pool does one write at a time, since a disk may be slow and a terminal
 * may block its writers. Writes to a borrowed file are made directly as long as each of them is quick. A write to the
 * page cache is quick, and a thread would double its time.
 */
export class FileSink implements Sink {
  readonly ownBuffer: boolean
  onReady: () => void = () => {}
  onGone: () => void = () => {}
  readonly #name: string
  readonly #options: SinkOptions & { readonly borrowed?: boolean }
  #fd: number
  /** every write was quick so far */
  #direct: boolean
  #fullMs = FULL_MS
  #writing = false
  #ended = false
  #broken = false

  /** Takes over `fd`, unless it is `borrowed`; `name` names it in messages. */
  constructor(fd: number, name: string, options: SinkOptions & { readonly borrowed?: boolean } = {}) {
    this.#fd = fd
    this.#name = name
    this.#options = options
    this.#direct = options.borrowed === true && fstatSync(fd).isFile()
    // only for files: a socket that keeps message boundaries refuses a chunk of that size
    this.ownBuffer = this.#direct
  }

  /**
   * A sink that appends to a file; `make` makes the file and missing folders.
   * @throws Internal
   */
  static open(path: string, options: SinkOptions & { readonly make: boolean }): FileSink {
    try {
      if (options.make) makeDirectories(dirname(path), 0o755)
      const { O_APPEND, O_CREAT, O_NOCTTY, O_NONBLOCK, O_WRONLY } = constants
      const flags = O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK | (options.make ? O_CREAT : 0)
      return new FileSink(openSync(path, flags, 0o644), `"${path}"`, options)
    } catch (error) {
      throw new RuntimeError('Internal', `cannot open the stream "${path}": ${reasonOf(error)}`, {
        cause: error,
      })
    }
  }

  write(chunk: Uint8Array): boolean {
    if (this.#broken || (this.#direct && this.#writeDirectly(chunk))) return true
    this.#writing = true
    this.#writeAll(this.ownBuffer ? chunk : Buffer.from(chunk))
    return false
  }

  end(): void {
    this.#ended = true
    if (this.#writing || this.#fd < 0) return
    if (this.#options.borrowed !== true) close(this.#fd, () => {})
    this.#fd = -1
  }

  destroy(): void {
    this.end()
  }

  /** Always true: all was written, or the sink is broken. */
  #writeDirectly(chunk: Uint8Array): true {
    const started = performance.now()
    try {
      for (let done = 0; done < chunk.length; ) done += writeSync(this.#fd, chunk, done)
    } catch (error) {
      this.#fail(error)
    }
    this.#direct = performance.now() - started < SLOW_MS
    return true
  }

  /**
   * Tries again later. A file always accepts some bytes, but a terminal that is not read does not, and not every device
   * can be polled.
   */
  #later(rest: Uint8Array): void {
    const timer = setTimeout(() => this.#writeAll(rest), this.#fullMs)
    // a log that cannot be written does not keep a shim alive; a command waits for its caller's own streams
    if (this.#options.borrowed !== true) timer.unref()
    this.#fullMs = Math.min(2 * this.#fullMs, LONG_FULL_MS)
  }

  #writeAll(rest: Uint8Array): void {
    write(this.#fd, rest, (error, taken) => {
      if (!this.#ended) {
        if (error?.code === 'EAGAIN') return this.#later(rest)
        this.#fullMs = FULL_MS
        if (error === null && taken < rest.length) return this.#writeAll(rest.subarray(taken))
      }
      this.#writing = false
      if (error !== null && !this.#broken) this.#fail(error)
      if (this.#ended) this.end()
      else this.onReady()
    })
  }

  #fail(error: unknown): void {
    this.#broken = true
    this.#options.onError?.(streamError(this.#name, error))
    if (this.#options.endsSource === true) this.onGone()
  }
}

/** The error of a write, with the system's error as its cause. */
function streamError(name: string, error: unknown): Error {
  return new Error(`cannot write to ${name}: ${reasonOf(error)}`, { cause: error })
}
