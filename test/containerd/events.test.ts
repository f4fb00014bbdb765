/** What `ctr events` shows of a container's life, and in which order. */
import { describe } from 'vitest'
import { until } from '../support/command.ts'
import { test as base, type EventRecorder, expect } from '../support/containerd.ts'
import { needs } from '../support/needs.ts'

const test = base.extend<{ events: EventRecorder }>({
  events: async ({ daemon, ct }, use) => {
    expect(ct.daemon).toBe(daemon)
    const recorder = await daemon.events()
    await use(recorder)
    await recorder.stop()
  },
})

const topics = (events: readonly { topic: string }[]): string[] => events.map(({ topic }) => topic)

describe('ctr events', needs('root', 'containerd', 'busybox'), () => {
  test('shows create, start, exit and delete in that order, with one pid and the exit status', async ({
    ct,
    events,
  }) => {
    const id = ct.id()
    await ct.run([], ['payload', 'exit', '42'], { id })
    const seen = await events.until(id, '/tasks/delete')
    expect(topics(seen)).toEqual(['/tasks/create', '/tasks/start', '/tasks/exit', '/tasks/delete'])
    const pids = new Set(seen.map(({ body }) => body['pid']))
    expect(pids.size).toBe(1)
    expect(seen[2]!.body).toMatchObject({ id, exit_status: 42 })
    expect(seen[3]!.body).toMatchObject({ exit_status: 42, exited_at: seen[2]!.body['exited_at'] })
    expect(seen[0]!.body).toMatchObject({ bundle: expect.stringContaining(id) })
  })

  test('shows exec-added, exec-started and exit of an exec, and no delete for it', async ({ ct, events }) => {
    const id = await ct.detached()
    await ct.ctr('task', 'exec', '--exec-id', 'one', id, 'payload', 'exit', '7')
    const seen = await events.until(id, '/tasks/exit')
    expect(topics(seen)).toEqual([
      '/tasks/create',
      '/tasks/start',
      '/tasks/exec-added',
      '/tasks/exec-started',
      '/tasks/exit',
    ])
    expect(seen[2]!.body).toMatchObject({ exec_id: 'one' })
    expect(seen[3]!.body).toMatchObject({ exec_id: 'one', pid: expect.any(Number) })
    expect(seen[4]!.body).toMatchObject({ id: 'one', pid: seen[3]!.body['pid'], exit_status: 7 })
  })

  test("shows the container's own exit after the exits of all its execs", async ({ ct, events }) => {
    const id = await ct.detached()
    for (let i = 0; i < 5; i++) await ct.execDetached(id, `e${i}`, ['sleep', '1000'])
    await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
    const seen = await events.until(id, '/tasks/exit', ({ body }) => body['id'] === id)
    const exits = seen.filter(({ topic }) => topic === '/tasks/exit')
    expect(exits).toHaveLength(6)
    expect(exits.at(-1)!.body).toMatchObject({ id, exit_status: 137 })
    expect(exits.slice(0, 5).map(({ body }) => body['exit_status'])).toEqual(Array(5).fill(137))
  })

  test('never shows an exit before its start, however short the process', async ({ ct, events }) => {
    const id = await ct.detached()
    await Promise.all(Array.from({ length: 20 }, (_, i) => ct.ctr('task', 'exec', '--exec-id', `q${i}`, id, 'true')))
    for (let i = 0; i < 20; i++) await events.until(id, '/tasks/exit', ({ body }) => body['id'] === `q${i}`)
    const seen = events.of(id)
    for (let i = 0; i < 20; i++) {
      const order = seen.filter(({ body }) => body['exec_id'] === `q${i}` || body['id'] === `q${i}`)
      expect(topics(order)).toEqual(['/tasks/exec-added', '/tasks/exec-started', '/tasks/exit'])
    }
  })

  test('shows paused and resumed', async ({ ct, events }) => {
    const id = await ct.detached()
    await ct.ok('task', 'pause', id)
    await ct.ok('task', 'resume', id)
    const seen = await events.until(id, '/tasks/resumed')
    expect(topics(seen)).toEqual(['/tasks/create', '/tasks/start', '/tasks/paused', '/tasks/resumed'])
  })

  test('shows oom before the exit of what it killed', needs('memory controller'), async ({ ct, events }) => {
    const id = await ct.detached(['--memory-limit', '16777216'], ['payload', 'eat', '67108864'])
    const seen = await events.until(id, '/tasks/exit')
    expect(topics(seen)).toContain('/tasks/oom')
    expect(topics(seen).indexOf('/tasks/oom')).toBeLessThan(topics(seen).indexOf('/tasks/exit'))
    expect(seen.find(({ topic }) => topic === '/tasks/exit')!.body).toMatchObject({ exit_status: 137 })
    await ct.untilStatus(id, 'STOPPED')
  })

  test('shows oom also when the container survives it', needs('memory controller'), async ({ ct, events }) => {
    const id = await ct.detached(['--memory-limit', '33554432'])
    expect(await ct.exec(id, ['payload', 'eat', '134217728'])).toMatchObject({ code: 137 })
    await events.until(id, '/tasks/oom')
    expect(await ct.task(id)).toMatchObject({ status: 'RUNNING' })
    expect(events.of(id).filter(({ topic }) => topic === '/tasks/oom')).toHaveLength(1)
  })

  test('shows nothing but create, exit and delete for a container that never started', async ({ ct, events }) => {
    const id = ct.id()
    await ct.run([], ['/no/such/program'], { id })
    await until('the container to be gone', async () => !(await ct.ctr('container', 'ls', '-q')).stdout.includes(id))
    for (const topic of topics(events.of(id)))
      expect(['/tasks/create', '/tasks/exit', '/tasks/delete']).toContain(topic)
  })
})
