/** The end of a call, for the interceptors that look at it: a handler answers at once, or by a promise. */
import type { Outcome } from 'ttrpc-ts'

/** Runs `next`, and tells `done` when the call has its outcome. `failure` holds what the handler threw. */
export function whenSettled(next: () => Outcome, done: (failure?: { readonly error: unknown }) => void): Outcome {
  let outcome: Outcome
  try {
    outcome = next()
  } catch (error) {
    done({ error })
    throw error
  }
  if (outcome instanceof Promise)
    outcome.then(
      () => done(),
      (error: unknown) => done({ error }),
    )
  else done()
  return outcome
}
