/** Copying between streams, with real pipes and files: nothing is lost, and nobody waits for ever. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test as base, describe, expect } from 'vitest'
import { discardSink, FileSink, pipePair, pipeSource, Relay, SocketSink } from '../../../runtime/internal.ts'
import { digest, pattern, turn, writeAll } from '../../support/bytes.ts'

const test = base.extend<{ dir: string }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixtures that are needed from this pattern
  dir: async ({}, use) => {
    const dir = mkdtempSync(join(tmpdir(), 'shim-relay-'))
    await use(dir)
    rmSync(dir, { recursive: true })
  },
})

describe('Relay', () => {
  test('appends to a file', async ({ dir }) => {
    const path = join(dir, 'new/folder/log')
    const { read, write } = pipePair()
    const failures: Error[] = []
    const sink = FileSink.open(path, { make: true, onError: (error) => failures.push(error) })
    const relay = new Relay(pipeSource(read.take()), sink)
    const bytes = pattern(3 * 1024 * 1024 + 1)
    await Promise.all([writeAll(write.take(), bytes), relay.done])
    expect(digest(readFileSync(path))).toBe(digest(bytes))
    expect(statSync(path).mode & 0o777).toBe(0o644)
    expect(failures).toEqual([])
  })

  test('goes on reading when the file cannot be written', async () => {
    const { read, write } = pipePair()
    const failures: string[] = []
    const sink = FileSink.open('/dev/full', { make: false, onError: (error) => failures.push(error.message) })
    const relay = new Relay(pipeSource(read.take()), sink)
    await Promise.all([writeAll(write.take(), pattern(1024 * 1024)), relay.done])
    expect(failures).toEqual(['cannot write to "/dev/full": ENOSPC: no space left on device'])
  })

  test('reads what nobody wants', async () => {
    const { read, write } = pipePair()
    const relay = new Relay(pipeSource(read.take()), discardSink())
    await Promise.all([writeAll(write.take(), pattern(1024 * 1024)), relay.done])
  })

  test('copies into a process’s stdin, and ends it', async () => {
    const from = pipePair()
    const to = pipePair()
    const sink = new SocketSink(new Socket({ fd: to.write.take(), readable: false, writable: true }))
    const relay = new Relay(pipeSource(from.read.take()), sink)
    const bytes = pattern(1024 * 1024)
    const got: Buffer[] = []
    const reader = new Socket({ fd: to.read.take(), readable: true, writable: false })
    reader.on('data', (chunk) => got.push(chunk))
    const ended = new Promise((resolve) => reader.once('end', resolve))
    await Promise.all([writeAll(from.write.take(), bytes), relay.done, ended])
    expect(digest(Buffer.concat(got))).toBe(digest(bytes))
  })

  test('close() ends a relay whose pipe somebody holds for ever', async () => {
    const { read, write } = pipePair()
    const relay = new Relay(pipeSource(read.take()), discardSink())
    writeSync(write.fd, 'x')
    await turn()
    relay.close()
    await relay.done
    write.close()
  })
})
