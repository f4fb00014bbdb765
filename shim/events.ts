/**
 * Events to containerd: one queue, one Forward in flight, so that the daemon sees them in the order in which they happened. A failed
 * delivery is repeated at the head of the queue and nothing overtakes it. Invariants: an exit is never dropped; the queue is bounded
 * otherwise; publishing never waits and never throws, since a container's life does not depend on who listens.
 */
import { Code, type MessageInput, type MessageType, packAny, TtrpcClient, TtrpcError } from 'ttrpc-ts'
import { type Any, EventsService, TaskExit, type Timestamp } from 'ttrpc-ts/containerd'
import { type Logger, realtime } from '../runtime/index.ts'
import { messageOf } from './status.ts'

/** Events that may wait; beyond it the oldest that is no exit goes. */
export const MAX_QUEUED_EVENTS = 2048
const FIRST_BACKOFF_MS = 1_000
const LAST_BACKOFF_MS = 5_000
const FORWARD_TIMEOUT_MS = 5_000

/** An event as it travels. */
export interface Envelope {
  readonly timestamp: Timestamp
  readonly namespace: string
  readonly topic: string
  readonly event: Any
}

/** Where events go. */
export interface Forwarder {
  /** Delivers one event; rejects when it was not taken. */
  forward(envelope: Envelope): Promise<void>
  close(): void
}

/** Runs a callback later; returns how to call it off. Replaced in tests. */
export type Scheduler = (callback: () => void, delayMs: number) => () => void

/** What a queue is made of. */
export interface EventQueueOptions {
  readonly namespace: string
  /** undefined when there is no daemon to tell */
  readonly forwarder: Forwarder | undefined
  readonly logger: Logger
  readonly schedule?: Scheduler
}

/** The ordered queue. */
export class EventQueue {
  readonly #options: EventQueueOptions
  readonly #schedule: Scheduler
  readonly #queue: Envelope[] = []
  readonly #idle: (() => void)[] = []
  #state: 'idle' | 'sending' | 'waiting' = 'idle'
  #cancelRetry = (): void => {}
  #failures = 0
  /** the outage is in the log */
  #told = false

  constructor(options: EventQueueOptions) {
    this.#options = options
    this.#schedule = options.schedule ?? timer
  }

  /** Events that containerd has not taken yet. */
  get length(): number {
    return this.#queue.length
  }

  /** Queues an event. */
  publish<T extends object>(topic: string, type: MessageType<T>, message: MessageInput<T>): void {
    if (this.#options.forwarder === undefined) return
    if (this.#queue.length >= MAX_QUEUED_EVENTS) this.#dropOne()
    this.#queue.push({
      timestamp: realtime(),
      namespace: this.#options.namespace,
      topic,
      event: packAny(type, message),
    })
    if (this.#state !== 'idle') return
    this.#state = 'sending'
    // after the answer to the call that caused it, for which a client waits
    setImmediate(() => this.#send())
  }

  /** There is a sign that the daemon lives, or no time to lose: what waits for the next attempt is attempted now. */
  retry(): void {
    if (this.#state !== 'waiting') return
    this.#cancelRetry()
    this.#failures = 0
    this.#send()
  }

  /** Resolves when everything was delivered, or after `limitMs`. */
  drain(limitMs: number): Promise<void> {
    if (this.#queue.length === 0) return Promise.resolve()
    this.retry()
    return new Promise((resolve) => {
      const cancel = this.#schedule(resolve, limitMs)
      this.#idle.push(() => {
        cancel()
        resolve()
      })
    })
  }

  /** Drops the connection to containerd. */
  close(): void {
    this.#options.forwarder?.close()
  }

  #send(): void {
    const [head] = this.#queue
    if (head === undefined) {
      this.#state = 'idle'
      for (const resolve of this.#idle.splice(0)) resolve()
      return
    }
    this.#state = 'sending'
    this.#options.forwarder?.forward(head).then(
      () => {
        this.#failures = 0
        this.#told = false
        this.#queue.shift()
        this.#send()
      },
      (error: unknown) => this.#failed(head, error),
    )
  }

  #failed(head: Envelope, error: unknown): void {
    const fields = { topic: head.topic, error: messageOf(error) }
    if (error instanceof TtrpcError && (error.code === Code.INVALID_ARGUMENT || error.code === Code.UNIMPLEMENTED)) {
      this.#options.logger.error(fields, 'containerd refused an event')
      this.#queue.shift()
      this.#send()
      return
    }
    const delayMs = Math.min(FIRST_BACKOFF_MS * 2 ** this.#failures++, LAST_BACKOFF_MS)
    // once per outage: the queue goes on trying in silence
    if (!this.#told) this.#options.logger.warn(fields, 'cannot deliver events, will go on trying')
    this.#told = true
    this.#state = 'waiting'
    this.#cancelRetry = this.#schedule(() => this.#send(), delayMs)
  }

  #dropOne(): void {
    // the head may be in flight and must stay what it is
    const at = this.#queue.findIndex((envelope, index) => index > 0 && envelope.event.typeUrl !== TaskExit.typeName)
    if (at < 0) return
    const [dropped] = this.#queue.splice(at, 1)
    this.#options.logger.warn({ topic: dropped?.topic }, 'dropped an event: too many wait')
  }
}

function timer(callback: () => void, delayMs: number): () => void {
  const handle = setTimeout(callback, delayMs)
  return () => clearTimeout(handle)
}

/** Forwards to containerd's ttrpc socket: connects when there is something to say, and again, once at once, when the connection was lost. */
export function daemonForwarder(path: string, namespace: string): Forwarder {
  let client: TtrpcClient | undefined

  async function attempt(envelope: Envelope): Promise<void> {
    if (client === undefined || client.closed) {
      client = new TtrpcClient({
        path,
        metadata: { 'containerd-namespace-ttrpc': namespace },
        connectTimeoutMs: FORWARD_TIMEOUT_MS,
      })
    }
    await client.call(
      EventsService.methods.forward,
      EventsService.typeName,
      { envelope },
      { timeoutMs: FORWARD_TIMEOUT_MS },
    )
  }

  return {
    async forward(envelope) {
      const reused = client !== undefined
      try {
        await attempt(envelope)
      } catch (error) {
        // a connection from before the daemon's restart tells of its end only now
        if (!reused || !(error instanceof TtrpcError) || error.code !== Code.UNAVAILABLE) throw error
        await attempt(envelope)
      }
    },
    close: () => client?.close(),
  }
}
