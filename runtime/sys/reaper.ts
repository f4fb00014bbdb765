/**
 * The only place that waits for children. A child subreaper gets orphans, and so never uses libuv's child processes: on SIGCHLD
 * everything that can be reaped is reaped (waitpid(-1, WNOHANG) until empty), known pids are told to their watchers in the order of the
 * kernel's answers, orphans vanish. Who is none reaps what it knows, and libuv may have children beside. Invariant: a pid is in the table before the event loop can run again after its birth,
 * or, for a process that a helper makes for us (CLONE_PARENT), its early exit is kept until the helper's report names it.
 * A command that ends before its container does is no owner of it: it only looks at the exits of what helpers made (WNOWAIT), and leaves
 * them to be reaped by whoever is the parent after it, who may wait for nothing else (conmon does).
 */
import { type Logger, silentLogger } from '../logger.ts'
import { declare, lastErrno, prctl, realtime } from './libc.ts'
import { signalChild } from './pids.ts'
import { type SpawnOptions, spawnProcess } from './spawn.ts'

const PR_SET_CHILD_SUBREAPER = 36
const WNOHANG = 1
/** How many orphans are reaped before others have their turn: the end of a large container makes thousands. */
const REAPED_AT_ONCE = 64
/** waitid(2) of one pid, which stays as it is */
const [P_PID, WEXITED, WNOWAIT, CLD_EXITED] = [1, 4, 0x01000000, 1]

const waitpid = declare('int waitpid(int pid, void *status, int options)')
const waitid = declare('int waitid(int idtype, int id, void *info, int options)')

/** How a process ended: exit status (128 + signal number when a signal killed it) and the wall-clock time at which it was reaped. */
export interface Exit {
  readonly status: number
  /** the signal that killed it, if one did */
  readonly signal?: number
  readonly at: { readonly seconds: bigint; readonly nanos: number }
}

/** How a Reaper works. */
export interface ReaperMode {
  /** false: orphans of our children go to somebody else, and only children that we know are reaped, so that child_process works beside */
  readonly subreaper?: boolean
  /** what helpers make for us outlives us, and its exit is another's to reap: nothing is but what we started */
  readonly detached?: boolean
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
  /** the children that are another's to reap */
  readonly #left = new Map<number, Child>()
  /** a siginfo_t */
  readonly #info = Buffer.alloc(128)
  #detached = false
  /** orphans come to us, so that every child is ours to reap, known or not */
  #subreaper = false
  #expecting = 0
  /** a batch was reaped in this turn; and whether there is more to reap in the next one */
  #resting = false
  #again = false
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
  start(options: ReaperMode = {}): void {
    if (this.#onSignal !== undefined) return
    if (current !== undefined) throw new Error('this process has a reaper already')
    current = this
    this.#detached = options.detached === true
    this.#subreaper = options.subreaper !== false
    if (this.#subreaper) prctl(PR_SET_CHILD_SUBREAPER, 1)
    this.#onSignal = () => this.#reapSome()
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
    this.#children.set(child.pid, child)
    this.#keepAliveWhile()
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
    if (early !== undefined) child.settle(early)
    else if (this.#detached) this.#left.set(pid, child)
    else this.#children.set(pid, child)
    this.forget()
    this.#keepAliveWhile()
    // its end may have been signalled before it had a name
    if (this.#detached) this.#look()
    else if (!this.#subreaper) this.#reap(pid)
    return child
  }

  /** Ends one expectation: the helper failed before it made its child. */
  forget(): void {
    if (--this.#expecting === 0) this.#early.clear()
  }

  #keepAliveWhile(): void {
    if (this.#children.size + this.#left.size > 0) this.#keepAlive.ref()
    else this.#keepAlive.unref()
  }

  /** Reaps what has ended, of all children or of those that we know; called on SIGCHLD, and by whoever must know now. */
  reap(): void {
    if (this.#subreaper && !this.#detached) this.#reap(-1)
    else for (const pid of [...this.#children.keys()]) this.#reap(pid)
    if (this.#detached) this.#look()
    this.#keepAliveWhile()
  }

  /** Reaps like an owner from now on: what helpers made has come to nothing, and nobody after us is to find it. */
  reclaim(): void {
    this.#detached = false
    for (const [pid, child] of this.#left) this.#children.set(pid, child)
    this.#left.clear()
    this.reap()
  }

  /** Looks which of the children that are another's to reap have ended. */
  #look(): void {
    for (const [pid, child] of this.#left) {
      this.#info.fill(0)
      if (waitid(P_PID, pid, this.#info, WEXITED | WNOHANG | WNOWAIT) !== 0) continue
      // si_code, si_pid and si_status of siginfo_t
      const [code, who, value] = [8, 16, 24].map((at) => this.#info.readInt32LE(at))
      if (who !== pid || value === undefined) continue
      this.#left.delete(pid)
      const at = realtime()
      child.settle(code === CLD_EXITED ? { status: value, at } : { status: 128 + value, signal: value, at })
    }
    this.#keepAliveWhile()
  }

  /** Reaps on a signal: one batch in a turn. */
  #reapSome(): void {
    if (!this.#subreaper || this.#detached) {
      this.reap()
      return
    }
    // the signals of thousands come in one turn, and each would have its batch
    this.#again = this.#resting
    if (this.#resting) return
    this.#again = !this.#reap(-1, REAPED_AT_ONCE)
    this.#keepAliveWhile()
    this.#resting = true
    setImmediate(() => {
      this.#resting = false
      if (this.#again && this.#onSignal !== undefined) this.#reapSome()
    })
  }

  /** Reaps one child, or with -1 all of them, as far as they have ended; false when there may be more than `most`. */
  #reap(which: number, most = Number.POSITIVE_INFINITY): boolean {
    for (let count = 0; count < most; count++) {
      const pid = waitpid(which, this.#status, WNOHANG)
      if (pid <= 0) {
        if (pid < 0 && lastErrno() === 4) continue
        return true
      }
      const raw = this.#status.readInt32LE(0)
      const signal = raw & 0x7f
      const at = realtime()
      const exit: Exit = signal === 0 ? { status: (raw >> 8) & 0xff, at } : { status: 128 + signal, signal, at }
      const child = this.#children.get(pid)
      if (child !== undefined) {
        this.#children.delete(pid)
        child.settle(exit)
      } else if (this.#expecting > 0) {
        this.#early.set(pid, exit)
      } else {
        this.#logger.debug({ pid, status: exit.status }, 'reaped an orphan')
      }
    }
    return false
  }
}
