/** vitest fixtures over a fake containerd: one per file, and a shim per test, which must leave nothing behind. */
import { test as base, expect } from 'vitest'
import { settledLeaks } from './census.ts'
import { FakeContainerd, type FakeShim } from './fake-containerd.ts'
import { SLOWNESS } from './needs.ts'

interface Fixtures {
  /** The test's access to the fake daemon, with cleanup and census after it. */
  fake: FakeContainerd
  /** A shim of the test's own. */
  shim: FakeShim
}

interface FileFixtures {
  daemon: FakeContainerd
}

/** vitest's test with a fake containerd. */
export const test = base.extend<{ $file: FileFixtures; $test: Fixtures }>({
  daemon: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixture's needs from this pattern
    async ({}, use) => {
      const daemon = new FakeContainerd()
      try {
        await daemon.start()
        await use(daemon)
      } finally {
        await daemon.stop()
      }
    },
    { scope: 'file' },
  ],
  fake: async ({ daemon }, use) => {
    const before = daemon.census()
    const { repeated } = daemon.sink
    await use(daemon)
    // an emulated processor may be slower than a shim waits
    if (SLOWNESS === 1) expect(daemon.sink.repeated, 'events that were brought twice').toBe(repeated)
    const ids = [...daemon.ids]
    await daemon.removeAll()
    expect(await settledLeaks(before, () => daemon.census(ids)), 'left behind by the test').toEqual([])
  },
  shim: async ({ fake }, use) => {
    await use(await fake.shim())
  },
})

export { expect }
