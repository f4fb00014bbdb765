/**
 * Runs another program until it ends: a hook, or a helper of the system. Its input is a memory file, so that the
 * runtime never waits for a program that does not read. Its output is drained as it comes; only the last part is kept.
 * Invariants: when the promise settles, the program has been reaped. A child that the program leaves behind may hold
 * the output pipe open; the runtime does not wait for it.
 */
import { constants, openSync, readSync, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { OwnedFd, pipePair } from '../sys/fd.ts'
import { memfdCreate } from '../sys/libc.ts'
import { SIGKILL } from '../sys/linux.ts'
import type { Exit, ProcessMaker } from '../sys/reaper.ts'

/** The capacity of a pipe (pipe(7)): once the program has ended, at most this much of its output is still unread. */
const PIPE_BYTES = 65536

/** What to run. */
export interface ProgramOptions {
  readonly reaper: ProcessMaker
  /** absolute path */
  readonly path: string
  /** all arguments, argv[0] included */
  readonly argv: readonly string[]
  /** the whole environment */
  readonly env: readonly string[]
  readonly cwd: string
  /** text of its standard input; left out: /dev/null */
  readonly input?: string
  /** name of the input's memory file in /proc, which identifies the program while its pid is not recorded */
  readonly inputName?: string | undefined
  /** how much of the end of each output stream is kept */
  readonly outputBytes: number
  /** after this time the program and its process group are killed; left out: no bound */
  readonly timeoutMs?: number
  /** called when the program has been started */
  readonly onStart?: ((pid: number) => void) | undefined
  /** aborting kills the program and its process group */
  readonly signal?: AbortSignal | undefined
}

/** How the program ended, and the end of its output. */
export interface ProgramResult {
  readonly exit: Exit
  readonly stdout: string
  readonly stderr: string
  readonly timedOut: boolean
}

/** Drains an output stream and keeps its end. */
class Tail {
  readonly #limit: number
  readonly #fd: number
  readonly #socket: Socket
  /** the one buffer for all reads: buffers that Node makes would pile up until a garbage collection */
  readonly #chunk = Buffer.allocUnsafeSlow(PIPE_BYTES)
  #kept: Buffer = Buffer.alloc(0)

  constructor(read: OwnedFd, limit: number) {
    this.#limit = limit
    this.#fd = read.take()
    const callback = (length: number): boolean => {
      this.#keep(this.#chunk.subarray(0, length))
      return true
    }
    this.#socket = new Socket({
      fd: this.#fd,
      readable: true,
      writable: false,
      onread: { buffer: this.#chunk, callback },
    })
    this.#socket.on('error', () => {
      // the pipe broke; what was read until then is kept
    })
    this.#socket.resume()
  }

  #keep(chunk: Buffer): void {
    const last = chunk.subarray(-this.#limit)
    const room = this.#limit - last.length
    // a copy: the next read overwrites the chunk
    this.#kept = Buffer.concat([room > 0 ? this.#kept.subarray(-room) : Buffer.alloc(0), last])
  }

  /** Reads what is still in the pipe after the program ended, and closes it. */
  end(): string {
    if (!this.#socket.destroyed) {
      try {
        for (let left = PIPE_BYTES; left > 0; ) {
          const count = readSync(this.#fd, this.#chunk, 0, left, null)
          if (count === 0) break
          this.#keep(this.#chunk.subarray(0, count))
          left -= count
        }
      } catch {
        // EAGAIN: the pipe is empty, and another process still holds the other end
      }
      this.#socket.destroy()
    }
    return this.#kept.toString('utf8').trimEnd()
  }
}

/** Runs a program until it ends. @throws what posix_spawn(3) met; the reason of a signal that was aborted before */
export async function runProgram(options: ProgramOptions): Promise<ProgramResult> {
  const { reaper, path, argv, env, cwd, outputBytes, timeoutMs, signal } = options
  signal?.throwIfAborted()
  using input = inputFile(options.input, options.inputName)
  const out = pipePair()
  const err = pipePair()
  let child: ReturnType<ProcessMaker['spawn']>
  try {
    const fds = [
      { from: input.fd, to: 0 },
      { from: out.write.fd, to: 1 },
      { from: err.write.fd, to: 2 },
    ]
    child = reaper.spawn({ path, argv, env, fds, external: { cwd } })
  } catch (error) {
    out.read.close()
    err.read.close()
    throw error
  } finally {
    out.write.close()
    err.write.close()
  }
  options.onStart?.(child.pid)
  const stdout = new Tail(out.read, outputBytes)
  const stderr = new Tail(err.read, outputBytes)
  let timedOut = false
  const kill = (): void => void child.killGroup(SIGKILL)
  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          timedOut = true
          kill()
        }, timeoutMs)
  signal?.addEventListener('abort', kill, { once: true })
  try {
    const exit = await child.exited
    return { exit, stdout: stdout.end(), stderr: stderr.end(), timedOut }
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', kill)
  }
}

function inputFile(text: string | undefined, name = 'input'): OwnedFd {
  if (text === undefined) return new OwnedFd(openSync('/dev/null', constants.O_RDONLY))
  const file = new OwnedFd(memfdCreate(name))
  const bytes = Buffer.from(text)
  for (let done = 0; done < bytes.length; ) done += writeSync(file.fd, bytes, done, bytes.length - done, done)
  return file
}
