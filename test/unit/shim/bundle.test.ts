/** The files that the shim leaves for `delete`. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test as base, describe, expect } from 'vitest'
import {
  clearRecords,
  readExit,
  readRoot,
  readStatus,
  stateRoot,
  writeExit,
  writeRoot,
  writeStatus,
} from '../../../shim/bundle.ts'

const test = base.extend<{ bundle: string }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixtures that are needed from this pattern
  bundle: async ({}, use) => {
    const dir = mkdtempSync(join(tmpdir(), 'shim-bundle-'))
    await use(dir)
    rmSync(dir, { recursive: true })
  },
})

describe('the exit record', () => {
  test('is one line of numbers', ({ bundle }) => {
    const record = { pid: 42, exit: { status: 137, at: { seconds: 1_700_000_000n, nanos: 7 } } }
    writeExit(bundle, record)
    expect(readFileSync(join(bundle, 'shim-exit'), 'utf8')).toBe('42 137 1700000000 7\n')
    expect(readExit(bundle)).toEqual(record)
  })

  test('is nothing when it is missing or torn', ({ bundle }) => {
    expect(readExit(bundle)).toBeUndefined()
    writeFileSync(join(bundle, 'shim-exit'), '42 137 17000')
    expect(readExit(bundle)).toBeUndefined()
  })
})

describe('the status', () => {
  const record = { pid: 42, exit: { status: 3, at: { seconds: 1n, nanos: 2 } } }

  test('is told apart from the record of a clean end', ({ bundle }) => {
    writeStatus(bundle, record)
    expect(readStatus(bundle)).toEqual(record)
    expect(readExit(bundle)).toBeUndefined()
  })

  test('and the record are forgotten when a container begins', ({ bundle }) => {
    writeStatus(bundle, record)
    writeExit(bundle, record)
    clearRecords(bundle)
    expect([readStatus(bundle), readExit(bundle)]).toEqual([undefined, undefined])
    clearRecords(bundle)
  })
})

describe('the state root', () => {
  test('is noted for the process that cleans up', ({ bundle }) => {
    expect(readRoot(bundle)).toBeUndefined()
    writeRoot(bundle, '/run/other/ns')
    expect(readRoot(bundle)).toBe('/run/other/ns')
  })

  test('is the option’s or the default, by namespace', () => {
    expect(stateRoot('/run/other', 'ns')).toBe('/run/other/ns')
    expect(stateRoot('', 'ns')).toBe('/run/containerd/ts/ns')
  })
})
