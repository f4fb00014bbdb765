/**
 * One socket: frames in, frames out, and one reason for its end. It knows nothing of calls.
 *
 * Invariant: memory stays bounded whatever the peer does. While more than `maxQueuedBytes` wait for the peer to read
 * them, nothing is read from the peer, so it cannot ask for more answers. Other connections are not affected. `onClose`
 * is called exactly once; after it no frame is delivered, and `send` does nothing.
 */
import type { Duplex } from 'node:stream'
import { type Frame, FrameDecoder, MAX_MESSAGE_BYTES } from './frame.ts'

/** Bounds of a connection. */
export interface ConnectionLimits {
  /** Largest data of one frame, in both directions; 4 MiB when absent. */
  readonly maxMessageBytes?: number
  /** Bytes that may wait for the peer before reading from it stops; 1 MiB when absent. */
  readonly maxQueuedBytes?: number
}

/** The object that a connection reports to. */
export interface ConnectionOwner {
  onFrame(frame: Frame): void
  /**
   * The connection is gone. The reason is undefined after close(), or when the peer has closed it between two frames.
   */
  onClose(reason: Error | undefined): void
}

const MAX_QUEUED_BYTES = 1024 * 1024

/** Frames over a duplex stream, which the connection owns. */
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

  /**
   * Sends one complete frame. `onSent` is called when the kernel has it, and never when the connection fails before.
   */
  send(bytes: Buffer, onSent?: () => void): void {
    if (this.#closed || !this.#stream.writable) return
    if (onSent === undefined) this.#stream.write(bytes)
    else this.#stream.write(bytes, (error) => (error ? undefined : onSent()))
    if (!this.#paused && this.#stream.writableLength > this.#maxQueuedBytes) {
      this.#paused = true
      this.#stream.pause()
    }
  }

  /** Ends the connection when what is queued was sent, at most `graceMs` later; does not wait for that. */
  close(graceMs = 0): void {
    if (this.#closed) return
    if (graceMs <= 0 || this.#stream.writableLength === 0) {
      // Without a queue the kernel has everything, and delivers it after the close as well.
      this.#stream.destroy()
      return
    }
    // The peer sends no new requests while the last answers are sent.
    this.#paused = false
    this.#stream.pause()
    this.#stream.end(() => this.#stream.destroy())
    setTimeout(() => this.#stream.destroy(), graceMs).unref()
  }

  /** Ends the connection at once; `onClose` gets the reason. */
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
