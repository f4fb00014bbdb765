/**
 * The daemon's side of events: a ttrpc server for Forward that keeps what shims publish, in the order of arrival.
 * On a test's wish it is slow, refuses events, or is away.
 * Invariant: `events` has each event once, and has it if and only if its shim got the answer that it was taken.
 * (While deliveries are held, the event is there and the answer is still to come.)
 * A shim that waits too long for the answer sends the same envelope again. That is no new event, but it is counted.
 */
import { type MessageType, type ServiceHandlers, TtrpcServer } from 'ttrpc-ts'
import {
  EventsService,
  TaskCheckpointed,
  TaskCreate,
  TaskDelete,
  TaskExecAdded,
  TaskExecStarted,
  TaskExit,
  TaskOOM,
  TaskPaused,
  TaskResumed,
  TaskStart,
  type Timestamp,
} from 'ttrpc-ts/containerd'
import { SLOWNESS } from './needs.ts'

/** An event as a subscriber understands it; what a topic does not have is undefined. */
export interface SinkEvent {
  readonly topic: string
  readonly container: string
  /** the exec that it is about; empty for the init and for the container */
  readonly exec: string
  readonly pid: number | undefined
  readonly status: number | undefined
  readonly exitedAt: Timestamp | undefined
  readonly timestamp: Timestamp
  readonly namespace: string
  /** the namespace in the call's metadata */
  readonly caller: readonly string[]
  readonly message: object
}

interface Fields {
  readonly containerId: string
  readonly execId?: string
  readonly id?: string
  readonly pid?: number
  readonly exitStatus?: number
  readonly exitedAt?: Timestamp | undefined
}

const TYPES: readonly MessageType<Fields>[] = [
  TaskCreate,
  TaskStart,
  TaskExecAdded,
  TaskExecStarted,
  TaskExit,
  TaskDelete,
  TaskOOM,
  TaskPaused,
  TaskResumed,
  TaskCheckpointed,
]

interface Waiter {
  readonly isIt: (event: SinkEvent) => boolean
  readonly resolve: (event: SinkEvent) => void
}

/** Takes events at a socket. */
export class EventSink {
  readonly events: SinkEvent[] = []
  readonly #path: string
  readonly #waiters = new Set<Waiter>()
  #server: TtrpcServer | undefined
  #held: PromiseWithResolvers<void> | undefined
  #failure: Error | undefined
  #refused = 0
  readonly #taken = new Set<string>()
  #repeated = 0

  constructor(path: string) {
    this.#path = path
  }

  /** How many events were refused. */
  get refused(): number {
    return this.#refused
  }

  /** How many events came again, because the answer took longer than a shim waits. */
  get repeated(): number {
    return this.#repeated
  }

  /** Starts to listen, or again after `away()`. */
  async listen(): Promise<void> {
    const handlers: ServiceHandlers<typeof EventsService> = {
      forward: async ({ envelope }, context) => {
        if (this.#failure !== undefined) {
          this.#refused++
          throw this.#failure
        }
        const { timestamp, namespace = '', topic = '', event } = envelope ?? {}
        if (timestamp === undefined || event === undefined) throw new Error('an envelope without time or event')
        const bytes = Buffer.from(event.value).toString('base64')
        const envelopeId = [timestamp.seconds, timestamp.nanos, namespace, topic, bytes].join(' ')
        if (this.#taken.has(envelopeId)) {
          this.#repeated++
          await this.#held?.promise
          return
        }
        this.#taken.add(envelopeId)
        const type = TYPES.find(({ typeName }) => typeName === event.typeUrl)
        if (type === undefined) throw new Error(`an event of the unknown type "${event.typeUrl}"`)
        const message = type.decode(event.value)
        const { containerId: container, execId, id = container, pid, exitStatus: status, exitedAt } = message
        const exec = execId ?? (topic === '/tasks/exit' && id !== container ? id : '')
        const caller = context.metadata.get('containerd-namespace-ttrpc') ?? []
        this.#take({ topic, container, exec, pid, status, exitedAt, timestamp, namespace, caller, message })
        await this.#held?.promise
      },
    }
    this.#server = new TtrpcServer().register(EventsService, handlers)
    await this.#server.listen({ path: this.#path })
  }

  /** Stops listening, and ends every connection. */
  async away(): Promise<void> {
    await this.#server?.close()
    this.#server = undefined
  }

  /** Takes events, but does not answer until the returned function is called. */
  hold(): () => void {
    const held = Promise.withResolvers<void>()
    this.#held = held
    return () => {
      this.#held = undefined
      held.resolve()
    }
  }

  /** Answers every event with this error, until called with nothing. */
  refuseWith(failure?: Error): void {
    this.#failure = failure
  }

  /** The events of one container, in order. */
  of(container: string): SinkEvent[] {
    return this.events.filter((event) => event.container === container)
  }

  /** The same as lines: "start", "exit e1 137", "exec-started e1". */
  story(container: string): string[] {
    return this.of(container).map(({ topic, exec, status }) =>
      [topic.replace('/tasks/', ''), exec, topic === '/tasks/exit' ? String(status) : '']
        .filter((word) => word !== '')
        .join(' '),
    )
  }

  /**
   * Resolves with the first event that matches, also one of the past. @throws Error after the bound, with what came
   * instead
   */
  until(what: string, isIt: (event: SinkEvent) => boolean, boundMs = 15_000 * SLOWNESS): Promise<SinkEvent> {
    const found = this.events.find(isIt)
    if (found !== undefined) return Promise.resolve(found)
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        isIt,
        resolve: (event) => {
          clearTimeout(timer)
          resolve(event)
        },
      }
      const timer = setTimeout(() => {
        this.#waiters.delete(waiter)
        const last = this.events.slice(-20).map(({ topic, container, exec }) => `${topic} ${container} ${exec}`)
        reject(new Error(`waited ${boundMs} ms in vain for ${what}; the last events:\n${last.join('\n')}`))
      }, boundMs)
      this.#waiters.add(waiter)
    })
  }

  #take(event: SinkEvent): void {
    this.events.push(event)
    for (const waiter of this.#waiters) {
      if (!waiter.isIt(event)) continue
      this.#waiters.delete(waiter)
      waiter.resolve(event)
    }
  }
}
