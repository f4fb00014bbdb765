/**
 * A process of a container: a child of this process, or one that another process started and that only pid and start
 * time identify. Invariant: no signal ever goes to a pid that could have been reused.
 */
import { RuntimeError } from '../errors.ts'
import type { OwnedFd } from '../sys/fd.ts'
import { SIGKILL } from '../sys/linux.ts'
import { isAlive, openProcess, pollReadable, signalProcess } from '../sys/pids.ts'
import type { Child, Exit } from '../sys/reaper.ts'

/** How a process ended. */
export interface ProcessResult {
  /** exit status; 128 plus the signal's number when a signal killed it; 255 when only another process can know */
  readonly exitCode: number
  /** the signal that killed it, if one did */
  readonly signal?: number
  /** the kernel's OOM killer ended it */
  readonly oomKilled: boolean
}

/** A container process that has been started. */
export interface RunningProcess {
  readonly pid: number
  /** resolves when a child was reaped, or when any other process has gone */
  readonly exited: Promise<Exit>
  /** the exit, once known; only that of a child ever is */
  readonly exit: Exit | undefined
  /** master of its terminal; a caller that wants to keep it takes it */
  readonly console: OwnedFd | undefined
  /** whether the process exists and is no zombie */
  readonly alive: boolean
  /** Sends a signal. @throws NotFound when the process has finished */
  signal(signal: number): void
  /** Resolves with the end of the process; may be called at any time and repeatedly. */
  wait(): Promise<ProcessResult>
}

function finished(): RuntimeError {
  return new RuntimeError('NotFound', 'process already finished')
}

/** A child of this process. */
export class OwnProcess implements RunningProcess {
  readonly #child: Child
  readonly #oomKilled: () => boolean
  readonly console: OwnedFd | undefined
  #result: Promise<ProcessResult> | undefined

  /** `oomKilled` is called after SIGKILL ended the process, and says whether that was the OOM killer. */
  constructor(child: Child, console: OwnedFd | undefined, oomKilled: () => boolean) {
    this.#child = child
    this.console = console
    this.#oomKilled = oomKilled
  }

  get pid(): number {
    return this.#child.pid
  }

  get exited(): Promise<Exit> {
    return this.#child.exited
  }

  get exit(): Exit | undefined {
    return this.#child.exit
  }

  get alive(): boolean {
    return this.#child.exit === undefined
  }

  signal(signal: number): void {
    if (!this.#child.kill(signal)) throw finished()
  }

  wait(): Promise<ProcessResult> {
    this.#result ??= this.exited.then(({ status, signal }) =>
      signal === undefined
        ? { exitCode: status, oomKilled: false }
        : { exitCode: status, signal, oomKilled: signal === SIGKILL && this.#oomKilled() },
    )
    return this.#result
  }
}

/** A process that another process started. */
export class OtherProcess implements RunningProcess {
  readonly pid: number
  readonly console = undefined
  readonly exit = undefined
  readonly startTime: bigint

  constructor(pid: number, startTime: bigint) {
    this.pid = pid
    this.startTime = startTime
  }

  get alive(): boolean {
    return this.pid > 0 && isAlive(this.pid, this.startTime)
  }

  /** Only the parent of a process learns its status: 255 stands for "unknown". */
  get exited(): Promise<Exit> {
    return this.waitGone(-1).then(() => {
      const now = BigInt(Date.now())
      return { status: 255, at: { seconds: now / 1000n, nanos: Number(now % 1000n) * 1_000_000 } }
    })
  }

  /** Waits at most `timeoutMs` (-1: no bound) for the process to go; true when it has. */
  async waitGone(timeoutMs: number): Promise<boolean> {
    if (this.pid <= 0) return true
    using pidfd = openProcess(this.pid, this.startTime)
    if (pidfd === undefined) return true
    return (await pollReadable([pidfd.fd], timeoutMs)).length > 0
  }

  signal(signal: number): void {
    if (this.pid <= 0 || !signalProcess(this.pid, this.startTime, signal)) throw finished()
  }

  async wait(): Promise<ProcessResult> {
    const { status } = await this.exited
    return { exitCode: status, oomKilled: false }
  }
}
