/**
 * The shim's ends of the fifos that a client made. The shim opens them O_RDWR, which never blocks, because it opens
 * both ends at once (fifo(7)). The shim's open file descriptions are non-blocking. O_NONBLOCK belongs to the
 * description and not to the descriptor, so a process of the container gets a blocking description of its own, opened
 * again through /proc/self/fd.
 *
 * Invariants: while an output fifo is open here, a reader that vanishes neither kills nor fails the writer, and the
 * fifo keeps what was written. After release() the client sees the end of the stream, and loses no output even if it
 * opens its end only then.
 */
import { closeSync, constants, openSync } from 'node:fs'
import { RuntimeError } from '../../runtime/index.ts'
import { growPipe, reasonOf } from '../../runtime/internal.ts'

const { O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY } = constants

/**
 * The capacity of a fifo that a process writes to directly. With the default of 64 KiB, a program that writes 64 KiB at
 * a time and its client would take turns. Twice that lets both work at once, and is what the two pipes of a relay hold
 * together.
 */
const DIRECT_BYTES = 128 * 1024

/** How long release() keeps a fifo for a client that has not opened it yet, and how often it looks for one. */
const LINGER_MS = 10_000
const FIRST_LOOK_MS = 5
const LAST_LOOK_MS = 250

/** Opens the path of a stream. @throws RuntimeError that names the path */
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

/**
 * A fifo that carries output to the client. It owns its descriptor until close(), or until release() has run its
 * course.
 */
export class OutputFifo {
  #fd: number
  #timer: NodeJS.Timeout | undefined

  constructor(path: string) {
    this.#fd = openStream(path, O_RDWR | O_NONBLOCK)
  }

  /** The shim's descriptor, non-blocking, for the caller to use and not to close; -1 once it was closed. */
  get fd(): number {
    return this.#fd
  }

  /** Opens a blocking descriptor for a process; the caller owns it. */
  openWriter(): number {
    growPipe(this.#fd, DIRECT_BYTES)
    return again(this.#fd, O_WRONLY)
  }

  /**
   * Closes the shim's end: the client reads what is left and then the end. `closeFd` is for a descriptor that an object
   * of Node owns. A fifo that no process has open forgets its content. If the client has not opened its end yet, a
   * writing end therefore stays open until a reader is there, at most ten seconds.
   */
  release(closeFd: (fd: number) => void = closeSync): void {
    if (this.#fd < 0) return
    const both = this.#fd
    try {
      this.#fd = again(both, O_WRONLY | O_NONBLOCK)
    } catch {
      // There is no free descriptor. A client that reads must still see the end; one that has not opened the fifo yet
      // loses the rest.
      this.#fd = -1
    }
    closeFd(both)
    if (this.#fd >= 0) this.#closeWhenRead(FIRST_LOOK_MS, LINGER_MS)
  }

  /** Closes at once. A client that has not opened its end yet loses the output. */
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

/**
 * Whether a process has the fifo open for reading: without one, a non-blocking open for writing fails with ENXIO
 * (fifo(7)).
 */
function hasReader(fd: number): boolean {
  try {
    closeSync(openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK))
    return true
  } catch {
    return false
  }
}

/**
 * A fifo that carries the client's input. Until CloseIO, the shim keeps a writing end open. Without it, a process would
 * see the end of its input whenever a client closes the fifo, even if another client opens it later.
 */
export class InputFifo {
  #reader: number
  #keepAlive: number

  constructor(path: string) {
    this.#keepAlive = openStream(path, O_RDWR | O_NONBLOCK)
    try {
      this.#reader = again(this.#keepAlive, O_RDONLY | O_NONBLOCK)
      // The shim keeps a writing end only. If it kept a reading end, clients could go on writing after the process has
      // gone.
      const both = this.#keepAlive
      this.#keepAlive = again(both, O_WRONLY | O_NONBLOCK)
      closeSync(both)
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** Moves the reading end to the caller, who closes it. */
  takeReader(): number {
    const fd = this.#reader
    this.#reader = -1
    return fd
  }

  /** Closes the shim's writing end: from now on the reader sees the end as soon as the client has closed its side. */
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
