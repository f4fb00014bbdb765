/** The table from limits to properties of a unit, beside the files that this runtime writes for the same limits. */
import { describe, expect, test } from 'vitest'
import { emulate } from '../../../../runtime/cgroup/devices.ts'
import { toV1Writes, toV2Writes } from '../../../../runtime/cgroup/resources.ts'
import { deviceProperties } from '../../../../runtime/cgroup/systemd/device-properties.ts'
import {
  joinProperties,
  limitProperties,
  type PropertyInput,
  unitProperties,
} from '../../../../runtime/cgroup/systemd/properties.ts'
import type { BlockIoResources, LinuxResources } from '../../../../runtime/spec/types.ts'
import type { DbusProperty } from '../../../../runtime/sys/dbus-value.ts'

const NONE: LinuxResources = { devices: [], hugepageLimits: [], rdma: {}, unified: {} }
const NO_BLOCK: BlockIoResources = {
  weightDevice: [],
  throttleReadBpsDevice: [],
  throttleWriteBpsDevice: [],
  throttleReadIOPSDevice: [],
  throttleWriteIOPSDevice: [],
}
const NO_LIMIT = '18446744073709551615'
const NEW = { version: 257, v2: true, bfq: false }

function words(property: DbusProperty): string {
  const { name, data } = property
  const show = (value: DbusProperty['data']): string =>
    value instanceof Uint8Array
      ? `bits ${[...value].map((byte) => byte.toString(2)).join(' ')}`
      : Array.isArray(value)
        ? `[${value.map(show).join(', ')}]`
        : String(value)
  return `${name}=${show(data)}`
}

/** What systemd is told, and what is written, on one version. */
function both(limits: Partial<LinuxResources>, input: PropertyInput): { systemd: string[]; files: string[] } {
  const resources = { ...NONE, ...limits }
  const writes = input.v2 ? toV2Writes(resources, input.current) : toV1Writes(resources, input.current)
  return {
    systemd: limitProperties(resources, input).map(words),
    files: writes.map(({ file, value }) => `${file}=${value}`),
  }
}

type Row = readonly [
  name: string,
  limits: Partial<LinuxResources>,
  systemd: readonly string[],
  files: readonly string[],
  input?: Partial<PropertyInput>,
]

const V2: readonly Row[] = [
  ['nothing', {}, [], []],
  ['memory', { memory: { limit: 1024n } }, ['MemoryMax=1024'], ['memory.max=1024']],
  [
    'memory without a limit',
    { memory: { limit: -1n } },
    [`MemoryMax=${NO_LIMIT}`, `MemorySwapMax=${NO_LIMIT}`],
    ['memory.swap.max=max', 'memory.max=max'],
  ],
  [
    'memory and swap: v2 counts swap alone',
    { memory: { limit: 1024n, swap: 3072n } },
    ['MemoryMax=1024', 'MemorySwapMax=2048'],
    ['memory.swap.max=2048', 'memory.max=1024'],
  ],
  [
    'swap of a container that has a limit already',
    { memory: { swap: 3072n } },
    ['MemorySwapMax=2048'],
    ['memory.swap.max=2048'],
    { current: { memory: 1024n } },
  ],
  ['a reservation', { memory: { reservation: 512n } }, ['MemoryLow=512'], ['memory.low=512']],
  ['shares', { cpu: { shares: 1024n } }, ['CPUWeight=100'], ['cpu.weight=100']],
  [
    'idle, which is a weight of 0 for systemd',
    { cpu: { shares: 1024n, idle: 1 } },
    ['CPUWeight=0'],
    ['cpu.weight=100', 'cpu.idle=1'],
  ],
  [
    'idle, which a systemd before 252 does not know',
    { cpu: { shares: 1024n, idle: 1 } },
    ['CPUWeight=100'],
    ['cpu.weight=100', 'cpu.idle=1'],
    { version: 251 },
  ],
  [
    'quota and period',
    { cpu: { quota: 25_000n, period: 50_000n } },
    ['CPUQuotaPeriodUSec=50000', 'CPUQuotaPerSecUSec=500000'],
    ['cpu.max=25000 50000'],
  ],
  [
    'a period, which a systemd before 242 does not know',
    { cpu: { quota: 25_000n, period: 50_000n } },
    ['CPUQuotaPerSecUSec=500000'],
    ['cpu.max=25000 50000'],
    { version: 241 },
  ],
  [
    'a quota of a part of a percent, which systemd rounds up',
    { cpu: { quota: 12_345n } },
    ['CPUQuotaPerSecUSec=130000'],
    ['cpu.max=12345 100000'],
  ],
  ['no quota', { cpu: { quota: -1n } }, [`CPUQuotaPerSecUSec=${NO_LIMIT}`], ['cpu.max=max 100000']],
  [
    'a new quota with the old period',
    { cpu: { quota: 10_000n } },
    ['CPUQuotaPerSecUSec=200000'],
    ['cpu.max=10000 50000'],
    { current: { cpuMax: '25000 50000' } },
  ],
  [
    'a new period with the old quota',
    { cpu: { period: 100_000n } },
    ['CPUQuotaPeriodUSec=100000', 'CPUQuotaPerSecUSec=250000'],
    ['cpu.max=25000 100000'],
    { current: { cpuMax: '25000 50000' } },
  ],
  ['burst, which only the file has', { cpu: { burst: 1000n } }, [], ['cpu.max.burst=1000']],
  [
    'processors and memory nodes, as bits',
    { cpu: { cpus: '0-2,9', mems: '0' } },
    ['AllowedCPUs=bits 111 10', 'AllowedMemoryNodes=bits 1'],
    ['cpuset.cpus=0-2,9', 'cpuset.mems=0'],
  ],
  [
    'processors, which a systemd before 244 does not know',
    { cpu: { cpus: '0' } },
    [],
    ['cpuset.cpus=0'],
    { version: 243 },
  ],
  ['a malformed list, which the kernel refuses', { cpu: { cpus: '2-x' } }, [], ['cpuset.cpus=2-x']],
  ['processes', { pids: { limit: 20n } }, ['TasksMax=20'], ['pids.max=20']],
  ['processes without a limit', { pids: { limit: -1n } }, [`TasksMax=${NO_LIMIT}`], ['pids.max=max']],
  ['no process, which means one', { pids: { limit: 0n } }, ['TasksMax=1'], ['pids.max=1']],
  [
    'a weight of block I/O: io.weight where there is no BFQ',
    { blockIO: { ...NO_BLOCK, weight: 500 } },
    ['IOWeight=4950'],
    ['io.bfq.weight=500'],
  ],
  [
    'a weight of block I/O that systemd turns into the same one for BFQ',
    { blockIO: { ...NO_BLOCK, weight: 500 } },
    ['IOWeight=4500'],
    ['io.bfq.weight=500'],
    { bfq: true },
  ],
  [
    'limits of devices, which only the files have',
    { blockIO: { ...NO_BLOCK, throttleReadBpsDevice: [{ major: 8, minor: 0, rate: 1000n }] } },
    [],
    ['io.max=8:0 rbps=1000'],
  ],
  [
    'huge pages and RDMA, which only the files have',
    { hugepageLimits: [{ pageSize: '2MB', limit: 4n }], rdma: { mlx5_0: { hcaHandles: 3 } } },
    [],
    ['hugetlb.2MB.max=4', 'hugetlb.2MB.rsvd.max=4', 'rdma.max=mlx5_0 hca_handle=3'],
  ],
  [
    'unified files that are properties too',
    {
      unified: {
        'memory.min': '1',
        'memory.high': '2',
        'memory.swap.max': 'max',
        'pids.max': '7',
        'cpu.weight': '50',
        'cpu.max': '20000 40000',
        'cpuset.cpus': '1',
        'io.weight': 'default 70',
        'memory.oom.group': '1',
      },
    },
    [
      'MemoryMin=1',
      'MemoryHigh=2',
      `MemorySwapMax=${NO_LIMIT}`,
      'TasksMax=7',
      'CPUWeight=50',
      'CPUQuotaPeriodUSec=40000',
      'CPUQuotaPerSecUSec=500000',
      'AllowedCPUs=bits 10',
      'IOWeight=70',
      'OOMPolicy=kill',
    ],
    [
      'memory.min=1',
      'memory.high=2',
      'memory.swap.max=max',
      'pids.max=7',
      'cpu.weight=50',
      'cpu.max=20000 40000',
      'cpuset.cpus=1',
      'io.weight=default 70',
      'memory.oom.group=1',
    ],
  ],
  [
    'a unified file overrides a limit',
    { memory: { limit: 1024n }, unified: { 'memory.max': '4096' } },
    ['MemoryMax=4096'],
    ['memory.max=1024', 'memory.max=4096'],
  ],
  [
    'a unified file that no property has, or whose text is not understood',
    { unified: { 'hugetlb.2MB.max': '1', 'memory.max': 'much', 'memory.high': '0' } },
    ['MemoryHigh=0'],
    ['hugetlb.2MB.max=1', 'memory.max=much', 'memory.high=0'],
  ],
]

const V1: readonly Row[] = [
  ['nothing', {}, [], []],
  [
    'memory and swap: v1 counts both together, and systemd only memory',
    { memory: { limit: 1024n, swap: 3072n, reservation: 512n } },
    ['MemoryLimit=1024'],
    ['memory.limit_in_bytes=1024', 'memory.memsw.limit_in_bytes=3072', 'memory.soft_limit_in_bytes=512'],
  ],
  [
    'memory without a limit',
    { memory: { limit: -1n } },
    [`MemoryLimit=${NO_LIMIT}`],
    ['memory.limit_in_bytes=-1', 'memory.memsw.limit_in_bytes=-1'],
  ],
  ['shares', { cpu: { shares: 512n } }, ['CPUShares=512'], ['cpu.shares=512']],
  [
    'quota and period',
    { cpu: { quota: 25_000n, period: 50_000n } },
    ['CPUQuotaPeriodUSec=50000', 'CPUQuotaPerSecUSec=500000'],
    ['cpu.cfs_period_us=50000', 'cpu.cfs_quota_us=25000'],
  ],
  ['realtime, which only the files have', { cpu: { realtimeRuntime: 9n } }, [], ['cpu.rt_runtime_us=9']],
  ['processors, which only the files have', { cpu: { cpus: '0' } }, [], ['cpuset.cpus=0']],
  ['processes', { pids: { limit: 20n } }, ['TasksMax=20'], ['pids.max=20']],
  ['a weight of block I/O', { blockIO: { ...NO_BLOCK, weight: 500 } }, ['BlockIOWeight=500'], ['blkio.weight=500']],
  [
    'network classes, which only the files have',
    { network: { classID: 1, priorities: [{ name: 'lo', priority: 2 }] } },
    [],
    ['net_cls.classid=1', 'net_prio.ifpriomap=lo 2'],
  ],
]

describe('limits on v2:', () => {
  test.for(V2)('%s', ([, limits, systemd, files, input = {}]) => {
    expect(both(limits, { ...NEW, ...input })).toEqual({ systemd, files })
  })
})

describe('limits on v1:', () => {
  test.for(V1)('%s', ([, limits, systemd, files, input = {}]) => {
    expect(both(limits, { ...NEW, v2: false, ...input })).toEqual({ systemd, files })
  })
})

describe('device rules:', () => {
  const rules = emulate([
    { allow: false, access: 'rwm' },
    { allow: true, type: 'c', major: 1, minor: 3, access: 'rw' },
    { allow: true, type: 'c', major: 136, access: 'rwm' },
    { allow: true, type: 'b', access: 'm' },
  ])
  test('are cleared first, then strict, then listed by number', () => {
    expect(deviceProperties(rules, 257).map(words)).toEqual([
      'DeviceAllow=[]',
      'DevicePolicy=strict',
      'DeviceAllow=[[/dev/char/1:3, rw], [char-136, rwm], [block-*, m]]',
    ])
  })
  test('that allow everything allow everything', () => {
    const everything = emulate([{ allow: true, access: 'rwm' }])
    expect(deviceProperties(everything, 257).map(words)).toEqual(['DeviceAllow=[]', 'DevicePolicy=auto'])
  })
  test('that systemd cannot express are left to the own program', () => {
    expect(deviceProperties(rules, 239).map(words)).toEqual(['DeviceAllow=[]', 'DevicePolicy=auto'])
    const byMinor = emulate([{ allow: true, type: 'c', minor: 3, access: 'r' }])
    expect(deviceProperties(byMinor, 257).map(words)).toEqual(['DeviceAllow=[]', 'DevicePolicy=auto'])
  })
})

describe('a new unit', () => {
  const shape = { name: 'runts-web.scope', slice: 'system.slice', id: 'web', pid: 42 }
  test('is a scope in its slice, delegated, with its process and all counters', () => {
    expect(unitProperties(shape, NEW).map(words)).toEqual([
      'Description=container web',
      'Slice=system.slice',
      'Delegate=true',
      'PIDs=[42]',
      'OOMPolicy=continue',
      'MemoryAccounting=true',
      'CPUAccounting=true',
      'IOAccounting=true',
      'TasksAccounting=true',
      'DefaultDependencies=false',
    ])
  })
  test('counts block I/O on v1, and has no policy that an old systemd does not know', () => {
    const old = unitProperties(shape, { version: 252, v2: false }).map(words)
    expect(old).toContain('BlockIOAccounting=true')
    expect(old.join()).not.toContain('OOMPolicy')
  })
  test('that is a slice itself wants the other slice', () => {
    const slice = unitProperties({ ...shape, name: 'a-b.slice', slice: 'a.slice' }, NEW).map(words)
    expect(slice).toContain('Wants=[a.slice]')
    expect(slice.join()).not.toMatch(/\b(Slice|Delegate|PIDs)=/)
  })
  test('takes the property of the later list', () => {
    const property = (name: string, data: string): DbusProperty => ({ name, signature: 's', data })
    const joined = joinProperties([property('A', '1'), property('B', '1')], [property('A', '2'), property('A', '3')])
    expect(joined.map(words)).toEqual(['B=1', 'A=2', 'A=3'])
  })
})
