/**
 * One socket: frames in, frames out, and one reason for its end. It knows nothing of calls.
 *
 * Invariant: memory stays bounded whatever the peer does. While more than `maxQueuedBytes` wait for the peer to read them, nothing is
 * read from it, so it cannot ask for more answers; other connections do not notice. After `onClose`, called exactly once, nothing is
 * delivered and `send` does nothing.
 */
import type { Duplex } from 'node:stream'
import { type Frame, FrameDecoder, MAX_MESSAGE_BYTES } from './frame.ts'

/** Bounds of a connection. */
export interface ConnectionLimits {
  /** Largest data of one frame, in both directions; 4 MiB when absent. */
  readonly maxMessageBytes?: number
  /** Bytes that may wait for the peer before it is not read any more; 1 MiB when absent. */
  readonly maxQueuedBytes?: number
}

/** Whom a connection reports to. */
export interface ConnectionOwner {
  onFrame(frame: Frame): void
  /** The connection is gone; the reason is undefined when the peer closed it between two frames, or we did. */
  onClose(reason: Error | undefined): void
}

const MAX_QUEUED_BYTES = 1024 * 1024

/** Frames over a duplex stream, which it owns. */
export class Connection {
  readonly maxMessageBytes: number
  readonly #maxQueuedBytes: number
  readonly #stream: Duplex
  readonly #owner: ConnectionOwner
  readonly #decoder: FrameDecoder
  #reason: Error | undefined
  #closed = false
  #paused = false

  constructor(stream: Duplex, owner: ConnectionOwner, limits: ConnectionLimits = {}) {
    this.maxMessageBytes = limits.maxMessageBytes ?? MAX_MESSAGE_BYTES
    this.#maxQueuedBytes = limits.maxQueuedBytes ?? MAX_QUEUED_BYTES
    this.#stream = stream
    this.#owner = owner
    this.#decoder = new FrameDecoder(this.maxMessageBytes)
    stream.on('data', (chunk: Buffer) => this.#receive(chunk))
    stream.on('drain', () => this.#resume())
    stream.on('end', () => this.#ended())
    stream.on('error', (error) => this.#fail(error))
    stream.on('close', () => this.#finish())
    if (stream.destroyed) this.#finish()
  }

  /** Whether the connection is gone. */
  get closed(): boolean {
    return this.#closed
  }

  /** Bytes that the peer has not taken yet. */
  get queuedBytes(): number {
    return this.#stream.writableLength
  }

  /** Sends one complete frame; `onSent` is called when the kernel has it, or never. */
  send(bytes: Buffer, onSent?: () => void): void {
    if (this.#closed || !this.#stream.writable) return
    if (onSent === undefined) this.#stream.write(bytes)
    else this.#stream.write(bytes, (error) => (error ? undefined : onSent()))
    if (!this.#paused && this.#stream.writableLength > this.#maxQueuedBytes) {
      this.#paused = true
      this.#stream.pause()
    }
  }

  /** Ends the connection after what is queued; @returns at once. A peer that does not read is cut off after `graceMs`. */
  close(graceMs = 0): void {
    if (this.#closed) return
    if (graceMs <= 0 || this.#stream.writableLength === 0) {
      // Nothing is queued: the kernel has it all, and delivers it after close as well.
      this.#stream.destroy()
      return
    }
    // No new frames while the last answers leave.
    this.#paused = false
    this.#stream.pause()
    this.#stream.end(() => this.#stream.destroy())
    setTimeout(() => this.#stream.destroy(), graceMs).unref()
  }

  /** Ends the connection for a reason of ours. */
  abort(reason: Error): void {
    this.#fail(reason)
    this.#stream.destroy()
  }

  #receive(chunk: Buffer): void {
    for (const frame of this.#decoder.push(chunk)) {
      if (this.#closed) return
      this.#owner.onFrame(frame)
    }
  }

  #resume(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#stream.resume()
  }

  #ended(): void {
    if (this.#decoder.insideFrame) this.#fail(new Error('connection ended inside a frame'))
  }

  #fail(error: Error): void {
    this.#reason ??= error
  }

  #finish(): void {
    if (this.#closed) return
    this.#closed = true
    this.#owner.onClose(this.#reason)
  }
}
