/**
 * Running a program of somebody else to its end: a hook, a helper of the system. Its input is a memory file, so that nothing is lost or
 * waited for when it reads none of it; its output is drained all the time and only the end of it is kept. Invariants: when the promise
 * settles, the program has been reaped; a child that it leaves behind with our pipe in its hands keeps nobody waiting.
 */

import { constants, openSync, readSync, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { OwnedFd, pipePair } from '../sys/fd.ts'
import { memfdCreate } from '../sys/libc.ts'
import { SIGKILL } from '../sys/linux.ts'
import type { Exit, Reaper } from '../sys/reaper.ts'

/** What a pipe can hold (pipe(7)): no more than this was written before the program ended. */
const PIPE_BYTES = 65536

/** What to run. */
export interface ProgramOptions {
  readonly reaper: Reaper
  /** absolute */
  readonly path: string
  /** all of it, the first word included */
  readonly argv: readonly string[]
  /** all of it */
  readonly env: readonly string[]
  readonly cwd: string
  /** its standard input; left out: /dev/null */
  readonly input?: string
  /** what /proc calls the file of that input: by it the program is found where nobody knows its pid */
  readonly inputName?: string | undefined
  /** how much of the end of each output stream is kept */
  readonly outputBytes: number
  /** the program and its process group are killed then; left out: no bound */
  readonly timeoutMs?: number
  /** it has been started */
  readonly onStart?: ((pid: number) => void) | undefined
  /** aborting kills the program and its process group */
  readonly signal?: AbortSignal | undefined
}

/** How it ended and the last of what it said. */
export interface ProgramResult {
  readonly exit: Exit
  readonly stdout: string
  readonly stderr: string
  readonly timedOut: boolean
}

/** The end of a stream. */
class Tail {
  readonly #limit: number
  readonly #fd: number
  readonly #socket: Socket
  /** What is read goes through this one, however much it is: buffers of Node's own would pile up until a collection. */
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
      // a pipe whose other end was closed; what was read is kept
    })
    this.#socket.resume()
  }

  #keep(chunk: Buffer): void {
    const last = chunk.subarray(-this.#limit)
    const room = this.#limit - last.length
    // a copy, since the next thing that is read takes the chunk's place
    this.#kept = Buffer.concat([room > 0 ? this.#kept.subarray(-room) : Buffer.alloc(0), last])
  }

  /** The program has ended: takes what is still in the pipe and lets go of it. */
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
        // EAGAIN: it is empty, and somebody else still has the other end
      }
      this.#socket.destroy()
    }
    return this.#kept.toString('utf8').trimEnd()
  }
}

/** Runs a program to its end. @throws what posix_spawn met, before anything was started */
export async function runProgram(options: ProgramOptions): Promise<ProgramResult> {
  const { reaper, path, argv, env, cwd, outputBytes, timeoutMs, signal } = options
  signal?.throwIfAborted()
  using input = inputFile(options.input, options.inputName)
  const out = pipePair()
  const err = pipePair()
  let child: ReturnType<Reaper['spawn']>
  try {
    const fds = [
      { from: input.fd, to: 0 },
      { from: out.write.fd, to: 1 },
      { from: err.write.fd, to: 2 },
    ]
    child = reaper.spawn({ path, argv, env, fds, foreign: { cwd } })
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
