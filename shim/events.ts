/**
 * Events to containerd: one queue and one Forward call in flight, so that containerd sees them in the order in which
 * they happened. A failed delivery is repeated at the head of the queue, and no later event overtakes it.
 *
 * Invariants: an exit event is never dropped, except when containerd itself refuses it. All other events are bounded in
 * number. Publishing never waits and never throws, because a container must not depend on its listeners.
 */
import { Code, type MessageInput, type MessageType, packAny, TtrpcClient, TtrpcError } from 'ttrpc-ts'
import { type Any, EventsService, TaskExit, type Timestamp } from 'ttrpc-ts/containerd'
import type { Logger } from '../runtime/index.ts'
import { messageOf, realtime } from '../runtime/internal.ts'

/** Events that may wait. One more drops the oldest event that is not an exit. */
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

/** Runs a callback later; returns a function that cancels it. Replaced in tests. */
export type Scheduler = (callback: () => void, delayMs: number) => () => void

/** What a queue is made of. */
export interface EventQueueOptions {
  readonly namespace: string
  /** undefined when the launcher was given no ttrpc address: then events go nowhere */
  readonly forwarder: Forwarder | undefined
  readonly logger: Logger
  readonly schedule?: Scheduler
}

/** The queue of one shim. */
export class EventQueue {
  readonly #options: EventQueueOptions
  readonly #schedule: Scheduler
  readonly #queue: Envelope[] = []
  readonly #idle: (() => void)[] = []
  #state: 'idle' | 'sending' | 'waiting' = 'idle'
  #cancelRetry = (): void => {}
  #failures = 0
  /** whether the log has the outage that is going on */
  #outageLogged = false

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
    // not at once: the answer to the call that caused the event goes out first, because a client waits for it
    setImmediate(() => this.#send())
  }

  /** Ends the pause before the next attempt: containerd has just shown that it lives, or the shim is leaving. */
  retry(): void {
    if (this.#state !== 'waiting') return
    this.#cancelRetry()
    this.#failures = 0
    this.#send()
  }

  /** Resolves when every event was delivered, or after `limitMs`. */
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
        this.#outageLogged = false
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
    if (!this.#outageLogged) this.#options.logger.warn(fields, 'cannot deliver events, will go on trying')
    this.#outageLogged = true
    this.#state = 'waiting'
    this.#cancelRetry = this.#schedule(() => this.#send(), delayMs)
  }

  #dropOne(): void {
    // the head may be in flight, and #send() removes it from the head when it was delivered
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

/**
 * Forwards to containerd's ttrpc socket. It connects at the first event, and once more at once when the connection was
 * lost.
 */
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
      { service: EventsService.typeName, method: EventsService.methods.forward },
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
        // containerd has restarted since the last event: only this write has shown that the old connection is dead
        if (!reused || !(error instanceof TtrpcError) || error.code !== Code.UNAVAILABLE) throw error
        await attempt(envelope)
      }
    },
    close: () => client?.close(),
  }
}
