/**
 * kill -9 of `runts` in the middle of a checkpoint or a restore. A container that was to be saved goes on; what was
 * restored until then is gone after one `delete --force`. Its root file system, which was bound elsewhere meanwhile, is
 * untouched by that.
 */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect } from 'vitest'
import { CHECKPOINT_FAILPOINTS } from '../../runtime/failpoint.ts'
import { allPids } from '../support/census.ts'
import { until } from '../support/command.ts'
import { beginCounting, type Counter, contents } from '../support/counter.ts'
import { buildFailing } from '../support/kill-points.ts'
import { needs } from '../support/needs.ts'
import { FAILING_RUNTS } from '../support/places.ts'
import { type Ended, type Runts, test } from '../support/runts.ts'

beforeAll(buildFailing, 120_000)

const places = (command: string): string[] => CHECKPOINT_FAILPOINTS.filter((name) => name.startsWith(`${command}:`))

/** Runs a command of the test build that kills itself at `place`. */
function crash(runts: Runts, place: string, ...args: string[]): Promise<Ended> {
  return runts.leaving(args, { program: FAILING_RUNTS, env: { RUNTS_FAIL_AT: place } })
}

async function save(runts: Runts, counter: Counter): Promise<void> {
  await runts.ok('checkpoint', '--image-path', counter.images, 'c')
}

/** Waits until no process is in a cgroup of the test: a CRIU whose runtime has gone ends by itself. */
async function untilNoProcess(runts: Runts): Promise<void> {
  await until('no process of the container', () =>
    allPids().every((pid) => !contents(`/proc/${pid}/cgroup`).includes(`/${runts.name}/`)),
  )
}

describe('kill -9 of runts', needs('root', 'busybox', 'gcc', 'make', 'criu'), () => {
  for (const place of places('restore')) {
    test(`at ${place} leaves what one delete --force removes`, async ({ runts }) => {
      const counter = await beginCounting(runts)
      await save(runts, counter)
      const args = ['restore', '-d', '--image-path', counter.images, '-b', counter.bundle, 'c']
      expect(await crash(runts, place, ...args)).toMatchObject({ signal: 'SIGKILL' })
      await runts.ok('delete', '--force', 'c')
      await untilNoProcess(runts)
      expect(existsSync(join(counter.bundle, 'rootfs/bin/busybox'))).toBe(true)
      expect(readdirSync(runts.root)).toEqual([])
      await until('no mount of it', () => !contents('/proc/self/mountinfo').includes(runts.name))
      // the id and the images can be used again
      await runts.leaving(args)
      await counter.goesOn()
    })
  }

  test('at checkpoint:asked lets the container go on, which can be saved again', async ({ runts }) => {
    const counter = await beginCounting(runts)
    const ended = await crash(runts, 'checkpoint:asked', 'checkpoint', '--image-path', counter.images, 'c')
    expect(ended).toMatchObject({ signal: 'SIGKILL' })
    await counter.goesOn()
    await save(runts, counter)
  })

  test('at checkpoint:dumped leaves a stopped container, and whole images', async ({ runts }) => {
    const counter = await beginCounting(runts)
    const ended = await crash(runts, 'checkpoint:dumped', 'checkpoint', '--image-path', counter.images, 'c')
    expect(ended).toMatchObject({ signal: 'SIGKILL' })
    await runts.untilStatus('c', 'stopped')
    await runts.ok('delete', 'c')
    await runts.leaving(['restore', '-d', '--image-path', counter.images, '-b', counter.bundle, 'c'])
    await counter.goesOn()
  })
})
