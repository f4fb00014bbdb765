/**
 * Starts ts-init with a plan: the fds that it expects (init-plan.ts), the handshake, and the container process, which
 * ts-init makes as a child of this process. Invariant: when the constructor throws, nothing was started; afterwards
 * `abort` leaves no process behind.
 */
import { writeSync } from 'node:fs'
import { FDS, LIMITS, type Op } from '../../proto/init-plan.ts'
import { RuntimeError } from '../errors.ts'
import { helperEnvironment } from '../failpoint.ts'
import type { Logger } from '../logger.ts'
import { encodePlan } from '../plan/encode.ts'
import { OwnedFd, openNull } from '../sys/fd.ts'
import { memfdCreate } from '../sys/libc.ts'
import { SIGKILL } from '../sys/linux.ts'
import type { Child, ProcessMaker } from '../sys/reaper.ts'
import { receiveFd, socketPair } from '../sys/socket.ts'
import { exitText } from '../sys/words.ts'
import { Handshake, type StopHandlers } from './handshake.ts'
import { sealedHelper } from './helper.ts'
import { ENDED_EARLY } from './records.ts'

/**
 * The standard streams of a container process. All fds are borrowed and duplicated into the process. The process can
 * open the files behind them again, even with more rights than the fds have; processPipes() makes streams of its own.
 */
export type Stdio =
  | { readonly kind: 'fds'; readonly stdin: number; readonly stdout: number; readonly stderr: number }
  | {
      readonly kind: 'terminal'
      readonly width?: number
      readonly height?: number
      /** the terminal adds no carriage returns: for a caller that relays to a terminal of its own; default: false */
      readonly bareNewlines?: boolean
      /** connected unix socket that receives the master instead of the runtime (OCI console socket) */
      readonly socket?: number
    }

/** What to run. */
export interface PlanRun {
  readonly ops: readonly Op[]
  /** `ops` as bytes, if the caller encoded them already */
  readonly encoded?: Uint8Array
  readonly stdio: Stdio
  readonly reaper: ProcessMaker
  /** logs the helper's messages */
  readonly logger: Logger
  /** called when the container process exists; it has not executed anything yet */
  readonly onChild?: ((pid: number) => void) | undefined
  readonly stops?: StopHandlers
  /** fds that the program gets as 3, 4, …: as many as the exec op says; borrowed and duplicated */
  readonly extraFds?: readonly number[]
  /** path of the helper; default: the installed one */
  readonly helper?: string | undefined
}

/** A running helper, and the container process that it makes. */
export class PlanProcess {
  readonly handshake: Handshake
  /** logs the helper's messages */
  readonly logger: Logger
  /** the container process, known from the `child` record on */
  child: Child | undefined
  /** the terminal's master, owned by this object until a caller takes it */
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
    this.handshake = new Handshake(status.ours, {
      ops: run.ops,
      events: {
        onChild: (pid) => {
          this.child ??= reaper.adopt(pid)
          if (this.#aborting) this.child.kill(SIGKILL)
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
      logger: run.logger,
    })
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

  /** The error, or a better one: of a process that ended without a message and was reaped, it says how it ended. */
  explained(error: unknown): unknown {
    const exit = this.child?.exit
    if (!this.handshake.silent || exit === undefined) return error
    return new RuntimeError('FailedPrecondition', `${ENDED_EARLY}: ${exitText(exit)}`, { cause: error })
  }

  /** Closes the connection to a process that is created or executed, which goes on. */
  release(): void {
    this.handshake.release()
    this.console?.close()
  }

  /** Kills helper and container process, and waits until both are reaped. */
  async abort(): Promise<void> {
    this.#aborting = true
    this.#stage0.kill(SIGKILL)
    this.child?.kill(SIGKILL)
    this.handshake.abandon()
    // stage 0 may have made a child whose record is still to be read
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
