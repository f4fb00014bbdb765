/** The files that the shim leaves for `delete`. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DeleteResponse } from 'ttrpc-ts/containerd'
import { test as base, describe, expect } from 'vitest'
import {
  answerOf,
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
  const record = { pid: 42, exit: { status: 137, at: { seconds: 1_700_000_000n, nanos: 7 } } }

  test('is the answer of delete', ({ bundle }) => {
    writeExit(bundle, record)
    expect(DeleteResponse.decode(readFileSync(join(bundle, 'shim-exit')))).toEqual({
      pid: 42,
      exitStatus: 137,
      exitedAt: record.exit.at,
    })
    expect(readExit(bundle)).toEqual(record)
  })

  test('is understood as the line that a shim from before its update writes', ({ bundle }) => {
    writeFileSync(join(bundle, 'shim-exit'), '42 137 1700000000 7\n')
    expect(readExit(bundle)).toEqual(record)
  })

  test('is nothing when it is missing or torn', ({ bundle }) => {
    expect(readExit(bundle)).toBeUndefined()
    for (const whole of [answerOf(record), Buffer.from('42 137 1700000000 7\n')]) {
      for (let size = 0; size < whole.length; size++) {
        writeFileSync(join(bundle, 'shim-exit'), whole.subarray(0, size))
        expect(readExit(bundle)).toBeUndefined()
      }
    }
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
