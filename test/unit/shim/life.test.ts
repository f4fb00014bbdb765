/** When a shim leaves by itself, on a clock that runs by hand. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CallContext } from 'ttrpc-ts'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { silentLogger } from '../../../runtime/index.ts'
import { IDLE_MS, Life } from '../../../shim/life.ts'
import { Registry, type Task } from '../../../shim/task/registry.ts'

let bundle: string
const silent = { ...silentLogger, flush: async () => {} }

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  bundle = mkdtempSync(join(tmpdir(), 'life-'))
})
afterEach(() => {
  vi.useRealTimers()
  rmSync(bundle, { recursive: true, force: true })
})

function setUp(
  parts: { abandon?: (task: Task, registry: Registry) => Promise<void>; drain?: () => Promise<void> } = {},
) {
  const registry = new Registry()
  const left: number[] = []
  const retried: string[] = []
  const events = { drain: parts.drain ?? (async () => {}), retry: () => void retried.push('retry') }
  const abandon = async (task: Task) => parts.abandon?.(task, registry)
  const life = new Life({
    socket: '/nonexistent/socket',
    logger: silent,
    registry,
    events,
    abandon,
    exit: (status) => void left.push(status),
  })
  const call = (method: string) => life.around(contextOf(method), () => undefined)
  return { registry, life, left, retried, call }
}

function contextOf(method: string): CallContext {
  return {
    service: 's',
    method,
    metadata: new Map(),
    signal: new AbortController().signal,
    afterReply: (callback) => callback(),
  }
}

// only what a registry asks of it
const taskOf = (folder: string): Task => ({ id: 'c1', bundle: folder }) as Task

describe('a shim', () => {
  test('to which nobody brings a container leaves after a minute', async () => {
    const { left } = setUp()
    await vi.advanceTimersByTimeAsync(IDLE_MS - 1)
    expect(left).toEqual([])
    await vi.advanceTimersByTimeAsync(1)
    expect(left).toEqual([0])
  })

  test('is not kept by a daemon that only asks how it is', async () => {
    const { left, call } = setUp()
    for (let second = 0; second < 60; second++) {
      await vi.advanceTimersByTimeAsync(1_000)
      call('State')
    }
    expect(left).toEqual([0])
  })

  test('waits for the next Create after one that failed, and after a Delete', async () => {
    const { left, call } = setUp()
    for (const method of ['Create', 'Delete']) {
      await vi.advanceTimersByTimeAsync(IDLE_MS - 1)
      call(method)
    }
    await vi.advanceTimersByTimeAsync(IDLE_MS - 1)
    expect(left).toEqual([])
  })

  test('with a container stays, and so does one that is just creating it', async () => {
    const { left, registry } = setUp()
    const creation = registry.beginCreate('c1')
    await vi.advanceTimersByTimeAsync(10 * IDLE_MS)
    registry.add(taskOf(bundle))
    creation.finish()
    await vi.advanceTimersByTimeAsync(10 * IDLE_MS)
    expect(left).toEqual([])
  })

  test('ends a container whose bundle is gone, once, and leaves', async () => {
    const abandoned: string[] = []
    const ended = Promise.withResolvers<void>()
    const { left, registry } = setUp({
      abandon: async (task, all) => {
        abandoned.push(task.id)
        await ended.promise
        all.remove(task)
      },
    })
    registry.add(taskOf(bundle))
    await vi.advanceTimersByTimeAsync(IDLE_MS)
    expect(abandoned).toEqual([])
    rmSync(bundle, { recursive: true })
    await vi.advanceTimersByTimeAsync(3 * IDLE_MS)
    expect(abandoned).toEqual(['c1'])
    expect(left).toEqual([])
    ended.resolve()
    await vi.advanceTimersByTimeAsync(0)
    expect(left).toEqual([0])
  })

  test('tries again to end it when that failed', async () => {
    let attempts = 0
    const { left, registry } = setUp({
      abandon: async (task, all) => {
        if (++attempts === 1) throw new Error('cgroup is busy')
        all.remove(task)
      },
    })
    registry.add(taskOf(join(bundle, 'gone')))
    await vi.advanceTimersByTimeAsync(IDLE_MS)
    expect(left).toEqual([])
    await vi.advanceTimersByTimeAsync(IDLE_MS)
    expect({ attempts, left }).toEqual({ attempts: 2, left: [0] })
  })

  test('that is called offers its events again', () => {
    const { call, retried } = setUp()
    call('State')
    expect(retried).toEqual(['retry'])
  })

  test('undoes a create and delivers its events before it leaves', async () => {
    const drained = Promise.withResolvers<void>()
    const { life, left, registry } = setUp({ drain: () => drained.promise })
    const creation = registry.beginCreate('c1')
    life.leave()
    await vi.advanceTimersByTimeAsync(0)
    expect(creation.abort.signal.aborted).toBe(true)
    creation.finish()
    await vi.advanceTimersByTimeAsync(0)
    expect(left).toEqual([])
    drained.resolve()
    await vi.advanceTimersByTimeAsync(0)
    expect(left).toEqual([0])
  })

  test('leaves after two seconds whatever hangs', async () => {
    const { life, left } = setUp({ drain: () => new Promise(() => {}) })
    life.leave()
    await vi.advanceTimersByTimeAsync(1_999)
    expect(left).toEqual([])
    await vi.advanceTimersByTimeAsync(1)
    expect(left).toEqual([0])
  })
})
