/** Waiting for a container's lock: how it ends, and that nothing of the waiting is left on a signal that lives on. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test as base, expect, vi } from 'vitest'
import { lockContainer } from '../../../runtime/state/lock.ts'
import type { OwnedFd } from '../../../runtime/sys/fd.ts'

const ID = 'c1'

interface Fixtures {
  /** a root with one container */
  readonly root: string
  /** how many listeners of aborts were added and not removed since the test began */
  readonly listeners: () => number
}

const test = base.extend<Fixtures>({
  root: async ({ task: _task }, use) => {
    const root = mkdtempSync(join(tmpdir(), 'lock-'))
    mkdirSync(join(root, ID))
    await use(root)
    rmSync(root, { recursive: true })
  },
  listeners: async ({ task: _task }, use) => {
    const spies = (['addEventListener', 'removeEventListener'] as const).map((name) =>
      vi.spyOn(EventTarget.prototype, name),
    )
    const [added = 0, removed = 0] = spies.map(() => 0)
    const count = (index: number): number => spies[index]?.mock.calls.filter(([type]) => type === 'abort').length ?? 0
    await use(() => count(0) - added - (count(1) - removed))
    for (const spy of spies) spy.mockRestore()
  },
})

/** A lock that another holder has, and a wait for it with a signal. */
async function waiting(root: string, options: { timeoutMs?: number } = {}) {
  const held = await lockContainer({ root, id: ID, mode: 'exclusive' })
  const controller = new AbortController()
  const wait: Promise<OwnedFd | Error> = lockContainer({
    root,
    id: ID,
    mode: 'shared',
    signal: controller.signal,
    ...options,
  }).catch((error: Error) => error)
  return { held, controller, wait }
}

test('a wait that the lock ends leaves nothing on its signal', async ({ root, listeners }) => {
  const { held, wait } = await waiting(root)
  expect(listeners()).toBe(1)
  held.close()
  const lock = await wait
  expect(lock).toMatchObject({ fd: expect.any(Number) })
  expect(listeners()).toBe(0)
  if ('close' in lock) lock.close()
})

test('a wait that takes too long ends with a refusal, and leaves nothing on its signal', async ({
  root,
  listeners,
}) => {
  const { held, wait } = await waiting(root, { timeoutMs: 1 })
  expect(await wait).toMatchObject({
    code: 'Unavailable',
    message: `container "${ID}": another command is working on it`,
  })
  expect(listeners()).toBe(0)
  held.close()
})

test('a wait that is aborted, at once or later, ends with the reason of the caller', async ({ root, listeners }) => {
  const { held, controller, wait } = await waiting(root)
  controller.abort()
  expect(await wait).toMatchObject({
    code: 'Canceled',
    message: `cannot lock container "${ID}": canceled by the caller`,
  })
  const again = lockContainer({ root, id: ID, mode: 'shared', signal: controller.signal })
  await expect(again).rejects.toMatchObject({ code: 'Canceled' })
  expect(listeners()).toBe(0)
  held.close()
})

test('the lock that a wait gave up is let go when it comes', async ({ root }) => {
  const { held, controller, wait } = await waiting(root)
  controller.abort()
  await wait
  held.close()
  using next = await lockContainer({ root, id: ID, mode: 'exclusive', timeoutMs: 10_000 })
  expect(next.fd).toBeGreaterThan(0)
})
