/**
 * Input from a file or device that epoll does not take. The thread pool reads it; a pipe or terminal gets the bytes as
 * it has room for them. When the reader has ended, the offset of a regular file is set behind what the reader took, not
 * behind what was read ahead. So the caller's next command finds all the rest, as if the reader had read the file
 * itself.
 *
 * Invariants: the descriptor that is read keeps its flags. The target is closed at the end of the input or after
 * stop(), but never while the thread pool uses it: its number could belong to another file by then.
 */

import { fstatSync, read } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { errnoOf } from '../sys/errno.ts'
import { type OwnedFd, offsetOf, setNonBlocking, setOffset, unreadBytes, writeAvailable } from '../sys/fd.ts'
import { EAGAIN } from '../sys/linux.ts'
import { pollReadable, pollWritable } from '../sys/pids.ts'

const BUFFER_BYTES = 256 * 1024
/** How often a wait checks whether it was stopped. */
const LOOK_MS = 250

/** Options of FileInput. */
export interface FileInputOptions {
  readonly onError: (error: Error) => void
  /** a reading end of the target pipe, taken over; its unread bytes tell at the end where to set the offset */
  readonly reader?: OwnedFd | undefined
  /** the same description is also written to: each read moves its offset at once, and the offset is never set back */
  readonly sharesOffset?: boolean
}

/** The offset of a regular file; undefined for a file without one, even if fstat calls it regular. */
function startOf(fd: number): number | undefined {
  try {
    return fstatSync(fd).isFile() ? offsetOf(fd) : undefined
  } catch (error) {
    if (error instanceof RuntimeError) return undefined
    throw error
  }
}

/** Copies one descriptor into another until its end. */
export class FileInput {
  readonly #from: number
  readonly #owned: OwnedFd | undefined
  readonly #to: OwnedFd
  readonly #onError: (error: Error) => void
  /** the offset at which a regular file is read; undefined for a file without one */
  readonly #start: number | undefined
  #written = 0
  #stopped = false
  #copying = true
  readonly #reader: OwnedFd | undefined

  /** `from` as a number is borrowed until stop(). `to` is taken over, and its description must not be shared. */
  constructor(from: number | OwnedFd, to: OwnedFd, options: FileInputOptions) {
    this.#reader = options.reader
    this.#owned = typeof from === 'number' ? undefined : from
    this.#from = typeof from === 'number' ? from : from.fd
    this.#to = to
    this.#onError = options.onError
    this.#start = options.sharesOffset === true ? undefined : startOf(this.#from)
    setNonBlocking(to.fd)
    void this.#copy()
  }

  /** Stops copying: the reader has ended, or reads no more. */
  stop(): void {
    if (this.#stopped) return
    this.#stopped = true
    if (this.#owned === undefined && this.#start !== undefined && this.#written > 0) {
      const unread = this.#reader === undefined ? 0 : unreadBytes(this.#reader.fd)
      // the reader may have written into its own pipe, but the offset never moves back before its start
      setOffset(this.#from, this.#start + this.#written - Math.min(unread, this.#written))
    }
    if (!this.#copying) this.#close()
  }

  #close(): void {
    this.#to.close()
    this.#reader?.close()
    this.#owned?.close()
  }

  async #copy(): Promise<void> {
    try {
      const buffer = Buffer.allocUnsafe(BUFFER_BYTES)
      while (!this.#stopped) {
        const count = await this.#read(buffer)
        if (count === 0) break
        if (!(await this.#write(buffer.subarray(0, count)))) return
      }
      if (!this.#stopped) this.#to.close()
    } catch (error) {
      if (this.#stopped) return
      this.#to.close()
      this.#onError(error instanceof Error ? error : new Error(String(error)))
    } finally {
      this.#copying = false
      if (this.#stopped) this.#close()
    }
  }

  async #read(buffer: Buffer): Promise<number> {
    const position = this.#start === undefined ? null : this.#start + this.#written
    for (;;) {
      try {
        return await new Promise<number>((resolve, reject) => {
          read(this.#from, buffer, 0, buffer.length, position, (error, count) =>
            error === null ? resolve(count) : reject(error),
          )
        })
      } catch (error) {
        // the caller made the descriptor non-blocking
        if (errnoOf(error) !== EAGAIN) throw error
        await pollReadable([this.#from], LOOK_MS)
        if (this.#stopped) return 0
      }
    }
  }

  /** Writes a chunk; false when the target has no reader any more. */
  async #write(chunk: Buffer): Promise<boolean> {
    for (let rest = chunk; rest.length > 0 && !this.#stopped; ) {
      let count: number
      try {
        count = writeAvailable(this.#to.fd, rest)
      } catch {
        // EPIPE, or EIO from a terminal that hung up: the relay of its process reports the end
        return false
      }
      this.#written += count
      rest = rest.subarray(count)
      if (count === 0) await pollWritable(this.#to.fd, LOOK_MS)
    }
    return !this.#stopped
  }
}
