/** Scheduler, I/O priority, CPU affinity and memory policy of config.json, and the lists of numbers in them. */
import { describe, expect, test } from 'vitest'
import { listMask } from '../../../runtime/spec/lists.ts'
import { parseProcess, parseSpec } from '../../../runtime/spec/load.ts'
import { type Document, expectRefusal, type RefusedCase, specText } from './fixture.ts'

const scheduler = (value: Document) => (spec: Document) => (spec.process.scheduler = value)
const priority = (value: Document) => (spec: Document) => (spec.process.ioPriority = value)
const affinity = (value: Document) => (spec: Document) => (spec.process.execCPUAffinity = value)
const policy = (value: Document) => (spec: Document) => (spec.linux.memoryPolicy = value)

const REFUSED: RefusedCase[] = [
  ['no scheduling policy', '/process/scheduler/policy', 'scheduler policy is required', scheduler({})],
  ['an unknown policy', '/process/scheduler/policy', 'invalid scheduler policy "FAIR"', scheduler({ policy: 'FAIR' })],
  [
    'too nice a process',
    '/process/scheduler/nice',
    'invalid scheduler.nice: 20',
    scheduler({ policy: 'SCHED_BATCH', nice: 20 }),
  ],
  [
    'a nasty process',
    '/process/scheduler/nice',
    'invalid scheduler.nice: -21',
    scheduler({ policy: 'SCHED_OTHER', nice: -21 }),
  ],
  [
    'a priority for a policy without',
    '/process/scheduler/priority',
    'scheduler.priority can only be specified for SchedFIFO or SchedRR policy',
    scheduler({ policy: 'SCHED_OTHER', priority: 1 }),
  ],
  [
    'real time without priority',
    '/process/scheduler/priority',
    'invalid scheduler.priority: 0',
    scheduler({ policy: 'SCHED_FIFO' }),
  ],
  [
    'a deadline for a policy without',
    '/process/scheduler/deadline',
    'can only be specified for SchedDeadline policy',
    scheduler({ policy: 'SCHED_RR', priority: 1, deadline: 1 }),
  ],
  [
    'an unknown scheduler flag',
    '/process/scheduler/flags/1',
    'invalid scheduler flag "X"',
    scheduler({ policy: 'SCHED_OTHER', flags: ['SCHED_FLAG_RESET_ON_FORK', 'X'] }),
  ],
  ['no I/O class', '/process/ioPriority/class', 'invalid ioPriority.Class: ""', priority({ priority: 1 })],
  [
    'an unknown I/O class',
    '/process/ioPriority/class',
    'invalid ioPriority.Class: "IOPRIO_CLASS_NONE"',
    priority({ class: 'IOPRIO_CLASS_NONE' }),
  ],
  [
    'an I/O priority that is too low',
    '/process/ioPriority/priority',
    'invalid ioPriority.Priority: 8',
    priority({ class: 'IOPRIO_CLASS_BE', priority: 8 }),
  ],
  [
    'CPUs that are none',
    '/process/execCPUAffinity/initial',
    'invalid initial CPU affinity "all": "all" is neither a number nor a range',
    affinity({ initial: 'all' }),
  ],
  ['a range backwards', '/process/execCPUAffinity/final', 'runs backwards', affinity({ initial: '0', final: '3-1' })],
  ['no memory policy mode', '/linux/memoryPolicy/mode', 'invalid memory policy mode ""', policy({})],
  [
    'an unknown memory policy mode',
    '/linux/memoryPolicy/mode',
    'invalid memory policy mode "MPOL_X"',
    policy({ mode: 'MPOL_X' }),
  ],
  [
    'an unknown memory policy flag',
    '/linux/memoryPolicy/flags/0',
    'invalid memory policy flag "X"',
    policy({ mode: 'MPOL_DEFAULT', flags: ['X'] }),
  ],
  [
    'a memory policy without its nodes',
    '/linux/memoryPolicy/nodes',
    'MPOL_BIND needs nodes',
    policy({ mode: 'MPOL_BIND' }),
  ],
  [
    'nodes for a memory policy without',
    '/linux/memoryPolicy/nodes',
    'MPOL_LOCAL takes no nodes',
    policy({ mode: 'MPOL_LOCAL', nodes: '0' }),
  ],
  [
    'nodes beyond any machine',
    '/linux/memoryPolicy/nodes',
    '70000 is more than 65536',
    policy({ mode: 'MPOL_BIND', nodes: '70000' }),
  ],
]

describe('scheduling', () => {
  test.each(REFUSED)('refuses %s at %s', (...row) => expectRefusal(row))

  test('reads all of a scheduler, with exact times', () => {
    const text = `{"policy":"SCHED_DEADLINE","flags":["SCHED_FLAG_RESET_ON_FORK"],
      "runtime":18446744073709551615,"deadline":2000000,"period":3000000}`
    expect(parseProcess(`{"args":["a"],"cwd":"/","scheduler":${text}}`).scheduler).toEqual({
      policy: 'SCHED_DEADLINE',
      nice: 0,
      priority: 0,
      flags: ['SCHED_FLAG_RESET_ON_FORK'],
      runtime: 18446744073709551615n,
      deadline: 2000000n,
      period: 3000000n,
    })
  })

  test.each([
    ['MPOL_DEFAULT', undefined],
    ['MPOL_LOCAL', undefined],
    ['MPOL_PREFERRED', undefined],
    ['MPOL_PREFERRED', '0'],
    ['MPOL_INTERLEAVE', '0-1'],
    ['MPOL_WEIGHTED_INTERLEAVE', '0'],
    ['MPOL_PREFERRED_MANY', '0,2'],
  ])('takes memory policy %s with nodes %s', (mode, nodes) => {
    const { linux } = parseSpec(specText(policy({ mode, nodes, flags: ['MPOL_F_STATIC_NODES'] })), 'test')
    expect(linux.memoryPolicy).toEqual({ mode, flags: ['MPOL_F_STATIC_NODES'], ...(nodes ? { nodes } : {}) })
  })

  test('an affinity that says nothing is none', () => {
    expect(parseSpec(specText(affinity({ initial: '', final: null })), 'test').process).not.toHaveProperty(
      'execCPUAffinity',
    )
  })
})

describe('listMask()', () => {
  test.each([
    ['0', [0x01]],
    ['0-3,7', [0x8f]],
    [' 1 , , 9 ', [0x02, 0x02]],
    ['2 - 3', [0x0c]],
    ['3,0-3,3', [0x0f]],
    ['16', [0, 0, 1]],
    ['63-64', [0, 0, 0, 0, 0, 0, 0, 0x80, 1]],
  ])('%j is %j, in whole words', (text, bytes) => {
    const mask = new Uint8Array(Math.ceil(bytes.length / 8) * 8)
    mask.set(bytes)
    expect(listMask(text)).toEqual({ mask })
  })

  test.each(['', ' ', ',', 'x', '-1', '1-', '1-2-3', '0x1', '1.5', '65537', '9-8'])('%j is none', (text) => {
    expect(listMask(text)).toHaveProperty('refused')
  })
})
