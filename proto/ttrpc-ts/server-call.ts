/**
 * One call in progress, as its handler and its connection see it. It is answered at most once: by its handler, its
 * deadline, a protocol violation, or not at all because the connection has ended. The first to call `settle` decides.
 */
import type { TtrpcRequest } from './gen/ttrpc.ts'
import { Code, TtrpcError } from './status.ts'

/** What a handler may know about its call. */
export interface CallContext {
  /** Full name of the service, as the caller wrote it. */
  readonly service: string
  /** Bare name of the method. */
  readonly method: string
  readonly metadata: ReadonlyMap<string, readonly string[]>
  /**
   * Aborted when the caller no longer waits: the deadline has passed, or the connection is gone. The reason is a
   * TtrpcError.
   */
  readonly signal: AbortSignal
  /** Calls back when the kernel has the answer; never when no answer can be sent. */
  afterReply(callback: () => void): void
}

const NANOS_PER_MS = 1_000_000n
/** The longest delay of a timer of Node, more than 24 days. A later deadline is ignored. */
const MAX_TIMER_MS = 0x7fffffffn

/** The server's side of a call. */
export class ServerCall implements CallContext {
  readonly streamId: number
  readonly #request: TtrpcRequest
  #metadata: Map<string, string[]> | undefined
  #abort: AbortController | undefined
  #abortReason: TtrpcError | undefined
  #timer: NodeJS.Timeout | undefined
  #settled = false
  #afterReply: (() => void) | undefined

  constructor(streamId: number, request: TtrpcRequest) {
    this.streamId = streamId
    this.#request = request
  }

  get service(): string {
    return this.#request.service
  }

  get method(): string {
    return this.#request.method
  }

  // metadata and signal are made on demand: most handlers use neither
  get metadata(): ReadonlyMap<string, readonly string[]> {
    if (this.#metadata !== undefined) return this.#metadata
    const map = new Map<string, string[]>()
    for (const { key, value } of this.#request.metadata) {
      const values = map.get(key)
      if (values === undefined) map.set(key, [value])
      else values.push(value)
    }
    this.#metadata = map
    return map
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController()
      if (this.#abortReason !== undefined) this.#abort.abort(this.#abortReason)
    }
    return this.#abort.signal
  }

  /** The callbacks of afterReply, as one function. */
  get replied(): (() => void) | undefined {
    return this.#afterReply
  }

  afterReply(callback: () => void): void {
    const earlier = this.#afterReply
    this.#afterReply = () => {
      earlier?.()
      callback()
    }
  }

  /** Starts the timer for the caller's deadline, if the request has one. */
  startDeadline(onExpired: () => void): void {
    const { timeoutNano } = this.#request
    if (timeoutNano === 0n) return
    const timeoutMs = timeoutNano / NANOS_PER_MS
    if (timeoutMs > MAX_TIMER_MS) return
    this.#timer = setTimeout(onExpired, Math.max(1, Number(timeoutMs)))
  }

  /** Takes the right to answer; false when it was taken before. */
  settle(): boolean {
    if (this.#settled) return false
    this.#settled = true
    if (this.#timer !== undefined) clearTimeout(this.#timer)
    return true
  }

  /** Tells the handler that its caller no longer waits. */
  abort(reason: TtrpcError): void {
    this.#abortReason = reason
    this.#abort?.abort(reason)
  }
}

/** The error of a call whose deadline has passed. */
export function deadlineExceeded(): TtrpcError {
  return new TtrpcError(Code.DEADLINE_EXCEEDED, 'deadline exceeded')
}
