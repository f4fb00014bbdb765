/** The OOM watch of v2 on a plain file, which inotify reports like the kernel's: one call per growth, none without. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { oomKillCount, watchOom } from '../../../runtime/cgroup/oom.ts'
import { until } from '../../support/command.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'cgroup-oom-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

const events = (oomKills: number, high = 0) =>
  writeFileSync(join(dir, 'memory.events'), `high ${high}\noom 9\noom_kill ${oomKills}\noom_group_kill 0\n`)

test('each growth of the counter is reported once, with the count', async () => {
  events(2)
  const counts: number[] = []
  using _watch = watchOom({ '': dir }, (count) => counts.push(count))
  expect(oomKillCount({ '': dir })).toBe(2)
  events(3)
  await until('the first report', () => counts.length === 1)
  events(3, 5)
  events(3, 6)
  events(5)
  await until('the second report', () => counts.length >= 2)
  expect(counts).toEqual([3, 5])
})

test('a disposed watch is silent', async () => {
  events(0)
  const counts: number[] = []
  const other: number[] = []
  watchOom({ '': dir }, (count) => counts.push(count))[Symbol.dispose]()
  using _watch = watchOom({ '': dir }, (count) => other.push(count))
  events(1)
  await until('the other watch', () => other.length === 1)
  expect(counts).toEqual([])
})

test('who wants to know is told when no process is left, after the last growth', async () => {
  events(0)
  const cgroup = (populated: number) => writeFileSync(join(dir, 'cgroup.events'), `populated ${populated}\nfrozen 0\n`)
  cgroup(1)
  const told: (number | string)[] = []
  using _watch = watchOom(
    { '': dir },
    (count) => told.push(count),
    () => told.push('end'),
  )
  cgroup(1)
  events(1)
  cgroup(0)
  await until('the end', () => told.includes('end'))
  events(2)
  cgroup(0)
  expect(told).toEqual([1, 'end'])
})

test('without a memory controller there is nothing to watch', () => {
  watchOom({ '': dir }, () => {})[Symbol.dispose]()
  watchOom({}, () => {})[Symbol.dispose]()
  let ended = false
  watchOom(
    {},
    () => {},
    () => {
      ended = true
    },
  )
  expect(ended).toBe(true)
  expect(oomKillCount({ '': dir })).toBe(0)
})
