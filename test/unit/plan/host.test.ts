/** The facts about the host that a plan depends on, including those that this machine does not have. */
import { readFileSync } from 'node:fs'
import { afterEach, describe, expect, test, vi } from 'vitest'

const SWITCH = '/sys/module/apparmor/parameters/enabled'

vi.mock('node:fs', { spy: true })
afterEach(() => {
  vi.restoreAllMocks()
  vi.resetModules()
})

describe('hostFacts()', () => {
  test.for<[switched: string | number, apparmor: boolean]>([
    ['Y\n', true],
    ['N\n', false],
    [-2, false],
    [-13, true],
  ])('an AppArmor switch of %j means %j', async ([switched, apparmor]) => {
    const { readFileSync: real } = await vi.importActual<typeof import('node:fs')>('node:fs')
    vi.mocked(readFileSync).mockImplementation(((path: string, options: BufferEncoding) => {
      if (path !== SWITCH) return real(path, options)
      if (typeof switched === 'string') return switched
      throw Object.assign(new Error('read failed'), { errno: switched })
    }) as typeof readFileSync)
    const { hostFacts } = await import('../../../runtime/host/facts.ts')
    expect(hostFacts().apparmor).toBe(apparmor)
  })
})
