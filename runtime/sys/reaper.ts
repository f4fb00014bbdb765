/**
 * The only place that waits for children. A process that uses this file is a child subreaper and never uses libuv's child processes:
 * on SIGCHLD everything that can be reaped is reaped (waitpid(-1, WNOHANG) until empty), known pids are told to their watchers in the
 * order of the kernel's answers, orphans vanish. Invariant: a pid is in the table before the event loop can run again after its birth,
 * or, for a process that a helper makes for us (CLONE_PARENT), its early exit is kept until the helper's report names it.
 */
import { type Logger, silentLogger } from '../logger.ts'
import { declare, lastErrno, prctl, realtime } from './libc.ts'
import { signalChild } from './process.ts'
import { type SpawnOptions, spawnProcess } from './spawn.ts'

const PR_SET_CHILD_SUBREAPER = 36
const WNOHANG = 1

const waitpid = declare('int waitpid(int pid, void *status, int options)')

/** How a process ended: exit status (128 + signal number when a signal killed it) and the wall-clock time at which it was reaped. */
export interface Exit {
  readonly status: number
  /** the signal that killed it, if one did */
  readonly signal?: number
  readonly at: { readonly seconds: bigint; readonly nanos: number }
}

/** A child of this process, until and after it is reaped. */
export class Child {
  readonly pid: number
  /** Resolves when the process was reaped; never rejects. */
  readonly exited: Promise<Exit>
  #exit: Exit | undefined
  #resolve: (exit: Exit) => void = () => {}

  constructor(pid: number) {
    this.pid = pid
    this.exited = new Promise((resolve) => {
      this.#resolve = resolve
    })
  }

  /** The exit, once it is known. */
  get exit(): Exit | undefined {
    return this.#exit
  }

  /** Sends a signal; false when the process has been reaped or is gone. */
  kill(signal: number): boolean {
    return this.#exit === undefined && signalChild(this.pid, signal)
  }

  /** Signals the process group that it leads; false when the process itself has been reaped, since its number may belong to others then. */
  killGroup(signal: number): boolean {
    return this.#exit === undefined && signalChild(-this.pid, signal)
  }

  /** For the reaper alone. */
  settle(exit: Exit): void {
    this.#exit = exit
    this.#resolve(exit)
  }
}

let current: Reaper | undefined
/** how many hold a lease of it; 0 for one that was started by its owner */
let leases = 0

/** The reaper of this process; one at most is at work. */
export class Reaper {
  readonly #logger: Logger
  readonly #children = new Map<number, Child>()
  /** exits of pids that nobody has claimed yet, kept only while a helper may still report them */
  readonly #early = new Map<number, Exit>()
  readonly #status = Buffer.alloc(4)
  #expecting = 0
  /** Node does not count a signal handler as something to wait for: this timer, which never fires, stands for the children */
  readonly #keepAlive = setInterval(() => {}, 2 ** 30).unref()
  #onSignal: (() => void) | undefined

  constructor(logger: Logger = silentLogger) {
    this.#logger = logger
  }

  /**
   * The one that is at work in this process, or where there is none one that works until the lease ends: for whoever has a program to run
   * and no container process to own.
   */
  static lease(): { readonly reaper: Reaper } & Disposable {
    const leased = leases > 0
    if (current !== undefined && !leased) return { reaper: current, [Symbol.dispose]() {} }
    const reaper = current ?? new Reaper()
    // not as subreaper: what a program leaves behind would stay with us when nobody reaps any more
    if (!leased) reaper.start({ subreaper: false })
    leases++
    return {
      reaper,
      [Symbol.dispose]() {
        if (--leases === 0) reaper.close()
      },
    }
  }

  /** Becomes child subreaper, unless told not to, and begins to reap. */
  start(options: { readonly subreaper?: boolean } = {}): void {
    if (this.#onSignal !== undefined) return
    if (current !== undefined) throw new Error('this process has a reaper already')
    current = this
    if (options.subreaper !== false) prctl(PR_SET_CHILD_SUBREAPER, 1)
    this.#onSignal = () => this.reap()
    process.on('SIGCHLD', this.#onSignal)
  }

  /** Stops reaping; children still in the table are never reported. */
  close(): void {
    if (this.#onSignal !== undefined) process.off('SIGCHLD', this.#onSignal)
    this.#onSignal = undefined
    if (current === this) current = undefined
    clearInterval(this.#keepAlive)
  }

  /** Starts a child. */
  spawn(options: SpawnOptions): Child {
    const child = new Child(spawnProcess(options))
    this.#watch(child)
    return child
  }

  /** Says that a helper will name a further child of ours; must be paired with `adopt` or `forget`. */
  expect(): void {
    this.#expecting++
  }

  /** Claims the child that a helper reported. */
  adopt(pid: number): Child {
    const child = new Child(pid)
    const early = this.#early.get(pid)
    if (early === undefined) this.#watch(child)
    else child.settle(early)
    this.forget()
    return child
  }

  /** Ends one expectation: the helper failed before it made its child. */
  forget(): void {
    if (--this.#expecting === 0) this.#early.clear()
  }

  #watch(child: Child): void {
    this.#children.set(child.pid, child)
    this.#keepAlive.ref()
  }

  /** Reaps everything that has ended; called on SIGCHLD, and by whoever must know now. */
  reap(): void {
    for (;;) {
      const pid = waitpid(-1, this.#status, WNOHANG)
      if (pid <= 0) {
        if (pid < 0 && lastErrno() === 4) continue
        return
      }
      const raw = this.#status.readInt32LE(0)
      const signal = raw & 0x7f
      const at = realtime()
      const exit: Exit = signal === 0 ? { status: (raw >> 8) & 0xff, at } : { status: 128 + signal, signal, at }
      const child = this.#children.get(pid)
      if (child !== undefined) {
        this.#children.delete(pid)
        if (this.#children.size === 0) this.#keepAlive.unref()
        child.settle(exit)
      } else if (this.#expecting > 0) {
        this.#early.set(pid, exit)
      } else {
        this.#logger.debug({ pid, status: exit.status }, 'reaped an orphan')
      }
    }
  }
}
