/**
 * The lists of fail points against the sources: a test that kills at a listed place must not wait for one that is
 * nowhere.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { CHECKPOINT_FAILPOINTS, FAILPOINTS } from '../../runtime/failpoint.ts'
import { SHIM_FAILPOINTS } from '../../shim/failpoints.ts'
import { ROOT } from '../support/places.ts'

function placesIn(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .flatMap((name) => [...readFileSync(join(ROOT, folder, name), 'utf8').matchAll(/\bfailpoint\('([^']+)'\)/g)])
    .map(([, place = '']) => place)
}

test.each([
  ['runtime', [...FAILPOINTS, ...CHECKPOINT_FAILPOINTS]],
  ['shim', SHIM_FAILPOINTS],
] as const)('every place of %s is in its list, and every listed place is in the sources', (folder, listed) => {
  expect(new Set(placesIn(folder))).toEqual(new Set(listed))
})
