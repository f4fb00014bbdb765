/**
 * One call in progress, as its handler and its connection see it. It is answered exactly once: whoever calls `settle` first (handler,
 * deadline, protocol violation, end of the connection) decides, and the others find it settled.
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
  /** Aborted when nobody waits for the answer any more: deadline passed, connection gone. The reason is a TtrpcError. */
  readonly signal: AbortSignal
  /** Calls back once the answer is with the kernel, or never when there is nobody to take it. */
  afterReply(callback: () => void): void
}

const NANOS_PER_MS = 1_000_000n
/** Longest delay that a timer takes, a good 24 days; a later deadline is as good as none. */
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

  // Both are made on demand only: most handlers ask for neither.
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

  /** What to call once the answer is sent. */
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

  /** Starts the caller's deadline. */
  startDeadline(onExpired: () => void): void {
    const { timeoutNano } = this.#request
    if (timeoutNano === 0n) return
    const timeoutMs = timeoutNano / NANOS_PER_MS
    if (timeoutMs > MAX_TIMER_MS) return
    this.#timer = setTimeout(onExpired, Math.max(1, Number(timeoutMs)))
  }

  /** Takes the right to answer; false when somebody else had it. */
  settle(): boolean {
    if (this.#settled) return false
    this.#settled = true
    if (this.#timer !== undefined) clearTimeout(this.#timer)
    return true
  }

  /** Tells the handler that nobody waits any more. */
  abort(reason: TtrpcError): void {
    this.#abortReason = reason
    this.#abort?.abort(reason)
  }
}

/** The error of a call that took too long. */
export function deadlineExceeded(): TtrpcError {
  return new TtrpcError(Code.DEADLINE_EXCEEDED, 'deadline exceeded')
}
