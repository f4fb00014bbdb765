/** The fail points of ts-init's test build: a process dies at a named place, without a report. The product has none. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { buildFailing } from '../support/kill-points.ts'
import { needs } from '../support/needs.ts'
import { ROOT } from '../support/places.ts'
import { containerPlan, make, Rootfs, Run, TS_INIT } from './run.ts'

const VARIABLE = 'RUNTS_FAIL_AT'
const FAILPOINTS = 'build/failpoints/lib/containerd-shim-ts/ts-init'

describe('a fail point', needs('root', 'busybox', 'make', 'gcc'), () => {
  beforeAll(() => {
    make(TS_INIT)
    buildFailing()
  }, 240_000)

  /** Runs the test build in place of the product, with the variable set. */
  const fail = (rootfs: Rootfs, at: string): Run => {
    const script = `${VARIABLE}='${at}' exec '${join(ROOT, FAILPOINTS)}'`
    return new Run(containerPlan(rootfs, { args: ['/bin/busybox', 'echo', 'ran'] }), undefined, ['sh', '-c', script])
  }

  test('is in the test build only', () => {
    expect(readFileSync(join(ROOT, FAILPOINTS)).includes(VARIABLE)).toBe(true)
    expect(readFileSync(join(ROOT, 'c', '../build/lib/containerd-shim-ts/ts-init')).includes(VARIABLE)).toBe(false)
  })

  test('that is not met changes nothing', async () => {
    using rootfs = new Rootfs()
    using run = fail(rootfs, 'init:device+x')
    expect(await run.stdout).toBe('ran\n')
  })

  test.for(['init:rootfs', 'init:mount+', 'init:pivot', 'init:credentials+', 'init:exec'])(
    '%s kills the container side without a word',
    async (at) => {
      using rootfs = new Rootfs()
      using run = fail(rootfs, at)
      await run.ended
      expect(await run.stdout).toBe('')
      expect(await run.stderr).toBe('')
      expect(run.records.map(({ type }) => type)).toEqual(['child'])
      const { code, signal } = await run.exit()
      expect(code).toBe(0)
      expect([4, 9]).toContain(signal)
    },
  )

  test('init:clone kills stage 0 before there is anyone else', async () => {
    using rootfs = new Rootfs()
    using run = fail(rootfs, 'init:clone')
    await run.ended
    expect(run.records).toEqual([])
    expect(await run.stage0).toBe(null)
  })
})
