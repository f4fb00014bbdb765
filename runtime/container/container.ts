/**
 * A container from create to delete: its cgroup, its init process, its state on disk. The order of the code below is the order of a
 * container's life. Invariants: create either returns a container whose init waits at the exec fifo or leaves nothing behind;
 * the status is derived from facts (freezer, process, fifo), never stored.
 */
import { closeSync, constants, existsSync, openSync, readSync, unlinkSync } from 'node:fs'
import { resolve } from 'node:path'
import { Cgroup } from '../cgroup/cgroup.ts'
import type { CgroupStats } from '../cgroup/stats.ts'
import { RuntimeError } from '../errors.ts'
import { PlanProcess, type Stdio } from '../init/spawn.ts'
import { type Logger, silentLogger } from '../logger.ts'
import { buildCreatePlan, buildExecPlan } from '../plan/build.ts'
import { parseSpec } from '../spec/load.ts'
import { stringifyJson } from '../spec/stringify.ts'
import type { LinuxResources, OciProcess, Spec } from '../spec/types.ts'
import { errnoOf } from '../sys/errno.ts'
import { openProcess, pollReadable, processStat } from '../sys/process.ts'
import type { Reaper } from '../sys/reaper.ts'
import { foreignNamespaces, hostFacts, NAMESPACE_FILES } from './host.ts'
import { newNamespaces } from './ids.ts'
import { keyringName, makeFifo, rootfsPath, seccompOf, sized } from './prepare.ts'
import { ForeignProcess, OwnProcess, type RunningProcess } from './process.ts'
import {
  claimState,
  fifoPath,
  listIds,
  readConfig,
  readState,
  removeState,
  type SavedState,
  saveState,
} from './store.ts'

const SIGKILL = 9
/** How long delete waits for a killed init to vanish. */
const KILL_WAIT_MS = 10_000

/** The derived status of a container. */
export type Status = 'created' | 'running' | 'paused' | 'stopped'

/** Parts of the isolation that can be switched off for debugging, by root only; true is on. */
export interface FeatureGates {
  readonly seccomp: boolean
  readonly capabilities: boolean
  readonly apparmor: boolean
  readonly cgroupDevices: boolean
}

/** What Container.create needs. */
export interface CreateOptions {
  /** folder that holds the state of many containers */
  readonly root: string
  readonly id: string
  readonly bundle: string
  readonly spec: Spec
  readonly stdio: Stdio
  readonly reaper: Reaper
  readonly logger?: Logger
  /** move the root to / instead of pivot_root, for a host whose own root cannot be pivoted */
  readonly noPivot?: boolean
  /** keep the caller's session keyring */
  readonly noNewKeyring?: boolean
  /** fds that the program gets as 3, 4, …; borrowed and duplicated */
  readonly extraFds?: readonly number[]
  /** path of a unix socket that receives a pidfd of init (SCM_RIGHTS) */
  readonly pidfdSocket?: string
  /** what is switched off for debugging */
  readonly gates?: Partial<FeatureGates>
  /** aborting undoes the create */
  readonly signal?: AbortSignal
}

/** What Container.exec needs. */
export interface ExecOptions {
  readonly process: OciProcess
  readonly stdio: Stdio
  readonly reaper: Reaper
  readonly noNewKeyring?: boolean
  /** join a paused container too; the process starts when it is resumed */
  readonly ignorePaused?: boolean
  /** fds that the program gets as 3, 4, …; borrowed and duplicated */
  readonly extraFds?: readonly number[]
  /** path of a unix socket that receives a pidfd of the process (SCM_RIGHTS) */
  readonly pidfdSocket?: string
  /** cgroup below the container's own: by controller on v1, under '' for all of them or on v2; relative, must stay inside */
  readonly subCgroups?: Readonly<Record<string, string>>
  readonly gates?: Partial<FeatureGates>
}

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
  readonly #startTime: bigint
  /** the helper that made init; undefined for a container that was loaded from its state */
  readonly #run: PlanProcess | undefined
  #started = false
  #foreign: number | undefined

  private constructor(parts: {
    root: string
    state: SavedState
    spec: Spec
    cgroup: Cgroup
    init: RunningProcess
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
    this.init = parts.init
    this.#startTime = parts.state.startTime
    this.#logger = parts.logger
    this.#run = parts.run
  }

  /** Creates a container and its init process, which waits for `start`. @throws AlreadyExists, InvalidArgument, and what the set-up met */
  static async create(options: CreateOptions): Promise<Container> {
    const { root, id, spec, reaper } = options
    const logger = options.logger ?? silentLogger
    const bundle = resolve(options.bundle)
    const rootfs = rootfsPath(spec, bundle)
    options.signal?.throwIfAborted()
    claimState(root, id)
    let cgroup: Cgroup | undefined
    let run: PlanProcess | undefined
    const onAbort = () => void run?.abort()
    try {
      const fifo = makeFifo(root, id, spec)
      const { cgroupsPath, resources } = spec.linux
      cgroup = Cgroup.create({
        id,
        systemd: false,
        resources,
        ...(cgroupsPath === undefined ? {} : { path: cgroupsPath }),
      })
      const seccomp = seccompOf(spec)
      const ops = buildCreatePlan({
        id,
        spec,
        bundle,
        rootfs,
        cgroup: cgroup.join(),
        fifo,
        noPivot: options.noPivot ?? false,
        keyring: keyringName(options, id),
        extraFds: options.extraFds?.length ?? 0,
        host: hostFacts(),
        ...(seccomp === undefined ? {} : { seccomp }),
      })
      run = new PlanProcess({ ops, stdio: sized(options.stdio, spec.process), reaper, logger })
      options.signal?.addEventListener('abort', onAbort, { once: true })
      await run.handshake.ready
      options.signal?.throwIfAborted()
      const { pid } = run.process
      const startTime = processStat(pid)?.startTime
      if (startTime === undefined) {
        throw new RuntimeError('FailedPrecondition', `container "${id}": its process ended before it was created`)
      }
      const state: SavedState = {
        id,
        pid,
        startTime,
        created: new Date().toISOString(),
        bundle,
        rootfs,
        cgroupPaths: cgroup.paths,
        namespacePaths: Object.fromEntries(
          NAMESPACE_FILES.map(({ file }) => [runcName(file), `/proc/${pid}/ns/${file}`]),
        ),
      }
      saveState(root, state, stringifyJson(spec))
      run.handshake.proceed()
      return new Container({ root, state, spec, cgroup, logger, run, init: new OwnProcess(run.process, run.console) })
    } catch (error) {
      const oom = cgroup !== undefined && run !== undefined && oomKilled(cgroup)
      await run?.abort()
      await cgroup?.remove()
      removeState(root, id)
      if (oom) {
        throw new RuntimeError('ResourceExhausted', 'container init was OOM-killed (memory limit too low?)', {
          cause: error,
        })
      }
      throw error
    } finally {
      options.signal?.removeEventListener('abort', onAbort)
    }
  }

  /** A container that another process created. @throws NotFound */
  static load(root: string, id: string, logger: Logger = silentLogger): Container {
    const state = readState(root, id)
    const spec = parseSpec(readConfig(root, id), 'config.json')
    const cgroup = Cgroup.load(state.cgroupPaths)
    return new Container({ root, state, spec, cgroup, logger, init: new ForeignProcess(state.pid, state.startTime) })
  }

  /** Ids of the containers below a root; an entry may vanish at any time. */
  static list(root: string): string[] {
    return listIds(root)
  }

  /** Its folder on disk holds no usable state (an interrupted create): removes what is there. */
  static discard(root: string, id: string): void {
    removeState(root, id)
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

  /** Lets init execute the program; resolves when it has. @throws FailedPrecondition unless the container is created */
  async start(): Promise<void> {
    const status = this.status()
    if (status === 'stopped') throw new RuntimeError('FailedPrecondition', 'cannot start a container that has stopped')
    if (status !== 'created')
      throw new RuntimeError('FailedPrecondition', `cannot start an already ${status} container`)
    const path = fifoPath(this.root, this.id)
    const fifo = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    this.#started = true
    try {
      if (this.#run === undefined) await this.#awaitFifo(fifo)
      else await this.#run.handshake.executed
    } finally {
      closeSync(fifo)
    }
    unlinkSync(path)
  }

  /** For a container of another process: its init writes one byte just before it executes the program. */
  async #awaitFifo(fifo: number): Promise<void> {
    using pidfd = openProcess(this.init.pid, this.#startTime)
    const byte = Buffer.alloc(1)
    for (;;) {
      await pollReadable(pidfd === undefined ? [fifo] : [fifo, pidfd.fd], -1)
      let count = 0
      try {
        count = readSync(fifo, byte, 0, 1, null)
      } catch (error) {
        if (errnoOf(error) !== 11) throw error
        if (this.init.alive) continue
      }
      if (count === 1) return
      if (!this.init.alive) throw new RuntimeError('FailedPrecondition', 'container process is already dead')
      throw new RuntimeError('FailedPrecondition', 'exec fifo is empty: the container was started by somebody else')
    }
  }

  /** Runs a further process in the container; resolves when its program was executed. @throws FailedPrecondition when stopped or paused */
  async exec(options: ExecOptions): Promise<RunningProcess> {
    if (!this.init.alive) throw new RuntimeError('FailedPrecondition', 'cannot exec in a stopped container')
    if (options.ignorePaused !== true && this.cgroup.isFrozen()) {
      throw new RuntimeError(
        'FailedPrecondition',
        'cannot exec in a paused container (use --ignore-paused to override)',
      )
    }
    this.#foreign ??= foreignNamespaces(this.init.pid)
    const seccomp = seccompOf(this.spec)
    const ops = buildExecPlan({
      spec: this.spec,
      process: options.process,
      rootfs: this.rootfs,
      cgroup: this.cgroup.join(),
      init: { pid: this.init.pid, startTime: this.#startTime, namespaces: this.#foreign },
      host: hostFacts(),
      keyring: keyringName(options, this.id),
      extraFds: options.extraFds?.length ?? 0,
      ...(seccomp === undefined ? {} : { seccomp }),
    })
    const run = new PlanProcess({
      ops,
      stdio: sized(options.stdio, options.process),
      reaper: options.reaper,
      logger: this.#logger,
    })
    try {
      await run.handshake.executed
    } catch (error) {
      await run.abort()
      throw error
    }
    return new OwnProcess(run.process, run.console)
  }

  /** Signals init. @throws NotFound when it has finished */
  signal(signal: number): void {
    this.init.signal(signal)
    // a frozen v1 cgroup keeps even a killed process: let it die
    if (signal === SIGKILL && this.cgroup.isFrozen()) void this.cgroup.thaw()
  }

  /** Signals every process of the container; none left is fine. */
  async signalAll(signal: number): Promise<void> {
    await this.cgroup.killAll(signal)
  }

  /** Freezes every process. @throws FailedPrecondition unless created or running */
  async pause(): Promise<void> {
    const status = this.status()
    if (status !== 'running' && status !== 'created') {
      throw new RuntimeError('FailedPrecondition', `cannot pause a ${status} container`)
    }
    await this.cgroup.freeze()
  }

  /** Thaws. @throws FailedPrecondition unless paused */
  async resume(): Promise<void> {
    const status = this.status()
    if (status !== 'paused')
      throw new RuntimeError('FailedPrecondition', `cannot resume a ${status} container: container not paused`)
    await this.cgroup.thaw()
  }

  /** Changes resource limits; what the argument leaves out stays. @throws FailedPrecondition when stopped */
  set(resources: LinuxResources): void {
    if (!this.init.alive) throw new RuntimeError('FailedPrecondition', 'cannot update a stopped container')
    this.cgroup.set(resources)
  }

  /** Counters of the container's cgroups. */
  stats(): CgroupStats {
    return this.cgroup.stats()
  }

  /** Host pids of all processes, init among them from its birth on. */
  processes(): number[] {
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

  /** Removes cgroup and state. A created container is killed first, with force any other too. @throws FailedPrecondition when it still runs */
  async destroy(options: { force?: boolean } = {}): Promise<void> {
    const status = this.status()
    if (status !== 'stopped') {
      if (status !== 'created' && options.force !== true) {
        throw new RuntimeError(
          'FailedPrecondition',
          `cannot delete container "${this.id}" that is not stopped: ${status}`,
        )
      }
      await this.#killInit()
    }
    // what init left behind: without a pid namespace of its own, or moved into sub-cgroups
    if (this.cgroup.procs().length > 0) await this.cgroup.killAll(SIGKILL)
    await this.cgroup.remove()
    removeState(this.root, this.id)
  }

  async #killInit(): Promise<void> {
    try {
      this.signal(SIGKILL)
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

function oomKilled(cgroup: Cgroup): boolean {
  try {
    return cgroup.oomKillCount() > 0
  } catch {
    // the count is only for a better message; the failure that brought us here is reported anyway
    return false
  }
}

function runcName(file: string): string {
  const names: Readonly<Record<string, string>> = { mnt: 'NEWNS', net: 'NEWNET' }
  return names[file] ?? `NEW${file.toUpperCase()}`
}
