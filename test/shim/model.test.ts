/** The model that judges the interleavings: what it accepts, and above all what it does not. */
import { describe, expect, test } from 'vitest'
import { type Call, INIT, type Lives, unexplained } from './model.ts'

type Made = Partial<Call> & { kind: Call['kind'] }

/** Calls one after the other, or, inside a list, all at the same time. */
function history(...parts: (Made | Made[])[]): Call[] {
  let moment = 0
  return parts.flatMap((part) => {
    const together = Array.isArray(part) ? part : [part]
    const sent = together.map((made) => ({ process: INIT, code: 0, signal: 9, ...made, sent: ++moment, answered: 0 }))
    for (const call of sent) call.answered = ++moment
    return sent
  })
}

/** Every process runs until it is killed. */
const killed: Lives = { program: () => undefined, exit: () => 137 }
const status = (process: string, value: number): Made => ({ kind: 'state', process, status: value })
const start: Made = { kind: 'start' }
const kill: Made = { kind: 'kill' }
const pause: Made = { kind: 'pause' }
const resume: Made = { kind: 'resume' }

const running = (process: string): Made[] => [
  { kind: 'exec', process },
  { kind: 'start', process },
]

describe('the model accepts', () => {
  test.for<[string, Call[]]>([
    [
      'a whole life',
      history(start, kill, { kind: 'wait', exit: 137 }, { kind: 'delete', exit: 137 }, { kind: 'state', code: 5 }),
    ],
    ['either order of calls that meet', history([start, status(INIT, 1), status(INIT, 2)])],
    [
      'a kill that is not told of yet',
      history(start, kill, status(INIT, 2), { kind: 'wait', exit: 137 }, status(INIT, 3)),
    ],
    ['the deletion of a container that was never started', history({ kind: 'delete', exit: 137 })],
    [
      'an exec that comes too late',
      history(start, { kind: 'exec', process: 'e' }, kill, { kind: 'start', process: 'e', code: 9 }),
    ],
    ['a pause, seen while it is on its way too', history(start, [pause, status(INIT, 5)], status(INIT, 4), resume)],
    [
      'an exec as frozen as its container',
      history(start, ...running('e'), pause, status('e', 4), resume, status('e', 2)),
    ],
    ['a pause that comes too late', history(start, kill, { kind: 'pause', code: 9 }, { kind: 'wait', exit: 137 })],
    ['the end of a paused container', history(start, pause, kill, { kind: 'wait', exit: 137 }, status(INIT, 3))],
  ])('%s', ([, calls]) => {
    expect(unexplained(calls, killed)).toBeUndefined()
  })
})

describe('the model does not accept', () => {
  test.for<[string, Call[]]>([
    ['a start that is forgotten', history(start, status(INIT, 1))],
    ['a second start', history(start, start)],
    ['an end without a cause', history(start, status(INIT, 3))],
    ['the deletion of what runs', history(start, { kind: 'delete', exit: 137 })],
    ['another status than that of the exit event', history(start, kill, { kind: 'wait', exit: 0 })],
    ['a kill after the end was told', history(start, kill, { kind: 'wait', exit: 137 }, kill)],
    [
      'two deletions',
      history([
        { kind: 'delete', exit: 137 },
        { kind: 'delete', exit: 137 },
      ]),
    ],
    ['a Wait that was answered before the end', history(start, { kind: 'wait', exit: undefined })],
    ['one exec id twice', history({ kind: 'exec', process: 'e' }, { kind: 'exec', process: 'e' })],
    [
      'a refusal without a reason',
      history(start, { kind: 'exec', process: 'e' }, { kind: 'start', process: 'e', code: 9 }),
    ],
    ['a pause that is forgotten', history(start, pause, status(INIT, 2))],
    ['a resume that is forgotten', history(start, pause, resume, status(INIT, 4))],
    ['the resuming of what runs', history(start, resume)],
    ['a pause refused without a reason', history(start, { kind: 'pause', code: 9 })],
    ['an exec into a paused container', history(start, pause, ...running('e'))],
    ['the deletion of a paused container', history(start, pause, { kind: 'delete', exit: 137 })],
    ['an init that is not among its pids', history(start, { kind: 'pids', hasInit: false })],
  ])('%s', ([, calls]) => {
    expect(unexplained(calls, killed)).toBeDefined()
  })
})
