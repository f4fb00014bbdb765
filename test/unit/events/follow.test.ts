/** The lines of events, in an order that a stand-in for the container decides. */
import { describe, expect, test } from 'vitest'
import { type Followed, followEvents } from '../../../runtime/events/follow.ts'
import type { Exit } from '../../../runtime/sys/reaper.ts'

const EXIT: Exit = { status: 0, at: { seconds: 0n, nanos: 0 } }

/** A container of which the test says what happens. */
function standIn(change: Partial<Followed> = {}) {
  const { promise: exited, resolve: exit, reject: lose } = Promise.withResolvers<Exit>()
  const state = { oomKills: 0, alive: true, watches: 0, onOom: (_count: number): void => {} }
  const container: Followed = {
    id: 'c',
    cgroup: {
      paths: {},
      watchOom(onOom) {
        state.watches++
        state.onOom = onOom
        return {
          [Symbol.dispose]() {
            state.watches--
          },
        }
      },
    },
    init: {
      get alive() {
        return state.alive
      },
      exited,
    },
    stats: async () => {
      throw new Error('no counters')
    },
    oomKillCount: () => state.oomKills,
    async *notifyMemoryPressure() {},
    ...change,
  }
  return { container, state, exit: () => exit(EXIT), lose }
}

const OOM = '{"type":"oom","id":"c"}\n'
const HOUR = 3_600_000

async function linesOf(container: Followed, more: { pressure?: 'low'; intervalMs?: number; errors?: unknown[] } = {}) {
  const onError = (error: unknown) => void more.errors?.push(error)
  const lines: string[] = []
  for await (const line of followEvents(container, { intervalMs: HOUR, onError, ...more })) lines.push(line)
  return lines
}

describe('the lines', () => {
  test('tell of a kill once, whether the kernel says so before the end or not', async () => {
    const { container, state, exit } = standIn()
    const lines = linesOf(container)
    state.onOom(1)
    state.oomKills = 2
    exit()
    expect(await lines).toEqual([OOM, OOM])
    expect(state.watches).toBe(0)
  })

  test('do not tell of kills from before', async () => {
    const { container, state, exit } = standIn()
    state.oomKills = 3
    const lines = linesOf(container)
    exit()
    expect(await lines).toEqual([])
  })

  test('go on where the counters cannot be read once, and say so while the container lives', async () => {
    const { container, state, exit } = standIn()
    const errors: unknown[] = []
    const lines = linesOf(container, { intervalMs: 1, errors })
    await expect.poll(() => errors.length).toBeGreaterThan(1)
    state.alive = false
    exit()
    expect(await lines).toEqual([])
    expect(String(errors[0])).toBe('Error: no counters')
  })

  test('end with the error of a watch that was asked for, or of the end itself', async () => {
    const failing = standIn({
      // biome-ignore lint/correctness/useYield: it fails before
      async *notifyMemoryPressure() {
        throw new Error('no pressure')
      },
    })
    await expect(linesOf(failing.container, { pressure: 'low' })).rejects.toThrow('no pressure')
    expect(failing.state.watches).toBe(0)
    const lost = standIn()
    const lines = linesOf(lost.container)
    lost.lose(new Error('no pidfd'))
    await expect(lines).rejects.toThrow('no pidfd')
  })
})
