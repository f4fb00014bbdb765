/**
 * Copying between streams, with real pipes and fifos: nothing is lost, a slow reader stops the writer, nobody waits
 * for ever.
 */
import { createHash } from 'node:crypto'
import {
  closeSync,
  constants,
  createReadStream,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test as base, describe, expect } from 'vitest'
import {
  discardSink,
  FileSink,
  PipeSink,
  pipePair,
  pipeSource,
  Relay,
  SocketSink,
  unreadBytes,
} from '../../../runtime/internal.ts'
import { mkfifo } from '../../../runtime/sys/libc.ts'
import { OutputFifo } from '../../../shim/io/fifo.ts'

const test = base.extend<{ dir: string }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixtures that are needed from this pattern
  dir: async ({}, use) => {
    const dir = mkdtempSync(join(tmpdir(), 'shim-relay-'))
    await use(dir)
    rmSync(dir, { recursive: true })
  },
})

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Bytes without a short period, so that a lost or doubled piece shows. */
function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE((at * 2_654_435_761) % 4_294_967_296, at)
  return bytes
}

const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** A sink that must not fail. */
function fifoSink(path: string): PipeSink {
  return new PipeSink(new OutputFifo(path), {
    onError: (error) => {
      throw error
    },
  })
}

/** Writes all bytes as a process would, and then closes; resolves when they are in the pipe. */
function writeAll(fd: number, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = new Socket({ fd, readable: false, writable: true })
    socket.on('error', reject)
    socket.write(bytes, () => {
      socket.destroy()
      resolve()
    })
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

describe('Relay', () => {
  test('copies everything to a fifo, and its reader sees the end', async ({ dir }) => {
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
