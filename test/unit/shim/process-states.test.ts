/**
 * The state machine of a process: every pair of state and event, every pair of state and action, against tables
 * written out by hand.
 */

import { TaskStatus } from 'ttrpc-ts/containerd'
import { describe, expect, test } from 'vitest'
import {
  type Action,
  allows,
  check,
  exitOf,
  finalExit,
  NEVER_RAN,
  next,
  type ProcessEvent,
  type ProcessState,
  statusOf,
} from '../../../shim/task/process-states.ts'

const EXIT = { status: 137, at: { seconds: 1_700_000_000n, nanos: 5 } }
const OTHER_EXIT = { status: 1, at: { seconds: 1n, nanos: 0 } }

const DECIDED = Promise.resolve()

const STATES: Record<ProcessState['kind'], ProcessState> = {
  created: { kind: 'created', pid: 7, failed: false },
  starting: { kind: 'starting', pid: 7, decided: DECIDED },
  running: { kind: 'running', pid: 7 },
  pausing: { kind: 'pausing', pid: 7 },
  paused: { kind: 'paused', pid: 7 },
  stopped: { kind: 'stopped', pid: 7, exit: EXIT },
  deleted: { kind: 'deleted', pid: 7, exit: EXIT },
}

const EVENTS: Record<ProcessEvent['kind'], ProcessEvent> = {
  launch: { kind: 'launch', decided: DECIDED },
  fail: { kind: 'fail' },
  start: { kind: 'start', pid: 8 },
  pause: { kind: 'pause' },
  frozen: { kind: 'frozen' },
  thawed: { kind: 'thawed' },
  exit: { kind: 'exit', exit: OTHER_EXIT },
  delete: { kind: 'delete' },
}

const NEVER = {
  launch: '-',
  fail: '-',
  start: '-',
  pause: '-',
  frozen: '-',
  thawed: '-',
  exit: '-',
  delete: '-',
} as const

/** The state that follows; '-' is a pair that cannot happen. */
const TRANSITIONS: Record<ProcessState['kind'], Record<ProcessEvent['kind'], ProcessState['kind'] | '-'>> = {
  created: {
    launch: 'starting',
    fail: 'created',
    start: '-',
    pause: '-',
    frozen: '-',
    thawed: '-',
    exit: 'stopped',
    delete: 'deleted',
  },
  starting: {
    launch: '-',
    fail: 'created',
    start: 'running',
    pause: '-',
    frozen: '-',
    thawed: '-',
    exit: 'stopped',
    delete: '-',
  },
  running: { ...NEVER, pause: 'pausing', exit: 'stopped' },
  pausing: { ...NEVER, frozen: 'paused', thawed: 'running', exit: 'stopped' },
  paused: { ...NEVER, thawed: 'running', exit: 'stopped' },
  stopped: { ...NEVER, frozen: 'stopped', thawed: 'stopped', delete: 'deleted' },
  deleted: { ...NEVER, frozen: 'deleted', thawed: 'deleted' },
}

/** What a client is told; 'ok' is allowed. */
const ANSWERS: Record<ProcessState['kind'], Record<Action, string>> = {
  created: {
    start: 'ok',
    pause: 'cannot pause a created container',
    resume: 'cannot resume a created container',
    exec: 'ok',
    update: 'ok',
    resize: 'ok',
    checkpoint: 'cannot checkpoint a created container',
    delete: 'ok',
  },
  starting: {
    start: 'cannot start a created process',
    pause: 'cannot pause a created container',
    resume: 'cannot resume a created container',
    exec: 'ok',
    update: 'ok',
    resize: 'ok',
    checkpoint: 'cannot checkpoint a created container',
    delete: 'cannot delete a created process',
  },
  running: {
    start: 'cannot start a running process',
    pause: 'ok',
    resume: 'cannot resume a running container',
    exec: 'ok',
    update: 'ok',
    resize: 'ok',
    checkpoint: 'ok',
    delete: 'cannot delete a running process',
  },
  pausing: {
    start: 'cannot start a pausing process',
    pause: 'cannot pause a pausing container',
    resume: 'cannot resume a pausing container',
    exec: 'cannot exec in a pausing state',
    update: 'ok',
    resize: 'ok',
    checkpoint: 'cannot checkpoint a pausing container',
    delete: 'cannot delete a pausing process',
  },
  paused: {
    start: 'cannot start a paused process',
    pause: 'cannot pause a paused container',
    resume: 'ok',
    exec: 'cannot exec in a paused state',
    update: 'ok',
    resize: 'ok',
    checkpoint: 'ok',
    delete: 'cannot delete a paused process',
  },
  stopped: {
    start: 'cannot start a stopped process',
    pause: 'cannot pause a stopped container',
    resume: 'cannot resume a stopped container',
    exec: 'cannot exec in a stopped state',
    update: 'cannot update a stopped container',
    resize: 'cannot resize a stopped container',
    checkpoint: 'cannot checkpoint a stopped container',
    delete: 'ok',
  },
  deleted: {
    start: 'cannot start a deleted process',
    pause: 'cannot pause a deleted container',
    resume: 'cannot resume a deleted container',
    exec: 'cannot exec in a deleted state',
    update: 'cannot update a deleted container',
    resize: 'cannot resize a deleted container',
    checkpoint: 'cannot checkpoint a deleted container',
    delete: 'cannot delete a deleted process: not found',
  },
}

describe('next', () => {
  for (const state of Object.values(STATES)) {
    for (const event of Object.values(EVENTS)) {
      const expected = TRANSITIONS[state.kind][event.kind]
      test(`${state.kind} + ${event.kind} is ${expected === '-' ? 'a bug' : expected}`, () => {
        if (expected === '-') expect(() => next(state, event)).toThrow(`a ${state.kind} process met "${event.kind}"`)
        else expect(next(state, event).kind).toBe(expected)
      })
    }
  }

  test('a start brings the pid, and the pid is kept to the end', () => {
    const running = next(next({ kind: 'created', pid: 0, failed: false }, EVENTS.launch), EVENTS.start)
    expect(running).toEqual({ kind: 'running', pid: 8 })
    const stopped = next(running, EVENTS.exit)
    expect(stopped).toEqual({ kind: 'stopped', pid: 8, exit: OTHER_EXIT })
    expect(next(stopped, EVENTS.delete)).toEqual({ kind: 'deleted', pid: 8, exit: OTHER_EXIT })
  })

  test('what was deleted without ever running reports status 0 at the zero time', () => {
    expect(exitOf(next({ kind: 'created', pid: 0, failed: false }, EVENTS.delete))).toBe(NEVER_RAN)
  })

  test('Wait has its answer when the start of an exec fails, and none while it is tried again', () => {
    const failed = next(next({ kind: 'created', pid: 0, failed: false }, EVENTS.launch), EVENTS.fail)
    expect(finalExit(failed)).toBe(NEVER_RAN)
    expect(finalExit(next(failed, EVENTS.launch))).toBeUndefined()
  })

  test('an init whose start fails still has an exit to come', () => {
    expect(finalExit(next(STATES.starting, EVENTS.fail))).toBeUndefined()
    expect(finalExit(next(next(STATES.starting, EVENTS.fail), EVENTS.exit))).toBe(OTHER_EXIT)
  })

  test('an exit that comes while the cgroup freezes stands', () => {
    const stopped = next(STATES.pausing, EVENTS.exit)
    expect(next(stopped, EVENTS.frozen)).toEqual(stopped)
  })
})

describe('check', () => {
  for (const state of Object.values(STATES)) {
    for (const [action, answer] of Object.entries(ANSWERS[state.kind]) as [Action, string][]) {
      test(`${action} of a ${state.kind} process: ${answer}`, () => {
        expect(allows(state, action)).toBe(answer === 'ok')
        if (answer === 'ok') expect(() => check(state, action)).not.toThrow()
        const code = answer.endsWith(': not found') ? 5 : 2
        if (answer !== 'ok')
          expect(() => check(state, action)).toThrow(expect.objectContaining({ code, message: answer }))
      })
    }
  }
})

describe('what containerd sees', () => {
  test('every state has its number', () => {
    expect(Object.values(STATES).map(statusOf)).toEqual([
      TaskStatus.CREATED,
      TaskStatus.CREATED,
      TaskStatus.RUNNING,
      TaskStatus.PAUSING,
      TaskStatus.PAUSED,
      TaskStatus.STOPPED,
      TaskStatus.STOPPED,
    ])
  })

  test('a live process reports the explicit zero time', () => {
    expect(exitOf(STATES.running)).toEqual({ status: 0, at: { seconds: -62_135_596_800n, nanos: 0 } })
    expect(exitOf(STATES.stopped)).toBe(EXIT)
  })
})
