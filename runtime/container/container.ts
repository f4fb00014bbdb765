/**
 * A container from create to delete: its cgroup, its init process, its state on disk. The order of the code below is the order of a
 * container's life. Invariants: create either returns a container whose init waits at the exec fifo or leaves nothing behind;
 * the status is derived from facts (freezer, process, fifo), never stored.
 */

import { existsSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Cgroup } from '../cgroup/cgroup.ts'
import type { CgroupStats } from '../cgroup/stats.ts'
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import { foreignNamespaces, namespaceProcesses } from '../host/facts.ts'
import { newNamespaces } from '../host/ids.ts'
import { createPidFile } from '../host/pid-file.ts'
import type { PlanProcess } from '../init/spawn.ts'
import { type Logger, silentLogger } from '../logger.ts'
import { runHooks } from '../peers/run-hooks.ts'
import { mergeResources } from '../spec/merge-resources.ts'
import type { LinuxResources, Spec } from '../spec/types.ts'
import { type LockMode, locked } from '../state/lock.ts'
import { ociState } from '../state/oci-state.ts'
import { removeRootMount } from '../state/root-mount.ts'
import { readSavedCgroup, readSavedSpec } from '../state/saved-spec.ts'
import {
  fifoPath,
  hasState,
  listIds,
  notFound,
  ownerOf,
  readState,
  removeState,
  type SavedState,
  stageSpec,
  stateDir,
} from '../state/store.ts'
import { SIGKILL } from '../sys/linux.ts'
import { processStat } from '../sys/pids.ts'
import { explainMissing } from './claim.ts'
import { createParts } from './create.ts'
import { execIn } from './exec.ts'
import { type ContainerInfo, containerInfo, type ToldState, toldState } from './info.ts'
import { endContainer, signalContainer } from './kill.ts'
import { OomLedger, oomCounts } from './oom.ts'
import type { CreateOptions, ExecOptions } from './options.ts'
import { initOf } from './remains.ts'
import { ForeignProcess, OwnProcess, type RunningProcess } from './running-process.ts'
import { releaseFifo, waitsAtFifo } from './start.ts'
import { refusal, type Status, statusOf } from './status.ts'

/** What is kept about a container on disk. */
export type ContainerState = SavedState

/** One container. */
export class Container {
  readonly id: string
  readonly root: string
  readonly bundle: string
  readonly cgroup: Cgroup
  readonly init: RunningProcess
  /** absolute path of its root file system on the host */
  readonly rootfs: string
  /** RFC 3339 time of creation */
  readonly created: string
  readonly #logger: Logger
  readonly #state: ContainerState
  #spec: Spec
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
  readonly #oom: OomLedger

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
    this.#spec = parts.spec
    this.cgroup = parts.cgroup
    this.#oom = new OomLedger(parts.cgroup)
    this.init = parts.init(this.#oom.claim)
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
    const container = new Container({ root, state, spec, cgroup, init, run, logger })
    const { pidFile } = state.made
    if (pidFile === undefined) return container
    try {
      // whoever reads it finds the process where it belongs
      await container.settled()
      createPidFile(pidFile, state.pid)
      return container
    } catch (error) {
      await container.abandon()
      throw error
    }
  }

  /** Creates a container and starts its program; a container whose program cannot be started is removed again. @throws as create and start do */
  static async run(options: CreateOptions): Promise<Container> {
    const container = await Container.create(options)
    try {
      await container.start()
      return container
    } catch (error) {
      await container.abandon()
      throw error
    }
  }

  /** A container that another process created. @throws NotFound, Unavailable while it is being made */
  static load(root: string, id: string, logger: Logger = silentLogger): Container {
    if (!hasState(root, id)) throw explainMissing(root, id)
    const state = readState(root, id)
    const saved = readSavedSpec(root, state)
    const cgroup = readSavedCgroup(root, state)
    const init = () => new ForeignProcess(state.pid, state.startTime)
    return new Container({ root, state, ...saved, cgroup, logger, init })
  }

  /** Ids of the containers below a root; an entry may vanish at any time. */
  static list(root: string): string[] {
    return listIds(root)
  }

  /** What it was made from, with the limits that were set since; plain data that nobody changes. */
  get spec(): Spec {
    return this.#spec
  }

  /** Resolves when the helper's own work is over: for a caller that exits after it. */
  async settled(): Promise<void> {
    await this.#run?.settled()
  }

  /** The status, from facts. */
  status(): Status {
    return statusOf({
      alive: this.init.alive,
      freezer: () => this.cgroup.freezerState(),
      waiting: () =>
        !this.#started && waitsAtFifo(fifoPath(this.root, this.id), this.init.pid, this.#state.foreign === undefined),
    })
  }

  /** What is kept about it on disk: the facts that do not change. */
  state(): ContainerState {
    return this.#state
  }

  /** Its facts that never change, in one record. */
  info(): ContainerInfo {
    return containerInfo(this.root, this.#state, this.#spec)
  }

  /** The state document of the OCI specification, with what runc's users expect besides (the root file system, the time of creation, the owner), and who waits for init, if he is there. */
  ociState(): ToldState {
    const { id, bundle, spec, rootfs, created, root } = this
    const state = ociState({ id, bundle, spec, pid: this.init.pid }, this.status())
    return toldState(state, { rootfs, created, owner: ownerOf(root, id) }, this.#state)
  }

  /**
   * Lets init execute the program and runs the poststart hooks; resolves when both are done. When the promise rejects because the program
   * cannot be executed, the container has stopped; because of a hook, it is destroyed, as the specification asks.
   * @throws FailedPrecondition unless the container is created
   */
  async start(): Promise<void> {
    await this.#locked('exclusive', () => this.#start())
    // not under the lock: a hook may use the container
    try {
      await this.#runHooks('poststart', 'running')
    } catch (error) {
      await this.abandon()
      throw error
    }
  }

  async #start(): Promise<void> {
    const status = this.status()
    if (status === 'stopped') throw refusal(status, 'cannot start a container that has stopped')
    if (status !== 'created')
      throw refusal(
        status,
        `cannot start ${status === 'running' ? 'an already running container' : `a container in the ${status} state`}`,
      )
    const { startTime, foreign } = this.#state
    const target = { init: this.init, startTime, foreign: foreign !== undefined, logger: this.#logger }
    await releaseFifo(fifoPath(this.root, this.id), target, () => (this.#started = true))
    const logger = this.#run?.logger ?? this.#logger
    logger.debug({ pid: this.init.pid }, 'init: executes its program')
  }

  /** Runs a further process in the container; resolves when its program was executed. @throws FailedPrecondition when stopped or paused */
  async exec(options: ExecOptions): Promise<RunningProcess> {
    if (this.#lacking !== undefined) throw this.#lacking
    const { id, root, bundle, spec, rootfs, cgroup, init } = this
    const namespaces = (): number => {
      this.#foreign ??= foreignNamespaces(init.pid)
      return this.#foreign
    }
    const more = { startTime: this.#state.startTime, namespaces, logger: this.#logger, oomKilled: this.#oom.claim }
    const target = { id, root, bundle, spec, rootfs, cgroup, init, ...more }
    return locked(this.root, this.id, 'shared', () => execIn(target, options), { signal: options.signal })
  }

  /**
   * Signals init. SIGKILL reaches every process: by the end of init's own pid namespace, or else, init gone or not, by the cgroup.
   * @throws NotFound when nothing is left to signal
   */
  async signal(signal: number): Promise<void> {
    if (signal === SIGKILL) this.#killed = true
    await signalContainer(this, signal)
  }

  /** Signals every process of the container; none left is fine. */
  async signalAll(signal: number): Promise<void> {
    if (signal === SIGKILL && (await this.cgroup.listProcesses()).includes(this.init.pid)) this.#killed = true
    if (this.cgroup.exists) await this.cgroup.killAll(signal)
    else if (this.init.alive) await this.signal(signal)
  }

  /** Whether init has ended or is bound to: it was killed through us, or the kernel is taking it down. Nothing new can run beside it. */
  get ending(): boolean {
    return this.#killed || !this.init.alive || processStat(this.init.pid)?.exiting !== false
  }

  /**
   * Freezes every process; resolves when all have stopped, and meanwhile the status is "pausing". Not strict: a paused one is fine.
   * @throws FailedPrecondition unless created or running, and when it was killed meanwhile
   */
  async pause({ strict = true }: { readonly strict?: boolean } = {}): Promise<void> {
    await this.#locked('exclusive', async () => {
      const status = this.status()
      if (status === 'paused' && !strict) return
      if (status === 'stopped' || status === 'paused')
        throw refusal(status, `cannot pause a ${status} container: container not running`)
      if (!this.#killed) await this.cgroup.freeze()
      // v1 would keep it frozen, its death pending
      if (!this.#killed) return
      await this.cgroup.thaw()
      throw refusal('stopped', 'cannot pause a container that was killed')
    })
  }

  /** Thaws. Not strict: one that runs is fine. @throws FailedPrecondition unless paused */
  async resume({ strict = true }: { readonly strict?: boolean } = {}): Promise<void> {
    // shared: an exec into the paused container holds the lock until we let it run
    await this.#locked('shared', () => {
      const status = this.status()
      if (status === 'paused' || status === 'pausing') return this.cgroup.thaw()
      if (status === 'running' && !strict) return
      throw refusal(status, `cannot resume a ${status} container: container not paused`)
    })
  }

  /**
   * Changes resource limits; what the argument leaves out stays. They are kept in the state: `spec` tells them, to others too. When one is
   * refused, the old ones hold. @throws FailedPrecondition when stopped
   */
  async set(resources: LinuxResources): Promise<void> {
    await this.#locked('exclusive', async () => {
      if (!this.init.alive) throw refusal('stopped', 'cannot update a stopped container')
      // whoever has set some meanwhile has written them down
      const { foreign } = this.#state
      const saved = foreign === undefined ? readSavedSpec(this.root, this.#state).spec : this.#spec
      const spec = { ...saved, linux: { ...saved.linux, resources: mergeResources(saved.linux.resources, resources) } }
      // what another runtime wrote is not ours to change; what cannot be kept is not set
      using staged = foreign === undefined ? stageSpec(this.root, this.id, spec) : undefined
      // a spec may be long: others have their turn between its writing and the limits
      await nextTurn()
      this.cgroup.set(resources)
      staged?.commit()
      this.#spec = spec
    })
  }

  /** Counters of the container's cgroups. */
  stats(): CgroupStats {
    return this.cgroup.stats()
  }

  /** Host pids of all processes, init among them from its birth on; unless it is paused, some may be gone when they are looked at. */
  processes(): number[] {
    // without a cgroup, the pid namespace says who belongs to it
    if (!this.cgroup.exists && this.ownsPidNamespace && this.init.alive) return namespaceProcesses(this.init.pid)
    return this.#withInit(this.cgroup.procs())
  }

  /** The same, without holding the event loop while the kernel lists thousands. */
  async listProcesses(): Promise<number[]> {
    return this.cgroup.exists ? this.#withInit(await this.cgroup.listProcesses()) : this.processes()
  }

  /** It may have moved itself to a cgroup elsewhere. */
  #withInit(pids: number[]): number[] {
    if (this.init.alive && !pids.includes(this.init.pid)) pids.unshift(this.init.pid)
    return pids
  }

  /** How many processes of the container the kernel has killed for lack of memory. */
  oomKillCount(): number {
    return this.cgroup.oomKillCount()
  }

  /** That count after each growth from now on, until no process is left or the signal is aborted. Keeps no process alive. */
  notifyOom(options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<number, void, void> {
    return oomCounts(this.cgroup, options.signal)
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

  /** Destroys by force after a failure that the caller is to hear of: what goes wrong here is only logged. */
  async abandon(): Promise<void> {
    try {
      await this.destroy({ force: true })
    } catch (error) {
      // a hook may have removed it
      if (error instanceof RuntimeError && error.code === 'NotFound') return
      const reason = error instanceof Error ? error.message : String(error)
      this.#logger.warn({ container: this.id, reason }, 'cannot remove a container that has failed')
    }
  }

  async #destroy(force: boolean): Promise<void> {
    if (this.#destroyed) return
    // a command that holds the lock may wait for this very process: force does not wait for it
    if (force && this.init.alive) await endContainer(this)
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
        throw refusal(status, `cannot delete container "${this.id}" that is not stopped: ${status}`)
      }
      await endContainer(this)
    }
    failpoint('delete:killed')
    // what init left behind: without a pid namespace of its own, or moved into sub-cgroups
    if ((await this.cgroup.listProcesses()).length > 0) await this.cgroup.killAll(SIGKILL)
    await this.cgroup.remove()
    failpoint('delete:cgroup')
    removeRootMount(this.#state.made.rootMount, this.#logger)
    removeState(this.root, this.id)
    failpoint('delete:done')
    this.#destroyed = true
    await this.release()
    await this.#runHooks('poststop', 'stopped')
  }

  /** Whether the folder on disk is still about this container, and not about a later one of the same id. */
  #isCurrent(): boolean {
    const init = initOf(this.root, this.id)
    // whatever has become of its files: who has made it, and finds a folder that names nobody else, removes his own
    if (init === undefined) return this.#run !== undefined || hasState(this.root, this.id)
    return init.pid === this.init.pid && init.startTime === this.#state.startTime
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
}
