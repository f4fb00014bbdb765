/**
 * What the fuzzers start from: documents that between them have every field of config.json, each valid, so that a
 * mutation of one gets as deep into the readers as can be. Invariant: every one of them becomes a plan (seeds.ts
 * fails otherwise).
 */
import type { HostFacts } from '../../runtime/host/facts.ts'
import type { CreateInput } from '../../runtime/plan/build.ts'
import { HOST_V1, HOST_V2 } from '../unit/plan/support.ts'
import { addUserNamespace, type Document, defaultSpec } from '../unit/spec/fixture.ts'

/** One document and the host that it is planned for. */
export interface Seed {
  readonly name: string
  readonly document: Document
  readonly host: HostFacts
  readonly cgroup: CreateInput['cgroup']
}

const SECURE: HostFacts = { ...HOST_V2, apparmor: true, selinux: true }

function changed(change: (spec: Document) => void): Document {
  const spec = defaultSpec()
  change(spec)
  return spec
}

const hook = (name: string) => [
  { path: `/opt/${name}` },
  { path: '/bin/sh', args: ['sh', '-c', 'exit 0'], env: ['A=1', 'B=ü'], timeout: 10 },
]

/** Namespaces of its own, each of them, and what only such a container may have. */
const isolated = changed((spec) => {
  addUserNamespace(spec)
  spec.linux.namespaces.push({ type: 'cgroup' }, { type: 'time' })
  Object.assign(spec, {
    ociVersion: '1.3.0',
    hostname: 'box',
    domainname: 'lan',
    annotations: { 'org.example.key': 'value', empty: '' },
    root: { path: '/srv/root', readonly: true },
    hooks: Object.fromEntries(
      ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'].map((name) => [
        name,
        hook(name),
      ]),
    ),
  })
  Object.assign(spec.process, {
    terminal: true,
    consoleSize: { height: 24, width: 80 },
    oomScoreAdj: 100,
    cwd: '/home/me',
    user: { uid: 1000, gid: 1000, umask: 0o77, additionalGids: [10, 20], username: 'me' },
    noNewPrivileges: false,
    apparmorProfile: 'profile',
    selinuxLabel: 'system_u:system_r:container_t:s0:c1,c2',
    scheduler: { policy: 'SCHED_BATCH', nice: 5, flags: ['SCHED_FLAG_RESET_ON_FORK'] },
    ioPriority: { class: 'IOPRIO_CLASS_BE', priority: 7 },
    execCPUAffinity: { initial: '0-3,7', final: '1' },
    rlimits: [
      { type: 'RLIMIT_NOFILE', hard: 1024, soft: 512 },
      { type: 'RLIMIT_CORE', hard: 0, soft: 0 },
    ],
  })
  spec.mounts.push(
    { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['nosuid', 'ro'] },
    { destination: '/data', source: 'data', options: ['rbind', 'ro', 'rslave', 'rnosuid'] },
    { destination: '/cache', type: 'tmpfs', options: ['ro', 'tmpcopyup', 'size=10%', 'context="a,b"'] },
    {
      destination: '/mapped',
      source: '/srv/mapped',
      options: ['bind', 'idmap'],
      uidMappings: [{ containerID: 0, hostID: 1000, size: 10 }],
      gidMappings: [{ containerID: 0, hostID: 1000, size: 10 }],
    },
    { destination: '/mapped/all', source: '/srv/all', options: ['rbind', 'ridmap'] },
  )
  Object.assign(spec.linux, {
    rootfsPropagation: 'rshared',
    mountLabel: 'system_u:object_r:container_file_t:s0',
    sysctl: { 'net.ipv4.ip_unprivileged_port_start': '0', 'kernel.shmmax': '1000' },
    devices: [
      { path: '/dev/fuse', type: 'c', major: 10, minor: 229 },
      { path: '/dev/null', type: 'c', major: 1, minor: 3, fileMode: 0o600 },
      { path: '/run/pipe', type: 'p', fileMode: 0o640, uid: 1, gid: 2 },
    ],
    personality: { domain: 'LINUX32' },
    timeOffsets: { monotonic: { secs: 3600 }, boottime: { secs: -1, nanosecs: 5 } },
    netDevices: { eth1: { name: 'lan0' }, eth2: {} },
    memoryPolicy: { mode: 'MPOL_INTERLEAVE', nodes: '0-1,3', flags: ['MPOL_F_STATIC_NODES'] },
    intelRdt: {
      closID: 'gold',
      schemata: ['L2:0=f'],
      l3CacheSchema: 'L3:0=f',
      memBwSchema: 'MB:0=20',
      enableCMT: true,
    },
  })
})

/** Namespaces of others, and a filter with everything that one can have. */
const joined = changed((spec) => {
  spec.linux.namespaces = ['pid', 'network', 'ipc', 'uts', 'time'].map((type) => ({ type, path: `/run/ns/${type}` }))
  spec.linux.namespaces.push({ type: 'mount' })
  spec.process.scheduler = {
    policy: 'SCHED_DEADLINE',
    flags: ['SCHED_FLAG_RECLAIM'],
    runtime: 1000000,
    deadline: 2000000,
    period: 3000000,
  }
  spec.linux.seccomp = {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: 38,
    architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
    flags: ['SECCOMP_FILTER_FLAG_LOG', 'SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV'],
    listenerPath: '/run/agent.sock',
    listenerMetadata: 'about me',
    syscalls: [
      { names: ['read', 'write', 'exit_group'], action: 'SCMP_ACT_ALLOW' },
      { names: ['mkdirat'], action: 'SCMP_ACT_NOTIFY' },
      { names: ['chmod'], action: 'SCMP_ACT_TRACE', errnoRet: 7 },
      {
        names: ['personality'],
        action: 'SCMP_ACT_ALLOW',
        args: [
          { index: 0, value: 131072, op: 'SCMP_CMP_EQ' },
          { index: 1, value: 2080505856, valueTwo: 1, op: 'SCMP_CMP_MASKED_EQ' },
        ],
      },
    ],
  }
})

/** Resources, all of them. */
const limited = changed((spec) => {
  const device = (rate: number) => [{ major: 8, minor: 0, rate }]
  spec.linux.resources = {
    devices: [
      { allow: false, access: 'rwm' },
      { allow: true, type: 'c', major: 1, minor: -1, access: 'rw' },
    ],
    memory: { limit: 1 << 30, reservation: 1 << 29, swap: -1, swappiness: 10, disableOOMKiller: true },
    cpu: { shares: 512, quota: 50000, period: 100000, burst: 1000, cpus: '0-1', mems: '0', idle: 1 },
    pids: { limit: 100 },
    blockIO: {
      weight: 100,
      leafWeight: 20,
      weightDevice: [{ major: 8, minor: 0, weight: 200, leafWeight: 30 }],
      throttleReadBpsDevice: device(1000),
      throttleWriteBpsDevice: device(2000),
      throttleReadIOPSDevice: device(10),
      throttleWriteIOPSDevice: device(20),
    },
    hugepageLimits: [{ pageSize: '2MB', limit: 4194304 }],
    network: { classID: 1048577, priorities: [{ name: 'lo', priority: 5 }] },
    rdma: { mlx5_0: { hcaHandles: 3, hcaObjects: 100 } },
    unified: { 'memory.high': '1000000', 'cpu.weight': '50' },
  }
})

/** No mount namespace: the least that is a container. */
const chrooted = changed((spec) => {
  spec.linux.namespaces = [{ type: 'pid' }]
  Object.assign(spec, { mounts: [] })
  Object.assign(spec.linux, { maskedPaths: [], readonlyPaths: [] })
})

const tasks: CreateInput['cgroup'] = { kind: 'tasks', paths: ['/sys/fs/cgroup/memory/default/box/tasks'] }
const directory: CreateInput['cgroup'] = { kind: 'dir', path: '/sys/fs/cgroup/default/box' }

/** The documents. */
export const SEEDS: readonly Seed[] = [
  { name: 'default', document: defaultSpec(), host: HOST_V1, cgroup: tasks },
  { name: 'isolated', document: isolated, host: SECURE, cgroup: directory },
  { name: 'joined', document: joined, host: HOST_V1, cgroup: tasks },
  { name: 'limited', document: limited, host: HOST_V2, cgroup: directory },
  { name: 'chrooted', document: chrooted, host: HOST_V1, cgroup: { kind: 'none' } },
]
