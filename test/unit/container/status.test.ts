/** Every combination of the facts, and the status that follows. */
import { expect, test } from 'vitest'
import { refusal, statusOf } from '../../../runtime/container/status.ts'

const FREEZER = ['thawed', 'freezing', 'frozen'] as const

test('an init that has ended is stopped, a freezer comes before the fifo', () => {
  const rows = [true, false].flatMap((alive) =>
    FREEZER.flatMap((state) =>
      [true, false].map((fifo) => statusOf({ alive, freezer: () => state, waiting: () => fifo })),
    ),
  )
  const dead = Array.from({ length: 6 }, () => 'stopped')
  expect(rows).toEqual(['created', 'running', 'pausing', 'pausing', 'paused', 'paused', ...dead])
})

test('a refusal tells the status that it is about', () => {
  const error = refusal('paused', 'cannot')
  expect(error).toMatchObject({ code: 'FailedPrecondition', detail: { source: 'state', status: 'paused' } })
})
