/**
 * The runtime's half of the conversation with ts-init, over a real socket whose other end is the test.
 * It tries what a killed or broken helper may send. All other tests that start containers cover a sane one.
 */
import { closeSync, readSync, writeSync } from 'node:fs'
import { describe, expect, onTestFinished, test } from 'vitest'
import { LIMITS, RECORDS, SYNC_POINTS } from '../../../proto/init-plan.ts'
import { Handshake, type HandshakeEvents } from '../../../runtime/init/handshake.ts'
import { silentLogger } from '../../../runtime/logger.ts'
import { pollReadable } from '../../../runtime/sys/pids.ts'
import { socketPair } from '../../../runtime/sys/socket.ts'

const PID = 4242

function record({ type }: { type: number }, ...words: number[]): Buffer {
  return Buffer.from(new Uint32Array([type, 4 * words.length, ...words]).buffer)
}

/** A conversation, and what the helper says in it. */
class Conversation {
  readonly handshake: Handshake
  reaped = false
  readonly served: string[] = []
  readonly #helper: number

  constructor(events: Partial<HandshakeEvents> = {}) {
    const { ours, theirs } = socketPair()
    this.#helper = theirs.take()
    const serve =
      (name: string) =>
      async ({ pid }: { pid: number }, fd?: number): Promise<void> =>
        void this.served.push([name, pid, ...(fd === undefined || fd < 0 ? [] : [fd])].join(' '))
    const all: HandshakeEvents = {
      onChild: (pid) => void this.served.push(`child ${pid}`),
      onConsole: () => {},
      onClosed: () => {},
      isReaped: () => this.reaped,
      onIdMaps: serve('maps'),
      onNetDevices: serve('devices'),
      onListener: serve('listener'),
      ...events,
    }
    this.handshake = new Handshake(ours, { ops: [], events: all, logger: silentLogger })
    onTestFinished(() => this.handshake.release())
  }

  says(...bytes: Uint8Array[]): this {
    writeSync(this.#helper, Buffer.concat(bytes))
    return this
  }

  /** Waits until the runtime has nothing more to say. */
  async hungUp(): Promise<void> {
    const until = performance.now() + 10_000
    // a read of a socket whose peer has shut down is at its end at once; before that it would wait, so it is asked by
    // a poll
    while ((await pollReadable([this.#helper], 100)).length === 0)
      if (performance.now() > until) throw new Error('the runtime does not hang up')
    expect(readSync(this.#helper, Buffer.alloc(1))).toBe(0)
  }

  /** Every process that held the other end has ended. */
  ends(): this {
    closeSync(this.#helper)
    return this
  }
}

describe('records', () => {
  test('may come in any pieces', async () => {
    const conversation = new Conversation()
    const bytes = Buffer.concat([record(RECORDS.child, PID), record(RECORDS.listener, 7), record(RECORDS.ready)])
    for (const byte of bytes) {
      conversation.says(Uint8Array.of(byte))
      await new Promise(setImmediate)
    }
    await conversation.handshake.ready
    expect(conversation.served).toEqual([`child ${PID}`, `listener ${PID} 7`])
    conversation.ends()
  })

  test.each([
    ['an unknown type', record({ type: 99 }, 1), 'init helper sent a record of unknown type 99'],
    [
      'more bytes than any has',
      Buffer.from(new Uint32Array([RECORDS.log.type, LIMITS.RECORD_MAX_BYTES + 1]).buffer),
      `init helper sent a record of ${LIMITS.RECORD_MAX_BYTES + 1} bytes`,
    ],
    [
      'a stop before there is a process',
      record(RECORDS.listener, 7),
      'init helper stopped where nobody waits for it (onListener)',
    ],
    [
      'a stop that nobody serves',
      Buffer.concat([record(RECORDS.child, PID), record(RECORDS.reached, SYNC_POINTS.RUNTIME_HOOKS)]),
      'init helper stopped where nobody waits for it (onRuntimeHooks)',
    ],
    [
      'a stop that does not exist',
      Buffer.concat([record(RECORDS.child, PID), record(RECORDS.reached, 99)]),
      'init helper stopped where nobody waits for it (unknown point)',
    ],
  ])('with %s end the conversation', async (_what, bytes, message) => {
    const { handshake } = new Conversation().says(bytes).ends()
    await expect(handshake.ready).rejects.toMatchObject({ code: 'Internal', message })
    await expect(handshake.executed).rejects.toMatchObject({ code: 'Internal', message })
  })

  test.each([
    ['id maps', record(RECORDS.reached, SYNC_POINTS.ID_MAPS)],
    ['network devices', record(RECORDS.net_socket, 7)],
    ['a listener', record(RECORDS.listener, 7)],
  ])(
    'of a process that was reaped meanwhile, for %s, are answered by hanging up: its pid may be of another',
    async (_what, stop) => {
      const conversation = new Conversation().says(record(RECORDS.child, PID), stop)
      conversation.reaped = true
      await conversation.hungUp()
      conversation.ends()
      await expect(conversation.handshake.ready).rejects.toMatchObject({ code: 'FailedPrecondition' })
      expect(conversation.served).toEqual([`child ${PID}`])
    },
  )

  test('of a failure are read also behind such a stop', async () => {
    const failed = Buffer.concat([Buffer.from(new Uint32Array([RECORDS.failed.type, 12, 0xffffffff, 12, 0]).buffer)])
    const conversation = new Conversation().says(record(RECORDS.child, PID), record(RECORDS.listener, 7))
    conversation.reaped = true
    await conversation.hungUp()
    conversation.says(failed).ends()
    await expect(conversation.handshake.ready).rejects.toMatchObject({ code: 'ResourceExhausted' })
  })
})

describe('the end of the connection', () => {
  test('means that the program runs, once the helper has said that it executes it', async () => {
    const { handshake } = new Conversation()
      .says(record(RECORDS.child, PID), record(RECORDS.ready), record(RECORDS.executing))
      .ends()
    await handshake.executed
    expect(handshake.failure).toBeUndefined()
  })

  test('means nothing more when a container is created: its start is told elsewhere', async () => {
    const { handshake } = new Conversation().says(record(RECORDS.child, PID), record(RECORDS.ready)).ends()
    await handshake.ready
    expect(handshake.failure).toBeUndefined()
  })

  test('is a failure before that', async () => {
    const { handshake } = new Conversation().says(record(RECORDS.child, PID)).ends()
    await expect(handshake.ready).rejects.toThrow()
    await expect(handshake.executed).rejects.toMatchObject({
      code: 'FailedPrecondition',
      message: 'container process ended before it executed its program',
    })
  })

  test('stops a handler that is at work', async () => {
    let aborted = false
    const { handshake } = new Conversation({
      onListener: ({ signal }) =>
        new Promise((resolve) => {
          signal.addEventListener('abort', () => {
            aborted = true
            resolve()
          })
        }),
    })
      .says(record(RECORDS.child, PID), record(RECORDS.listener, 7))
      .ends()
    await expect(handshake.ready).rejects.toMatchObject({ code: 'FailedPrecondition' })
    await handshake.idle
    expect(aborted).toBe(true)
  })
})

test('a handler that fails ends the conversation with its own error', async () => {
  const failure = new Error('no such agent')
  const { handshake } = new Conversation({ onListener: () => Promise.reject(failure) })
    .says(record(RECORDS.child, PID), record(RECORDS.listener, 7))
    .ends()
  await expect(handshake.ready).rejects.toBe(failure)
})
