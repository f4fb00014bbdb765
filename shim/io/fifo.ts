/**
 * Our ends of the fifos that a client made. Opening one never blocks: O_RDWR is both ends at once (fifo(7)). The descriptions that we
 * keep are non-blocking; a process of the container gets one of its own, blocking, opened again through /proc/self/fd, since O_NONBLOCK
 * belongs to the description and not to the descriptor.
 *
 * Invariants: while an output fifo is open here, a vanished reader neither kills nor fails the writer, and what was written stays in the
 * fifo. When we let go, the client sees the end of the stream, and it loses nothing even if it opens its end only then.
 */
import { closeSync, constants, openSync } from 'node:fs'
import { growPipe, RuntimeError, reasonOf } from '../../runtime/index.ts'

const { O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY } = constants

/**
 * What a fifo is to hold that a process writes to itself. With the 64 KiB that it has, and as many in one write, writer and client would take
 * turns; with twice as many they work at the same time, and the pair of pipes of a relay holds no less.
 */
const DIRECT_BYTES = 128 * 1024

/** How long a stream that nobody has opened yet is kept after its writer has gone, and how often we look. */
const LINGER_MS = 10_000
const FIRST_LOOK_MS = 5
const LAST_LOOK_MS = 250

/** Opens what a stream's string names. @throws RuntimeError that names it */
export function openStream(path: string, flags: number): number {
  try {
    return openSync(path, flags)
  } catch (error) {
    throw new RuntimeError('Internal', `cannot open the stream "${path}": ${reasonOf(error)}`, {
      cause: error,
    })
  }
}

function again(fd: number, flags: number): number {
  return openStream(`/proc/self/fd/${fd}`, flags)
}

/** A fifo that carries output to the client. */
export class OutputFifo {
  #fd: number
  #timer: NodeJS.Timeout | undefined

  constructor(path: string) {
    this.#fd = openStream(path, O_RDWR | O_NONBLOCK)
  }

  /** Our description, non-blocking and borrowed; -1 once it was released. */
  get fd(): number {
    return this.#fd
  }

  /** A blocking descriptor for a process; the caller owns it. */
  openWriter(): number {
    growPipe(this.#fd, DIRECT_BYTES)
    return again(this.#fd, O_WRONLY)
  }

  /**
   * Lets go: the client reads what is left and then the end. `closeFd` closes the descriptor when somebody else has come to own it.
   * A client whose open(2) has not happened yet would lose everything if the last descriptor went away now: then a writing end stays
   * until a reader is there, at most ten seconds.
   */
  release(closeFd: (fd: number) => void = closeSync): void {
    if (this.#fd < 0) return
    const both = this.#fd
    try {
      this.#fd = again(both, O_WRONLY | O_NONBLOCK)
    } catch {
      // no descriptor to be had: a client that has not come yet comes too late, but one that reads must see the end
      this.#fd = -1
    }
    closeFd(both)
    if (this.#fd >= 0) this.#closeWhenRead(FIRST_LOOK_MS, LINGER_MS)
  }

  /** Closes at once, whoever may not have read yet. */
  close(closeFd: (fd: number) => void = closeSync): void {
    clearTimeout(this.#timer)
    if (this.#fd < 0) return
    const fd = this.#fd
    this.#fd = -1
    closeFd(fd)
  }

  #closeWhenRead(waitMs: number, leftMs: number): void {
    if (leftMs <= 0 || hasReader(this.#fd)) {
      closeSync(this.#fd)
      this.#fd = -1
      return
    }
    this.#timer = setTimeout(() => this.#closeWhenRead(Math.min(2 * waitMs, LAST_LOOK_MS), leftMs - waitMs), waitMs)
    this.#timer.unref()
  }
}

/** Whether anybody has the fifo open for reading: without a reader, a non-blocking open for writing fails with ENXIO. */
function hasReader(fd: number): boolean {
  try {
    closeSync(openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK))
    return true
  } catch {
    return false
  }
}

/** A fifo that carries the client's input. A writing end of ours hides from the process that clients come and go, until CloseIO. */
export class InputFifo {
  #reader: number
  #keepAlive: number

  constructor(path: string) {
    this.#keepAlive = openStream(path, O_RDWR | O_NONBLOCK)
    try {
      this.#reader = again(this.#keepAlive, O_RDONLY | O_NONBLOCK)
      // only a writer may stay: as long as we could read, nobody who writes would ever learn that the process has gone
      const both = this.#keepAlive
      this.#keepAlive = again(both, O_WRONLY | O_NONBLOCK)
      closeSync(both)
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** Moves the reading end to the caller. */
  takeReader(): number {
    const fd = this.#reader
    this.#reader = -1
    return fd
  }

  /** After this the reader sees the end as soon as the client has closed its side. */
  closeKeepAlive(): void {
    if (this.#keepAlive >= 0) closeSync(this.#keepAlive)
    this.#keepAlive = -1
  }

  close(): void {
    this.closeKeepAlive()
    if (this.#reader >= 0) closeSync(this.#reader)
    this.#reader = -1
  }
}
