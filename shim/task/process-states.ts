/**
 * The state of one process, a container's init or an exec: a pure machine. A state holds exactly the data it has.
 * `next` decides every pair of state and event, and `check` decides every pair of state and action, from one table.
 * Refusals use the words that containerd's clients know.
 */
import { TaskStatus } from 'ttrpc-ts/containerd'
import type { Exit } from '../../runtime/index.ts'
import { notFound, refused } from '../status.ts'

/**
 * Where a process is in its life. The init has its pid from the beginning; an exec that has not run has pid 0.
 *
 *   created    `failed`: an exec whose start has failed, which may be tried again, or whose container has ended
 *   starting   `decided` resolves when the start has succeeded, with its event published, or has failed
 */
export type ProcessState =
  | { readonly kind: 'created'; readonly pid: number; readonly failed: boolean }
  | { readonly kind: 'starting'; readonly pid: number; readonly decided: Promise<void> }
  | { readonly kind: 'running'; readonly pid: number }
  | { readonly kind: 'pausing'; readonly pid: number }
  | { readonly kind: 'paused'; readonly pid: number }
  | { readonly kind: 'stopped'; readonly pid: number; readonly exit: Exit }
  | { readonly kind: 'deleted'; readonly pid: number; readonly exit: Exit }

/** What happens to a process. `launch` begins a start, `start` completes it, and `fail` ends it or rules it out. */
export type ProcessEvent =
  | { readonly kind: 'launch'; readonly decided: Promise<void> }
  | { readonly kind: 'fail' }
  | { readonly kind: 'start'; readonly pid: number }
  | { readonly kind: 'pause' }
  | { readonly kind: 'frozen' }
  | { readonly kind: 'thawed' }
  | { readonly kind: 'exit'; readonly exit: Exit }
  | { readonly kind: 'delete' }

/** What a client may ask for; the state decides whether it may do so now. */
export type Action = 'start' | 'pause' | 'resume' | 'exec' | 'update' | 'resize' | 'checkpoint' | 'delete'

type Kind = ProcessState['kind']

const ALLOWED = {
  created: ['start', 'exec', 'update', 'resize', 'delete'],
  // a Start or Delete waits in the process's lane until the start is over
  starting: ['exec', 'update', 'resize'],
  running: ['pause', 'exec', 'update', 'resize', 'checkpoint'],
  pausing: ['update', 'resize'],
  paused: ['resume', 'update', 'resize', 'checkpoint'],
  stopped: ['delete'],
  deleted: [],
} as const satisfies Record<Kind, readonly Action[]>

/** The words of a refusal before and after the state's name. */
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

/** The exit of a process that never ran: status 0 at Go's zero time, 0001-01-01T00:00:00Z. */
export const NEVER_RAN: Exit = { status: 0, at: { seconds: -62_135_596_800n, nanos: 0 } }

/** Whether the state allows the action. */
export function allows(state: ProcessState, action: Action): boolean {
  const actions: readonly Action[] = ALLOWED[state.kind]
  return actions.includes(action)
}

/**
 * Refuses an action that the state does not allow.
 * @throws TtrpcError, Unknown: "cannot delete a running process" and the like; NotFound for a Delete of a deleted
 * process
 */
export function check(state: ProcessState, action: Action): void {
  if (allows(state, action)) return
  const [before, after] = WORDS[action]
  // clients know no "starting" process
  const refusal = `cannot ${before} ${state.kind === 'starting' ? 'created' : state.kind} ${after}`
  throw action === 'delete' && state.kind === 'deleted' ? notFound(refusal) : refused(refusal)
}

/** The state after an event. @throws Error for a pair that cannot happen, which is a bug of the caller */
export function next(state: ProcessState, event: ProcessEvent): ProcessState {
  const { pid } = state
  switch (event.kind) {
    case 'launch':
      if (state.kind === 'created') return { kind: 'starting', pid, decided: event.decided }
      break
    case 'fail':
      // an init exists and still has an exit to come
      if (state.kind === 'created' || state.kind === 'starting') return { kind: 'created', pid, failed: pid === 0 }
      break
    case 'start':
      if (state.kind === 'starting') return { kind: 'running', pid: event.pid }
      break
    case 'pause':
      if (state.kind === 'running') return { kind: 'pausing', pid }
      break
    case 'frozen':
      if (state.kind === 'pausing') return { kind: 'paused', pid }
      // the process has died while its cgroup was being frozen: the exit stands
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
      // an exec that was never started; a created init never comes here, because Delete kills it first
      if (state.kind === 'created') return { kind: 'deleted', pid, exit: NEVER_RAN }
      break
    default:
      event satisfies never
  }
  throw new Error(`a ${state.kind} process met "${event.kind}"`)
}

const STATUS: Readonly<Record<Kind, number>> = {
  created: TaskStatus.CREATED,
  starting: TaskStatus.CREATED,
  running: TaskStatus.RUNNING,
  pausing: TaskStatus.PAUSING,
  paused: TaskStatus.PAUSED,
  stopped: TaskStatus.STOPPED,
  deleted: TaskStatus.STOPPED,
}

/** The state as a number of containerd's TaskStatus. */
export function statusOf(state: ProcessState): number {
  return STATUS[state.kind]
}

/** How the process ended; NEVER_RAN for one that lives or was not started. */
export function exitOf(state: ProcessState): Exit {
  return finalExit(state) ?? NEVER_RAN
}

/** What Wait answers in this state; undefined while an exit may still come. */
export function finalExit(state: ProcessState): Exit | undefined {
  if (state.kind === 'stopped' || state.kind === 'deleted') return state.exit
  return state.kind === 'created' && state.failed ? NEVER_RAN : undefined
}

/** Whether an exec in this state runs, or may run soon. */
export function isLive(state: ProcessState): boolean {
  return state.kind === 'starting' || state.kind === 'running'
}
