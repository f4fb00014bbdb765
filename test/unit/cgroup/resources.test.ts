/** The table from limits to file writes, for both versions. */
import { describe, expect, test } from 'vitest'
import {
  type CurrentLimits,
  checkMemoryBeforeUpdate,
  cpuWeight,
  type ResourceWrite,
  toV1Writes,
  toV2Writes,
} from '../../../runtime/cgroup/resources.ts'
import type { BlockIoResources, LinuxResources } from '../../../runtime/spec/types.ts'

const NONE: LinuxResources = { devices: [], hugepageLimits: [], rdma: {}, unified: {} }
const NO_BLOCK: BlockIoResources = {
  weightDevice: [],
  throttleReadBpsDevice: [],
  throttleWriteBpsDevice: [],
  throttleReadIOPSDevice: [],
  throttleWriteIOPSDevice: [],
}

type Case = readonly [name: string, resources: Partial<LinuxResources>, writes: readonly string[]]

function text(writes: readonly ResourceWrite[]): string[] {
  return writes.map(({ file, value }) => `${file}=${value}`)
}
const v1 = (resources: Partial<LinuxResources>, current?: CurrentLimits) =>
  text(toV1Writes({ ...NONE, ...resources }, current))
const v2 = (resources: Partial<LinuxResources>, current?: CurrentLimits) =>
  text(toV2Writes({ ...NONE, ...resources }, current))

const V1: readonly Case[] = [
  ['nothing', {}, []],
  ['a memory limit', { memory: { limit: 1024n } }, ['memory.limit_in_bytes=1024']],
  [
    'memory and swap: the limit first in a new cgroup',
    { memory: { limit: 1024n, swap: 2048n } },
    ['memory.limit_in_bytes=1024', 'memory.memsw.limit_in_bytes=2048'],
  ],
  [
    'unlimited memory frees memory+swap too',
    { memory: { limit: -1n } },
    ['memory.limit_in_bytes=-1', 'memory.memsw.limit_in_bytes=-1'],
  ],
  ['zero is unset', { memory: { limit: 0n, swap: 0n, reservation: 0n } }, []],
  [
    'the rest of memory; kernel limits are ignored',
    {
      memory: { reservation: 5n, swappiness: 0, disableOOMKiller: true, kernel: 1n, kernelTCP: 1n, useHierarchy: true },
    },
    ['memory.soft_limit_in_bytes=5', 'memory.swappiness=0', 'memory.oom_control=1'],
  ],
  [
    'period before quota',
    { cpu: { shares: 512n, quota: 20000n, period: 50000n, burst: 1000n } },
    ['cpu.shares=512', 'cpu.cfs_period_us=50000', 'cpu.cfs_burst_us=1000', 'cpu.cfs_quota_us=20000'],
  ],
  ['no quota', { cpu: { quota: -1n } }, ['cpu.cfs_quota_us=-1']],
  ['realtime', { cpu: { realtimePeriod: 9n, realtimeRuntime: 3n } }, ['cpu.rt_period_us=9', 'cpu.rt_runtime_us=3']],
  ['leave idle before shares', { cpu: { idle: 0, shares: 2n } }, ['cpu.idle=0', 'cpu.shares=2']],
  ['enter idle after shares', { cpu: { idle: 1, shares: 2n } }, ['cpu.shares=2', 'cpu.idle=1']],
  ['cpuset', { cpu: { cpus: '0-1', mems: '0' } }, ['cpuset.cpus=0-1', 'cpuset.mems=0']],
  ['pids', { pids: { limit: 7n } }, ['pids.max=7']],
  ['unlimited pids', { pids: { limit: -1n } }, ['pids.max=max']],
  ['no pids at all', { pids: { limit: 0n } }, ['pids.max=1']],
  [
    'block I/O',
    {
      blockIO: {
        ...NO_BLOCK,
        weight: 500,
        leafWeight: 300,
        weightDevice: [{ major: 8, minor: 0, weight: 400, leafWeight: 200 }],
        throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 1n }],
        throttleWriteIOPSDevice: [{ major: 8, minor: 16, rate: 18446744073709551615n }],
      },
    },
    [
      'blkio.weight=500',
      'blkio.leaf_weight=300',
      'blkio.weight_device=8:0 400',
      'blkio.leaf_weight_device=8:0 200',
      'blkio.throttle.read_bps_device=8:0 1',
      'blkio.throttle.write_iops_device=8:16 18446744073709551615',
    ],
  ],
  [
    'huge pages',
    { hugepageLimits: [{ pageSize: '2MB', limit: 9223372036854771712n }] },
    ['hugetlb.2MB.limit_in_bytes=9223372036854771712', 'hugetlb.2MB.rsvd.limit_in_bytes=9223372036854771712'],
  ],
  [
    'network',
    { network: { classID: 1048577, priorities: [{ name: 'eth0', priority: 5 }] } },
    ['net_cls.classid=1048577', 'net_prio.ifpriomap=eth0 5'],
  ],
  [
    'rdma',
    { rdma: { mlx5_1: { hcaHandles: 3, hcaObjects: 10000 }, mlx4_0: { hcaObjects: 2 } } },
    ['rdma.max=mlx5_1 hca_handle=3 hca_object=10000', 'rdma.max=mlx4_0 hca_object=2'],
  ],
]

const V2: readonly Case[] = [
  ['nothing', {}, []],
  ['a memory limit', { memory: { limit: 1024n } }, ['memory.max=1024']],
  [
    'memory and swap: what is left for swap',
    { memory: { limit: 1024n, swap: 3072n } },
    ['memory.swap.max=2048', 'memory.max=1024'],
  ],
  ['no swap', { memory: { limit: 1024n, swap: 1024n } }, ['memory.swap.max=0', 'memory.max=1024']],
  ['unlimited swap', { memory: { limit: 1024n, swap: -1n } }, ['memory.swap.max=max', 'memory.max=1024']],
  ['unlimited memory', { memory: { limit: -1n } }, ['memory.swap.max=max', 'memory.max=max']],
  ['a reservation', { memory: { reservation: 7n, swappiness: 3, disableOOMKiller: true } }, ['memory.low=7']],
  [
    'shares and quota',
    { cpu: { shares: 512n, quota: 20000n, period: 50000n } },
    ['cpu.weight=59', 'cpu.max=20000 50000'],
  ],
  ['the default period', { cpu: { quota: 20000n } }, ['cpu.max=20000 100000']],
  ['a period alone', { cpu: { period: 50000n } }, ['cpu.max=max 50000']],
  ['no quota', { cpu: { quota: -1n } }, ['cpu.max=max 100000']],
  ['burst before quota', { cpu: { quota: 5000n, burst: 100n } }, ['cpu.max.burst=100', 'cpu.max=5000 100000']],
  ['idle', { cpu: { idle: 1 } }, ['cpu.idle=1']],
  ['realtime has no counterpart', { cpu: { realtimePeriod: 9n, realtimeRuntime: 3n } }, []],
  ['cpuset', { cpu: { cpus: '0-1', mems: '0' } }, ['cpuset.cpus=0-1', 'cpuset.mems=0']],
  [
    'block I/O',
    {
      blockIO: {
        ...NO_BLOCK,
        weight: 1000,
        weightDevice: [{ major: 8, minor: 0, weight: 400 }],
        throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 1n }],
        throttleWriteBpsDevice: [{ major: 8, minor: 0, rate: 2n }],
        throttleReadIOPSDevice: [{ major: 8, minor: 0, rate: 3n }],
        throttleWriteIOPSDevice: [{ major: 8, minor: 0, rate: 0n }],
      },
    },
    [
      'io.bfq.weight=1000',
      'io.bfq.weight=8:0 400',
      'io.max=8:0 rbps=1',
      'io.max=8:0 wbps=2',
      'io.max=8:0 riops=3',
      'io.max=8:0 wiops=max',
    ],
  ],
  ['huge pages', { hugepageLimits: [{ pageSize: '1GB', limit: 5n }] }, ['hugetlb.1GB.max=5', 'hugetlb.1GB.rsvd.max=5']],
  ['network is ignored', { network: { classID: 1, priorities: [] } }, []],
  [
    'unified comes last and line by line',
    { pids: { limit: 3n }, unified: { 'pids.max': '9', 'io.max': '8:0 rbps=1\n8:16 rbps=2\n' } },
    ['pids.max=3', 'pids.max=9', 'io.max=8:0 rbps=1', 'io.max=8:16 rbps=2'],
  ],
]

describe('toV1Writes', () => {
  test.each(V1)('%s', (_, resources, writes) => expect(v1(resources)).toEqual(writes))

  test('a growing memory+swap goes before the memory limit', () => {
    const memory = { limit: 2048n, swap: 4096n }
    expect(v1({ memory }, { memorySwap: 1024n })).toEqual([
      'memory.memsw.limit_in_bytes=4096',
      'memory.limit_in_bytes=2048',
    ])
    expect(v1({ memory }, { memorySwap: 8192n })).toEqual([
      'memory.limit_in_bytes=2048',
      'memory.memsw.limit_in_bytes=4096',
    ])
  })

  test('the implied memory+swap limit needs no swap accounting, one that was asked for does', () => {
    const [, implied] = toV1Writes({ ...NONE, memory: { limit: -1n } })
    const [, asked] = toV1Writes({ ...NONE, memory: { limit: 1n, swap: 1n } })
    expect([implied?.optional, asked?.optional]).toEqual([true, undefined])
  })

  test('unified is refused', () => {
    expect(() => v1({ unified: { 'memory.max': '1' } })).toThrow(
      /cannot set unified resources: this host has cgroup v1/,
    )
  })
})

describe('toV2Writes', () => {
  test.each(V2)('%s', (_, resources, writes) => expect(v2(resources)).toEqual(writes))

  test('an update keeps the half of cpu.max that it does not name', () => {
    expect(v2({ cpu: { period: 50000n } }, { cpuMax: '20000 100000' })).toEqual(['cpu.max=20000 50000'])
    expect(v2({ cpu: { quota: 30000n } }, { cpuMax: '20000 50000' })).toEqual(['cpu.max=30000 50000'])
  })

  test('an update of memory+swap alone counts from the limit in force', () => {
    expect(v2({ memory: { swap: 3072n } }, { memory: 1024n })).toEqual(['memory.swap.max=2048'])
  })

  test('a block I/O weight has its counterpart where the scheduler is not bfq', () => {
    const [write] = toV2Writes({ ...NONE, blockIO: { ...NO_BLOCK, weight: 10 } })
    expect(write?.fallback).toEqual({ file: 'io.weight', value: '1' })
  })

  test.each([
    [{ limit: 0n, swap: 5n }, /memory\+swap limit 5 without a memory limit/],
    [{ limit: -1n, swap: 5n }, /memory\+swap limit 5 without a memory limit/],
    [{ limit: 6n, swap: 5n }, /memory\+swap limit 5 is smaller than the memory limit 6/],
  ])('refuses impossible memory limits, case %#', (memory, message) => expect(() => v2({ memory })).toThrow(message))

  test.each(['memory', 'a/b.c', '../x.y', '.x', 'memory.max/../../x'])('unified "%s" is refused', (key) => {
    expect(() => v2({ unified: { [key]: '1' } })).toThrow(/must be in the form CONTROLLER.PARAMETER/)
  })
})

describe('both versions', () => {
  test.each([
    [{ memory: { limit: -2n } }, /memory limit -2 is negative/],
    [{ memory: { limit: 10n, swap: 9n } }, /memory\+swap limit 9 is smaller/],
    [{ memory: { swappiness: 101 } }, /swappiness 101/],
    [{ hugepageLimits: [{ pageSize: '../../x', limit: 1n }] }, /huge page size/],
  ] as const)('refuse what is wrong in itself, case %#', (resources, message) => {
    expect(() => v1(resources)).toThrow(message)
    expect(() => v2(resources)).toThrow(message)
  })
})

test.each([
  [0n, 1n],
  [2n, 1n],
  [3n, 2n],
  [512n, 59n],
  [1024n, 100n],
  [2048n, 174n],
  [262143n, 10000n],
  [262144n, 10000n],
  [1n << 40n, 10000n],
])('cpuWeight(%s) is %s', (shares, weight) => expect(cpuWeight(shares)).toBe(weight))

test('checkMemoryBeforeUpdate refuses what is in use', () => {
  expect(() => checkMemoryBeforeUpdate({ limit: 10n }, 10n, 0n)).toThrow('rejecting memory limit 10 <= usage 10')
  expect(() => checkMemoryBeforeUpdate({ limit: 11n, swap: 12n }, 10n, 2n)).toThrow(
    'rejecting memory+swap limit 12 <= usage 12',
  )
  expect(() => checkMemoryBeforeUpdate({ limit: 11n, swap: -1n }, 10n, 2n)).not.toThrow()
})
