/** The same thing many times: nothing may grow. The leak census after each test does most of the looking. */
import { readdirSync, readFileSync } from 'node:fs'
import { describe } from 'vitest'
import { expect, seconds, test } from '../support/containerd.ts'
import { needs, SLOWNESS } from '../support/needs.ts'

const RUNS = SLOWNESS > 1 ? 10 : 200
const EXECS = SLOWNESS > 1 ? 20 : 500

describe('soak', needs('root', 'containerd', 'busybox'), () => {
  test(`${RUNS} x ctr run --rm true in a row leave nothing`, { timeout: seconds(200) }, async ({ ct }) => {
    for (let i = 0; i < RUNS; i++) {
      const result = await ct.run([], ['true'])
      expect(result, `run ${i}: ${result.stderr}`).toMatchObject({ code: 0 })
    }
  })

  test('sixty failing runs in a row leave nothing', { timeout: seconds(60) }, async ({ ct }) => {
    for (let i = 0; i < (SLOWNESS > 1 ? 3 : 60); i++) expect((await ct.run([], ['/no/such/program'])).code).not.toBe(0)
  })

  test(`${EXECS} execs leave the shim with the descriptors, threads and children that it had`, {
    timeout: seconds(200),
  }, async ({ ct }) => {
    const id = await ct.detached()
    const shim = ct.shimPid(id)
    const status = (): { fds: number; threads: number; rssKib: number } => ({
      fds: readdirSync(`/proc/${shim}/fd`).length,
      threads: readdirSync(`/proc/${shim}/task`).length,
      rssKib: Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${shim}/status`, 'utf8'))![1]),
    })
    const some = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        const result = await ct.exec(id, ['payload', 'exit', '3'])
        expect(result, `exec ${i}: ${result.stderr}`).toMatchObject({ code: 3 })
      }
    }
    await some(20)
    const before = status()
    await some(EXECS)
    const after = status()
    expect(after.fds).toBe(before.fds)
    expect(after.threads).toBeLessThanOrEqual(before.threads + 2)
    expect(after.rssKib).toBeLessThan(before.rssKib + 20_000)
  })
})
