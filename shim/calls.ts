/**
 * The calls of clients: which are being answered and since when, and one line of the log for how each ended: `op`, `container`, `exec`
 * and `durationMs`. Invariant: a call is listed from the moment its handler begins until it has an outcome, also when nobody waits for
 * that any more, since what a handler does may go on.
 */
import { type CallContext, codeName, type Outcome, TtrpcError } from 'ttrpc-ts'
import { errnoCode, errnoOf, type LogFields, type Logger, RuntimeError } from '../runtime/index.ts'
import { toTtrpcError } from './status.ts'

/** A call in progress. */
interface Call {
  readonly op: string
  readonly request: object
  /** of the monotonic clock, in milliseconds */
  readonly began: number
}

/** The calls of one shim. */
export class Calls {
  readonly #logger: Logger
  readonly #running = new Set<Call>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** What is being answered, with its age: the oldest first. */
  get running(): LogFields[] {
    return [...this.#running].map(fieldsOf)
  }

  /** Runs around every call. */
  around(context: CallContext, next: () => Outcome, request: object): Outcome {
    const call = { op: context.method, request, began: milliseconds() }
    this.#running.add(call)
    let outcome: Outcome
    try {
      outcome = next()
    } catch (error) {
      this.#failed(call, error)
      throw error
    }
    if (!(outcome instanceof Promise)) {
      this.#succeeded(call)
      return outcome
    }
    outcome.then(
      () => this.#succeeded(call),
      (error: unknown) => this.#failed(call, error),
    )
    return outcome
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
    // whatever runs out of descriptors or memory, be it a plain read, is the machine's trouble
    else if (origin instanceof RuntimeError || errnoCode(errnoOf(origin)) === 'ResourceExhausted')
      this.#logger.warn(fields, 'call failed')
    else {
      const stack = origin instanceof Error ? origin.stack : undefined
      this.#logger.error({ ...fields, stack }, 'call failed: this is a bug')
    }
  }
}

/** By the monotonic clock; `performance` would load a module of Node for it. */
function milliseconds(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000
}

function fieldsOf({ op, request, began }: Call): LogFields {
  return { op, ...names(request), durationMs: Math.round(10 * (milliseconds() - began)) / 10 }
}

/** Which container and exec a request names; the requests of all calls have these fields, as far as they have any. */
function names(request: object): LogFields {
  const text = (key: string): string | undefined => {
    const value: unknown = Reflect.get(request, key)
    return typeof value === 'string' && value !== '' ? value : undefined
  }
  return { container: text('id'), exec: text('execId') }
}
