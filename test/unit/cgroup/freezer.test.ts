/**
 * What the freezer's files say, on plain files: whether the cgroup itself is to be frozen, and whether all have
 * stopped.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { freezerStateV1, thawV1 } from '../../../runtime/cgroup/v1.ts'
import { freezerStateV2, thawV2 } from '../../../runtime/cgroup/v2.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'cgroup-freezer-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

const write = (name: string, text: string): void => writeFileSync(join(dir, name), `${text}\n`)

test.each([
  ['THAWED', '0', 'thawed'],
  ['FREEZING', '1', 'freezing'],
  ['FROZEN', '1', 'frozen'],
  // by its parent
  ['FREEZING', '0', 'thawed'],
  ['FROZEN', '0', 'thawed'],
])('v1: %s, by itself %s, is %s', (state, self, expected) => {
  write('freezer.state', state)
  write('freezer.self_freezing', self)
  expect(freezerStateV1(dir)).toBe(expected)
})

test.each([
  ['0', 0, 'thawed'],
  ['1', 0, 'freezing'],
  ['1', 1, 'frozen'],
  // by its parent
  ['0', 1, 'thawed'],
])('v2: told %s, stopped %s, is %s', (told, stopped, expected) => {
  write('cgroup.freeze', told)
  write('cgroup.events', `populated 1\nfrozen ${stopped}`)
  expect(freezerStateV2(dir)).toBe(expected)
})

test('a cgroup that is gone is not frozen, and thawed', async () => {
  await thawV1(join(dir, 'gone'), 'gone')
  await thawV2(join(dir, 'gone'), 'gone')
  expect([freezerStateV1(join(dir, 'gone')), freezerStateV2(join(dir, 'gone'))]).toEqual(['thawed', 'thawed'])
})
