/** The one bounded read of a file: what is read whole, what in part, and what not at all. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test as base, expect } from 'vitest'
import { type FileContent, readUpTo } from '../../../runtime/sys/regular-file.ts'

const test = base.extend<{ folder: string }>({
  folder: async ({ task: _task }, use) => {
    const folder = mkdtempSync(join(tmpdir(), 'regular-file-'))
    await use(folder)
    rmSync(folder, { recursive: true })
  },
})

const textOf = (found: FileContent): string =>
  found.kind === 'irregular' ? found.kind : `${found.kind}: ${found.bytes}`

test('a file of exactly the limit is read whole, a larger one has as much of a head as was asked for', ({ folder }) => {
  const path = join(folder, 'file')
  writeFileSync(path, '0123456789')
  expect(textOf(readUpTo(path, { limitBytes: 10 }))).toBe('whole: 0123456789')
  expect(textOf(readUpTo(path, { limitBytes: 9 }))).toBe('head: ')
  expect(textOf(readUpTo(path, { limitBytes: 9, headBytes: 4 }))).toBe('head: 0123')
})

test('a file that has more than its size says keeps the limit too', () => {
  // the size of every file of procfs is 0
  const whole = readUpTo('/proc/self/mountinfo', { limitBytes: 2 ** 20 })
  const head = readUpTo('/proc/self/mountinfo', { limitBytes: 12, headBytes: 5 })
  expect(whole.kind).toBe('whole')
  expect(textOf(head)).toBe(`head: ${textOf(whole).slice('whole: '.length, 'whole: '.length + 5)}`)
})

test('a fifo without a writer and a device without an end are not read', ({ folder }) => {
  const fifo = join(folder, 'fifo')
  execFileSync('mkfifo', [fifo])
  expect(readUpTo(fifo, { limitBytes: 10 })).toEqual({ kind: 'irregular' })
  expect(readUpTo('/dev/zero', { limitBytes: 10 })).toEqual({ kind: 'irregular' })
})

test('a symlink is followed unless that is refused', ({ folder }) => {
  const [file, link] = [join(folder, 'file'), join(folder, 'link')]
  writeFileSync(file, 'x')
  symlinkSync(file, link)
  expect(textOf(readUpTo(link, { limitBytes: 10 }))).toBe('whole: x')
  expect(() => readUpTo(link, { limitBytes: 10, noFollow: true })).toThrow('ELOOP')
})
