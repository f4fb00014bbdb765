/** Directories with their parents, where file systems refuse them in their own ways. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { makeDirectories } from '../../../runtime/sys/directory.ts'

test('a directory is made with its parents, and again without complaint', () => {
  const folder = mkdtempSync(join(tmpdir(), 'directory-'))
  const path = join(folder, 'a/b/c')
  for (let i = 0; i < 2; i++) makeDirectories(path, 0o750)
  expect(statSync(path).mode & 0o777).toBe(0o750)
  writeFileSync(join(folder, 'file'), '')
  expect(() => makeDirectories(join(folder, 'file/below'), 0o750)).toThrow('ENOTDIR')
  rmSync(folder, { recursive: true })
})

test('a file system that refuses with ENOENT gets no endless attempts', () => {
  expect(() => makeDirectories('/proc/self/nothing/below', 0o700)).toThrow('ENOENT')
})
