/**
 * How failures look to containerd. This is the only place where a RuntimeError becomes a TtrpcError; the shim's own
 * refusals are made here too. Clients branch on NotFound, AlreadyExists, FailedPrecondition, Unimplemented,
 * DeadlineExceeded and Canceled; every other code of the runtime is sent as Unknown. Some clients look at the text, so
 * the messages of these classes end with containerd's words for the class.
 */
import { Code, TtrpcError } from 'ttrpc-ts'
import { RuntimeError, type RuntimeErrorCode } from '../runtime/index.ts'
import { messageOf } from '../runtime/internal.ts'

const CODES: Readonly<Partial<Record<RuntimeErrorCode, number>>> = {
  NotFound: Code.NOT_FOUND,
  AlreadyExists: Code.ALREADY_EXISTS,
  FailedPrecondition: Code.FAILED_PRECONDITION,
  Unimplemented: Code.UNIMPLEMENTED,
  DeadlineExceeded: Code.DEADLINE_EXCEEDED,
  Canceled: Code.CANCELED,
}

/** The classes that the failure of a whole step keeps; see stepFailed(). */
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

/** An error of a class that containerd knows; its message ends with containerd's words for the class. */
export function classError(code: number, message: string, cause?: unknown): TtrpcError {
  const words = CLASS_TEXT[code]
  const text = words === undefined || message.endsWith(words) ? message : `${message}: ${words}`
  return new TtrpcError(code, text, cause === undefined ? {} : { cause })
}

/** A refusal without a class (Unknown): wrong state, wrong argument. */
export function refused(message: string): TtrpcError {
  return new TtrpcError(Code.UNKNOWN, message)
}

/** The error for an id or exec id that names nothing here. */
export function notFound(message: string): TtrpcError {
  return classError(Code.NOT_FOUND, message)
}

/** The error that answers a call whose handler threw. A plain Error is a bug of the shim and becomes Internal. */
export function toTtrpcError(error: unknown): TtrpcError {
  if (error instanceof TtrpcError) return error
  if (error instanceof RuntimeError) return classError(CODES[error.code] ?? Code.UNKNOWN, error.message, error)
  return new TtrpcError(Code.INTERNAL, messageOf(error), { cause: error })
}

/**
 * The failure of a whole step (`OCI runtime create failed`): one line that begins with the step's name. The class is
 * kept when it is about the step itself: the id is taken, the caller has given up, the shim refuses the step altogether
 * (restoring a checkpoint). The class of an error from a system call or from the spec says nothing about the step, and
 * becomes Unknown.
 */
export function stepFailed(step: string, error: unknown): TtrpcError {
  const message = `${step}: ${messageOf(error).replaceAll('\n', ' ')}`
  const own = error instanceof RuntimeError && error.detail.source === 'none' && OF_A_STEP.includes(error.code)
  return own
    ? classError(CODES[error.code] ?? Code.UNKNOWN, message, error)
    : new TtrpcError(Code.UNKNOWN, message, { cause: error })
}

/** Whether the error says that the object does not exist. */
export function isNotFound(error: unknown): boolean {
  return error instanceof RuntimeError && error.code === 'NotFound'
}
