/**
 * The state of one process, a container's init or an exec: a pure machine. A state holds exactly the data it has, `next` decides every
 * pair of state and event, and `check` every pair of state and action, from one table. Refusals carry the words that containerd's
 * clients know.
 */
import { TaskStatus } from 'ttrpc-ts/containerd'
import type { Exit } from '../../runtime/index.ts'
import { notFound, refused } from '../status.ts'

/** Where a process is in its life; an exec that was not started yet has pid 0. */
export type ProcessState =
  | { readonly kind: 'created'; readonly pid: number }
  | { readonly kind: 'running'; readonly pid: number }
  | { readonly kind: 'pausing'; readonly pid: number }
  | { readonly kind: 'paused'; readonly pid: number }
  | { readonly kind: 'stopped'; readonly pid: number; readonly exit: Exit }
  | { readonly kind: 'deleted'; readonly pid: number; readonly exit: Exit }

/** What happens to a process. */
export type ProcessEvent =
  | { readonly kind: 'start'; readonly pid: number }
  | { readonly kind: 'pause' }
  | { readonly kind: 'frozen' }
  | { readonly kind: 'thawed' }
  | { readonly kind: 'exit'; readonly exit: Exit }
  | { readonly kind: 'delete' }

/** What a client may ask for; whether it may now is decided by the state. */
export type Action = 'start' | 'pause' | 'resume' | 'exec' | 'update' | 'resize' | 'checkpoint' | 'delete'

type Kind = ProcessState['kind']

const ALLOWED = {
  created: ['start', 'exec', 'update', 'resize', 'delete'],
  running: ['pause', 'exec', 'update', 'resize', 'checkpoint'],
  pausing: ['update', 'resize'],
  paused: ['resume', 'update', 'resize', 'checkpoint'],
  stopped: ['delete'],
  deleted: [],
} as const satisfies Record<Kind, readonly Action[]>

/** How an action is named in its refusal, around the state's name. */
const WORDS: Readonly<Record<Action, readonly [string, string]>> = {
  start: ['start a', 'process'],
  pause: ['pause a', 'container'],
  resume: ['resume a', 'container'],
  exec: ['exec in a', 'state'],
  update: ['update a', 'container'],
  resize: ['resize a', 'container'],
  checkpoint: ['checkpoint a', 'container'],
  delete: ['delete a', 'process'],
}

/** The exit of a process that never ran: status 0 at the zero time, 0001-01-01. */
export const NEVER_RAN: Exit = { status: 0, at: { seconds: -62_135_596_800n, nanos: 0 } }

/** Whether the state allows the action. */
export function allows(state: ProcessState, action: Action): boolean {
  const actions: readonly Action[] = ALLOWED[state.kind]
  return actions.includes(action)
}

/** @throws TtrpcError (Unknown) "cannot delete a running process" and the like; NotFound for a Delete of what another Delete has taken along */
export function check(state: ProcessState, action: Action): void {
  if (allows(state, action)) return
  const [before, after] = WORDS[action]
  const refusal = `cannot ${before} ${state.kind} ${after}`
  throw action === 'delete' && state.kind === 'deleted' ? notFound(refusal) : refused(refusal)
}

/** The state after an event. @throws Error for a pair that cannot happen, which is a bug of the caller */
export function next(state: ProcessState, event: ProcessEvent): ProcessState {
  const { pid } = state
  switch (event.kind) {
    case 'start':
      if (state.kind === 'created') return { kind: 'running', pid: event.pid }
      break
    case 'pause':
      if (state.kind === 'running') return { kind: 'pausing', pid }
      break
    case 'frozen':
      if (state.kind === 'pausing') return { kind: 'paused', pid }
      // it died while its cgroup froze: the exit stands
      if (state.kind === 'stopped' || state.kind === 'deleted') return state
      break
    case 'thawed':
      if (state.kind === 'pausing' || state.kind === 'paused') return { kind: 'running', pid }
      if (state.kind === 'stopped' || state.kind === 'deleted') return state
      break
    case 'exit':
      if (state.kind !== 'stopped' && state.kind !== 'deleted') return { kind: 'stopped', pid, exit: event.exit }
      break
    case 'delete':
      if (state.kind === 'stopped') return { kind: 'deleted', pid, exit: state.exit }
      // an exec that was never started; a created init is killed first
      if (state.kind === 'created') return { kind: 'deleted', pid, exit: NEVER_RAN }
      break
    default:
      event satisfies never
  }
  throw new Error(`a ${state.kind} process met "${event.kind}"`)
}

const STATUS: Readonly<Record<Kind, number>> = {
  created: TaskStatus.CREATED,
  running: TaskStatus.RUNNING,
  pausing: TaskStatus.PAUSING,
  paused: TaskStatus.PAUSED,
  stopped: TaskStatus.STOPPED,
  deleted: TaskStatus.STOPPED,
}

/** The state in containerd's numbers. */
export function statusOf(state: ProcessState): number {
  return STATUS[state.kind]
}

/** How the process ended; what a live one answers is NEVER_RAN. */
export function exitOf(state: ProcessState): Exit {
  return state.kind === 'stopped' || state.kind === 'deleted' ? state.exit : NEVER_RAN
}
