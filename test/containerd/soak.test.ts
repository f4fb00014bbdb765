/**
 * The same thing many times, eight at a time: nothing may fail, grow, get lost or change places. The leak census
 * after each test does most of the looking, `ctr events` the rest. FULL=1 does it as often as a week on a busy host
 * would, with the machine's own containerd.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { describe } from 'vitest'
import { until } from '../support/command.ts'
import { type Containers, expect, seconds, test } from '../support/containerd.ts'
import type { EventRecorder, RecordedEvent } from '../support/daemon.ts'
import { needs, SLOWNESS } from '../support/needs.ts'
import { CONTAINERD_RELEASE } from '../support/places.ts'

const FULL = process.env['FULL'] === '1' && CONTAINERD_RELEASE === ''
const RUNS = FULL ? 2_000 : SLOWNESS > 1 ? 10 : 100
const EXECS = FULL ? 5_000 : SLOWNESS > 1 ? 20 : 200
/** Execs after which the shim's memory is what it will be: V8 keeps a heap that it has once needed. */
const WARM_UP = FULL ? 1_000 : 40
const FAILING = SLOWNESS > 1 ? 3 : 30
const IN_FLIGHT = 8
const MIB_PER_1000_EXECS = 2
/**
 * What a heap may be larger at one look than at another, without anything having been kept: much, where the looks are
 * close.
 */
const HEAP_SWING_MIB = FULL ? 0 : 8

/** Does a thing `count` times, so many at once. */
async function many(count: number, one: (index: number) => Promise<void>): Promise<void> {
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < count) await one(next++)
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker))
}

/** Events as lines, by what they are about: a container, or an exec of it. */
function linesOf(events: readonly RecordedEvent[], nameOf: (event: RecordedEvent) => string): Map<string, string[]> {
  const lines = new Map<string, string[]>()
  for (const event of events) {
    const name = nameOf(event)
    const { exit_status: status } = event.body
    const line = event.topic === '/tasks/exit' ? `exit ${status ?? 0}` : event.topic.replace('/tasks/', '')
    lines.set(name, [...(lines.get(name) ?? []), line])
  }
  return lines
}

async function recorded(ct: Containers, work: (events: EventRecorder) => Promise<void>): Promise<void> {
  const events = await ct.daemon.events()
  try {
    await work(events)
  } finally {
    await events.stop()
  }
}

describe('soak', needs('root', 'containerd', 'busybox'), () => {
  test(
    `${RUNS} x ctr run --rm leave nothing, and their events are whole`,
    { timeout: seconds(FULL ? 1_800 : 200) },
    ({ ct }) =>
      recorded(ct, async (events) => {
        const ids: string[] = []
        await many(RUNS, async (index) => {
          const id = ct.id()
          ids.push(id)
          const result = await ct.run([], ['payload', 'exit', String(index % 250)], { id })
          expect(result, `run ${index}: ${result.stderr}`).toMatchObject({ code: index % 250 })
        })
        for (const id of ids.slice(-IN_FLIGHT)) await events.until(id, '/tasks/delete')
        const lines = linesOf(events.all(), ({ body }) => String(body['container_id']))
        expect([...lines.keys()].sort()).toEqual([...ids].sort())
        for (const [id, seen] of lines) {
          expect({ id, seen }).toEqual({ id, seen: ['create', 'start', expect.stringMatching(/^exit \d+$/), 'delete'] })
        }
      }),
  )

  test(`${FAILING} failing runs leave nothing`, { timeout: seconds(60) }, async ({ ct }) => {
    await many(FAILING, async () => {
      expect((await ct.run([], ['/no/such/program'])).code).not.toBe(0)
    })
  })

  test(
    `${EXECS} execs are told in order, and leave the shim as it was`,
    { timeout: seconds(FULL ? 2_400 : 200) },
    ({ ct }) =>
      recorded(ct, async (events) => {
        const id = await ct.detached()
        const shim = ct.shimPid(id)
        const look = (): { fds: number; threads: number; mib: number } => ({
          fds: readdirSync(`/proc/${shim}/fd`).length,
          threads: readdirSync(`/proc/${shim}/task`).length,
          mib: Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${shim}/status`, 'utf8'))![1]) / 1024,
        })
        const some = (from: number, count: number): Promise<void> =>
          many(count, async (index) => {
            const name = `e${from + index}`
            const result = await ct.ctr('task', 'exec', '--exec-id', name, id, 'payload', 'exit', '3')
            expect(result, `exec ${name}: ${result.stderr}`).toMatchObject({ code: 3 })
          })
        await some(0, WARM_UP)
        const before = look()
        await some(WARM_UP, EXECS)
        const after = look()
        expect(after.fds).toBe(before.fds)
        expect(after.threads).toBeLessThanOrEqual(before.threads + 2)
        // what counts is what is kept: V8 returns what it only needed for the work some seconds after it
        const grown = (): number => look().mib - before.mib
        const bound = HEAP_SWING_MIB + (MIB_PER_1000_EXECS * EXECS) / 1_000
        await until(
          `the shim to have grown by less than ${bound} MiB`,
          () => grown() < bound,
          () => `it grew by ${grown()} MiB`,
        )
        const names = Array.from({ length: WARM_UP + EXECS }, (_, index) => `e${index}`)
        for (const name of names.slice(-IN_FLIGHT))
          await events.until(id, '/tasks/exit', ({ body }) => body['id'] === name)
        const lines = linesOf(events.of(id), ({ body }) => String(body['exec_id'] ?? body['id'] ?? ''))
        for (const name of names)
          expect({ name, seen: lines.get(name) }).toEqual({ name, seen: ['exec-added', 'exec-started', 'exit 3'] })
      }),
  )
})
