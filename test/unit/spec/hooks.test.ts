/** Hooks of config.json: what is kept to the letter, and what is refused. */
import { describe, expect, test } from 'vitest'
import { parseSpec } from '../../../runtime/spec/load.ts'
import { HOOK_NAMES } from '../../../runtime/spec/types.ts'
import { type Document, expectRefusal, type RefusedCase, specText } from './fixture.ts'

const hook = (change: Document) => (spec: Document) => {
  spec.hooks = { createRuntime: [{ path: '/bin/true' }, { path: '/bin/true', ...change }] }
}

const REFUSED: RefusedCase[] = [
  ['hooks that are a list', '/hooks', 'expected an object', (s) => (s.hooks = [])],
  ['a kind that is no list', '/hooks/poststop', 'expected a list', (s) => (s.hooks = { poststop: {} })],
  ['a hook that is a path', '/hooks/prestart/0', 'expected an object', (s) => (s.hooks = { prestart: ['/bin/true'] })],
  ['a hook without path', '/hooks/createRuntime/1/path', 'the hook has no path', hook({ path: null })],
  ['a relative path', '/hooks/createRuntime/1/path', 'hook path "true" is not absolute', hook({ path: 'true' })],
  ['an argument that is none', '/hooks/createRuntime/1/args/1', 'expected a string', hook({ args: ['a', 1] })],
  ['a variable without =', '/hooks/createRuntime/1/env/0', 'invalid environment variable', hook({ env: ['PATH'] })],
  ['an empty variable', '/hooks/createRuntime/1/env/0', 'invalid environment variable', hook({ env: [''] })],
  ['a timeout of nothing', '/hooks/createRuntime/1/timeout', 'out of range', hook({ timeout: 0 })],
  ['a negative timeout', '/hooks/createRuntime/1/timeout', 'out of range', hook({ timeout: -5 })],
  ['half a second', '/hooks/createRuntime/1/timeout', 'expected a whole number', hook({ timeout: 0.5 })],
]

describe('hooks', () => {
  test.each(REFUSED)('refuses %s at %s', (...row) => expectRefusal(row))

  test('none are six empty lists', () => {
    expect(parseSpec(specText(), 'test').hooks).toEqual(Object.fromEntries(HOOK_NAMES.map((name) => [name, []])))
  })

  test.each(HOOK_NAMES)('%s is kept as it was given', (name) => {
    const given = { path: '/bin/sh', args: ['', '-c', 'a  b'], env: ['A=', 'B=1=2'], timeout: 3 }
    const { hooks } = parseSpec(
      specText((spec) => (spec.hooks = { [name]: [given, { path: '/x' }, { path: '/y', env: [] }] })),
      'test',
    )
    expect(hooks[name]).toStrictEqual([given, { path: '/x', args: [] }, { path: '/y', args: [], env: [] }])
  })
})
