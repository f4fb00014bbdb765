/**
 * OOM kills as the holder of a container sees them: each is put down to one process, and a stream of counts that
 * ends.
 */
import { getEventListeners } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Cgroup } from '../../../runtime/cgroup/cgroup.ts'
import { oomKillCount, watchOom } from '../../../runtime/cgroup/oom.ts'
import { OomLedger, oomCounts, possiblyOomKilled } from '../../../runtime/container/oom.ts'
import { RuntimeError } from '../../../runtime/errors.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'container-oom-'))
  kills(0)
  writeFileSync(join(dir, 'cgroup.events'), 'populated 1\n')
})
afterEach(() => rmSync(dir, { recursive: true }))

const kills = (count: number): void => writeFileSync(join(dir, 'memory.events'), `oom_kill ${count}\n`)

/** The part of a v2 cgroup that counts, on plain files. */
function counting(): Cgroup {
  const part: Pick<Cgroup, 'oomKillCount' | 'watchOom'> = {
    oomKillCount: () => oomKillCount({ '': dir }),
    watchOom: (onOom, onEnd) => watchOom({ '': dir }, onOom, onEnd),
  }
  return part as Cgroup
}

test('each kill is put down to one process', () => {
  const { claim } = new OomLedger(counting())
  expect(claim()).toBe(false)
  kills(2)
  expect([claim(), claim(), claim()]).toEqual([true, true, false])
})

test('the counts come in order, and end when nobody is left', async () => {
  const counts = oomCounts(counting())
  const first = counts.next()
  kills(1)
  expect(await first).toEqual({ done: false, value: 1 })
  const second = counts.next()
  kills(3)
  writeFileSync(join(dir, 'cgroup.events'), 'populated 0\n')
  expect(await second).toEqual({ done: false, value: 3 })
  expect(await counts.next()).toEqual({ done: true, value: undefined })
})

test('the counts end when the caller says so', async () => {
  const stop = new AbortController()
  const counts = oomCounts(counting(), stop.signal)
  const pending = counts.next()
  stop.abort()
  expect((await pending).done).toBe(true)
})

test('a failed set-up says that memory may have been why, and stays what it was', () => {
  const detail = { source: 'none' } as const
  const error = possiblyOomKilled(new RuntimeError('FailedPrecondition', 'the process ended', { detail }))
  expect(error).toMatchObject({
    code: 'FailedPrecondition',
    message: 'the process ended (possibly OOM-killed)',
    detail,
  })
  const bug = new Error('a bug')
  expect(possiblyOomKilled(bug)).toBe(bug)
})

test('a watch that cannot begin leaves nothing on the signal', async () => {
  const failing: Pick<Cgroup, 'watchOom'> = {
    watchOom: () => {
      throw new RuntimeError('Internal', 'too many watches')
    },
  }
  const { signal } = new AbortController()
  await expect(oomCounts(failing as Cgroup, signal).next()).rejects.toThrow('too many watches')
  expect(getEventListeners(signal, 'abort')).toEqual([])
})
