/**
 * How failures look to containerd: the only place where a RuntimeError becomes a TtrpcError, and the few refusals that the shim itself
 * makes. Clients branch on NotFound, AlreadyExists, FailedPrecondition, Unimplemented and DeadlineExceeded; everything else is Unknown,
 * as it always was. Messages of a class end with containerd's words for it, since some clients look at the text.
 */
import { Code, TtrpcError } from 'ttrpc-ts'
import { RuntimeError, type RuntimeErrorCode } from '../runtime/index.ts'

const CODES: Readonly<Partial<Record<RuntimeErrorCode, number>>> = {
  NotFound: Code.NOT_FOUND,
  AlreadyExists: Code.ALREADY_EXISTS,
  FailedPrecondition: Code.FAILED_PRECONDITION,
  Unimplemented: Code.UNIMPLEMENTED,
  DeadlineExceeded: Code.DEADLINE_EXCEEDED,
  Canceled: Code.CANCELED,
}

/** The classes that a step of many parts may have as a whole. */
const OF_A_STEP: readonly RuntimeErrorCode[] = ['AlreadyExists', 'Canceled', 'Unimplemented']

const CLASS_TEXT: Readonly<Record<number, string>> = {
  [Code.INVALID_ARGUMENT]: 'invalid argument',
  [Code.NOT_FOUND]: 'not found',
  [Code.ALREADY_EXISTS]: 'already exists',
  [Code.FAILED_PRECONDITION]: 'failed precondition',
  [Code.UNIMPLEMENTED]: 'not implemented',
  [Code.DEADLINE_EXCEEDED]: 'context deadline exceeded',
  [Code.CANCELED]: 'context canceled',
}

/** An error of a class that containerd knows, its message ending with the class's words. */
export function classError(code: number, message: string, cause?: unknown): TtrpcError {
  const words = CLASS_TEXT[code]
  const text = words === undefined || message.endsWith(words) ? message : `${message}: ${words}`
  return new TtrpcError(code, text, cause === undefined ? {} : { cause })
}

/** A refusal without a class: wrong state, wrong argument. */
export function refused(message: string): TtrpcError {
  return new TtrpcError(Code.UNKNOWN, message)
}

/** The id or exec id names nothing here. */
export function notFound(message: string): TtrpcError {
  return classError(Code.NOT_FOUND, message)
}

/** What a handler's failure is called on the wire; a plain Error is a bug of ours and answered as Internal. */
export function toTtrpcError(error: unknown): TtrpcError {
  if (error instanceof TtrpcError) return error
  if (error instanceof RuntimeError) return classError(CODES[error.code] ?? Code.UNKNOWN, error.message, error)
  return new TtrpcError(Code.INTERNAL, messageOf(error), { cause: error })
}

/**
 * The failure of a whole step (`OCI runtime create failed`): one line that begins with the step. A class is kept where it is of the step
 * itself and not of something that the step met: the id exists, the caller has given up, the whole step is one that we refuse (checkpoint).
 */
export function stepFailed(step: string, error: unknown): TtrpcError {
  const message = `${step}: ${messageOf(error).replaceAll('\n', ' ')}`
  const own = error instanceof RuntimeError && error.detail.source === 'none' && OF_A_STEP.includes(error.code)
  return own
    ? classError(CODES[error.code] ?? Code.UNKNOWN, message, error)
    : new TtrpcError(Code.UNKNOWN, message, { cause: error })
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** Whether the error says that the thing is gone (which many calls want to hear). */
export function isNotFound(error: unknown): boolean {
  return error instanceof RuntimeError && error.code === 'NotFound'
}
