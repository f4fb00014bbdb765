/**
 * What this shim process knows: its containers, their processes, and the services that every operation needs. Records
 * change state only through the machine in process-states.ts.
 *
 * Invariants: work that changes a process runs in the lane of that process, one piece after the other, in the order of
 * arrival. A call that only reads needs no lane and never waits.
 */
import { Code } from 'ttrpc-ts'
import type { Container, Exit, OciProcess, ProcessMaker, RunningProcess } from '../../runtime/index.ts'
import type { EventQueue } from '../events.ts'
import type { ProcessIo } from '../io/process-io.ts'
import type { StdioPaths } from '../io/stdio-uri.ts'
import type { ShimLogger } from '../log.ts'
import type { ShimOptions } from '../options.ts'
import { classError, notFound } from '../status.ts'
import { finalExit, isLive, next, type ProcessEvent, type ProcessState } from './process-states.ts'

/** What every operation on tasks needs. */
export interface Shim {
  readonly namespace: string
  /** the shim's own pid, which Connect answers */
  readonly pid: number
  readonly registry: Registry
  readonly reaper: ProcessMaker
  readonly events: EventQueue
  readonly logger: ShimLogger
  /** Removes the name of the shim's socket, so that a `start` of the same id does not find this shim. */
  withdraw(): void
  /** Ends this process in order (life.ts). */
  leave(): void
}

/** What the shim uses of a container of the runtime. */
export type TaskContainer = Pick<
  Container,
  | 'id'
  | 'spec'
  | 'init'
  | 'ownsPidNamespace'
  | 'ending'
  | 'start'
  | 'exec'
  | 'signal'
  | 'signalAll'
  | 'pause'
  | 'resume'
  | 'checkpoint'
  | 'set'
  | 'processes'
  | 'listProcesses'
  | 'oomKillCount'
  | 'watchOom'
  | 'destroy'
> & { readonly cgroup: Pick<Container['cgroup'], 'thaw' | 'stats'> }

/** What the shim uses of a process's streams once the process has them. */
export type TaskIo = Pick<ProcessIo, 'console' | 'summary' | 'closeStdin' | 'exited' | 'drain' | 'close'>

/** One process of a container: its init (empty exec id) or an exec. */
export class TaskProcess {
  readonly execId: string
  readonly stdio: StdioPaths
  /** what an exec runs; undefined for the init */
  readonly spec: OciProcess | undefined
  #state: ProcessState
  #running: RunningProcess | undefined
  #io: TaskIo | undefined
  #waitingIo: ProcessIo | undefined
  #lane: Promise<unknown> = Promise.resolve()
  /** the calls of `ended` that have no answer yet */
  readonly #waiting: ((exit: Exit) => void)[] = []
  /** a CloseIO has come; it may be earlier than the streams */
  #stdinClosed = false

  /** `waitingIo` are streams that exist before the process does: until a restore has made it, they are kept here. */
  constructor(parts: { execId: string; stdio: StdioPaths; pid?: number; spec?: OciProcess; waitingIo?: ProcessIo }) {
    this.execId = parts.execId
    this.stdio = parts.stdio
    this.spec = parts.spec
    this.#state = { kind: 'created', pid: parts.pid ?? 0, failed: false }
    this.#waitingIo = parts.waitingIo
    this.#io = parts.waitingIo
  }

  /** The process that a restore has made takes the streams that have waited for it. */
  attachRestored(running: RunningProcess): void {
    const io = this.#waitingIo
    if (io === undefined) throw new Error('no streams wait for a restored process')
    this.#waitingIo = undefined
    io.spawned(running.console)
    this.attach(running, io)
  }

  /** Whether it is the init of a container that is still to be restored. */
  get toRestore(): boolean {
    return this.#waitingIo !== undefined
  }

  get state(): ProcessState {
    return this.#state
  }

  /** The process itself, from the moment at which it exists. */
  get running(): RunningProcess | undefined {
    return this.#running
  }

  /** Its streams, from the moment at which the process has them. */
  get io(): TaskIo | undefined {
    return this.#io
  }

  /**
   * Resolves with the exit when that is decided; the exit event is then in the queue before the code that waits here
   * goes on. An exec whose start fails, or whose container ends before it was started, resolves with NEVER_RAN.
   */
  get ended(): Promise<Exit> {
    const exit = finalExit(this.#state)
    return exit === undefined ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve(exit)
  }

  /** Changes the state, and answers `ended` when the new state is final. */
  apply(event: ProcessEvent): void {
    this.#state = next(this.#state, event)
    const exit = finalExit(this.#state)
    if (exit !== undefined) for (const resolve of this.#waiting.splice(0)) resolve(exit)
  }

  /** Runs work that changes this process, after all such work that came earlier. */
  inLane<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#lane.then(work, work)
    this.#lane = result
    return result
  }

  /**
   * Runs the work of a start. The work applies `start` and publishes the start event without an await between them. An
   * exit of the process is held back until then, or until the work has failed.
   */
  async launch<T>(work: () => Promise<T>): Promise<T> {
    const decided = Promise.withResolvers<void>()
    this.apply({ kind: 'launch', decided: decided.promise })
    try {
      return await work()
    } catch (error) {
      if (this.#state.kind === 'starting') this.apply({ kind: 'fail' })
      throw error
    } finally {
      decided.resolve()
    }
  }

  /** The process exists, and has its ends of the streams. A CloseIO that came before this takes effect now. */
  attach(running: RunningProcess, io: TaskIo): void {
    this.#running = running
    this.#io = io
    if (this.#stdinClosed) io.closeStdin()
  }

  /** Lets the process see the end of its input once the client has closed its side. */
  closeStdin(): void {
    this.#stdinClosed = true
    this.#io?.closeStdin()
  }
}

/** One container. */
export class Task {
  readonly id: string
  readonly bundle: string
  readonly container: TaskContainer
  readonly options: ShimOptions
  readonly init: TaskProcess
  readonly execs = new Map<string, TaskProcess>()
  /** aborted when the init has ended: the start of an exec gives up its waiting for a log program then */
  readonly gone = new AbortController()
  /** how many OOM kills the last look at the kernel's counter has found */
  oomKills = 0
  /** stops the watch for OOM kills */
  oomWatch: Disposable | undefined

  constructor(parts: { bundle: string; container: TaskContainer; options: ShimOptions; init: TaskProcess }) {
    this.id = parts.container.id
    this.bundle = parts.bundle
    this.container = parts.container
    this.options = parts.options
    this.init = parts.init
  }

  /** The init for an empty exec id, else the exec of that id. @throws NotFound */
  process(execId: string): TaskProcess {
    if (execId === '') return this.init
    const process = this.execs.get(execId)
    if (process === undefined) throw notFound(`process does not exist ${execId}`)
    return process
  }

  /** The execs that run or are being started. */
  liveExecs(): TaskProcess[] {
    return [...this.execs.values()].filter(({ state }) => isLive(state))
  }
}

/** For work that has waited in a lane: its container or process may have been deleted meanwhile. @throws NotFound */
export function checkPresent({ registry }: Shim, task: Task, process: TaskProcess): void {
  if (registry.find(task.id) !== task) throw notFound('container not created')
  if (task.process(process.execId) !== process) throw notFound(`process does not exist ${process.execId}`)
}

/** A Create in progress. */
export interface Creation {
  /** aborting it undoes the Create */
  readonly abort: AbortController
  /** resolves when the Create has succeeded, or was undone */
  readonly done: Promise<void>
  /** Must be called once, on success and on failure. */
  finish(): void
}

/** All containers of this process: one, unless containerd sends the other containers of a pod here as well. */
export class Registry {
  readonly #tasks = new Map<string, Task>()
  readonly #creations = new Map<string, Creation>()

  /** Whether there is no container, and no Create in progress. */
  get empty(): boolean {
    return this.#tasks.size === 0 && this.#creations.size === 0
  }

  get tasks(): Iterable<Task> {
    return this.#tasks.values()
  }

  get taskCount(): number {
    return this.#tasks.size
  }

  get creations(): Iterable<Creation> {
    return this.#creations.values()
  }

  find(id: string): Task | undefined {
    return this.#tasks.get(id)
  }

  creation(id: string): Creation | undefined {
    return this.#creations.get(id)
  }

  /** @throws NotFound */
  get(id: string): Task {
    const task = this.#tasks.get(id)
    if (task === undefined) throw notFound('container not created')
    return task
  }

  /** The same, but waits for a Create of this id that is in progress. @throws NotFound */
  async created(id: string): Promise<Task> {
    await this.#creations.get(id)?.done
    return this.get(id)
  }

  /** Reserves an id for a Create. @throws AlreadyExists */
  beginCreate(id: string): Creation {
    if (this.#tasks.has(id) || this.#creations.has(id)) throw classError(Code.ALREADY_EXISTS, `container "${id}"`)
    const done = Promise.withResolvers<void>()
    const creation: Creation = {
      abort: new AbortController(),
      done: done.promise,
      finish: () => {
        this.#creations.delete(id)
        done.resolve()
      },
    }
    this.#creations.set(id, creation)
    return creation
  }

  add(task: Task): void {
    this.#tasks.set(task.id, task)
  }

  remove(task: Task): void {
    if (this.#tasks.get(task.id) === task) this.#tasks.delete(task.id)
  }
}
