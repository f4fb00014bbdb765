/** The filters on disk: found again, never half written, never many. */
import { appendFileSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { readCached, writeCached } from '../../../runtime/seccomp/cache.ts'

const filter = { flags: 2, filter: Buffer.from('12345678') }
let root: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'filters-'))
})
afterEach(() => rmSync(root, { recursive: true }))

test('a filter is found again, and one that was tampered with is not', () => {
  const path = join(root, 'below', 'key')
  writeCached(path, filter)
  expect(readCached(path)).toEqual(filter)
  appendFileSync(path, 'x')
  expect(readCached(path)).toBeUndefined()
})

test('of many the older ones go, with what a killed writer has left', () => {
  appendFileSync(join(root, 'key.left'), 'half')
  for (let i = 0; i < 300; i++) writeCached(join(root, `key${i}`), filter)
  expect(readdirSync(root).length).toBeLessThanOrEqual(128)
  expect(readCached(join(root, 'key299'))).toEqual(filter)
  expect(readdirSync(root)).not.toContain('key.left')
})
