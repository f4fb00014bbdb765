/** Hooks in a plan: where they stand, what they are given, and that a container without any pays nothing for them. */
import { describe, expect, test } from 'vitest'
import type { Op } from '../../../proto/init-plan.ts'
import type { HookName } from '../../../runtime/spec/types.ts'
import type { Document } from '../spec/fixture.ts'
import { createPlan, described, FILTER, opNames } from './support.ts'

const hooks =
  (...names: readonly HookName[]) =>
  (spec: Document): void => {
    spec.hooks = Object.fromEntries(names.map((name) => [name, [{ path: `/hooks/${name}`, args: ['h', '-v'] }]]))
  }
const hookOps = (ops: readonly Op[]) => ops.filter((op): op is Extract<Op, { op: 'hook' }> => op.op === 'hook')

describe('hooks', () => {
  test('none: no operation is about them', () => {
    const names = opNames(createPlan())
    expect(names).not.toContain('sync')
    expect(names).not.toContain('hook')
  })

  test.each<HookName>(['prestart', 'createRuntime'])(
    '%s: the container waits before the pivot, in its cgroup',
    (name) => {
      const ops = createPlan(hooks(name))
      const names = opNames(ops)
      const pivot = names.indexOf('pivot')
      expect(names.slice(pivot - 2, pivot)).toEqual(['wait_cgroup', 'sync'])
      expect(names.filter((other) => other === 'wait_cgroup')).toHaveLength(1)
      expect(described(ops, 'sync')).toEqual(['sync point=runtime_hooks'])
    },
  )

  test.each<HookName>(['poststart', 'poststop'])('%s is not the plan’s', (name) => {
    expect(createPlan(hooks(name))).toEqual(createPlan())
  })

  test('createContainer: after the runtime’s own, before the pivot, without waiting where there are none of those', () => {
    const both = opNames(createPlan(hooks('createRuntime', 'createContainer')))
    expect(both.slice(both.indexOf('sync'), both.indexOf('pivot'))).toEqual(['sync', 'hook'])
    const alone = opNames(createPlan(hooks('createContainer')))
    expect(alone).not.toContain('sync')
    expect(alone.slice(alone.indexOf('pivot') - 2, alone.indexOf('pivot'))).toEqual(['wait_cgroup', 'hook'])
  })

  test('startContainer: between the start and the program, behind the filter and in the cgroup', () => {
    const names = opNames(createPlan(hooks('startContainer'), { seccomp: FILTER }))
    expect(names.slice(names.indexOf('seccomp'))).toEqual([
      'seccomp',
      'ready',
      'await_start',
      'wait_cgroup',
      'hook',
      'exec',
    ])
  })

  test('in a cgroup namespace that the mounts show, nothing waits twice', () => {
    const names = opNames(
      createPlan((spec) => {
        hooks('createRuntime', 'startContainer')(spec)
        spec.linux.namespaces.push({ type: 'cgroup' })
        spec.mounts.push({ destination: '/sys/fs/cgroup', type: 'cgroup' })
      }),
    )
    expect(names.filter((name) => name === 'wait_cgroup')).toHaveLength(1)
    expect(names.indexOf('unshare')).toBeLessThan(names.indexOf('sync'))
  })

  test('several run in their order, each with its number', () => {
    const ops = createPlan((spec) => (spec.hooks = { createContainer: [{ path: '/a' }, { path: '/b', timeout: 5 }] }))
    expect(described(ops, 'hook')).toEqual([
      'hook name="createContainer" index=0 path="/a"',
      'hook name="createContainer" index=1 path="/b" timeout=5',
    ])
    expect(hookOps(ops).map(({ origin }) => origin)).toEqual(['/hooks/createContainer/0', '/hooks/createContainer/1'])
  })

  test('an environment is as it is given; where startContainer gives none, it is the program’s', () => {
    const ops = createPlan((spec) => {
      spec.hooks = {
        createContainer: [{ path: '/a' }, { path: '/b', env: ['A=1'] }],
        startContainer: [{ path: '/c' }, { path: '/d', env: ['A=1'] }],
      }
    })
    expect(hookOps(ops).map(({ env }) => env)).toEqual([[], ['A=1'], [''], ['A=1']])
  })

  test('the state is the specification’s document, with room for the pid', () => {
    const ops = createPlan((spec) => {
      hooks('createContainer', 'startContainer')(spec)
      spec.annotations = { 'a/b': 'c' }
    })
    const states = hookOps(ops).map(({ stateHead, stateTail }) => JSON.parse(`${stateHead}1${stateTail}`))
    const common = { ociVersion: '1.0.2-dev', id: 'box', pid: 1, bundle: '/run/bundle', annotations: { 'a/b': 'c' } }
    expect(states).toEqual([
      { ...common, status: 'creating' },
      { ...common, status: 'created' },
    ])
  })
})
