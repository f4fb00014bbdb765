/**
 * A container that does nothing costs nothing: its shim does not wake up at all, once V8 has tidied up after the last
 * call.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { describe } from 'vitest'
import { until } from '../support/command.ts'
import { expect, test } from '../support/fake.ts'
import { needs, SLOWNESS } from '../support/needs.ts'

const FULL = process.env['FULL'] === '1'
const SHIMS = FULL ? 20 : 3
/** How long none of them may have run. What runs again and again, but more seldom, is found with FULL=1 only. */
const QUIET_MS = FULL ? 10_000 : 3_000
/** V8 looks after its heap eight and sixteen seconds after the last work, and not again. */
const BOUND_MS = (20_000 + 2 * QUIET_MS) * SLOWNESS

/** What the threads of a process have had of the processor so far, in nanoseconds. */
function processorTime(pid: number): bigint {
  const threads = readdirSync(`/proc/${pid}/task`)
  const times = threads.map((thread) => readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0])
  return times.reduce((sum, time) => sum + BigInt(time ?? 0), 0n)
}

describe('idle shims', needs('root', 'busybox'), () => {
  test(`of ${SHIMS} running containers use no processor time over ${QUIET_MS / 1000} s`, {
    timeout: BOUND_MS + 60_000 * SLOWNESS,
  }, async ({ fake }) => {
    const shims = await Promise.all(Array.from({ length: SHIMS }, () => fake.shim()))
    const tasks = await Promise.all(shims.map((shim) => shim.started()))
    let since = performance.now()
    let last = ''
    await until(
      `${QUIET_MS} ms in which no shim runs`,
      () => {
        const now = shims.map(({ pid }) => processorTime(pid)).join(' ')
        if (now !== last) since = performance.now()
        last = now
        return performance.now() - since >= QUIET_MS
      },
      () => last,
      BOUND_MS,
    )
    for (const task of tasks) expect((await task.remove()).exitStatus).toBe(137)
  })
})
