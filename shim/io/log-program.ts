/**
 * A program that takes the outputs of a process (`binary://` in a stdio string). It finds stdout as fd 3 and stderr as
 * fd 4, and reports on fd 5 that it is ready; the shim makes the process only then. The process writes directly into
 * the program's pipes. The program sees the end of the streams when the last writer has gone. At Delete it gets time to
 * write what is left, then SIGTERM, then SIGKILL.
 *
 * Invariants: kill() always ends the program, at the latest by SIGKILL after TERM_MS. The program's death neither kills
 * nor blocks the writer, because the shim keeps reading ends of its own. When no other process reads any more, the shim
 * reads and discards.
 *
 * The program may have left its work to a child. A lock (flock(2)) on the reading end that the program inherited shows
 * whether that is so: the lock lasts until the last process has closed that open file description.
 */
import { constants, openSync } from 'node:fs'
import { Socket } from 'node:net'
import { type Exit, type Logger, OwnedFd, type ProcessMaker, RuntimeError } from '../../runtime/index.ts'
import {
  type Child,
  discardSink,
  openNull,
  pipePair,
  pipeSource,
  Relay,
  SIGKILL,
  SIGTERM,
  tryLock,
  unreadBytes,
} from '../../runtime/internal.ts'
import type { LogProgram } from './stdio-uri.ts'

const READY_MS = 10_000
/** After the end of its streams a program should end by itself. One that does not gets SIGTERM after this time. */
const GRACE_MS = 2_000
/**
 * How long a program may take to end after SIGTERM. end() reserves this time, even when the program still has output to
 * read.
 */
const TERM_MS = 2_000
/** How often end() looks whether the program has read everything. */
const LOOK_MS = 100

/** What starting a log program takes. */
export interface LogProgramOptions {
  /** the container's id for the output of its init, else the exec's id; the program's CONTAINER_ID */
  readonly id: string
  /** the program's CONTAINER_NAMESPACE */
  readonly namespace: string
  /** the program's working folder */
  readonly bundle: string
  readonly reaper: ProcessMaker
  readonly logger: Logger
  /** aborting it while the program gets ready kills the program */
  readonly signal?: AbortSignal | undefined
}

/** A running program that takes the outputs of one process. */
export class LogWriter {
  readonly #child: Child
  readonly #logger: Logger
  readonly #path: string
  /** the shim's own reading ends, non-blocking; never read while the program or a child of it reads */
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
   * Starts a program and waits until it is ready, at most READY_MS. The caller owns the writing ends of its two pipes.
   * @throws RuntimeError, or the signal's reason; the program has then ended, and nothing is left open
   */
  static async start(
    program: LogProgram,
    options: LogProgramOptions,
  ): Promise<{ writer: LogWriter; stdout: OwnedFd; stderr: OwnedFd }> {
    const { path, args, strict } = program
    const { id, namespace, bundle, reaper, logger, signal } = options
    signal?.throwIfAborted()
    // closes at the end what was not moved out of it by then
    using opened = new DisposableStack()
    const newPipe = (): ReturnType<typeof pipePair> => {
      const { read, write } = pipePair()
      return { read: opened.use(read), write: opened.use(write) }
    }
    const [out, err, ready] = [newPipe(), newPipe(), newPipe()]
    const readers = [out, err].map(({ read }) => opened.use(ownReader(read.fd)))
    const nothing = opened.use(openNull())
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
      external: { cwd: bundle },
    })
    // at once: while the shim has these open too, neither the program's lock nor the end of its report would show
    for (const theirs of [out.read, err.read, ready.write]) theirs.close()
    const writer = new LogWriter(child, { path, logger, readers: readers.map((fd) => new OwnedFd(fd.take())) })
    try {
      await readiness(ready.read, { program, strict, signal })
    } catch (error) {
      writer.kill()
      await writer.ended
      throw error
    }
    return { writer, stdout: new OwnedFd(out.write.take()), stderr: new OwnedFd(err.write.take()) }
  }

  /** Resolves when the program has been reaped. */
  get ended(): Promise<unknown> {
    return this.#child.exited
  }

  /**
   * The writers are gone: waits until the program has read the rest, then sends SIGTERM. False when it is still there
   * after `limitMs`.
   */
  async end(limitMs: number): Promise<boolean> {
    this.#ending = true
    const deadline = performance.now() + limitMs
    const left = (): number => deadline - performance.now()
    await this.#within(Math.min(GRACE_MS, left()))
    while (this.#child.exit === undefined && left() > TERM_MS && this.#unread()) await this.#within(LOOK_MS)
    this.#terminate()
    return this.#within(left())
  }

  /**
   * Ends the program: SIGTERM, and SIGKILL two seconds later; SIGKILL at once if it has had SIGTERM. May be called
   * again.
   */
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
    let logged = false
    const write = (): boolean => {
      if (!logged)
        this.#logger.warn({ program: this.#path, status }, 'a log program has ended: output of a process is lost')
      logged = true
      return true
    }
    for (const reader of this.#readers) {
      // the lock can be had when the program has left no child that still has the pipe open
      if (this.#ending || !tryLock(reader.fd, 'exclusive')) reader.close()
      else this.#discarding.push(new Relay(pipeSource(reader.take()), { ...discardSink(), write }))
    }
  }
}

/**
 * Opens a reading end of the shim's own for a pipe. The given reading end gets a lock, which shows later whether a
 * process still has it open.
 */
function ownReader(read: number): OwnedFd {
  if (!tryLock(read, 'exclusive')) throw new Error('a new pipe is locked')
  return new OwnedFd(openSync(`/proc/self/fd/${read}`, constants.O_RDONLY | constants.O_NONBLOCK))
}

/** Waits for a byte on the pipe, or its end. Takes over the descriptor. @throws RuntimeError, or the signal's reason */
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
