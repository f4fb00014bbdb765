/**
 * The runtime's half of the conversation with ts-init, which proto/init-plan.ts draws as a diagram. Status records of
 * the helper become typed facts. Invariant: whatever the helper does, `ready` and `executed` settle at most once each.
 * When the helper fails or ends before it is ready, both reject.
 */
import { Socket } from 'node:net'
import { type Op, RECORDS, SYNC_POINTS } from '../../proto/init-plan.ts'
import { RuntimeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { OwnedFd } from '../sys/fd.ts'
import { ENDED_EARLY, helperFailure, Records, unknownRecord } from './records.ts'

const STOPS: ReadonlyMap<number, 'onIdMaps' | 'onRuntimeHooks' | 'onCgroup'> = new Map([
  [SYNC_POINTS.ID_MAPS, 'onIdMaps'],
  [SYNC_POINTS.RUNTIME_HOOKS, 'onRuntimeHooks'],
  [SYNC_POINTS.CGROUP, 'onCgroup'],
])

/** A point at which the container side waits for the runtime. */
export interface StopPoint {
  /** host pid of the container process */
  readonly pid: number
  /** aborted when the container side has gone or is given up */
  readonly signal: AbortSignal
}

/**
 * The runtime's work at these points. The container side goes on when the promise resolves. A rejection ends the
 * handshake with that error.
 */
export interface StopHandlers {
  /** a new user namespace of the process waits for its id maps */
  readonly onIdMaps?: (at: StopPoint) => Promise<void>
  /** nothing that needs the cgroup was done yet; it must be moved there now */
  readonly onCgroup?: (at: StopPoint) => Promise<void>
  /** everything is mounted, the root is not yet pivoted */
  readonly onRuntimeHooks?: (at: StopPoint) => Promise<void>
  /** the process has its network namespace; `fd` is the number of a netlink socket there */
  readonly onNetDevices?: (at: StopPoint, fd: number) => Promise<void>
  /** the process has loaded its filter; `fd` is the number of the listener there */
  readonly onListener?: (at: StopPoint, fd: number) => Promise<void>
}

/** Callbacks of the handshake to its owner. */
export interface HandshakeEvents extends StopHandlers {
  /** stage 0 has named the container process, which has not executed anything yet */
  readonly onChild: (pid: number) => void
  /** whether the process was reaped: then its pid may have been reused */
  readonly isReaped: () => boolean
  /** the terminal's master has been sent */
  readonly onConsole: () => void
  /** the connection has ended: every process that held the other end has exited or executed the program */
  readonly onClosed: () => void
}

class Deferred {
  readonly promise: Promise<void>
  resolve: () => void = () => {}
  reject: (error: Error) => void = () => {}

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    // a rejection that no caller awaits must not count as unhandled
    this.promise.catch(() => {})
  }
}

/** The operations that ts-init was given, what its records call, and where its messages go. */
export interface HandshakePlan {
  readonly ops: readonly Op[]
  readonly events: HandshakeEvents
  readonly logger: Logger
}

/**
 * How far the other side has come by its own records: it waits for the start, or is about to execute the program.
 * Silence: it ended before either, without saying why.
 */
type Progress = 'nothing' | 'created' | 'executing' | 'silence'

/** One handshake over the status socket, which it owns. */
export class Handshake {
  readonly #ready = new Deferred()
  readonly #executed = new Deferred()
  readonly #socket: Socket
  readonly #ops: readonly Op[]
  readonly #events: HandshakeEvents
  readonly #logger: Logger
  readonly #records = new Records()
  #reached: Progress = 'nothing'
  #failure: Error | undefined
  #pid: number | undefined
  readonly #over = new AbortController()
  #stopping: Promise<void> = Promise.resolve()

  constructor(status: OwnedFd, plan: HandshakePlan) {
    this.#ops = plan.ops
    this.#events = plan.events
    this.#logger = plan.logger
    this.#socket = new Socket({ fd: status.take(), readable: true, writable: true })
    this.#socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    this.#socket.on('error', () => {
      // ECONNRESET: the helper died before it read an answer; `close` follows and settles what is open
    })
    this.#socket.on('close', () => this.#closed())
  }

  /** Resolves when the container is created, or its program was executed. */
  get ready(): Promise<void> {
    return this.#ready.promise
  }

  /** Resolves when the program has been executed. For a created container it does not: its exec fifo reports that. */
  get executed(): Promise<void> {
    return this.#executed.promise
  }

  /** The first failure, if there was one. */
  get failure(): Error | undefined {
    return this.#failure
  }

  /** Whether the helper ended early without a `failed` record. */
  get silent(): boolean {
    return this.#reached === 'silence'
  }

  /** Answers a point at which the container side waits. */
  proceed(): void {
    this.#socket.write('c')
  }

  /** Gives up: a container side that waits for an answer sees end of file. Records that are still to come are read. */
  abandon(): void {
    this.#over.abort()
    this.#socket.end()
  }

  /** Closes the connection. A created container goes on without it. */
  release(): void {
    this.#socket.destroy()
  }

  #receive(chunk: Buffer): void {
    try {
      this.#records.receive(chunk, (type, payload) => this.#record(type, payload))
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)))
      this.#socket.destroy()
    }
  }

  #record(type: number, payload: Buffer): void {
    switch (type) {
      case RECORDS.child.type:
        this.#pid = payload.readUInt32LE(0)
        this.#logger.debug({ pid: this.#pid }, 'init: process made')
        this.#events.onChild(this.#pid)
        break
      case RECORDS.reached.type:
        this.#stop(STOPS.get(payload.readUInt32LE(0)))
        break
      case RECORDS.net_socket.type:
        this.#stop('onNetDevices', payload.readUInt32LE(0))
        break
      case RECORDS.listener.type:
        this.#stop('onListener', payload.readUInt32LE(0))
        break
      case RECORDS.console.type:
        this.#events.onConsole()
        break
      case RECORDS.ready.type:
        this.#logger.debug({ pid: this.#pid }, 'init: set up, waits for the start')
        this.#reached = 'created'
        this.#ready.resolve()
        break
      case RECORDS.executing.type:
        this.#logger.debug({ pid: this.#pid }, 'init: executes its program')
        this.#reached = 'executing'
        break
      case RECORDS.failed.type:
        this.#fail(helperFailure(payload, this.#ops))
        break
      case RECORDS.log.type: {
        const text = payload.toString('utf8', 4)
        if (payload.readUInt32LE(0) === 0) this.#logger.debug({ text }, 'init helper')
        else this.#logger.warn({ text }, 'init helper')
        break
      }
      default:
        throw unknownRecord(type)
    }
  }

  /** Runs the handler of a point, then answers the waiting container side. */
  #stop(name: keyof StopHandlers | undefined, fd = -1): void {
    const handler = name === undefined ? undefined : this.#events[name]
    if (handler === undefined || this.#pid === undefined) {
      this.fail(
        new RuntimeError('Internal', `init helper stopped where nobody waits for it (${name ?? 'unknown point'})`),
      )
      return
    }
    // the process was killed after it sent this record; stage 0 may wait for the answer on its behalf
    if (this.#events.isReaped()) {
      this.abandon()
      return
    }
    this.#stopping = handler({ pid: this.#pid, signal: this.#over.signal }, fd).then(
      () => this.proceed(),
      (error: unknown) => this.fail(error instanceof Error ? error : new Error(String(error))),
    )
  }

  /** Settles when no handler of a point is at work any more. */
  get idle(): Promise<void> {
    return this.#stopping
  }

  /** Ends the conversation for a failure of the runtime; the container side sees end of file. */
  fail(error: Error): void {
    this.#fail(error)
    this.abandon()
  }

  #fail(error: Error): void {
    this.#failure ??= error
    this.#ready.reject(this.#failure)
    this.#executed.reject(this.#failure)
  }

  #closed(): void {
    this.#over.abort()
    if (this.#failure === undefined && this.#reached === 'executing') {
      this.#ready.resolve()
      this.#executed.resolve()
    } else if (this.#failure === undefined && this.#reached === 'nothing') {
      this.#reached = 'silence'
      this.#fail(new RuntimeError('FailedPrecondition', ENDED_EARLY))
    }
    this.#events.onClosed()
  }
}
