/**
 * The only caller of waitpid(2) and waitid(2). A Reaper works in one of three modes:
 * - subreaper: orphaned descendants become children of this process, and SIGCHLD reaps every child that has ended.
 *   Node's child_process cannot be used then, because libuv would lose the exits of its own children.
 * - not a subreaper: the reaper waits only for the pids that it knows, so libuv may have other children.
 * - detached, for a command that ends before its container does: the reaper only looks at the exits of what the helpers
 *   made (WNOWAIT). The zombies stay for the next parent, which may wait for nothing else (conmon does).
 * Invariant: a pid is in the table before the event loop runs again after its birth. A process that a helper makes for
 * this one (CLONE_PARENT) may end before its pid is known; its exit is then kept until the helper reports the pid.
 */
import { type Logger, silentLogger } from '../logger.ts'
import { declare, lastErrno, prctl, realtime } from './libc.ts'
import { EINTR } from './linux.ts'
import { signalChild } from './pids.ts'
import { type SpawnOptions, spawnProcess } from './spawn.ts'

const PR_SET_CHILD_SUBREAPER = 36
const WNOHANG = 1
/**
 * How many children are reaped before other work has its turn: the end of a large container makes thousands of orphans.
 */
const REAPED_AT_ONCE = 64
/** For waitid(2) of one pid; WNOWAIT leaves the zombie to be reaped. */
const [P_PID, WEXITED, WNOWAIT, CLD_EXITED] = [1, 4, 0x01000000, 1]

const waitpid = declare('int waitpid(int pid, void *status, int options)')
const waitid = declare('int waitid(int idtype, int id, void *info, int options)')

/**
 * How a process ended: exit status (128 + signal number when a signal killed it) and the wall-clock time at which it
 * was reaped.
 */
export interface Exit {
  readonly status: number
  /** the signal that killed it, if one did */
  readonly signal?: number
  readonly at: { readonly seconds: bigint; readonly nanos: number }
}

/** How a Reaper works. */
export interface ReaperMode {
  /**
   * false: this process does not adopt orphans and reaps only the children that it knows, so that child_process still
   * works
   */
  readonly subreaper?: boolean
  /**
   * what the helpers make outlives this process and is left to its next parent: only what this process itself started
   * is reaped
   */
  readonly detached?: boolean
}

/** A child of this process, until and after it is reaped. */
export class Child {
  readonly pid: number
  /** Resolves when the process was reaped; never rejects. */
  readonly exited: Promise<Exit>
  #exit: Exit | undefined
  readonly #signal: (pid: number, signal: number) => boolean
  #resolve: (exit: Exit) => void = () => {}

  /** `signal` signals a process or, by its negative number, a group; false when it is gone. */
  constructor(pid: number, signal: (pid: number, signal: number) => boolean = signalChild) {
    this.pid = pid
    this.#signal = signal
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
    return this.#exit === undefined && this.#signal(this.pid, signal)
  }

  /**
   * Signals the process group that it leads. False when the process itself has been reaped, since its number may belong
   * to another process then.
   */
  killGroup(signal: number): boolean {
    return this.#exit === undefined && this.#signal(-this.pid, signal)
  }

  /** Records the exit; only the reaper calls this. */
  settle(exit: Exit): void {
    this.#exit = exit
    this.#resolve(exit)
  }
}

/**
 * Starts processes, and learns of their exits. Containers, hooks and helpers need no more than this: a Reaper does it
 * in this process, and a keeper does it for its worker (keeper/processes.ts).
 */
export interface ProcessMaker {
  /** Starts a child. */
  spawn(options: SpawnOptions): Child
  /** Says that a helper will report one more child; must be paired with `adopt` or `forget`. */
  expect(): void
  /** Claims the child that a helper reported, and ends one expectation. */
  adopt(pid: number): Child
  /** Ends one expectation: the helper failed before it made its child. */
  forget(): void
}

let current: Reaper | undefined
let shared: ProcessMaker | undefined

/** Names the maker of this process's children, in place of a Reaper. */
export function shareProcessMaker(maker: ProcessMaker): void {
  shared = maker
}

/** how many leases of the current reaper are held; 0 for one that its owner started */
let leases = 0

/** The reaper of this process; at most one runs at a time. */
export class Reaper implements ProcessMaker {
  readonly #logger: Logger
  readonly #children = new Map<number, Child>()
  /** exits of pids that no helper has reported yet, kept only while a report may still come */
  readonly #early = new Map<number, Exit>()
  readonly #status = Buffer.alloc(4)
  /** in detached mode: the children that the next parent will reap */
  readonly #left = new Map<number, Child>()
  /** a siginfo_t */
  readonly #info = Buffer.alloc(128)
  #detached = false
  /** this process adopts orphans, so it reaps every child, known or not */
  #subreaper = false
  #expecting = 0
  /** a batch was reaped in this turn of the event loop; `#again` says that another one is due in the next */
  #resting = false
  #again = false
  /**
   * Node does not stay alive for a signal handler, so this timer, which never fires, keeps it alive while there are
   * children
   */
  readonly #keepAlive = setInterval(() => {}, 2 ** 30).unref()
  #onSignal: (() => void) | undefined

  constructor(logger: Logger = silentLogger) {
    this.#logger = logger
  }

  /**
   * The maker that this process shares, the reaper that runs in it, or a new one that works until the last lease ends.
   * For callers that run a program and own no container process.
   */
  static lease(): { readonly reaper: ProcessMaker } & Disposable {
    const leased = leases > 0
    if (shared !== undefined) return { reaper: shared, [Symbol.dispose]() {} }
    if (current !== undefined && !leased) return { reaper: current, [Symbol.dispose]() {} }
    const reaper = current ?? new Reaper()
    // not as a subreaper: orphans of the program would stay zombies of this process once the reaper is closed
    if (!leased) reaper.start({ subreaper: false })
    leases++
    return {
      reaper,
      [Symbol.dispose]() {
        if (--leases === 0) reaper.close()
      },
    }
  }

  /** Becomes a child subreaper, unless `subreaper` is false, and begins to reap. */
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

  /** Stops reaping; the `exited` of children still in the table never resolves. */
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

  /** Says that a helper will report one more child; must be paired with `adopt` or `forget`. */
  expect(): void {
    this.#expecting++
  }

  /** Claims the child that a helper reported, and ends one expectation. */
  adopt(pid: number): Child {
    const child = new Child(pid)
    const early = this.#early.get(pid)
    if (early !== undefined) child.settle(early)
    else if (this.#detached) this.#left.set(pid, child)
    else this.#children.set(pid, child)
    this.forget()
    this.#keepAliveWhile()
    // its SIGCHLD may have come before its pid was known
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

  /**
   * Reaps every child that has ended, among all children or among those that it knows. It is called on SIGCHLD, and by
   * callers that cannot wait for the signal.
   */
  reap(): void {
    if (this.#subreaper && !this.#detached) this.#reap(-1)
    else for (const pid of [...this.#children.keys()]) this.#reap(pid)
    if (this.#detached) this.#look()
    this.#keepAliveWhile()
  }

  /** Leaves the detached mode: the container was not made, so no later parent will reap what the helpers made. */
  reclaim(): void {
    this.#detached = false
    for (const [pid, child] of this.#left) this.#children.set(pid, child)
    this.#left.clear()
    this.reap()
  }

  /** Reports those of the detached children that have ended, without reaping them. */
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

  /** Reaps on a signal, at most one batch in a turn of the event loop. */
  #reapSome(): void {
    if (!this.#subreaper || this.#detached) {
      this.reap()
      return
    }
    // thousands of exits may come in one turn, and each signal would reap its own batch
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

  /** Reaps one child, or all of them for -1, as far as they have ended; false when there may be more than `most`. */
  #reap(which: number, most = Number.POSITIVE_INFINITY): boolean {
    for (let count = 0; count < most; count++) {
      const pid = waitpid(which, this.#status, WNOHANG)
      if (pid <= 0) {
        if (pid < 0 && lastErrno() === EINTR) continue
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
