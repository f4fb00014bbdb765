/**
 * A container from create to delete: its cgroup, its init process, its state on disk. The methods stand in the order of
 * a container's life. Invariants: create either returns a container whose init waits at the exec fifo or leaves nothing
 * behind; the status is derived from facts (freezer, process, fifo) and never stored.
 */
import { existsSync } from 'node:fs'
import type { Cgroup } from '../cgroup/cgroup.ts'
import type { PressureLevel } from '../cgroup/pressure.ts'
import { messageOf, RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import { differingNamespaces } from '../host/facts.ts'
import { newNamespaces } from '../host/ids.ts'
import { createPidFile } from '../host/pid-file.ts'
import type { PlanProcess } from '../init/spawn.ts'
import type { IntelRdtUpdate } from '../intelrdt/intel-rdt.ts'
import { type Logger, silentLogger } from '../logger.ts'
import { runHooks } from '../peers/run-hooks.ts'
import type { LinuxResources, Spec } from '../spec/types.ts'
import { type LockMode, locked } from '../state/lock.ts'
import { type OciState, ociState } from '../state/oci-state.ts'
import { readSavedCgroup, readSavedSpec } from '../state/saved-spec.ts'
import { fifoPath, hasState, listIds, notFound, ownerOf, readState, type SavedState, stateDir } from '../state/store.ts'
import { SIGKILL } from '../sys/linux.ts'
import { processStat } from '../sys/pids.ts'
import type { CheckpointOptions, RestoreOptions } from './checkpoint/options.ts'
import { explainMissing } from './claim.ts'
import { createParts } from './create.ts'
import { isCurrent, removeContainer } from './destroy.ts'
import { execIn } from './exec.ts'
import { type ContainerInfo, containerInfo, type FullState, fullState } from './info.ts'
import { endContainer, signalContainer } from './kill.ts'
import { changeLimits } from './limits.ts'
import { OomLedger, oomCounts } from './oom.ts'
import type { CreateOptions, ExecOptions } from './options.ts'
import { listProcessesOf, processesOf } from './processes.ts'
import { OtherProcess, OwnProcess, type RunningProcess } from './running-process.ts'
import { releaseFifo, requireCreated, waitsAtFifo } from './start.ts'
import type { ContainerStats } from './stats.ts'
import { refusal, type Status, statusOf } from './status.ts'

/** What is kept about a container on disk. */
export type ContainerState = SavedState

/** What this object holds of the container. */
type Hold =
  /** it made the container: the helper that made init */
  | { readonly kind: 'made'; readonly run: PlanProcess }
  /** it made the container from the images of a checkpoint */
  | { readonly kind: 'restored' }
  /** it was loaded; `lacking` says why no process can be run in it: only a part of its spec is known */
  | { readonly kind: 'loaded'; readonly lacking?: RuntimeError }
  /** it made the container and has let go of it */
  | { readonly kind: 'released' }

/** One container. */
export class Container {
  readonly id: string
  readonly root: string
  readonly bundle: string
  readonly cgroup: Cgroup
  readonly init: RunningProcess
  /** absolute path of the root file system on the host */
  readonly rootfs: string
  /** RFC 3339 time of creation */
  readonly created: string
  readonly #logger: Logger
  readonly #state: ContainerState
  #spec: Spec
  #hold: Hold
  /** the exec fifo was opened through this object: the program may run */
  #started = false
  /** what this object has done to end the container */
  #end: 'nothing' | 'killed' | 'destroyed' = 'nothing'
  /** calls of destroy run one after the other: the second finds nothing to do */
  #destroying: Promise<void> = Promise.resolve()
  /** CLONE_NEW* flags of the namespaces in which init differs from this process, once looked up */
  #namespaces: number | undefined
  readonly #oom: OomLedger

  private constructor(parts: {
    root: string
    state: ContainerState
    spec: Spec
    hold: Hold
    cgroup: Cgroup
    init: (oomKilled: () => boolean) => RunningProcess
    logger: Logger
  }) {
    this.id = parts.state.id
    this.root = parts.root
    this.bundle = parts.state.bundle
    this.rootfs = parts.state.rootfs
    this.created = parts.state.created
    this.#spec = parts.spec
    this.cgroup = parts.cgroup
    this.#oom = new OomLedger(parts.cgroup)
    this.init = parts.init(this.#oom.claim)
    this.#state = parts.state
    this.#logger = parts.logger
    this.#hold = parts.hold
  }

  get #isMaker(): boolean {
    return this.#hold.kind === 'made' || this.#hold.kind === 'restored'
  }

  get #run(): PlanProcess | undefined {
    return this.#hold.kind === 'made' ? this.#hold.run : undefined
  }

  /**
   * Creates a container and its init process, which waits for `start`.
   * @throws AlreadyExists, InvalidArgument, ResourceExhausted, and what the set-up met
   */
  static async create(options: CreateOptions): Promise<Container> {
    const { state, spec, cgroup, run } = await createParts(options)
    const { root, logger = silentLogger } = options
    const init = (oomKilled: () => boolean) => new OwnProcess(run.process, run.console, oomKilled)
    const container = new Container({ root, state, spec, cgroup, init, hold: { kind: 'made', run }, logger })
    await container.#writePidFile()
    return container
  }

  /**
   * Makes a container from the images of a checkpoint and a bundle; its processes run when the promise resolves.
   * @throws what create throws; FailedPrecondition without CRIU; Internal with the end of CRIU's log
   */
  static async restore(options: RestoreOptions): Promise<Container> {
    const { restore } = await import('./checkpoint/index.ts')
    const { state, spec, cgroup, process, console } = await restore(options)
    const { root, logger = silentLogger } = options
    const init = (oomKilled: () => boolean) => new OwnProcess(process, console, oomKilled)
    const container = new Container({ root, state, spec, cgroup, init, hold: { kind: 'restored' }, logger })
    await container.#writePidFile()
    return container
  }

  async #writePidFile(): Promise<void> {
    const { pid, made } = this.#state
    const { pidFile } = made
    if (pidFile === undefined) return
    await this.#orAbandon(async () => {
      // a reader of the file may rely on the process being in all its cgroups
      await this.settled()
      createPidFile(pidFile, pid)
    })
  }

  /**
   * Creates a container and starts its program. A container whose program cannot be started is removed again.
   * @throws what create and start throw
   */
  static async run(options: CreateOptions): Promise<Container> {
    const container = await Container.create(options)
    await container.#orAbandon(() => container.start())
    return container
  }

  /**
   * Loads a container that another process created.
   * @throws NotFound; Unavailable while it is being made; Internal when its state is damaged
   */
  static load(root: string, id: string, logger: Logger = silentLogger): Container {
    if (!hasState(root, id)) throw explainMissing(root, id)
    const state = readState(root, id)
    const { spec, ...lacking } = readSavedSpec(root, state)
    const cgroup = readSavedCgroup(root, state, logger)
    const init = () => new OtherProcess(state.pid, state.startTime)
    return new Container({ root, state, spec, cgroup, init, hold: { kind: 'loaded', ...lacking }, logger })
  }

  /** The ids of the containers below a root. A container may vanish before the caller looks at it. */
  static list(root: string): string[] {
    return listIds(root)
  }

  /** The document it was made from, with the limits that were set since. Never changed in place. */
  get spec(): Spec {
    return this.#spec
  }

  /** Resolves when the helper's own work is over: init is in all its cgroups. @throws what the helper reported */
  async settled(): Promise<void> {
    await this.#run?.settled()
  }

  /** The status, derived at each call. */
  status(): Status {
    return statusOf({
      alive: this.init.alive,
      freezer: () => this.cgroup.freezerState(),
      waiting: () =>
        !this.#started && waitsAtFifo(fifoPath(this.root, this.id), this.init.pid, this.#state.foreign === undefined),
    })
  }

  /** The facts that are kept on disk. They do not change. */
  state(): ContainerState {
    return this.#state
  }

  /** The unchanging facts as one record for wrappers and monitors. */
  info(): ContainerInfo {
    return containerInfo(this.root, this.#state, this.#spec)
  }

  /** The state document of the OCI specification, with runc's fields (rootfs, created, owner) and the monitor's pid. */
  ociState(): FullState {
    const { rootfs, created, root, id } = this
    return fullState(this.#document(this.status()), { rootfs, created, owner: ownerOf(root, id) }, this.#state)
  }

  /**
   * Lets init execute the program and runs the poststart hooks; resolves when both are done. When the program cannot be
   * executed, the container has stopped. When a hook fails, the container is destroyed (OCI runtime spec, lifecycle).
   * @throws FailedPrecondition unless the container is created; what init met; Internal for a hook that failed
   */
  async start(): Promise<void> {
    await this.#locked('exclusive', async () => {
      requireCreated(this.status())
      const { startTime, foreign } = this.#state
      const target = { init: this.init, startTime, foreign: foreign !== undefined, logger: this.#logger }
      await releaseFifo(fifoPath(this.root, this.id), target, () => (this.#started = true))
      const logger = this.#run?.logger ?? this.#logger
      logger.debug({ pid: this.init.pid }, 'init: executes its program')
    })
    // outside the lock: a hook may run commands on this container
    await this.#orAbandon(() => this.#runHooks('poststart', 'running'))
  }

  /**
   * Runs a further process in the container; resolves when its program was executed.
   * @throws FailedPrecondition when stopped or paused, and what the set-up met
   */
  async exec(options: ExecOptions): Promise<RunningProcess> {
    if (this.#hold.kind === 'loaded' && this.#hold.lacking !== undefined) throw this.#hold.lacking
    const { id, root, bundle, spec, rootfs, cgroup, init } = this
    const namespaces = (): number => (this.#namespaces ??= differingNamespaces(init.pid))
    const { startTime, intelRdt } = this.#state
    const more = { startTime, intelRdt, namespaces, logger: this.#logger, oomKilled: this.#oom.claim }
    const target = { id, root, bundle, spec, rootfs, cgroup, init, ...more }
    return locked({ root, id, mode: 'shared', signal: options.signal }, () => execIn(target, options))
  }

  /**
   * Signals init. SIGKILL reaches every process: the end of init's own pid namespace kills them all. Without such a
   * namespace the cgroup lists them, even after init has gone.
   * @throws NotFound when nothing is left to signal
   */
  async signal(signal: number): Promise<void> {
    if (signal === SIGKILL && this.#end === 'nothing') this.#end = 'killed'
    await signalContainer(this, signal)
  }

  /** Signals every process of the container. It is no error when none is left. */
  async signalAll(signal: number): Promise<void> {
    const reachesInit = signal === SIGKILL && (await this.cgroup.listProcesses()).includes(this.init.pid)
    if (reachesInit && this.#end === 'nothing') this.#end = 'killed'
    if (this.cgroup.exists) await this.cgroup.killAll(signal)
    else if (this.init.alive) await this.signal(signal)
  }

  /** Whether init has ended or will: this object killed it, or the kernel is ending it. No new process can join. */
  get ending(): boolean {
    return this.#end !== 'nothing' || !this.init.alive || processStat(this.init.pid)?.exiting !== false
  }

  /**
   * Freezes every process; resolves when all have stopped. Until then the status is "pausing". With `strict: false` a
   * container that is paused already is no error.
   * @throws FailedPrecondition unless created or running, and when it was killed meanwhile
   */
  async pause({ strict = true }: { readonly strict?: boolean } = {}): Promise<void> {
    await this.#locked('exclusive', async () => {
      const status = this.status()
      if (status === 'paused' && !strict) return
      if (status === 'stopped' || status === 'paused')
        throw refusal(status, `cannot pause a ${status} container: container not running`)
      if (this.#end === 'nothing') await this.cgroup.freeze()
      // a frozen v1 cgroup would keep the killed process from ending
      if (this.#end === 'nothing') return
      await this.cgroup.thaw()
      throw refusal('stopped', 'cannot pause a container that was killed')
    })
  }

  /** Thaws. With `strict: false` a running container is no error. @throws FailedPrecondition unless paused */
  async resume({ strict = true }: { readonly strict?: boolean } = {}): Promise<void> {
    // shared: an exec into the paused container holds the lock until the resume lets it run
    await this.#locked('shared', () => {
      const status = this.status()
      if (status === 'paused' || status === 'pausing') return this.cgroup.thaw()
      if (status === 'running' && !strict) return
      throw refusal(status, `cannot resume a ${status} container: container not paused`)
    })
  }

  /**
   * Saves the processes as images, by CRIU. Without `leaveRunning` and `preDump` they are killed then, and what is left
   * is to be destroyed. A paused container stays paused. After a failure it goes on as before.
   * @throws FailedPrecondition unless running or paused, and without CRIU; Internal with the end of CRIU's log
   */
  async checkpoint(options: CheckpointOptions): Promise<void> {
    if (this.#hold.kind === 'loaded' && this.#hold.lacking !== undefined) throw this.#hold.lacking
    await this.#locked('exclusive', async () => {
      const status = this.status()
      if (status !== 'running' && status !== 'paused') throw refusal(status, `cannot checkpoint a ${status} container`)
      const { dump } = await import('./checkpoint/index.ts')
      const target = { state: this.#state, spec: this.spec, cgroup: this.cgroup, logger: this.#logger }
      await dump({ ...target, paused: status === 'paused' }, options)
    })
  }

  /**
   * Changes resource limits, and shares of Intel RDT where the container has them; what the arguments leave out stays.
   * The new limits are kept on disk, so that `spec` has them in other processes too. When one is refused, the old ones
   * hold.
   * @throws FailedPrecondition when stopped; InvalidArgument, and what writing them met
   */
  async set(resources: LinuxResources, intelRdt: IntelRdtUpdate = {}): Promise<void> {
    await this.#locked('exclusive', async () => {
      if (!this.init.alive) throw refusal('stopped', 'cannot update a stopped container')
      this.#spec = await changeLimits(this, { state: this.#state, resources, intelRdt })
    })
  }

  /** The counters of its cgroups, and of the interfaces in its network namespace. */
  async stats(): Promise<ContainerStats> {
    const { readContainerStats } = await import('./stats.ts')
    return readContainerStats(this, this.#state.intelRdt)
  }

  /** Host pids of all processes, init included. Unless the container is paused, a process may end at any time. */
  processes(): number[] {
    return processesOf(this)
  }

  /** As processes(), without holding the event loop while the kernel lists thousands. */
  listProcesses(): Promise<number[]> {
    return listProcessesOf(this)
  }

  /** How many processes of the container the kernel has killed for lack of memory. */
  oomKillCount(): number {
    return this.cgroup.oomKillCount()
  }

  /**
   * Yields oomKillCount() each time it has grown, until no process is left or the signal is aborted. Waiting does not
   * keep this process alive.
   */
  notifyOom(options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<number, void, void> {
    return oomCounts(this.cgroup, options.signal)
  }

  /**
   * Yields the level each time that the kernel reports pressure on the container's memory of this level or a higher
   * one. It ends when no process is left, or by the signal. v2 has shares of time in place of levels, which
   * cgroup/pressure.ts lists. Waiting does not keep this process alive.
   * @throws FailedPrecondition without a memory controller
   */
  async *notifyMemoryPressure(
    level: PressureLevel,
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<PressureLevel, void, void> {
    const { pressureEvents } = await import('./pressure.ts')
    yield* pressureEvents(this.cgroup, level, options.signal)
  }

  /** Calls back when oomKillCount() has grown. */
  watchOom(onOom: () => void): Disposable {
    return this.cgroup.watchOom(onOom)
  }

  /** Whether init has a pid namespace of its own, so that its death ends every process of the container. */
  get ownsPidNamespace(): boolean {
    return newNamespaces(this.spec).has('pid')
  }

  /**
   * Removes cgroup and state, then runs the poststop hooks. A created container is killed first; with force any other
   * too. A second call on this object does nothing.
   * @throws FailedPrecondition when it still runs; NotFound when another process has removed it
   */
  destroy(options: { readonly force?: boolean } = {}): Promise<void> {
    const work = (): Promise<void> => this.#destroy(options.force === true)
    this.#destroying = this.#destroying.then(work, work)
    return this.#destroying
  }

  /** Destroys by force after a failure. The caller reports that failure, so a second one here is only logged. */
  async abandon(): Promise<void> {
    try {
      await this.destroy({ force: true })
    } catch (error) {
      // a hook may have removed the container
      if (error instanceof RuntimeError && error.code === 'NotFound') return
      const reason = messageOf(error)
      this.#logger.warn({ container: this.id, reason }, 'cannot remove a container that has failed')
    }
  }

  /** Runs `work`; when it fails, the container is destroyed. @throws what `work` throws */
  async #orAbandon(work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      await this.abandon()
      throw error
    }
  }

  async #destroy(force: boolean): Promise<void> {
    if (this.#end === 'destroyed') return
    // before the lock is taken: its holder may be waiting for this very process to end
    if (force && this.init.alive) await endContainer(this)
    if (this.#isMaker && !existsSync(stateDir(this.root, this.id))) return await this.#remove(force)
    await this.#locked('exclusive', async () => {
      if (!isCurrent(this.root, this.#state, { made: this.#isMaker })) throw notFound(this.id)
      failpoint('delete:locked')
      await this.#remove(force)
    })
  }

  async #remove(force: boolean): Promise<void> {
    const removal = { root: this.root, target: this, state: this.#state, status: this.status(), logger: this.#logger }
    await removeContainer(removal, force)
    this.#end = 'destroyed'
    await this.release()
    await this.#runHooks('poststop', 'stopped')
  }

  /** Closes what this process holds open for it. The container itself stays as it is and can be loaded. Idempotent. */
  async release(): Promise<void> {
    if (!this.#isMaker) return
    this.#run?.release()
    this.init.console?.close()
    this.#hold = { kind: 'released' }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }

  async #runHooks(name: 'poststart' | 'poststop', status: 'running' | 'stopped'): Promise<void> {
    const hooks = this.spec.hooks[name]
    if (hooks.length === 0) return
    await runHooks({ name, hooks, state: this.#document(status), logger: this.#logger })
  }

  #document(status: Status): OciState {
    const { id, bundle, spec } = this
    return ociState({ id, bundle, spec, pid: this.init.pid }, status)
  }

  /** Runs `work` under the container's lock. */
  #locked<T>(mode: LockMode, work: () => T | Promise<T>): Promise<T> {
    return locked({ root: this.root, id: this.id, mode }, work)
  }
}
