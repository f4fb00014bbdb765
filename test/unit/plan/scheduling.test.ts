/** Scheduling in a plan: words become the kernel's numbers, at the right moment, for init and for an exec. */
import { describe, expect, test } from 'vitest'
import type { Document } from '../spec/fixture.ts'
import { createPlan, described, execPlan, opNames } from './support.ts'

const everything = (spec: Document): void => {
  Object.assign(spec.process, {
    scheduler: { policy: 'SCHED_BATCH', nice: 19, flags: ['SCHED_FLAG_RESET_ON_FORK', 'SCHED_FLAG_UTIL_CLAMP_MAX'] },
    ioPriority: { class: 'IOPRIO_CLASS_BE', priority: 4 },
    execCPUAffinity: { initial: '0', final: '1-2' },
  })
  spec.linux.memoryPolicy = { mode: 'MPOL_BIND', nodes: '0-1', flags: ['MPOL_F_STATIC_NODES'] }
}
const NAMES = ['initial_affinity', 'affinity', 'scheduler', 'io_priority', 'memory_policy'] as const

describe('scheduling', () => {
  test('of a container that asks for nothing: every CPU, whatever the runtime was started with', () => {
    expect(described(createPlan(), ...NAMES)).toEqual(['affinity mask=all'])
    expect(opNames(createPlan()).at(-2)).toBe('wait_cgroup')
  })

  test('of a container that asks for everything; the affinity for execs is not its own', () => {
    expect(described(createPlan(everything), ...NAMES)).toEqual([
      'affinity mask=all',
      'scheduler policy=batch flags=reset_on_fork|util_clamp_max nice=19',
      'io_priority value=be/4',
      'memory_policy mode=bind|static_nodes nodes=0-1',
    ])
  })

  test('of an exec it is the container’s, with the affinity that is meant for it', () => {
    expect(described(execPlan({}, everything), ...NAMES)).toEqual([
      'initial_affinity mask=0',
      'affinity mask=1-2',
      'scheduler policy=batch flags=reset_on_fork|util_clamp_max nice=19',
      'io_priority value=be/4',
      'memory_policy mode=bind|static_nodes nodes=0-1',
    ])
  })

  test('of an exec with wishes of its own', () => {
    const process = {
      scheduler: { policy: 'SCHED_DEADLINE', runtime: 1, deadline: 2, period: 3 },
      ioPriority: { class: 'IOPRIO_CLASS_IDLE', priority: 0 },
      execCPUAffinity: { initial: '7' },
    }
    expect(described(execPlan(process, everything), ...NAMES)).toEqual([
      'initial_affinity mask=7',
      'scheduler policy=deadline runtime=1 deadline=2 period=3',
      'io_priority value=idle/0',
      'memory_policy mode=bind|static_nodes nodes=0-1',
    ])
  })

  test.each<[string, (spec: Document) => void]>([
    ['a scheduler', (s) => (s.process.scheduler = { policy: 'SCHED_RR', priority: 1 })],
    ['a memory policy', (s) => (s.linux.memoryPolicy = { mode: 'MPOL_LOCAL' })],
  ])('%s is judged by the cgroup, so it waits for that', (_, change) => {
    for (const names of [opNames(createPlan(change)), opNames(execPlan({}, change))]) {
      expect(names.filter((name) => name === 'wait_cgroup')).toHaveLength(1)
      expect(names[names.indexOf('affinity') - 1]).not.toBe('program')
      expect(names.indexOf('wait_cgroup')).toBeLessThan(names.indexOf('affinity'))
      expect(names.indexOf('affinity')).toBeLessThan(names.indexOf('credentials'))
    }
  })

  test('is done while the capabilities for it are there', () => {
    const names = opNames(createPlan(everything))
    for (const name of ['scheduler', 'io_priority', 'memory_policy'] as const) {
      expect(names.indexOf(name)).toBeGreaterThan(names.indexOf('no_new_privs'))
      expect(names.indexOf(name)).toBeLessThan(names.indexOf('credentials'))
    }
  })
})
