/**
 * A program that takes the outputs of a process (`binary://` in a stdio string): it finds stdout as fd 3, stderr as fd 4, and reports on
 * fd 5 that it is ready, before which the process is not made. The process writes into its pipes with nobody between them. The program
 * sees the end of the streams when the last writer has gone; at the Delete it gets time to write what is left, then SIGTERM, then SIGKILL.
 *
 * Invariants: it never outlives end() and kill(); its death neither kills nor blocks the writer: we keep reading ends of our own, and
 * where nobody else reads any more, we do, and throw it away. Whether somebody does (it may have left its work to a child) is told by a
 * lock on the description that the program inherited: it is held for as long as any process has that open.
 */

import { constants, openSync } from 'node:fs'
import { Socket } from 'node:net'
import {
  type Child,
  discardSink,
  type Exit,
  type Logger,
  OwnedFd,
  pipePair,
  pipeSource,
  type Reaper,
  Relay,
  RuntimeError,
  SIGKILL,
  SIGTERM,
  tryLock,
  unreadBytes,
} from '../../runtime/index.ts'
import type { LogProgram } from './stdio-uri.ts'

const READY_MS = 10_000
/** After the end of its streams a program ends by itself; one that waits for SIGTERM gets it after this. */
const GRACE_MS = 2_000
/** What is left of the time for its SIGTERM to work, however much it has not read yet. */
const TERM_MS = 2_000
const LOOK_MS = 100

/** Whose output it is, and what starting the program takes. */
export interface LogProgramOptions {
  /** of the container, or of the exec */
  readonly id: string
  readonly namespace: string
  /** its working folder */
  readonly bundle: string
  readonly reaper: Reaper
  readonly logger: Logger
  /** aborting it gives up waiting, and kills the program */
  readonly signal?: AbortSignal | undefined
}

/** A running program that takes the outputs of one process. */
export class LogWriter {
  readonly #child: Child
  readonly #logger: Logger
  readonly #path: string
  /** our reading ends: descriptions of their own, non-blocking, never read while the program or a child of it is there */
  readonly #readers: OwnedFd[]
  readonly #discarding: Relay[] = []
  #ending = false
  #termSent = false

  private constructor(child: Child, parts: { path: string; logger: Logger; readers: OwnedFd[] }) {
    this.#child = child
    this.#path = parts.path
    this.#logger = parts.logger
    this.#readers = parts.readers
    void child.exited.then((exit) => this.#ended(exit))
  }

  /**
   * Starts a program and waits until it is ready; the writing ends of its two pipes belong to the caller.
   * @throws RuntimeError, with nothing left behind
   */
  static async start(
    program: LogProgram,
    options: LogProgramOptions,
  ): Promise<{ writer: LogWriter; stdout: OwnedFd; stderr: OwnedFd }> {
    const { path, args, strict } = program
    const { id, namespace, bundle, reaper, logger, signal } = options
    signal?.throwIfAborted()
    const owned: OwnedFd[] = []
    const newPipe = (): ReturnType<typeof pipePair> => {
      const pair = pipePair()
      owned.push(pair.read, pair.write)
      return pair
    }
    try {
      const [out, err, ready] = [newPipe(), newPipe(), newPipe()]
      const readers = [out, err].map(({ read }) => {
        const reader = ownReader(read.fd)
        owned.push(reader)
        return reader
      })
      using nothing = new OwnedFd(openSync('/dev/null', constants.O_RDWR))
      const child = reaper.spawn({
        path,
        argv: [path, ...args],
        env: [`CONTAINER_ID=${id}`, `CONTAINER_NAMESPACE=${namespace}`],
        fds: [
          ...[0, 1, 2].map((to) => ({ from: nothing.fd, to })),
          { from: out.read.fd, to: 3 },
          { from: err.read.fd, to: 4 },
          { from: ready.write.fd, to: 5 },
        ],
        foreign: { cwd: bundle },
      })
      for (const theirs of [out.read, err.read, ready.write]) theirs.close()
      const writer = new LogWriter(child, { path, logger, readers: readers.map((fd) => new OwnedFd(fd.take())) })
      try {
        await readiness(ready.read, { program, strict, signal })
      } catch (error) {
        writer.kill()
        await writer.ended
        throw error
      }
      return { writer, stdout: out.write, stderr: err.write }
    } catch (error) {
      for (const fd of owned) fd.close()
      throw error
    }
  }

  /** Resolves when the program has been reaped. */
  get ended(): Promise<unknown> {
    return this.#child.exited
  }

  /** The writers are gone: waits for the program to take the rest, then ends it. False when it is still there after `limitMs`. */
  async end(limitMs: number): Promise<boolean> {
    this.#ending = true
    const deadline = performance.now() + limitMs
    const left = (): number => deadline - performance.now()
    await this.#within(Math.min(GRACE_MS, left()))
    while (this.#child.exit === undefined && left() > TERM_MS && this.#unread()) await this.#within(LOOK_MS)
    this.#terminate()
    return this.#within(left())
  }

  /** Ends the program soon: by SIGTERM first when it has not had that yet. May be called at any time, and again. */
  kill(): void {
    this.#ending = true
    if (this.#child.exit !== undefined) {
      for (const relay of this.#discarding) relay.close()
      return
    }
    if (this.#termSent) {
      this.#child.killGroup(SIGKILL)
      return
    }
    this.#terminate()
    void this.#within(TERM_MS).then(() => this.#child.killGroup(SIGKILL))
  }

  #terminate(): void {
    this.#termSent = true
    this.#child.kill(SIGTERM)
  }

  #unread(): boolean {
    return this.#readers.some(({ fd }) => fd >= 0 && unreadBytes(fd) > 0)
  }

  async #within(limitMs: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined
    const limit = new Promise<false>((resolve) => {
      timer = setTimeout(() => resolve(false), limitMs)
    })
    const ended = await Promise.race([this.#child.exited.then(() => true), limit])
    clearTimeout(timer)
    return ended
  }

  #ended({ status }: Exit): void {
    let told = false
    const write = (): boolean => {
      if (!told)
        this.#logger.warn({ program: this.#path, status }, 'a log program has ended: output of a process is lost')
      told = true
      return true
    }
    for (const reader of this.#readers) {
      // the lock is free when the program has left no child that reads on
      if (this.#ending || !tryLock(reader.fd, 'exclusive')) reader.close()
      else this.#discarding.push(new Relay(pipeSource(reader.take()), { ...discardSink(), write }))
    }
  }
}

/** A reading end of our own for a pipe; the one it is made from gets the lock that tells whether anybody still has it. */
function ownReader(read: number): OwnedFd {
  if (!tryLock(read, 'exclusive')) throw new Error('a new pipe is locked')
  return new OwnedFd(openSync(`/proc/self/fd/${read}`, constants.O_RDONLY | constants.O_NONBLOCK))
}

/** Waits for a byte on the pipe, or its end. Takes the descriptor. */
async function readiness(
  pipe: OwnedFd,
  { program, strict, signal }: { program: LogProgram; strict: boolean; signal: AbortSignal | undefined },
): Promise<void> {
  const socket = new Socket({ fd: pipe.take(), readable: true, writable: false })
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const fail = (reason: string): void =>
    reject(new RuntimeError('Internal', `cannot log to "${program.path}": ${reason}`))
  const aborted = (): void => reject(signal?.reason)
  const timer = setTimeout(() => fail(`it was not ready within ${READY_MS / 1000} s`), READY_MS)
  signal?.addEventListener('abort', aborted, { once: true })
  const closed = (): void => (strict ? fail('it ended without saying that it is ready') : resolve())
  socket.once('data', () => resolve())
  socket.once('error', closed)
  socket.once('end', closed)
  try {
    await promise
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', aborted)
    socket.destroy()
  }
}
