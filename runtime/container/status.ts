/**
 * What a container's status follows from, and the refusals of what it does not allow. Pure. Invariant: a status is derived from facts at
 * each look and never stored; an init that has ended is stopped whatever else is there, frozen comes before created, and what is neither
 * waits at its fifo or runs.
 */
import type { FreezerState } from '../cgroup/request.ts'
import { RuntimeError } from '../errors.ts'

/** The derived status of a container. */
export type Status = 'created' | 'running' | 'pausing' | 'paused' | 'stopped'

/** The numbers that programs of the libcontainer family know the statuses by. */
export const StatusCode: Readonly<Record<Status, number>> = {
  created: 0,
  running: 1,
  pausing: 2,
  paused: 3,
  stopped: 4,
}

/** What is looked at. */
export interface StatusFacts {
  /** init is there and no zombie */
  readonly alive: boolean
  readonly freezer: () => FreezerState
  /** the fifo of the start is still there */
  readonly waiting: () => boolean
}

/** The status that follows. */
export function statusOf({ alive, freezer, waiting }: StatusFacts): Status {
  if (!alive) return 'stopped'
  const state = freezer()
  if (state !== 'thawed') return state === 'frozen' ? 'paused' : 'pausing'
  return waiting() ? 'created' : 'running'
}

/** The refusal of what a status does not allow; `detail.status` tells which it was. */
export function refusal(status: Status, message: string): RuntimeError {
  return new RuntimeError('FailedPrecondition', message, { detail: { source: 'state', status } })
}
