/** OOM kills of a cgroup that goes before anybody has read them, by the count of the slice above. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { UnitOomCount } from '../../../runtime/cgroup/unit-oom.ts'

let slice: string
beforeEach(() => {
  slice = mkdtempSync(join(tmpdir(), 'slice-'))
  mkdirSync(join(slice, 'own'))
})
afterEach(() => rmSync(slice, { recursive: true }))

function set(own: number | undefined, above: number): void {
  writeFileSync(join(slice, 'memory.events'), `oom 9\noom_kill ${above}\n`)
  if (own === undefined) rmSync(join(slice, 'own'), { recursive: true })
  else writeFileSync(join(slice, 'own/memory.events'), `oom 9\noom_kill ${own}\n`)
}

test('a cgroup that is there counts for itself, whatever others in the slice have', () => {
  const count = new UnitOomCount(join(slice, 'own'))
  set(0, 5)
  expect(count.read()).toBe(0)
  set(1, 8)
  expect(count.read()).toBe(1)
})

test('what the slice has counted since the last look is of the cgroup that has gone since', () => {
  const count = new UnitOomCount(join(slice, 'own'))
  set(1, 5)
  expect(count.read()).toBe(1)
  set(undefined, 6)
  expect([count.read(), count.read()]).toEqual([2, 2])
})

test('a cgroup that has gone without a kill has none more', () => {
  const count = new UnitOomCount(join(slice, 'own'))
  set(1, 5)
  expect(count.read()).toBe(1)
  set(undefined, 5)
  expect(count.read()).toBe(1)
})

test('nothing is known of a cgroup that was never seen', () => {
  set(undefined, 5)
  expect(new UnitOomCount(join(slice, 'own')).read()).toBe(0)
})
