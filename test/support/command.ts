/**
 * A started program whose output can be watched while it runs.
 * Tests wait by `until` alone: for a condition, with a bound, and with a description of what was there instead.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import type { Readable, Writable } from 'node:stream'
import { SLOWNESS } from './needs.ts'

/** How a program ended. */
export interface Finished {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  /** the same as bytes, for what is no text */
  readonly stdoutBytes: Buffer
  readonly stderr: string
  /** of all of stdout, also when `keepOutput` is false */
  readonly sha256: string
  readonly bytes: number
}

/** How to start a program. */
export interface StartOptions {
  /** Written to stdin, which is then closed; 'open' leaves it to the test. Default: nothing, closed. */
  readonly input?: string | Uint8Array | 'open'
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** false: stdout is only counted and hashed; 'manual': the test reads `child.stdout` itself */
  readonly keepOutput?: boolean | 'manual'
  /** The program gets a pipe as fd 3 for `resize`. */
  readonly control?: boolean
  /** Killed when it takes longer. */
  readonly timeoutMs?: number
}

/** A running program. */
export class Command {
  readonly finished: Promise<Finished>
  readonly child: ChildProcess
  readonly #name: string
  readonly #out: Buffer[] = []
  #stderr = ''
  #bytes = 0

  constructor(program: string, args: readonly string[], options: StartOptions) {
    this.#name = [program, ...args].join(' ')
    const { input, keepOutput = true } = options
    const stdio = ['pipe', 'pipe', 'pipe', ...(options.control === true ? ['pipe' as const] : [])] as const
    const child = spawn(program, args, { stdio: [...stdio], cwd: options.cwd, env: { ...process.env, ...options.env } })
    this.child = child
    const hash = createHash('sha256')
    if (keepOutput !== 'manual') {
      child.stdout?.on('data', (chunk: Buffer) => {
        hash.update(chunk)
        this.#bytes += chunk.length
        if (keepOutput) this.#out.push(chunk)
      })
    }
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#stderr += chunk.toString()
    })
    // a program may end before it has read its input
    child.stdin?.on('error', () => undefined)
    if (input !== 'open') child.stdin?.end(input ?? '')
    const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 60_000 * SLOWNESS)
    this.finished = new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code, signal) => {
        clearTimeout(timer)
        resolve({
          code,
          signal,
          stdout: this.stdout,
          stdoutBytes: Buffer.concat(this.#out),
          stderr: this.#stderr,
          sha256: hash.digest('hex'),
          bytes: this.#bytes,
        })
      })
    })
  }

  get pid(): number {
    return this.child.pid ?? -1
  }

  /** What came on stdout so far. */
  get stdout(): string {
    return Buffer.concat(this.#out).toString()
  }

  get stderr(): string {
    return this.#stderr
  }

  write(text: string): void {
    this.child.stdin?.write(text)
  }

  endInput(): void {
    this.child.stdin?.end()
  }

  kill(signal: NodeJS.Signals = 'SIGTERM'): void {
    this.child.kill(signal)
  }

  /** Changes the size of the terminal that `payload pty` made. */
  resize(rows: number, columns: number): void {
    const control: Readable | Writable | null | undefined = this.child.stdio[3]
    if (control !== null && control !== undefined && 'write' in control) control.write(`${rows} ${columns}\n`)
  }

  /**
   * Changes the size until the program in a container has seen it. (`payload winsize` prints each size.)
   * A client passes the first size on, and starts to listen for changes some time after that.
   */
  async resizedTo(rows: number, columns: number): Promise<void> {
    let turn = 0
    await until(`a size of ${rows} by ${columns}`, () => {
      this.resize(rows + (turn++ % 2), columns)
      return this.stdout.includes(`size ${rows} ${columns}`)
    })
  }

  /** Waits until stdout contains the text. */
  async untilOutput(text: string | RegExp): Promise<void> {
    const has = (): boolean => (typeof text === 'string' ? this.stdout.includes(text) : text.test(this.stdout))
    let ended = false
    void this.finished.then(() => (ended = true))
    await until(
      `output ${text}`,
      () => {
        if (has()) return true
        if (ended) throw new Error(`the program ended before it printed ${text}: ${this.describe()}`)
        return false
      },
      () => this.describe(),
    )
  }

  /** The command line and all that it said, for messages. */
  describe(): string {
    return `${this.#name}\nstdout: ${this.stdout.slice(-2000)}\nstderr: ${this.#stderr.slice(-2000)}`
  }
}

/** Starts a program, and kills it after its bound. */
export function startCommand(program: string, args: readonly string[], options: StartOptions = {}): Command {
  return new Command(program, args, options)
}

/** Ends a process that may have ended before, and waits until it has. */
export async function endProcess(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill(signal)
  await ended
}

/** Polls a condition until it holds. @throws Error naming what was awaited, after the bound */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  instead: () => string = () => '',
  boundMs = 15_000 * SLOWNESS,
): Promise<void> {
  const deadline = performance.now() + boundMs
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`waited ${boundMs} ms in vain for ${what}\n${instead()}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
