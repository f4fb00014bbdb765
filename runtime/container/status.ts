/**
 * How a container's status follows from facts, and the error for what a status does not allow. Pure. Invariants: a
 * status is derived at each look and never stored. An init that has ended makes it stopped, whatever else is true; a
 * frozen one makes it paused even if it was never started.
 */
import type { FreezerState } from '../cgroup/request.ts'
import { RuntimeError } from '../errors.ts'

/** The derived status of a container. */
export type Status = 'created' | 'running' | 'pausing' | 'paused' | 'stopped'

/** libcontainer's numbers of the statuses. */
export const StatusCode: Readonly<Record<Status, number>> = {
  created: 0,
  running: 1,
  pausing: 2,
  paused: 3,
  stopped: 4,
}

/** The facts that a status follows from. The two functions are called only when their answer matters. */
export interface StatusFacts {
  /** init exists and is no zombie */
  readonly alive: boolean
  readonly freezer: () => FreezerState
  /** init waits at the exec fifo */
  readonly waiting: () => boolean
}

/** The status that follows. */
export function statusOf({ alive, freezer, waiting }: StatusFacts): Status {
  if (!alive) return 'stopped'
  const state = freezer()
  if (state !== 'thawed') return state === 'frozen' ? 'paused' : 'pausing'
  return waiting() ? 'created' : 'running'
}

/** The error for what a status does not allow; `detail.status` has that status. */
export function refusal(status: Status, message: string): RuntimeError {
  return new RuntimeError('FailedPrecondition', message, { detail: { source: 'state', status } })
}
