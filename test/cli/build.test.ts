/** What the build makes beside the programs: the code caches, which only help while V8 accepts them. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { NODE_FLAGS } from '../../proto/launch.ts'
import { BIN } from '../support/places.ts'

const LIB = join(BIN, '../lib/containerd-shim-ts')

describe('the code cache', () => {
  test.each([
    { bundle: 'shim', flags: NODE_FLAGS },
    { bundle: 'runts', flags: [] },
  ])('of $bundle is accepted by Node with the options it is started with', ({ bundle, flags }) => {
    const loader = JSON.stringify(join(LIB, `${bundle}.cjs`))
    const code = `process.stdout.write(String(require(${loader}).script.cachedDataRejected))`
    expect(spawnSync(join(LIB, 'node'), [...flags, '-e', code], { encoding: 'utf8' })).toMatchObject({
      stdout: 'false',
      status: 0,
    })
  })
})
