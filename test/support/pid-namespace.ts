/**
 * A pid namespace of a test's own, with a procfs that shows it. No process in it outlives the test.
 * A test can choose the number of the next process (pid_namespaces(7), /proc/sys/kernel/ns_last_pid).
 */
import { readFileSync } from 'node:fs'
import { descendants } from './census.ts'
import { type Command, type Finished, startCommand } from './command.ts'
import type { Place } from './daemon.ts'
import { PAYLOAD } from './places.ts'

/** Shell: the next process gets the number behind $0. */
const FROM = 'echo "$0" >/proc/sys/kernel/ns_last_pid && exec "$@"'

/** A pid namespace; `await using` ends it. */
export class PidNamespace implements Place, AsyncDisposable {
  readonly #first: Command
  readonly #pid: number

  private constructor(first: Command, pid: number) {
    this.#first = first
    this.#pid = pid
  }

  static async create(): Promise<PidNamespace> {
    const unshare = ['--pid', '--fork', '--mount-proc', PAYLOAD, 'reaper']
    const first = startCommand('unshare', unshare, { input: 'open', timeoutMs: 600_000 })
    await first.untilOutput('ready')
    return new PidNamespace(first, Number(readFileSync(`/proc/${first.pid}/task/${first.pid}/children`, 'utf8')))
  }

  get enter(): readonly string[] {
    return ['nsenter', '--target', String(this.#pid), '--pid', '--mount', '--']
  }

  get mountinfo(): string {
    return `/proc/${this.#pid}/mountinfo`
  }

  get pids(): readonly number[] {
    return [this.#first.pid, this.#pid]
  }

  /** Starts a program inside. */
  start(program: string, args: readonly string[]): Command {
    const [enter, ...words] = [...this.enter, program, ...args]
    return startCommand(enter!, words)
  }

  /**
   * Starts a program inside whose child processes and threads have numbers from there on. Its own number is another.
   */
  startFrom(pid: number, program: string, args: readonly string[]): Command {
    return this.start('sh', ['-c', FROM, String(pid - 1), program, ...args])
  }

  /** Runs a program inside to its end, and expects success. */
  async ok(program: string, args: readonly string[]): Promise<Finished> {
    const command = this.start(program, args)
    const finished = await command.finished
    if (finished.code !== 0) throw new Error(`exit status ${finished.code}: ${command.describe()}`)
    return finished
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#first.endInput()
    await this.#first.finished
  }
}

/** Processes that have nothing to do with a test's container, with consecutive numbers inside of a namespace. */
export class Strangers {
  readonly #parent: Command

  private constructor(parent: Command) {
    this.#parent = parent
  }

  static async start(inside: PidNamespace, from: number, count: number): Promise<Strangers> {
    const parent = inside.startFrom(from, PAYLOAD, ['crowd', String(count)])
    await parent.untilOutput('ready')
    const strangers = new Strangers(parent)
    const wanted = Array.from({ length: count }, (_, index) => from + index)
    const numbers = new Set(strangers.numbers())
    const missing = wanted.filter((pid) => !numbers.has(pid))
    if (missing.length > 0) throw new Error(`somebody else has the numbers ${missing.join(' ')}`)
    return strangers
  }

  /** The numbers of the processes that live, in order. */
  numbers(): number[] {
    const numbers = descendants(this.#parent.pid).map(({ pid }) => {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8')
      return Number(/^NSpid:.*\s(\d+)$/m.exec(status)?.[1])
    })
    return numbers.sort((a, b) => a - b)
  }
}
