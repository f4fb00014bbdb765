/**
 * The calls of clients: which are in progress and since when. The end of each is one line of the log with the fields
 * `op`, `container`, `exec` and `durationMs`.
 *
 * Invariant: a call is listed from the moment its handler begins until the handler has an outcome. A client that gives
 * up does not take the call off the list, because the handler goes on.
 */
import { type CallContext, codeName, type Outcome, TtrpcError } from 'ttrpc-ts'
import { type LogFields, type Logger, RuntimeError } from '../runtime/index.ts'
import { errnoCode, errnoOf } from '../runtime/internal.ts'
import { whenSettled } from './outcome.ts'
import { toTtrpcError } from './status.ts'

/** A call in progress. */
interface Call {
  readonly op: string
  readonly request: object
  /** of the monotonic clock, in milliseconds */
  readonly began: number
}

/** The calls in progress of one shim. */
export class Calls {
  readonly #logger: Logger
  readonly #running = new Set<Call>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** The calls in progress with their ages, the oldest first. */
  get running(): LogFields[] {
    return [...this.#running].map(fieldsOf)
  }

  /** The server's interceptor: lists the call, and logs its outcome. */
  around(context: CallContext, next: () => Outcome, request: object): Outcome {
    const call = { op: context.method, request, began: milliseconds() }
    this.#running.add(call)
    return whenSettled(next, (failure) => {
      if (failure === undefined) this.#succeeded(call)
      else this.#failed(call, failure.error)
    })
  }

  #succeeded(call: Call): void {
    this.#running.delete(call)
    this.#logger.debug(fieldsOf(call), 'call')
  }

  #failed(call: Call, error: unknown): void {
    this.#running.delete(call)
    const { code, message } = toTtrpcError(error)
    const fields = { ...fieldsOf(call), code: codeName(code), error: message }
    const origin = error instanceof TtrpcError ? (error.cause ?? error) : error
    if (origin instanceof TtrpcError) this.#logger.debug(fields, 'call refused')
    // EMFILE, ENOMEM and the like are the machine's trouble and no bug, even when a plain read met them
    else if (origin instanceof RuntimeError || errnoCode(errnoOf(origin)) === 'ResourceExhausted')
      this.#logger.warn(fields, 'call failed')
    else {
      const stack = origin instanceof Error ? origin.stack : undefined
      this.#logger.error({ ...fields, stack }, 'call failed: this is a bug')
    }
  }
}

/** The monotonic clock. `performance.now()` would load a module of Node that nothing else here needs. */
function milliseconds(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000
}

function fieldsOf({ op, request, began }: Call): LogFields {
  return { op, ...names(request), durationMs: Math.round(10 * (milliseconds() - began)) / 10 }
}

/** The container and the exec that a request names. All requests use the same field names for them. */
function names(request: object): LogFields {
  const text = (key: string): string | undefined => {
    const value: unknown = Reflect.get(request, key)
    return typeof value === 'string' && value !== '' ? value : undefined
  }
  return { container: text('id'), exec: text('execId') }
}
