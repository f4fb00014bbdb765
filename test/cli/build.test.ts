/** What the build makes beside the programs: the code caches, which only help while V8 accepts them. */
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
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
    const code = `process.stdout.write(String(require(${loader}).compile('${bundle}.js').script.cachedDataRejected))`
    expect(spawnSync(join(LIB, 'node'), [...flags, '-e', code], { encoding: 'utf8' })).toMatchObject({
      stdout: 'false',
      status: 0,
    })
  })
})

describe('a bundle', () => {
  test('leaves what a container may not need to its parts, and each part can be loaded', () => {
    const files = readdirSync(LIB).filter((file) => /^(shim|runts)-.*\.js$/.test(file))
    for (const word of ['checkpoint', 'events', 'unit']) expect(files.join(' ')).toMatch(new RegExp(`shim-${word}-`))
    for (const file of files) {
      const loader = JSON.stringify(join(LIB, `${file.split('-')[0]}.cjs`))
      const code = `process.stdout.write(typeof require(${loader}).compile('${file}').script.runInThisContext())`
      expect(spawnSync(join(LIB, 'node'), ['-e', code], { encoding: 'utf8' }).stdout, file).toBe('function')
    }
  })
})
