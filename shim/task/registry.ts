/**
 * What this shim process knows: its containers, their processes, and the services that every operation needs. Records change state only
 * through the machine in process.ts. Invariants: work that changes one process runs in its lane, one piece after the other, in the order
 * of arrival; whoever only looks needs no lane and never waits.
 */
import { Code } from 'ttrpc-ts'
import type { Container, Exit, OciProcess, Reaper, RunningProcess } from '../../runtime/index.ts'
import type { EventQueue } from '../events.ts'
import type { ProcessIo } from '../io/process-io.ts'
import type { StdioPaths } from '../io/stdio-uri.ts'
import type { ShimLogger } from '../log.ts'
import type { ShimOptions } from '../options.ts'
import { classError, notFound } from '../status.ts'
import { NEVER_RAN, next, type ProcessEvent, type ProcessState } from './process-states.ts'

/** What every operation on tasks needs. */
export interface Shim {
  readonly namespace: string
  /** our own pid, as containerd sees it */
  readonly pid: number
  readonly registry: Registry
  readonly reaper: Reaper
  readonly events: EventQueue
  readonly logger: ShimLogger
  /** Gives up the name of our socket: whoever looks for a shim of this id finds none. */
  withdraw(): void
  /** Ends this process once nothing is left to do. */
  leave(): void
}

/** What the shim asks of a container of the runtime. */
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
  | 'set'
  | 'stats'
  | 'processes'
  | 'listProcesses'
  | 'oomKillCount'
  | 'watchOom'
  | 'destroy'
> & { readonly cgroup: Pick<Container['cgroup'], 'thaw'> }

/** One process of a container: its init (empty exec id) or an exec. */
export class TaskProcess {
  readonly execId: string
  readonly stdio: StdioPaths
  /** what an exec runs */
  readonly spec: OciProcess | undefined
  /** there from its birth on */
  running: RunningProcess | undefined
  io: ProcessIo | undefined
  #state: ProcessState
  #lane: Promise<unknown> = Promise.resolve()
  #launching: Promise<void> | undefined
  #ended = Promise.withResolvers<Exit>()
  #startFailed = false
  #stdinClosed = false

  constructor(parts: { execId: string; stdio: StdioPaths; pid?: number; spec?: OciProcess }) {
    this.execId = parts.execId
    this.stdio = parts.stdio
    this.spec = parts.spec
    this.#state = { kind: 'created', pid: parts.pid ?? 0 }
  }

  get state(): ProcessState {
    return this.#state
  }

  /** Resolves with the exit when it has been published; for an exec whose start failed, or that comes too late for one, with NEVER_RAN. */
  get ended(): Promise<Exit> {
    return this.#ended.promise
  }

  /** There while the process is being started; its exit must not be told before this resolves. */
  get launching(): Promise<void> | undefined {
    return this.#launching
  }

  /** Whether an exit of it is still to come. */
  get live(): boolean {
    return this.#launching !== undefined || this.#state.kind === 'running'
  }

  /** Moves the state. */
  apply(event: ProcessEvent): void {
    this.#state = next(this.#state, event)
    if (this.#state.kind === 'stopped' || this.#state.kind === 'deleted') this.#ended.resolve(this.#state.exit)
  }

  /** Runs work that changes this process after all such work before it. */
  inLane<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#lane.then(work, work)
    this.#lane = result
    return result
  }

  /** Starts the process: `work` must publish the start before it returns. Exits wait for it. */
  async launch<T>(work: () => Promise<T>): Promise<T> {
    const gate = Promise.withResolvers<void>()
    this.#launching = gate.promise
    if (this.#startFailed) this.#ended = Promise.withResolvers()
    this.#startFailed = false
    try {
      return await work()
    } catch (error) {
      // an init that failed to start still has an exit to come; an exec has not
      if (this.running === undefined) this.giveUp()
      throw error
    } finally {
      this.#launching = undefined
      gate.resolve()
    }
  }

  /** Nothing will start it any more: whoever waits for it hears so. */
  giveUp(): void {
    this.#startFailed = true
    this.#ended.resolve(NEVER_RAN)
  }

  /** Hands it its streams; a CloseIO that came too early takes effect now. */
  attachIo(io: ProcessIo): void {
    this.io = io
    if (this.#stdinClosed) io.closeStdin()
  }

  /** Lets the process see the end of its input, once the client has closed its side. */
  closeStdin(): void {
    this.#stdinClosed = true
    this.io?.closeStdin()
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
  /** aborted when the init has ended: nothing that is still waited for on behalf of the container matters any more */
  readonly gone = new AbortController()
  /** processes killed for lack of memory that were told of */
  oomKills = 0
  oomWatch: Disposable | undefined

  constructor(parts: { bundle: string; container: TaskContainer; options: ShimOptions; init: TaskProcess }) {
    this.id = parts.container.id
    this.bundle = parts.bundle
    this.container = parts.container
    this.options = parts.options
    this.init = parts.init
  }

  /** The init for an empty exec id, else that exec. @throws NotFound */
  process(execId: string): TaskProcess {
    if (execId === '') return this.init
    const process = this.execs.get(execId)
    if (process === undefined) throw notFound(`process does not exist ${execId}`)
    return process
  }

  /** Execs whose exit is still to come. */
  liveExecs(): TaskProcess[] {
    return [...this.execs.values()].filter((process) => process.live)
  }
}

/** For work that has waited in a lane: what it is about may have been deleted meanwhile. @throws NotFound */
export function checkPresent({ registry }: Shim, task: Task, process: TaskProcess): void {
  if (registry.find(task.id) !== task) throw notFound('container not created')
  if (task.process(process.execId) !== process) throw notFound(`process does not exist ${process.execId}`)
}

/** A Create in progress. */
export interface Creation {
  /** aborting it undoes the create */
  readonly abort: AbortController
  readonly done: Promise<void>
  /** must be called once, whatever became of it */
  finish(): void
}

/** All containers of this process: one, unless containerd routes a pod's others here. */
export class Registry {
  readonly #tasks = new Map<string, Task>()
  readonly #creations = new Map<string, Creation>()

  /** Whether there is nothing, nor about to be. */
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

  /** The same, after a Create of it that is in progress. @throws NotFound */
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
