/** The writes carried out on plain files: order, missing files, and the way back after a failure. */
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type ApplyTarget, applyWrites } from '../../../runtime/cgroup/apply.ts'
import type { ResourceWrite } from '../../../runtime/cgroup/resources.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'cgroup-apply-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

const put = (file: string, text: string) => writeFileSync(join(dir, file), text)
const get = (file: string) => readFileSync(join(dir, file), 'utf8')
const target = (fresh: boolean): ApplyTarget => ({
  dir: (name) => (name === 'none' ? undefined : dir),
  key: () => 'memory',
  fresh,
})
const write = (file: string, value: string, more: Partial<ResourceWrite> = {}): ResourceWrite => ({
  controller: 'memory',
  file,
  value,
  what: `${file} ${value}`,
  ...more,
})

test('a fresh cgroup is not told what it has already, a used one is', () => {
  put('pids.max', '???')
  applyWrites([write('pids.max', 'max', { initial: 'max' })], target(true))
  expect(get('pids.max')).toBe('???')
  applyWrites([write('pids.max', 'max', { initial: 'max' })], target(false))
  expect(get('pids.max')).toBe('max')
})

test('a missing file is written under its other name, ignored when optional, and named otherwise', () => {
  put('b', '?')
  applyWrites(
    [write('a', '1', { fallback: { file: 'b', value: '2' } }), write('c', '3', { optional: true })],
    target(true),
  )
  expect(get('b')).toBe('2')
  expect(() => applyWrites([write('memory.max', '3')], target(true))).toThrow(
    /^cannot set memory.max 3 on cgroup ".*": the memory controller is not available, or this kernel lacks memory.max$/,
  )
})

test('a controller that is nowhere fails, unless the write is optional', () => {
  expect(() => applyWrites([write('a', '1', { controller: 'none' })], target(true))).toThrow(
    /the none controller is not available/,
  )
  applyWrites([write('a', '1', { controller: 'none', optional: true })], target(true))
})

test('a failure writes back what a used cgroup had, last first', () => {
  put('one', '111')
  put('two', '222')
  expect(() =>
    applyWrites([write('one', 'aaa'), write('two', 'bbb'), write('one', 'ccc'), write('gone', '1')], target(false)),
  ).toThrow('gone')
  expect([get('one'), get('two')]).toEqual(['111', '222'])
})

test('the caller can go back too', () => {
  put('one', '111')
  const undo = applyWrites([write('one', 'aaa')], target(false))
  expect(get('one')).toBe('aaa')
  undo()
  expect(get('one')).toBe('111')
})

test('a symbolic link is not followed', () => {
  put('elsewhere', 'safe')
  symlinkSync(join(dir, 'elsewhere'), join(dir, 'memory.max'))
  expect(() => applyWrites([write('memory.max', '3')], target(true))).toThrow(/ELOOP/)
  expect(get('elsewhere')).toBe('safe')
})

test('a clamped value is refused with the bound', () => {
  put('cpu.shares', '77')
  // The file keeps its last digit, as a kernel that clamps would keep its bound.
  expect(() => applyWrites([write('cpu.shares', '2', { readBack: true })], target(true))).toThrow(
    /the minimum allowed cpu-shares is 27/,
  )
})
