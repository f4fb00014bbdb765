/** Input from what cannot be polled: all of it arrives, and a file's offset tells what was taken. */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test as base, describe, expect } from 'vitest'
import type { OwnedFd } from '../../../runtime/index.ts'
import { duplicate, FileInput, pipePair, unreadBytes } from '../../../runtime/internal.ts'
import { offsetOf, setOffset } from '../../../runtime/sys/fd.ts'
import { until } from '../../support/command.ts'

const BYTES = 1_000_000

const test = base.extend<{ file: number }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixtures that are needed from this pattern
  file: async ({}, use) => {
    const dir = mkdtempSync(join(tmpdir(), 'file-input-'))
    writeFileSync(join(dir, 'file'), Buffer.alloc(BYTES, 'x'))
    const fd = openSync(join(dir, 'file'), 'r')
    await use(fd)
    closeSync(fd)
    rmSync(dir, { recursive: true })
  },
})

const onError = (error: Error): never => {
  throw error
}

/** Reads that many bytes from a pipe, or all until its end. */
async function take(pipe: OwnedFd, bytes: number): Promise<number> {
  const buffer = Buffer.alloc(65_536)
  let sum = 0
  while (sum < bytes) {
    await until('bytes in the pipe', () => unreadBytes(pipe.fd) > 0)
    sum += readSync(pipe.fd, buffer, 0, Math.min(buffer.length, bytes - sum), null)
  }
  return sum
}

describe('input from a file', () => {
  for (const taken of [0, 1, 100_000, BYTES]) {
    test(`of which the reader has taken ${taken} bytes ends with that offset`, async ({ file }) => {
      const pipe = pipePair()
      const input = new FileInput(file, pipe.write, { onError, reader: duplicate(pipe.read.fd) })
      await take(pipe.read, taken)
      if (taken === BYTES) await until('the end', () => pipe.write.fd < 0)
      else await until('as much as fits', () => unreadBytes(pipe.read.fd) > 60_000)
      input.stop()
      expect(offsetOf(file)).toBe(taken)
      pipe.read.close()
    })
  }

  test('counts from where the file stood, and a small rest that is all in the pipe belongs to whoever comes next', async ({
    file,
  }) => {
    setOffset(file, BYTES - 10)
    const pipe = pipePair()
    const input = new FileInput(file, pipe.write, { onError, reader: duplicate(pipe.read.fd) })
    await until('the end of the file', () => pipe.write.fd < 0)
    await take(pipe.read, 4)
    input.stop()
    expect(offsetOf(file)).toBe(BYTES - 6)
    pipe.read.close()
  })

  test('ends when its reader has gone, and keeps what nobody has read', async ({ file }) => {
    const pipe = pipePair()
    const input = new FileInput(file, pipe.write, { onError, reader: duplicate(pipe.read.fd) })
    await take(pipe.read, 1000)
    await until('a full pipe', () => unreadBytes(pipe.read.fd) > 60_000)
    pipe.read.close()
    input.stop()
    expect(offsetOf(file)).toBe(1000)
  })

  test('that cannot be read says why, and its reader sees the end', async () => {
    const folder = openSync('/', 'r')
    const errors: string[] = []
    const pipe = pipePair()
    const input = new FileInput(folder, pipe.write, { onError: (error) => errors.push(error.message) })
    await until('an error', () => errors.length > 0)
    expect(errors).toEqual([expect.stringContaining('EISDIR')])
    expect(readSync(pipe.read.fd, Buffer.alloc(1))).toBe(0)
    input.stop()
    pipe.read.close()
    closeSync(folder)
  })
})
