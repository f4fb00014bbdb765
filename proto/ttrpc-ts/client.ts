/**
 * Unary calls on one connection. Streams are numbered 1, 3, 5, …; responses come in any order.
 *
 * Invariant: every call settles exactly once, by its response, its deadline, its signal, or the end of the connection.
 * The end of the connection rejects all pending calls with the same error. ttrpc has no cancel frame, so a call that
 * the client gives up goes on in the server; its late response is dropped.
 */
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import { Connection, type ConnectionLimits, type ConnectionOwner } from './connection.ts'
import { encodeRequest } from './envelope.ts'
import { type Frame, FrameType } from './frame.ts'
import { TtrpcKeyValue, TtrpcResponse } from './gen/ttrpc.ts'
import type { InputOf, MessageInput, MessageType, MethodDescriptor, OutputOf, ServiceDescriptor } from './service.ts'
import { Code, errorOf, TtrpcError } from './status.ts'

/** Metadata to send: one value, or several under one key. */
export type MetadataInput = Readonly<Record<string, string | readonly string[]>>

/**
 * Where a client connects to, and the metadata of every call. `maxQueuedBytes` is 16 MiB when absent; above it new
 * calls are refused. Without `connectTimeoutMs` the client waits for the connection as long as the kernel does.
 */
export type ClientOptions = ConnectionLimits & {
  readonly metadata?: MetadataInput
} & ({ readonly path: string; readonly connectTimeoutMs?: number } | { readonly stream: Duplex })

/** A method, and the service that has it. */
export interface CallTarget<I extends object, O extends object> {
  /** its full name, as requests carry it */
  readonly service: string
  readonly method: MethodDescriptor<I, O>
}

/** How long a call may take. */
export interface CallOptions {
  /**
   * Deadline in milliseconds from the start of the call; the request carries it to the server. No deadline when absent.
   */
  readonly timeoutMs?: number
  /** Aborting it stops the waiting and rejects the call; the server does not learn of it. */
  readonly signal?: AbortSignal | undefined
}

/** A service as an object with one function per method. */
export type ServiceClient<S extends ServiceDescriptor> = {
  readonly [K in keyof S['methods']]: (
    request: MessageInput<InputOf<S['methods'][K]>>,
    options?: CallOptions,
  ) => Promise<OutputOf<S['methods'][K]>>
}

const MAX_QUEUED_BYTES = 16 * 1024 * 1024
const MAX_STREAM_ID = 0xffffffff
/** The longest delay of a timer of Node. A later deadline is sent to the server, but has no timer here. */
const MAX_TIMER_MS = 0x7fffffff

/** A client that owns one connection. It connects at once, and does not connect again when the connection is lost. */
export class TtrpcClient implements Disposable {
  readonly #connection: Connection
  readonly #metadata: readonly TtrpcKeyValue[]
  readonly #maxQueuedBytes: number
  readonly #peer: string
  readonly #pending = new Map<number, PendingCall>()
  #nextStreamId = 1
  #closeError: TtrpcError | undefined

  constructor(options: ClientOptions) {
    this.#metadata = metadataList(options.metadata ?? {})
    this.#maxQueuedBytes = options.maxQueuedBytes ?? MAX_QUEUED_BYTES
    this.#peer = 'path' in options ? ` to "${options.path}"` : ''
    const owner: ConnectionOwner = {
      onFrame: (frame) => this.#receive(frame),
      onClose: (reason) => this.#end(reason),
    }
    const stream = 'path' in options ? connect(options.path) : options.stream
    // A client never stops reading. If client and server both stopped, they would wait for each other. The client
    // refuses new calls instead (#refusal).
    this.#connection = new Connection(stream, owner, { ...options, maxQueuedBytes: Number.POSITIVE_INFINITY })
    if ('path' in options && options.connectTimeoutMs !== undefined)
      this.#limitConnect(stream, options.connectTimeoutMs)
  }

  /** Whether the connection is gone. */
  get closed(): boolean {
    return this.#closeError !== undefined
  }

  /**
   * Calls a method.
   * @throws TtrpcError with the server's code, or DeadlineExceeded, Canceled, Unavailable, ResourceExhausted, Internal
   */
  call<I extends object, O extends object>(
    to: CallTarget<I, O>,
    request: MessageInput<I>,
    options: CallOptions = {},
  ): Promise<O> {
    return new Promise((resolve, reject) => {
      const refusal = this.#refusal(options)
      if (refusal !== undefined) throw refusal
      const streamId = this.#nextStreamId
      const timeoutNano = options.timeoutMs === undefined ? 0n : BigInt(Math.ceil(options.timeoutMs * 1e6))
      const { input, name, output } = to.method
      const parts = {
        service: to.service,
        method: name,
        input,
        message: request,
        timeoutNano,
        metadata: this.#metadata,
      }
      const bytes = encodeRequest(streamId, parts, this.#connection.maxMessageBytes)
      this.#nextStreamId += 2
      const pending = new Unary(output, resolve, reject)
      this.#pending.set(streamId, pending)
      pending.watch(options, (error) => {
        this.#pending.delete(streamId)
        pending.fail(error)
      })
      this.#connection.send(bytes)
    })
  }

  /** Ends the connection; pending calls are rejected. */
  close(): void {
    this.#end(undefined)
    this.#connection.close()
  }

  /** See close. */
  [Symbol.dispose](): void {
    this.close()
  }

  #refusal(options: CallOptions): TtrpcError | undefined {
    if (this.#closeError !== undefined) return this.#closeError
    if (options.signal?.aborted) return canceled(options.signal)
    if (options.timeoutMs !== undefined && options.timeoutMs <= 0) return deadlineExceeded()
    if (this.#nextStreamId > MAX_STREAM_ID) return new TtrpcError(Code.UNAVAILABLE, 'connection is out of stream ids')
    if (this.#connection.queuedBytes <= this.#maxQueuedBytes) return undefined
    return new TtrpcError(
      Code.RESOURCE_EXHAUSTED,
      `server does not read: ${this.#connection.queuedBytes} bytes are queued`,
    )
  }

  #receive(frame: Frame): void {
    const pending = this.#pending.get(frame.streamId)
    // A late response to a call that was given up, or a frame that no server may send.
    if (pending === undefined || (frame.type !== FrameType.RESPONSE && frame.type !== FrameType.DATA)) return
    this.#pending.delete(frame.streamId)
    if (frame.oversizeBytes > 0) {
      const limit = this.#connection.maxMessageBytes
      pending.fail(
        new TtrpcError(
          Code.RESOURCE_EXHAUSTED,
          `response of ${frame.oversizeBytes} bytes exceeds the maximum of ${limit}`,
        ),
      )
    } else if (frame.type === FrameType.DATA) {
      pending.fail(new TtrpcError(Code.INTERNAL, 'server sent stream data in answer to a unary call'))
    } else pending.succeed(frame.data)
  }

  #end(reason: Error | undefined): void {
    if (this.#closeError !== undefined) return
    const message = `connection${this.#peer} closed${reason === undefined ? '' : `: ${reason.message}`}`
    const error = new TtrpcError(Code.UNAVAILABLE, message, { cause: reason })
    this.#closeError = error
    const calls = [...this.#pending.values()]
    this.#pending.clear()
    for (const call of calls) call.fail(error)
  }

  #limitConnect(stream: Duplex, timeoutMs: number): void {
    const timer = setTimeout(() => this.#connection.abort(new Error(`not connected within ${timeoutMs} ms`)), timeoutMs)
    stream.once('connect', () => clearTimeout(timer))
    stream.once('close', () => clearTimeout(timer))
  }
}

/** The service's methods as functions that call through a client. */
export function createClient<S extends ServiceDescriptor>(service: S, client: TtrpcClient): ServiceClient<S> {
  const methods = Object.entries(service.methods).map(([key, method]) => [
    key,
    (request: object, options?: CallOptions) => client.call({ service: service.typeName, method }, request, options),
  ])
  return Object.fromEntries(methods) as ServiceClient<S>
}

/** A call without the type of its answer, as the connection sees it. */
interface PendingCall {
  succeed(response: Buffer): void
  fail(error: TtrpcError): void
}

/** A call that waits for its response. The client removes it from its table before it settles it. */
class Unary<O extends object> implements PendingCall {
  readonly #output: MessageType<O>
  readonly #resolve: (message: O) => void
  readonly #reject: (error: TtrpcError) => void
  #timer: NodeJS.Timeout | undefined
  #signal: AbortSignal | undefined
  #onAbort: (() => void) | undefined

  constructor(output: MessageType<O>, resolve: (message: O) => void, reject: (error: TtrpcError) => void) {
    this.#output = output
    this.#resolve = resolve
    this.#reject = reject
  }

  watch(options: CallOptions, giveUp: (error: TtrpcError) => void): void {
    const { timeoutMs, signal } = options
    if (timeoutMs !== undefined && timeoutMs <= MAX_TIMER_MS) {
      this.#timer = setTimeout(() => giveUp(deadlineExceeded()), timeoutMs)
    }
    if (signal === undefined) return
    this.#signal = signal
    this.#onAbort = () => giveUp(canceled(signal))
    signal.addEventListener('abort', this.#onAbort, { once: true })
  }

  succeed(response: Buffer): void {
    this.#unwatch()
    try {
      const { status, payload } = TtrpcResponse.decode(response)
      const error = errorOf(status)
      if (error !== undefined) this.#reject(error)
      else this.#resolve(this.#output.decode(payload))
    } catch (cause) {
      this.#reject(new TtrpcError(Code.INTERNAL, `cannot decode the response: ${(cause as Error).message}`, { cause }))
    }
  }

  fail(error: TtrpcError): void {
    this.#unwatch()
    this.#reject(error)
  }

  #unwatch(): void {
    clearTimeout(this.#timer)
    if (this.#onAbort !== undefined) this.#signal?.removeEventListener('abort', this.#onAbort)
  }
}

function metadataList(metadata: MetadataInput): TtrpcKeyValue[] {
  return Object.entries(metadata).flatMap(([key, values]) =>
    (typeof values === 'string' ? [values] : values).map((value) => TtrpcKeyValue.create({ key, value })),
  )
}

function deadlineExceeded(): TtrpcError {
  return new TtrpcError(Code.DEADLINE_EXCEEDED, 'deadline exceeded')
}

function canceled(signal: AbortSignal): TtrpcError {
  return new TtrpcError(Code.CANCELED, 'call canceled', { cause: signal.reason })
}
