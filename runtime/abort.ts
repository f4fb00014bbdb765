/**
 * Errors for aborted operations. Invariant: the reason of an AbortSignal leaves the runtime only as the cause of a
 * RuntimeError, since callers branch on codes.
 */
import { RuntimeError } from './errors.ts'

/**
 * The error of an operation whose signal was aborted, by a timeout or otherwise; `what` is the action with its object.
 */
export function abortError(signal: AbortSignal, what: string): RuntimeError {
  const { reason } = signal
  const late = reason instanceof Error && reason.name === 'TimeoutError'
  return new RuntimeError(
    late ? 'DeadlineExceeded' : 'Canceled',
    `${what}: ${late ? 'it took too long' : 'canceled by the caller'}`,
    { cause: reason },
  )
}

/**
 * Refuses to go on when the signal has been aborted.
 * @throws DeadlineExceeded, Canceled
 */
export function refuseAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted === true) throw abortError(signal, what)
}
