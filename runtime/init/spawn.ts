/**
 * Starting ts-init with a plan: the fds it expects (init-plan.ts), the handshake, and the container process that it makes for us as our
 * own child. Invariant: when runPlan rejects or its handshake fails, `abort` leaves no process behind.
 */
import { writeSync } from 'node:fs'
import { FDS, LIMITS, type Op } from '../../proto/init-plan.ts'
import { RuntimeError } from '../errors.ts'
import { helperEnvironment } from '../failpoint.ts'
import type { Logger } from '../logger.ts'
import { encodePlan } from '../plan/encode.ts'
import { OwnedFd, openNull } from '../sys/fd.ts'
import { memfdCreate } from '../sys/libc.ts'
import type { Child, Reaper } from '../sys/reaper.ts'
import { receiveFd, socketPair } from '../sys/socket.ts'
import { exitText } from '../sys/words.ts'
import { Handshake, type StopHandlers } from './handshake.ts'
import { sealedHelper } from './helper.ts'
import { ENDED_EARLY } from './records.ts'

/**
 * Where the standard streams of a container process come from; all fds are borrowed and duplicated into the process. It can open again
 * what is behind them, with more rights than they have: processPipes() makes some that are nobody else's.
 */
export type Stdio =
  | { readonly kind: 'fds'; readonly stdin: number; readonly stdout: number; readonly stderr: number }
  | {
      readonly kind: 'terminal'
      readonly width?: number
      readonly height?: number
      /** newlines go out as the program writes them, without carriage returns: for a caller that relays to a terminal of its own */
      readonly bareNewlines?: boolean
      /** a connected unix socket that receives the master instead of us (OCI console socket) */
      readonly socket?: number
    }

/** What to run. */
export interface PlanRun {
  readonly ops: readonly Op[]
  /** the same as bytes, from whoever has made them in a turn of their own */
  readonly encoded?: Uint8Array
  readonly stdio: Stdio
  readonly reaper: Reaper
  /** for what the helper says */
  readonly logger: Logger
  /** the process exists; it has not executed anything yet */
  readonly onChild?: ((pid: number) => void) | undefined
  readonly stops?: StopHandlers
  /** fds that the program gets as 3, 4, …: as many as the exec op says; borrowed and duplicated */
  readonly extraFds?: readonly number[]
  /** the helper, instead of the installed one */
  readonly helper?: string | undefined
}

/** A helper at work, and the process that it makes. */
export class PlanProcess {
  readonly handshake: Handshake
  /** for what the container side says */
  readonly logger: Logger
  /** the container process, known from the `child` record on */
  child: Child | undefined
  /** the terminal's master, ours until somebody takes it */
  console: OwnedFd | undefined
  readonly #stage0: Child
  readonly #closed: Promise<void>
  #aborting = false

  constructor(run: PlanRun) {
    this.logger = run.logger
    const status = socketPair()
    let consolePair: ReturnType<typeof socketPair> | undefined
    let onClosed = () => {}
    this.#closed = new Promise((resolve) => {
      onClosed = resolve
    })
    const { reaper, extraFds = [] } = run
    try {
      if (run.stdio.kind === 'terminal' && run.stdio.socket === undefined) consolePair = socketPair()
      if (extraFds.length > LIMITS.EXTRA_FDS_MAX) {
        const message = `cannot pass ${extraFds.length} fds to a process: the limit is ${LIMITS.EXTRA_FDS_MAX}`
        throw new RuntimeError('InvalidArgument', message)
      }
      using plan = new OwnedFd(memfdCreate('plan'))
      const bytes = run.encoded ?? encodePlan(run.ops)
      for (let done = 0; done < bytes.length; ) done += writeSync(plan.fd, bytes, done, bytes.length - done, done)
      using device = run.stdio.kind === 'terminal' ? openNull() : undefined
      const streams = run.stdio.kind === 'fds' ? run.stdio : sameForAll(device?.fd ?? -1)
      const fds = [
        { from: streams.stdin, to: 0 },
        { from: streams.stdout, to: 1 },
        { from: streams.stderr, to: 2 },
        { from: plan.fd, to: FDS.PLAN },
        { from: status.theirs.fd, to: FDS.STATUS },
      ]
      const consoleFd = run.stdio.kind === 'terminal' ? (run.stdio.socket ?? consolePair?.theirs.fd) : undefined
      if (consoleFd !== undefined) fds.push({ from: consoleFd, to: FDS.CONSOLE })
      for (const [i, from] of extraFds.entries()) fds.push({ from, to: FDS.EXTRA + i })
      this.#stage0 = reaper.spawn({
        path: sealedHelper(run.helper),
        argv: ['ts-init'],
        env: helperEnvironment(),
        fds,
      })
      reaper.expect()
    } catch (error) {
      status.ours.close()
      consolePair?.ours.close()
      throw error
    } finally {
      status.theirs.close()
      consolePair?.theirs.close()
    }
    const consoleSocket = consolePair?.ours
    this.handshake = new Handshake(
      status.ours,
      run.ops,
      {
        onChild: (pid) => {
          this.child ??= reaper.adopt(pid)
          if (this.#aborting) this.child.kill(9)
          this.#announce(run.onChild, pid)
        },
        ...run.stops,
        isReaped: () => this.child?.exit !== undefined,
        onConsole: () => {
          if (consoleSocket !== undefined) this.console = receiveFd(consoleSocket.fd)
          consoleSocket?.close()
        },
        onClosed: () => {
          consoleSocket?.close()
          if (this.child === undefined) reaper.forget()
          onClosed()
        },
      },
      run.logger,
    )
  }

  #announce(onChild: ((pid: number) => void) | undefined, pid: number): void {
    try {
      onChild?.(pid)
    } catch (error) {
      this.handshake.fail(error instanceof Error ? error : new Error(String(error)))
    }
  }

  /** The container process. @throws Internal when the helper has not named it: a broken invariant after `ready`. */
  get process(): Child {
    if (this.child === undefined) throw new RuntimeError('Internal', 'init helper reported progress before its child')
    return this.child
  }

  /** Resolves when stage 0 has ended: the process is in all its cgroups. @throws what stage 0 reported */
  async settled(): Promise<void> {
    await this.#stage0.exited
    if (this.handshake.failure !== undefined) throw this.handshake.failure
  }

  /** The same failure; of a process that left without a word, and was reaped, it says how it ended. */
  explained(error: unknown): unknown {
    const exit = this.child?.exit
    if (!this.handshake.silent || exit === undefined) return error
    return new RuntimeError('FailedPrecondition', `${ENDED_EARLY}: ${exitText(exit)}`, { cause: error })
  }

  /** Lets go of a process that is created or executed. */
  release(): void {
    this.handshake.release()
    this.console?.close()
  }

  /** Kills what was started and waits until it is reaped. */
  async abort(): Promise<void> {
    this.#aborting = true
    this.#stage0.kill(9)
    this.child?.kill(9)
    this.handshake.abandon()
    // a child that stage 0 made but had not named yet is named by a record that is still to be read
    await this.#closed
    await this.handshake.idle
    await this.#stage0.exited
    await this.child?.exited
    this.console?.close()
  }
}

function sameForAll(fd: number): { stdin: number; stdout: number; stderr: number } {
  return { stdin: fd, stdout: fd, stderr: fd }
}
