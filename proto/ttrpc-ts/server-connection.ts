/**
 * The server's side of one connection: which frames are calls, which are mistakes, and how each is answered.
 *
 *   request, new odd id            -> runs the handler; the answer is sent when it is ready
 *   request, other id              -> InvalidArgument
 *   request that does not decode   -> InvalidArgument; when only its payload does not: Internal
 *   unknown service or method      -> Unimplemented
 *   frame over the limit           -> ResourceExhausted, after it was skipped
 *   data                           -> InvalidArgument, because all methods are unary; it ends a call of that id
 *   response, unknown type         -> ignored
 *
 * Invariant: a mistake of the peer costs only the stream in which it was made. A call whose caller is gone runs to its
 * end; only its answer is dropped.
 */
import type { Duplex } from 'node:stream'
import { Connection, type ConnectionLimits, type ConnectionOwner } from './connection.ts'
import { encodeAnswer, encodeFailure } from './envelope.ts'
import { type Frame, FrameType } from './frame.ts'
import { TtrpcRequest } from './gen/ttrpc.ts'
import { type CallContext, deadlineExceeded, ServerCall } from './server-call.ts'
import type { Answer, MessageType, MethodDescriptor } from './service.ts'
import { Code, type StatusInfo, TtrpcError } from './status.ts'

/** What a handler or an interceptor returns. */
export type Outcome = Answer<object> | Promise<Answer<object>>

/** A handler without its types, as the server keeps it. */
export interface Method {
  readonly descriptor: MethodDescriptor<object, object>
  readonly handle: (request: object, context: CallContext) => Outcome
}

/** What a connection needs of its server. */
export interface Dispatcher {
  find(service: string, method: string): Method
  run(method: Method, request: object, context: CallContext): Outcome
  statusOf(error: unknown): StatusInfo
  closed(connection: ServerConnection, reason: Error | undefined): void
}

/** Bounds of a server's connection. */
export interface ServerLimits extends ConnectionLimits {
  /** How many calls may be in progress on one connection; 16384 when absent. */
  readonly maxCalls?: number
}

const MAX_CALLS = 16384

/** One accepted connection. */
export class ServerConnection implements ConnectionOwner {
  readonly #connection: Connection
  readonly #dispatcher: Dispatcher
  readonly #maxCalls: number
  readonly #calls = new Map<number, ServerCall>()
  #lastStreamId = 0

  constructor(stream: Duplex, dispatcher: Dispatcher, limits: ServerLimits) {
    this.#dispatcher = dispatcher
    this.#maxCalls = limits.maxCalls ?? MAX_CALLS
    this.#connection = new Connection(stream, this, limits)
  }

  /** The number of calls that are not answered yet. */
  get activeCalls(): number {
    return this.#calls.size
  }

  /** Ends the connection when the answers that are queued were sent, at most `graceMs` later. */
  close(graceMs: number): void {
    this.#connection.close(graceMs)
  }

  onFrame(frame: Frame): void {
    if (frame.oversizeBytes > 0) {
      const limit = this.#connection.maxMessageBytes
      const message = `message of ${frame.oversizeBytes} bytes exceeds the maximum of ${limit}`
      this.#refuse(frame.streamId, Code.RESOURCE_EXHAUSTED, message)
    } else if (frame.type === FrameType.REQUEST) this.#request(frame)
    else if (frame.type === FrameType.DATA) this.#refuse(frame.streamId, Code.INVALID_ARGUMENT, 'stream takes no data')
  }

  onClose(reason: Error | undefined): void {
    const gone = new TtrpcError(Code.CANCELED, 'connection closed')
    for (const call of this.#calls.values()) if (call.settle()) call.abort(gone)
    this.#calls.clear()
    this.#dispatcher.closed(this, reason)
  }

  #request(frame: Frame): void {
    const { streamId } = frame
    if (streamId % 2 === 0) {
      this.#refuse(streamId, Code.INVALID_ARGUMENT, 'stream id of a client must be odd')
    } else if (streamId <= this.#lastStreamId) {
      this.#refuse(streamId, Code.INVALID_ARGUMENT, `stream id must be greater than ${this.#lastStreamId}`)
    } else {
      this.#lastStreamId = streamId
      this.#dispatch(streamId, frame.data)
    }
  }

  #dispatch(streamId: number, data: Buffer): void {
    let call: ServerCall
    let method: Method
    let message: object
    try {
      if (this.#calls.size >= this.#maxCalls) {
        throw new TtrpcError(Code.RESOURCE_EXHAUSTED, `more than ${this.#maxCalls} calls in progress`)
      }
      const request = decode(TtrpcRequest, data, Code.INVALID_ARGUMENT)
      method = this.#dispatcher.find(request.service, request.method)
      message = decode(method.descriptor.input, request.payload, Code.INTERNAL)
      call = new ServerCall(streamId, request)
    } catch (error) {
      this.#sendFailure(streamId, error)
      return
    }
    this.#run(call, method, message)
  }

  /** Runs the handler. One that answers at once costs no promise, no timer and no entry in the table. */
  #run(call: ServerCall, method: Method, message: object): void {
    let outcome: Outcome
    try {
      outcome = this.#dispatcher.run(method, message, call)
    } catch (error) {
      this.#fail(call, error)
      return
    }
    if (!(outcome instanceof Promise)) {
      this.#answer(call, method, outcome)
      return
    }
    this.#calls.set(call.streamId, call)
    call.startDeadline(() => this.#expire(call))
    outcome.then(
      (answer) => this.#answer(call, method, answer),
      (error: unknown) => this.#fail(call, error),
    )
  }

  #answer(call: ServerCall, method: Method, answer: Answer<object>): void {
    if (!this.#take(call)) return
    try {
      const bytes = encodeAnswer(
        call.streamId,
        { output: method.descriptor.output, message: answer ?? {} },
        this.#connection.maxMessageBytes,
      )
      this.#connection.send(bytes, call.replied)
    } catch (error) {
      this.#sendFailure(
        call.streamId,
        error instanceof TtrpcError ? error : new TtrpcError(Code.INTERNAL, `cannot encode the response: ${error}`),
      )
    }
  }

  #fail(call: ServerCall, error: unknown): void {
    if (this.#take(call)) this.#sendFailure(call.streamId, error, call.replied)
  }

  #expire(call: ServerCall): void {
    if (!this.#take(call)) return
    const error = deadlineExceeded()
    this.#sendFailure(call.streamId, error)
    call.abort(error)
  }

  #refuse(streamId: number, code: number, message: string): void {
    const error = new TtrpcError(code, message)
    this.#sendFailure(streamId, error)
    const call = this.#calls.get(streamId)
    if (call !== undefined && this.#take(call)) call.abort(error)
  }

  #take(call: ServerCall): boolean {
    if (!call.settle()) return false
    this.#calls.delete(call.streamId)
    return true
  }

  #sendFailure(streamId: number, error: unknown, onSent?: () => void): void {
    const status = error instanceof TtrpcError ? error : this.#dispatcher.statusOf(error)
    this.#connection.send(encodeFailure(streamId, status, this.#connection.maxMessageBytes), onSent)
  }
}

function decode<T extends object>(type: MessageType<T>, bytes: Uint8Array, code: number): T {
  try {
    return type.decode(bytes)
  } catch (cause) {
    throw new TtrpcError(code, `cannot decode ${type.typeName}: ${(cause as Error).message}`, { cause })
  }
}
