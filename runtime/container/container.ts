/**
 * A container from create to delete: its cgroup, its init process, its state on disk. The order of the code below is the order of a
 * container's life. Invariants: create either returns a container whose init waits at the exec fifo or leaves nothing behind;
 * the status is derived from facts (freezer, process, fifo), never stored.
 */
import { existsSync } from 'node:fs'
import { Cgroup } from '../cgroup/cgroup.ts'
import type { CgroupStats } from '../cgroup/stats.ts'
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import type { PlanProcess } from '../init/spawn.ts'
import { type Logger, silentLogger } from '../logger.ts'
import type { LinuxResources, Spec } from '../spec/types.ts'
import { processStat } from '../sys/process.ts'
import { explainMissing } from './claim.ts'
import { createParts } from './create.ts'
import { execIn } from './exec.ts'
import { runHooks } from './hooks.ts'
import { foreignNamespaces, namespaceProcesses } from './host.ts'
import { newNamespaces } from './ids.ts'
import { type LockMode, locked } from './lock.ts'
import { type OciState, ociState } from './oci-state.ts'
import type { CreateOptions, ExecOptions } from './options.ts'
import { ForeignProcess, OwnProcess, type RunningProcess } from './process.ts'
import { readSavedSpec } from './saved-spec.ts'
import { awaitFifo, releaseFifo } from './start.ts'
import {
  fifoPath,
  hasState,
  listIds,
  notFound,
  ownerOf,
  readState,
  removeState,
  type SavedState,
  stateDir,
} from './store.ts'

const SIGKILL = 9
/** How long delete waits for a killed init to vanish. */
const KILL_WAIT_MS = 10_000

/** The derived status of a container. */
export type Status = 'created' | 'running' | 'paused' | 'stopped'

/** What is kept about a container on disk. */
export type ContainerState = SavedState

/** One container. */
export class Container {
  readonly id: string
  readonly root: string
  readonly bundle: string
  readonly spec: Spec
  readonly cgroup: Cgroup
  readonly init: RunningProcess
  /** absolute path of its root file system on the host */
  readonly rootfs: string
  /** RFC 3339 time of creation */
  readonly created: string
  readonly #logger: Logger
  readonly #state: ContainerState
  /** the helper that made init; undefined for a container that was loaded from its state, and once we have let go of it */
  #run: PlanProcess | undefined
  /** why no process can be run in it: its spec is not known to the end */
  readonly #lacking: RuntimeError | undefined
  #started = false
  /** SIGKILL was sent to init */
  #killed = false
  /** one destroy after the other: the second finds nothing to do */
  #destroying: Promise<void> = Promise.resolve()
  #destroyed = false
  #foreign: number | undefined
  /** OOM kills that a process's end was put down to */
  #oomKills = 0

  private constructor(parts: {
    root: string
    state: ContainerState
    spec: Spec
    lacking?: RuntimeError
    cgroup: Cgroup
    init: (oomKilled: () => boolean) => RunningProcess
    logger: Logger
    run?: PlanProcess
  }) {
    this.id = parts.state.id
    this.root = parts.root
    this.bundle = parts.state.bundle
    this.rootfs = parts.state.rootfs
    this.created = parts.state.created
    this.spec = parts.spec
    this.cgroup = parts.cgroup
    this.init = parts.init(this.#oomKilled)
    this.#state = parts.state
    this.#logger = parts.logger
    this.#run = parts.run
    this.#lacking = parts.lacking
  }

  /** Creates a container and its init process, which waits for `start`. @throws AlreadyExists, InvalidArgument, and what the set-up met */
  static async create(options: CreateOptions): Promise<Container> {
    const { state, spec, cgroup, run } = await createParts(options)
    const { root, logger = silentLogger } = options
    const init = (oomKilled: () => boolean) => new OwnProcess(run.process, run.console, oomKilled)
    return new Container({ root, state, spec, cgroup, init, run, logger })
  }

  /** Creates a container and starts its program; a container whose program cannot be started is removed again. @throws as create and start do */
  static async run(options: CreateOptions): Promise<Container> {
    const container = await Container.create(options)
    try {
      await container.start()
      return container
    } catch (error) {
      await container.destroy({ force: true })
      throw error
    }
  }

  /** A container that another process created. @throws NotFound, Unavailable while it is being made */
  static load(root: string, id: string, logger: Logger = silentLogger): Container {
    if (!hasState(root, id)) throw explainMissing(root, id)
    const state = readState(root, id)
    const saved = readSavedSpec(root, state)
    const cgroup = Cgroup.load(state.cgroupPaths)
    const init = () => new ForeignProcess(state.pid, state.startTime)
    return new Container({ root, state, ...saved, cgroup, logger, init })
  }

  /** Ids of the containers below a root; an entry may vanish at any time. */
  static list(root: string): string[] {
    return listIds(root)
  }

  /** Resolves when the helper's own work is over: for a caller that exits after it. */
  async settled(): Promise<void> {
    await this.#run?.settled()
  }

  /** The status, from facts. */
  status(): Status {
    if (!this.init.alive) return 'stopped'
    if (this.cgroup.isFrozen()) return 'paused'
    return !this.#started && existsSync(fifoPath(this.root, this.id)) ? 'created' : 'running'
  }

  /** What is kept about it on disk: the facts that do not change. */
  state(): ContainerState {
    return this.#state
  }

  /** The state document of the OCI specification, with what runc's users expect besides: the root file system, the time of creation, the owner. */
  ociState(): OciState & {
    readonly pid: number
    readonly rootfs: string
    readonly created: string
    readonly owner: string
  } {
    const { id, bundle, spec, rootfs, created, root } = this
    const { pid, status, annotations, ...rest } = ociState({ id, bundle, spec, pid: this.init.pid }, this.status())
    const noted = annotations === undefined ? {} : { annotations }
    return { ...rest, pid: pid ?? 0, status, rootfs, created, ...noted, owner: ownerOf(root, id) }
  }

  /**
   * Lets init execute the program and runs the poststart hooks; resolves when both are done. A program or a hook that fails ends the
   * container: it has stopped when the promise rejects.
   * @throws FailedPrecondition unless the container is created
   */
  async start(): Promise<void> {
    await this.#locked('exclusive', () => this.#start())
    // not under the lock: a hook may use the container
    try {
      await this.#runHooks('poststart', 'running')
    } catch (error) {
      await this.#killInit()
      throw error
    }
  }

  async #start(): Promise<void> {
    const status = this.status()
    if (status === 'stopped') throw new RuntimeError('FailedPrecondition', 'cannot start a container that has stopped')
    if (status !== 'created')
      throw new RuntimeError('FailedPrecondition', `cannot start an already ${status} container`)
    const run = this.#run
    await releaseFifo(fifoPath(this.root, this.id), async (fifo) => {
      this.#started = true
      if (run === undefined) return awaitFifo(fifo, this.init, this.#state.startTime)
      try {
        await run.handshake.executed
      } catch (error) {
        // a helper that tells why it failed ends by itself, with the status of a failure
        if (error instanceof RuntimeError && error.detail?.source === 'helper') await this.init.exited
        else await this.#killInit()
        throw error
      }
    })
  }

  /** Runs a further process in the container; resolves when its program was executed. @throws FailedPrecondition when stopped or paused */
  async exec(options: ExecOptions): Promise<RunningProcess> {
    if (this.#lacking !== undefined) throw this.#lacking
    const { id, root, bundle, spec, rootfs, cgroup, init } = this
    const namespaces = (): number => {
      this.#foreign ??= foreignNamespaces(init.pid)
      return this.#foreign
    }
    const { startTime } = this.#state
    const logger = this.#logger
    const oomKilled = this.#oomKilled
    const target = { id, root, bundle, spec, rootfs, cgroup, init, startTime, namespaces, logger, oomKilled }
    return this.#locked('shared', () => execIn(target, options))
  }

  /** Whether the kernel has killed more processes than were told so far: it is asked about one that was killed. */
  readonly #oomKilled = (): boolean => {
    try {
      const count = this.cgroup.oomKillCount()
      if (count <= this.#oomKills) return false
      this.#oomKills++
      return true
    } catch {
      // the cgroup has been removed: nobody knows any more
      return false
    }
  }

  /**
   * Signals init. SIGKILL reaches every process: by the end of init's own pid namespace, or else, init gone or not, by the cgroup.
   * @throws NotFound when nothing is left to signal
   */
  async signal(signal: number): Promise<void> {
    if (signal === SIGKILL) this.#killed = true
    const pids = signal === SIGKILL && !this.ownsPidNamespace ? this.cgroup.procs() : []
    if (pids.length > 0) {
      await this.cgroup.killAll(signal)
      // unless it has left its cgroup, that was all
      if (!this.init.alive || pids.includes(this.init.pid)) return
    }
    this.init.signal(signal)
    // a frozen v1 cgroup keeps even a killed process: let it die
    if (signal === SIGKILL && this.cgroup.isFrozen()) await this.cgroup.thaw()
  }

  /** Signals every process of the container; none left is fine. */
  async signalAll(signal: number): Promise<void> {
    if (signal === SIGKILL && this.cgroup.procs().includes(this.init.pid)) this.#killed = true
    if (this.cgroup.exists) await this.cgroup.killAll(signal)
    else if (this.init.alive) await this.signal(signal)
  }

  /** Whether init has ended or is bound to: it was killed through us, or the kernel is taking it down. Nothing new can run beside it. */
  get ending(): boolean {
    return this.#killed || !this.init.alive || processStat(this.init.pid)?.exiting !== false
  }

  /** Freezes every process. @throws FailedPrecondition unless created or running, and when it was killed meanwhile */
  async pause(): Promise<void> {
    await this.#locked('exclusive', async () => {
      const status = this.status()
      if (status !== 'running' && status !== 'created')
        throw new RuntimeError('FailedPrecondition', `cannot pause a ${status} container`)
      if (!this.#killed) await this.cgroup.freeze()
      // v1 would keep it frozen, its death pending
      if (!this.#killed) return
      await this.cgroup.thaw()
      throw new RuntimeError('FailedPrecondition', 'cannot pause a container that was killed')
    })
  }

  /** Thaws. @throws FailedPrecondition unless paused */
  async resume(): Promise<void> {
    // shared: an exec into the paused container holds the lock until we let it run
    await this.#locked('shared', () => {
      const status = this.status()
      if (status === 'paused') return this.cgroup.thaw()
      throw new RuntimeError('FailedPrecondition', `cannot resume a ${status} container: container not paused`)
    })
  }

  /** Changes resource limits; what the argument leaves out stays. @throws FailedPrecondition when stopped */
  async set(resources: LinuxResources): Promise<void> {
    await this.#locked('exclusive', () => {
      if (!this.init.alive) throw new RuntimeError('FailedPrecondition', 'cannot update a stopped container')
      this.cgroup.set(resources)
    })
  }

  /** Counters of the container's cgroups. */
  stats(): CgroupStats {
    return this.cgroup.stats()
  }

  /** Host pids of all processes, init among them from its birth on. */
  processes(): number[] {
    // without a cgroup, the pid namespace says who belongs to it
    if (!this.cgroup.exists && this.ownsPidNamespace && this.init.alive) return namespaceProcesses(this.init.pid)
    const pids = this.cgroup.procs()
    // it may have moved itself to a cgroup elsewhere
    if (this.init.alive && !pids.includes(this.init.pid)) pids.unshift(this.init.pid)
    return pids
  }

  /** How many processes of the container the kernel has killed for lack of memory. */
  oomKillCount(): number {
    return this.cgroup.oomKillCount()
  }

  /** Calls back when that count grew. */
  watchOom(onOom: () => void): Disposable {
    return this.cgroup.watchOom(onOom)
  }

  /** Whether init has a pid namespace of its own, so that its death ends every process of the container. */
  get ownsPidNamespace(): boolean {
    return newNamespaces(this.spec).has('pid')
  }

  /**
   * Removes cgroup and state, then runs the poststop hooks. A created container is killed first, with force any other too; what this
   * process has removed already is fine. @throws FailedPrecondition when it still runs, NotFound when another process has removed it
   */
  destroy(options: { readonly force?: boolean } = {}): Promise<void> {
    const work = (): Promise<void> => this.#destroy(options.force === true)
    const result = this.#destroying.then(work, work)
    this.#destroying = result
    return result
  }

  async #destroy(force: boolean): Promise<void> {
    if (this.#destroyed) return
    // a command that holds the lock may wait for this very process: force does not wait for it
    if (force && this.init.alive) await this.#killInit()
    if (this.#run !== undefined && !existsSync(stateDir(this.root, this.id))) await this.#remove(force)
    else {
      await this.#locked('exclusive', async () => {
        if (!this.#isCurrent()) throw notFound(this.id)
        failpoint('delete:locked')
        await this.#remove(force)
      })
    }
  }

  async #remove(force: boolean): Promise<void> {
    const status = this.status()
    if (status !== 'stopped') {
      if (status !== 'created' && !force) {
        throw new RuntimeError(
          'FailedPrecondition',
          `cannot delete container "${this.id}" that is not stopped: ${status}`,
        )
      }
      await this.#killInit()
    }
    failpoint('delete:killed')
    // what init left behind: without a pid namespace of its own, or moved into sub-cgroups
    if (this.cgroup.procs().length > 0) await this.cgroup.killAll(SIGKILL)
    await this.cgroup.remove()
    failpoint('delete:cgroup')
    removeState(this.root, this.id)
    failpoint('delete:done')
    this.#destroyed = true
    await this.release()
    await this.#runHooks('poststop', 'stopped')
  }

  /** Whether the folder on disk is still about this container, and not about a later one of the same id. */
  #isCurrent(): boolean {
    const { pid, startTime } = readState(this.root, this.id)
    return pid === this.init.pid && startTime === this.#state.startTime
  }

  /** Lets go of what this process holds of it; the container itself stays as it is, and can be loaded again. Idempotent. */
  async release(): Promise<void> {
    this.#run?.release()
    this.#run = undefined
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }

  async #runHooks(name: 'poststart' | 'poststop', status: 'running' | 'stopped'): Promise<void> {
    const hooks = this.spec.hooks[name]
    if (hooks.length === 0) return
    const { id, bundle, spec } = this
    const state = ociState({ id, bundle, spec, pid: this.init.pid }, status)
    await runHooks({ name, hooks, state, logger: this.#logger })
  }

  /** Runs `work` while no other command works on the container. */
  #locked<T>(mode: LockMode, work: () => T | Promise<T>): Promise<T> {
    return locked(this.root, this.id, mode, work)
  }

  async #killInit(): Promise<void> {
    try {
      await this.signal(SIGKILL)
    } catch (error) {
      if (!(error instanceof RuntimeError) || error.code !== 'NotFound') throw error
    }
    if (this.init instanceof ForeignProcess) {
      if (!(await this.init.waitGone(KILL_WAIT_MS))) {
        throw new RuntimeError(
          'DeadlineExceeded',
          `cannot delete container "${this.id}": process ${this.init.pid} did not end after SIGKILL`,
        )
      }
    } else await this.init.exited
  }
}
