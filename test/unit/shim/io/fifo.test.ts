/**
 * The fifos of a client's output, as the end of a relay and by themselves: nothing is lost, a slow reader stops the
 * writer, and a client may come late.
 */
import {
  closeSync,
  constants,
  createReadStream,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test as base, describe, expect } from 'vitest'
import { PipeSink, pipePair, pipeSource, Relay, unreadBytes } from '../../../../runtime/internal.ts'
import { mkfifo } from '../../../../runtime/sys/libc.ts'
import { OutputFifo } from '../../../../shim/io/fifo.ts'
import { digest, pattern, turn, writeAll } from '../../../support/bytes.ts'

const test = base.extend<{ dir: string }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixtures that are needed from this pattern
  dir: async ({}, use) => {
    const dir = mkdtempSync(join(tmpdir(), 'shim-relay-'))
    await use(dir)
    rmSync(dir, { recursive: true })
  },
})

/** A sink that must not fail. */
function fifoSink(path: string): PipeSink {
  return new PipeSink(new OutputFifo(path), {
    onError: (error) => {
      throw error
    },
  })
}

/** Reads a fifo to its end, like a client. */
async function readAll(path: string, pauseMs = 0): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of createReadStream(path)) {
    chunks.push(chunk as Buffer)
    if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs))
  }
  return Buffer.concat(chunks)
}

describe('a relay to a fifo', () => {
  test('copies everything, and the reader sees the end', async ({ dir }) => {
    const path = join(dir, 'out')
    mkfifo(path, 0o600)
    const { read, write } = pipePair()
    const relay = new Relay(pipeSource(read.take()), fifoSink(path))
    const bytes = pattern(8 * 1024 * 1024)
    const [got] = await Promise.all([readAll(path), writeAll(write.take(), bytes), relay.done])
    expect(got.length).toBe(bytes.length)
    expect(digest(got)).toBe(digest(bytes))
  })

  test('loses nothing to a slow reader', async ({ dir }) => {
    const path = join(dir, 'out')
    mkfifo(path, 0o600)
    const { read, write } = pipePair()
    const relay = new Relay(pipeSource(read.take()), fifoSink(path))
    const bytes = pattern(2 * 1024 * 1024)
    const [got] = await Promise.all([readAll(path, 2), writeAll(write.take(), bytes), relay.done])
    expect(digest(got)).toBe(digest(bytes))
  })

  test('a reader that does not read stops the writer', async ({ dir }) => {
    const path = join(dir, 'out')
    mkfifo(path, 0o600)
    const { read, write } = pipePair()
    const relay = new Relay(pipeSource(read.take()), fifoSink(path))
    let written = 0
    const socket = new Socket({ fd: write.take(), readable: false, writable: true })
    const chunk = pattern(64 * 1024)
    const more = () => {
      socket.write(chunk, () => {
        written += chunk.length
        if (!socket.destroyed) more()
      })
    }
    more()
    for (let before = -1; before !== written; ) {
      before = written
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    // the fifo, one kept chunk, the pipe
    expect(written).toBeLessThanOrEqual(4 * 64 * 1024)
    socket.destroy()
    relay.close()
    await relay.done
  })

  test('many small writes fill a fifo by their bytes, not by their number', async ({ dir }) => {
    const path = join(dir, 'out')
    mkfifo(path, 0o600)
    const { read, write } = pipePair()
    const fifo = new OutputFifo(path)
    const relay = new Relay(pipeSource(read.take()), new PipeSink(fifo, { onError: () => {} }))
    for (let i = 0; i < 2000; i++) {
      writeSync(write.fd, 'ten bytes\n')
      if (i % 3 === 0) await turn()
    }
    // a burst with a page's worth before it is moved, and joins them
    writeSync(write.fd, pattern(16 * 1024))
    await expect.poll(() => unreadBytes(fifo.fd)).toBe(20_000 + 16 * 1024)
    write.close()
    const [got] = await Promise.all([readAll(path), relay.done])
    expect(digest(got)).toBe(digest(Buffer.concat([Buffer.from('ten bytes\n'.repeat(2000)), pattern(16 * 1024)])))
  })

  test('keeps the order of writes of every size, with a reader that comes and goes in between', async ({ dir }) => {
    const path = join(dir, 'out')
    mkfifo(path, 0o600)
    const { read, write } = pipePair()
    const relay = new Relay(pipeSource(read.take()), fifoSink(path))
    const bytes = pattern(4 * 1024 * 1024)
    const writing = (async () => {
      const socket = new Socket({ fd: write.take(), readable: false, writable: true })
      // sizes around a page, around a pipe, and in between
      const sizes = [1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 100, 131_072, 7, 20_000]
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const piece = bytes.subarray(at, at + sizes[i % sizes.length]!)
        await new Promise((resolve) => socket.write(piece, resolve))
        at += piece.length
        if (i % 3 === 0) await turn()
      }
      socket.destroy()
    })()
    const got: Buffer[] = []
    for (let total = 0; total < bytes.length; ) {
      const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
      for (let i = 0; i < 5; i++) {
        await turn()
        const buffer = Buffer.alloc(50_000)
        let count = 0
        try {
          count = readSync(fd, buffer)
        } catch {
          // EAGAIN: nothing there yet
        }
        got.push(buffer.subarray(0, count))
        total += count
      }
      closeSync(fd)
    }
    await Promise.all([writing, relay.done])
    expect(digest(Buffer.concat(got))).toBe(digest(bytes))
  })
})

describe('OutputFifo', () => {
  test('a process gets a blocking description, ours does not block', ({ dir }) => {
    const path = join(dir, 'out')
    mkfifo(path, 0o600)
    const fifo = new OutputFifo(path)
    const writer = fifo.openWriter()
    const flags = (fd: number) =>
      Number.parseInt(/^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '', 8)
    expect(flags(fifo.fd) & constants.O_NONBLOCK).not.toBe(0)
    expect(flags(writer) & constants.O_NONBLOCK).toBe(0)
    expect(flags(writer) & constants.O_WRONLY).not.toBe(0)
    closeSync(writer)
    fifo.close()
  })

  test('a client that opens its end only after the exit still gets everything', async ({ dir }) => {
    const path = join(dir, 'out')
    mkfifo(path, 0o600)
    const fifo = new OutputFifo(path)
    const writer = fifo.openWriter()
    writeSync(writer, 'last words')
    closeSync(writer)
    fifo.release()
    await turn()
    expect((await readAll(path)).toString()).toBe('last words')
    await expect.poll(() => fifo.fd).toBe(-1)
  })

  test('a client that is there sees the end at once', async ({ dir }) => {
    const path = join(dir, 'out')
    mkfifo(path, 0o600)
    const fifo = new OutputFifo(path)
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    fifo.release()
    expect(fifo.fd).toBe(-1)
    closeSync(reader)
  })
})
