/** The event queue with a fake clock and a fake daemon: order, retries at the head, bounds. */

import { Code, TtrpcError } from 'ttrpc-ts'
import { TaskExit, TaskOOM, TaskStart } from 'ttrpc-ts/containerd'
import { describe, expect, test } from 'vitest'
import { silentLogger } from '../../../runtime/index.ts'
import { type Envelope, EventQueue, type Forwarder, MAX_QUEUED_EVENTS } from '../../../shim/events.ts'

interface Waiting {
  readonly callback: () => void
  readonly delayMs: number
}

/** A clock that runs by hand. */
function fakeClock() {
  const waiting: Waiting[] = []
  return {
    waiting,
    schedule: (callback: () => void, delayMs: number) => {
      const entry = { callback, delayMs }
      waiting.push(entry)
      return () => {
        const at = waiting.indexOf(entry)
        if (at >= 0) waiting.splice(at, 1)
      }
    },
    /** Runs the timer that was set first. */
    fire: () => waiting.shift()?.callback(),
  }
}

/** A daemon that answers when told to. */
function fakeDaemon() {
  const calls: { envelope: Envelope; resolve: () => void; reject: (error: Error) => void }[] = []
  let inFlight = 0
  let mostInFlight = 0
  const forwarder: Forwarder = {
    forward: (envelope) => {
      mostInFlight = Math.max(mostInFlight, ++inFlight)
      return new Promise<void>((resolve, reject) => {
        calls.push({ envelope, resolve, reject })
      }).finally(() => {
        inFlight--
      })
    },
    close() {},
  }
  return { forwarder, calls, mostInFlight: () => mostInFlight }
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

function start(pid: number): [string, typeof TaskStart, { containerId: string; pid: number }] {
  return ['/tasks/start', TaskStart, { containerId: 'c1', pid }]
}

function setUp() {
  const clock = fakeClock()
  const daemon = fakeDaemon()
  const queue = new EventQueue({
    namespace: 'ns',
    forwarder: daemon.forwarder,
    logger: silentLogger,
    schedule: clock.schedule,
  })
  const seen = () =>
    daemon.calls.map(({ envelope }) => `${envelope.topic} ${TaskStart.decode(envelope.event.value).pid}`)
  return { clock, daemon, queue, seen }
}

const LOST = new TtrpcError(Code.UNAVAILABLE, 'connection closed')

describe('EventQueue', () => {
  test('an envelope carries topic, namespace, time and the bare type name', async () => {
    const { daemon, queue } = setUp()
    queue.publish('/tasks/oom', TaskOOM, { containerId: 'c1' })
    await turn()
    const envelope = daemon.calls[0]?.envelope
    expect(envelope).toMatchObject({
      topic: '/tasks/oom',
      namespace: 'ns',
      event: { typeUrl: 'containerd.events.TaskOOM' },
    })
    expect(envelope?.timestamp.seconds).toBeGreaterThan(1_600_000_000n)
  })

  test('publishing sends nothing before the call that caused it is answered', () => {
    const { daemon, queue } = setUp()
    queue.publish(...start(1))
    expect(daemon.calls).toHaveLength(0)
  })

  test('events go one after the other, in order', async () => {
    const { daemon, queue, seen } = setUp()
    for (const pid of [1, 2, 3]) queue.publish(...start(pid))
    for (let sent = 1; sent <= 3; sent++) {
      await turn()
      expect(daemon.calls).toHaveLength(sent)
      daemon.calls[sent - 1]?.resolve()
    }
    await turn()
    expect(seen()).toEqual(['/tasks/start 1', '/tasks/start 2', '/tasks/start 3'])
    expect(daemon.mostInFlight()).toBe(1)
    expect(queue.length).toBe(0)
  })

  test('a failed event is repeated at the head, later ones wait', async () => {
    const { clock, daemon, queue, seen } = setUp()
    queue.publish(...start(1))
    await turn()
    daemon.calls[0]?.reject(LOST)
    await turn()
    queue.publish(...start(2))
    await turn()
    expect(daemon.calls).toHaveLength(1)
    clock.fire()
    daemon.calls[1]?.resolve()
    await turn()
    daemon.calls[2]?.resolve()
    await turn()
    expect(seen()).toEqual(['/tasks/start 1', '/tasks/start 1', '/tasks/start 2'])
  })

  test('the pause grows from one second to five, and is short again after a success', async () => {
    const { clock, daemon, queue } = setUp()
    queue.publish(...start(1))
    const delays: number[] = []
    for (let attempt = 0; attempt < 5; attempt++) {
      await turn()
      daemon.calls[attempt]?.reject(LOST)
      await turn()
      delays.push(clock.waiting[0]?.delayMs ?? 0)
      clock.fire()
    }
    expect(delays).toEqual([1000, 2000, 4000, 5000, 5000])
    daemon.calls[5]?.resolve()
    await turn()
    queue.publish(...start(2))
    await turn()
    daemon.calls[6]?.reject(LOST)
    await turn()
    expect(clock.waiting[0]?.delayMs).toBe(1000)
  })

  test('an event that the daemon refuses for good is given up, the next one goes', async () => {
    const { daemon, queue, seen } = setUp()
    queue.publish(...start(1))
    queue.publish(...start(2))
    await turn()
    daemon.calls[0]?.reject(new TtrpcError(Code.INVALID_ARGUMENT, 'topic must start with /'))
    await turn()
    expect(seen()).toEqual(['/tasks/start 1', '/tasks/start 2'])
  })

  test('with too many waiting the oldest goes that is no exit, and never the one in flight', async () => {
    const { daemon, queue, seen, clock } = setUp()
    queue.publish(...start(1))
    await turn()
    queue.publish('/tasks/exit', TaskExit, { containerId: 'c1', id: 'e1', pid: 2 })
    for (let pid = 3; pid <= MAX_QUEUED_EVENTS + 1; pid++) queue.publish(...start(pid))
    expect(queue.length).toBe(MAX_QUEUED_EVENTS)
    daemon.calls[0]?.resolve()
    await turn()
    expect(daemon.calls[1]?.envelope.topic).toBe('/tasks/exit')
    daemon.calls[1]?.resolve()
    await turn()
    expect(seen()[2]).toBe('/tasks/start 4')
    expect(clock.waiting).toHaveLength(0)
  })

  test('exits are kept even beyond the bound', () => {
    const { queue } = setUp()
    for (let pid = 0; pid < MAX_QUEUED_EVENTS + 10; pid++) {
      queue.publish('/tasks/exit', TaskExit, { containerId: 'c1', id: `e${pid}`, pid })
    }
    expect(queue.length).toBe(MAX_QUEUED_EVENTS + 10)
  })

  test('drain() resolves when the last event was taken, and stops its clock', async () => {
    const { clock, daemon, queue } = setUp()
    queue.publish(...start(1))
    await turn()
    const drained = queue.drain(2000)
    expect(clock.waiting).toHaveLength(1)
    daemon.calls[0]?.resolve()
    await drained
    expect(clock.waiting).toHaveLength(0)
  })

  test('drain() gives up after its limit', async () => {
    const { clock, queue } = setUp()
    queue.publish(...start(1))
    await turn()
    const drained = queue.drain(2000)
    expect(clock.waiting[0]?.delayMs).toBe(2000)
    clock.fire()
    await drained
    expect(queue.length).toBe(1)
  })

  test('a sign of the daemon ends the pause, and the pauses are short again', async () => {
    const { clock, daemon, queue } = setUp()
    queue.publish(...start(1))
    for (let attempt = 0; attempt < 4; attempt++) {
      await turn()
      daemon.calls[attempt]?.reject(LOST)
      await turn()
      if (attempt < 3) clock.fire()
    }
    expect(clock.waiting[0]?.delayMs).toBe(5000)
    queue.retry()
    expect(clock.waiting).toHaveLength(0)
    expect(daemon.calls).toHaveLength(5)
    daemon.calls[4]?.reject(LOST)
    await turn()
    expect(clock.waiting[0]?.delayMs).toBe(1000)
  })

  test('a sign of the daemon changes nothing while an event is on its way', async () => {
    const { daemon, queue } = setUp()
    queue.retry()
    queue.publish(...start(1))
    queue.retry()
    await turn()
    queue.retry()
    expect(daemon.calls).toHaveLength(1)
  })

  test('drain() does not wait for the end of a pause', async () => {
    const { clock, daemon, queue } = setUp()
    queue.publish(...start(1))
    await turn()
    daemon.calls[0]?.reject(LOST)
    await turn()
    const drained = queue.drain(2000)
    expect(daemon.calls).toHaveLength(2)
    daemon.calls[1]?.resolve()
    await drained
    expect(clock.waiting).toHaveLength(0)
  })

  test('without a daemon nothing is queued', async () => {
    const queue = new EventQueue({ namespace: 'ns', forwarder: undefined, logger: silentLogger })
    queue.publish(...start(1))
    await queue.drain(10)
    expect(queue.length).toBe(0)
  })
})
