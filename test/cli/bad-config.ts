/**
 * Ways in which a config.json can be wrong: the JSON pointer that the error must name, words that it must hold, and
 * the change that breaks a good document. The first part never gets past the reader, the second is about a whole
 * container on this host.
 */
import type { Document } from '../unit/spec/fixture.ts'

/** One broken document. */
export type BadConfig = readonly [pointer: string, words: string, change: (s: Document) => unknown]

const mount = (entry: Document) => (s: Document) => s.mounts.push({ destination: '/data', ...entry })
/** where such a mount stands: after those of the base document */
const MOUNT = '/mounts/5'
const bind = (entry: Document) => mount({ source: '/tmp', options: ['bind'], ...entry })
const device = (entry: Document) => (s: Document) => (s.linux.devices = [{ path: '/dev/x', type: 'c', ...entry }])
const resources = (entry: Document) => (s: Document) => (s.linux.resources = entry)
const seccomp = (entry: Document) => (s: Document) => {
  s.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', ...entry }
}
const rule = (entry: Document) => seccomp({ syscalls: [{ names: ['mkdir'], action: 'SCMP_ACT_ERRNO', ...entry }] })
const userns = (entry: Document) => (s: Document) => {
  const map = [{ containerID: 0, hostID: 100000, size: 1000 }]
  s.linux.namespaces.push({ type: 'user' })
  Object.assign(s.linux, { uidMappings: map, gidMappings: map, ...entry })
}
const hook = (entry: Document) => (s: Document) => (s.hooks = { prestart: [{ path: '/bin/true', ...entry }] })
const scheduler = (entry: Document) => (s: Document) => (s.process.scheduler = { policy: 'SCHED_OTHER', ...entry })
const timens = (offsets: Document) => (s: Document) => {
  s.linux.namespaces.push({ type: 'time' })
  s.linux.timeOffsets = offsets
}
const hasOnly = (...types: string[]) => {
  return (s: Document) => {
    s.linux.namespaces = types.map((type) => ({ type }))
  }
}
const both = (first: (s: Document) => unknown, second: (s: Document) => unknown) => (s: Document) => {
  first(s)
  second(s)
}

/** Documents that are wrong in themselves. */
export const BAD_DOCUMENTS: readonly BadConfig[] = [
  ['/ociVersion', 'must not be empty', (s) => delete s.ociVersion],
  ['/ociVersion', 'is not a semantic version', (s) => (s.ociVersion = 'new')],
  ['/ociVersion', 'only 1.x is', (s) => (s.ociVersion = '2.0.0')],
  ['/root', 'root must be specified', (s) => delete s.root],
  ['/root', 'expected an object', (s) => (s.root = '/rootfs')],
  ['/root/path', 'must not be empty', (s) => (s.root.path = '')],
  ['/root/readonly', 'expected true or false', (s) => (s.root.readonly = 1)],
  ['/process', 'process property must not be empty', (s) => delete s.process],
  ['/process', 'expected an object', (s) => (s.process = ['sh'])],
  ['/process/args', 'args must not be empty', (s) => (s.process.args = [])],
  ['/process/args', 'expected a list', (s) => (s.process.args = 'sh')],
  ['/process/args/0', 'exec: "": executable file not found in $PATH', (s) => (s.process.args = [''])],
  ['/process/args/1', 'expected a string', (s) => (s.process.args = ['sh', 7])],
  ['/process/args/1', 'NUL byte', (s) => (s.process.args = ['sh', 'a\0b'])],
  ['/process/cwd', 'Cwd property must not be empty', (s) => delete s.process.cwd],
  ['/process/cwd', 'Cwd must be an absolute path', (s) => (s.process.cwd = 'tmp')],
  ['/process/env/0', 'invalid environment variable', (s) => (s.process.env = ['PATH'])],
  ['/process/env/0', 'invalid environment variable', (s) => (s.process.env = ['=x'])],
  ['/process/env/1', 'invalid environment variable', (s) => (s.process.env = ['A=1', ''])],
  ['/process/user', 'expected an object', (s) => (s.process.user = 'root')],
  ['/process/user/uid', 'out of range', (s) => (s.process.user.uid = -1)],
  ['/process/user/uid', 'out of range', (s) => (s.process.user.uid = 4294967295)],
  ['/process/user/gid', 'expected a whole number', (s) => (s.process.user.gid = 1.5)],
  ['/process/user/umask', 'out of range', (s) => (s.process.user.umask = -1)],
  ['/process/user/additionalGids/1', 'out of range', (s) => (s.process.user.additionalGids = [1, -2])],
  ['/process/terminal', 'expected true or false', (s) => (s.process.terminal = 'yes')],
  ['/process/consoleSize/width', 'out of range', (s) => (s.process.consoleSize = { height: 1, width: 70000 })],
  ['/process/noNewPrivileges', 'expected true or false', (s) => (s.process.noNewPrivileges = 'no')],
  ['/process/oomScoreAdj', 'out of range', (s) => (s.process.oomScoreAdj = 1001)],
  ['/process/capabilities', 'expected an object', (s) => (s.process.capabilities = ['CAP_KILL'])],
  ['/process/capabilities/bounding', 'expected a list', (s) => (s.process.capabilities.bounding = 'CAP_KILL')],
  ['/process/capabilities/effective/0', 'expected a string', (s) => (s.process.capabilities.effective = [5])],
  ['/process/rlimits/0/type', 'unknown rlimit', (s) => (s.process.rlimits = [{ type: 'NOFILE', soft: 1, hard: 1 }])],
  ['/process/rlimits/0/type', 'has no type', (s) => (s.process.rlimits = [{ soft: 1, hard: 1 }])],
  [
    '/process/rlimits/1/type',
    'duplicate rlimit',
    (s) => (s.process.rlimits = [0, 1].map((soft) => ({ type: 'RLIMIT_CORE', soft, hard: 1 }))),
  ],
  [
    '/process/rlimits/0/soft',
    'above the hard limit',
    (s) => (s.process.rlimits = [{ type: 'RLIMIT_CORE', soft: 2, hard: 1 }]),
  ],
  ['/process/scheduler/policy', 'scheduler policy is required', scheduler({ policy: '' })],
  ['/process/scheduler/policy', 'invalid scheduler policy', scheduler({ policy: 'SCHED_FAIR' })],
  ['/process/scheduler/nice', 'invalid scheduler.nice', scheduler({ nice: 20 })],
  ['/process/scheduler/priority', 'SchedFIFO or SchedRR', scheduler({ priority: 1 })],
  ['/process/scheduler/runtime', 'SchedDeadline', scheduler({ runtime: 1 })],
  ['/process/scheduler/flags/0', 'invalid scheduler flag', scheduler({ flags: ['RESET_ON_FORK'] })],
  ['/process/ioPriority/class', 'invalid ioPriority.Class', (s) => (s.process.ioPriority = { class: 'BE' })],
  [
    '/process/ioPriority/priority',
    'invalid ioPriority.Priority',
    (s) => (s.process.ioPriority = { class: 'IOPRIO_CLASS_BE', priority: 8 }),
  ],
  ['/process/execCPUAffinity/initial', 'runs backwards', (s) => (s.process.execCPUAffinity = { initial: '3-1' })],
  ['/process/execCPUAffinity/final', 'more than 65536', (s) => (s.process.execCPUAffinity = { final: '70000' })],
  ['/hostname', 'without a private UTS namespace', both(hasOnly('mount', 'pid'), (s) => (s.hostname = 'box'))],
  ['/domainname', 'without a private UTS namespace', both(hasOnly('mount', 'pid'), (s) => (s.domainname = 'lan'))],
  ['/annotations/a', 'expected a string', (s) => (s.annotations = { a: 1 })],
  ['/annotations', 'expected an object', (s) => (s.annotations = ['a=1'])],
  ['/windows', 'is not supported', (s) => (s.windows = { layerFolders: ['C:'] })],
  ['/vm', 'is not supported', (s) => (s.vm = { kernel: { path: '/boot/vmlinuz' } })],
  ['/hooks', 'expected an object', (s) => (s.hooks = [])],
  ['/hooks/prestart/0/path', 'the hook has no path', hook({ path: '' })],
  ['/hooks/prestart/0/path', 'is not absolute', hook({ path: 'true' })],
  ['/hooks/prestart/0/args/0', 'expected a string', hook({ args: [1] })],
  ['/hooks/prestart/0/env/0', 'invalid environment variable', hook({ env: ['PATH'] })],
  ['/hooks/prestart/0/timeout', 'out of range', hook({ timeout: 0 })],
  ['/mounts', 'expected a list', (s) => (s.mounts = {})],
  ['/mounts/0', 'expected an object', (s) => (s.mounts = ['/proc'])],
  [`${MOUNT}/destination`, 'has no destination', mount({ destination: '', type: 'tmpfs' })],
  [`${MOUNT}/type`, 'has no type', mount({ source: 'x' })],
  [`${MOUNT}/source`, 'has no source', mount({ options: ['bind'] })],
  [
    `${MOUNT}/options/1`,
    'bind mounts cannot have any filesystem-specific options',
    bind({ options: ['bind', 'size=1'] }),
  ],
  [`${MOUNT}/options/0`, '"remount" is not supported', bind({ options: ['remount', 'bind'] })],
  [`${MOUNT}/options/0`, 'for tmpfs only', mount({ type: 'proc', options: ['tmpcopyup'] })],
  [`${MOUNT}/options/0`, 'only supported for bind-mounts', mount({ type: 'tmpfs', options: ['idmap'] })],
  [`${MOUNT}/options`, 'longer than the kernel takes', mount({ type: 'tmpfs', options: [`size=${'1'.repeat(300)}`] })],
  [`${MOUNT}/gidMappings`, 'both uid and gid mappings', bind({ uidMappings: [{ size: 1 }] })],
  [`${MOUNT}/uidMappings/0/size`, 'has no size', bind({ uidMappings: [{ hostID: 1 }] })],
  ['/linux', 'expected an object', (s) => (s.linux = [])],
  ['/linux/namespaces/0/type', 'does not exist', hasOnly('network2')],
  ['/linux/namespaces/0/type', 'has no type', (s) => (s.linux.namespaces = [{}])],
  ['/linux/namespaces/1', 'duplicated ns', hasOnly('pid', 'pid')],
  ['/linux/namespaces/0/path', 'is not absolute', (s) => (s.linux.namespaces = [{ type: 'pid', path: 'ns' }])],
  ['/linux/uidMappings', "USER namespace isn't enabled", (s) => (s.linux.uidMappings = [{ size: 1 }])],
  ['/linux/gidMappings', 'needs gidMappings', userns({ gidMappings: [] })],
  ['/linux/uidMappings', 'container id 0 is not mapped', userns({ uidMappings: [{ containerID: 1, size: 1 }] })],
  ['/linux/uidMappings', 'share the host id', userns({ uidMappings: [{ size: 9 }, { containerID: 9, size: 1 }] })],
  ['/linux/uidMappings/0/size', 'out of range', userns({ uidMappings: [{ size: 0 }] })],
  ['/linux/timeOffsets', 'time namespace is not enabled', (s) => (s.linux.timeOffsets = { boottime: { secs: 1 } })],
  ['/linux/timeOffsets/realtime', 'unknown clock', timens({ realtime: { secs: 1 } })],
  ['/linux/timeOffsets/boottime/nanosecs', 'out of range', timens({ boottime: { nanosecs: -1 } })],
  ['/linux/devices/0/type', 'invalid device type', device({ type: 'a', major: 1, minor: 1 })],
  ['/linux/devices/0/major', 'has no major', device({ minor: 1 })],
  ['/linux/devices/0/minor', 'out of range', device({ major: 1, minor: -1 })],
  ['/linux/devices/0/fileMode', 'out of range', device({ major: 1, minor: 3, fileMode: -1 })],
  ['/linux/cgroupsPath', 'expected a string', (s) => (s.linux.cgroupsPath = 7)],
  ['/linux/rootfsPropagation', 'is not supported', (s) => (s.linux.rootfsPropagation = 'both')],
  ['/linux/sysctl/kernel.hostname', '"hostname" field', (s) => (s.linux.sysctl = { 'kernel.hostname': 'x' })],
  [
    '/linux/sysctl/vm.swappiness',
    'not in a separate kernel namespace',
    (s) => (s.linux.sysctl = { 'vm.swappiness': '1' }),
  ],
  [
    '/linux/sysctl/vm~1swappiness',
    'not in a separate kernel namespace',
    (s) => (s.linux.sysctl = { 'vm/swappiness': '1' }),
  ],
  ['/linux/sysctl/net.a..b', 'is not a valid name', (s) => (s.linux.sysctl = { 'net.a..b': '1' })],
  [
    '/linux/sysctl/user.max_net_namespaces',
    'without a user namespace',
    (s) => (s.linux.sysctl = { 'user.max_net_namespaces': '1' }),
  ],
  ['/linux/personality/domain', 'unknown personality', (s) => (s.linux.personality = { domain: 'BSD' })],
  ['/linux/personality/domain', 'has no domain', (s) => (s.linux.personality = {})],
  ['/linux/intelRdt/closID', 'invalid intelRdt.ClosID', (s) => (s.linux.intelRdt = { closID: '../x' })],
  ['/linux/netDevices/a b', 'invalid network device name', (s) => (s.linux.netDevices = { 'a b': {} })],
  ['/linux/netDevices/eth0/name', '1 to 15 bytes', (s) => (s.linux.netDevices = { eth0: { name: 'x'.repeat(16) } })],
  ['/linux/memoryPolicy/mode', 'invalid memory policy mode', (s) => (s.linux.memoryPolicy = {})],
  ['/linux/memoryPolicy/nodes', 'needs nodes', (s) => (s.linux.memoryPolicy = { mode: 'MPOL_BIND' })],
  [
    '/linux/memoryPolicy/flags/0',
    'invalid memory policy flag',
    (s) => (s.linux.memoryPolicy = { mode: 'MPOL_LOCAL', flags: ['X'] }),
  ],
  [
    '/linux/seccomp/defaultAction',
    'has no default action',
    (s) => (s.linux.seccomp = { syscalls: [{ names: ['a'], action: 'SCMP_ACT_LOG' }] }),
  ],
  ['/linux/seccomp/defaultAction', 'unknown seccomp action', seccomp({ defaultAction: 'DENY' })],
  ['/linux/seccomp/defaultAction', 'cannot be used as default action', seccomp({ defaultAction: 'SCMP_ACT_NOTIFY' })],
  ['/linux/seccomp/architectures/0', 'unknown seccomp architecture', seccomp({ architectures: ['x86_64'] })],
  ['/linux/seccomp/flags/0', 'seccomp flag', seccomp({ flags: ['LOG'] })],
  ['/linux/seccomp/defaultErrnoRet', 'cannot carry an errno', seccomp({ defaultErrnoRet: 1 })],
  ['/linux/seccomp/syscalls/0/names', 'names no system call', rule({ names: [] })],
  ['/linux/seccomp/syscalls/0/action', 'unknown seccomp action', rule({ action: 'NO' })],
  ['/linux/seccomp/syscalls/0/errnoRet', 'out of range', rule({ errnoRet: 4096 })],
  [
    '/linux/seccomp/syscalls/0/args/0/op',
    'unknown seccomp operator',
    rule({ args: [{ index: 0, value: 1, op: '==' }] }),
  ],
  [
    '/linux/seccomp/syscalls/0/args/0/index',
    'out of range',
    rule({ args: [{ index: 6, value: 1, op: 'SCMP_CMP_EQ' }] }),
  ],
  ['/linux/seccomp/listenerPath', 'listenerPath is not set', rule({ action: 'SCMP_ACT_NOTIFY' })],
  ['/linux/seccomp/syscalls/0/names/0', 'for the write syscall', rule({ names: ['write'], action: 'SCMP_ACT_NOTIFY' })],
  ['/linux/resources', 'expected an object', resources([])],
  ['/linux/resources/memory/limit', 'expected a whole number', resources({ memory: { limit: '1g' } })],
  ['/linux/resources/memory/swappiness', 'out of range', resources({ memory: { swappiness: 101 } })],
  ['/linux/resources/cpu/shares', 'out of range', resources({ cpu: { shares: -1 } })],
  ['/linux/resources/pids/limit', 'expected a whole number', resources({ pids: { limit: 'max' } })],
  ['/linux/resources/devices/0/access', '', resources({ devices: [{ allow: true, access: 'rwx' }] })],
  ['/linux/resources/devices/0/type', '', resources({ devices: [{ allow: true, type: 'x', access: 'r' }] })],
  ['/linux/resources/unified', 'expected an object', resources({ unified: [] })],
  ['/linux/resources/hugepageLimits/0', 'expected an object', resources({ hugepageLimits: ['2MB'] })],
  ['/linux/resources/blockIO/weight', 'out of range', resources({ blockIO: { weight: 70000 } })],
]

/**
 * Documents that cannot be carried out: refused by the plan, by this host, or by the kernel, with the pointer all the
 * same.
 */
export const BAD_CONTAINERS: readonly BadConfig[] = [
  ['/root/path', 'ENOENT', (s) => (s.root.path = 'nowhere')],
  ['/root/path', 'is not a directory', (s) => (s.root.path = 'config.json')],
  [`${MOUNT}/destination`, 'on the top of rootfs', bind({ destination: '/' })],
  [`${MOUNT}/destination`, 'on the top of rootfs', bind({ destination: '/a/../..' })],
  [`${MOUNT}/destination`, 'because it is inside /proc', bind({ destination: '/proc/bus' })],
  [`${MOUNT}/destination`, 'only the proc file system', bind({ destination: '/proc' })],
  [MOUNT, 'ENOENT', bind({ source: '/no/such/folder' })],
  [MOUNT, 'ENODEV', mount({ type: 'no-such-fs', source: 'none' })],
  [MOUNT, 'EINVAL', mount({ type: 'tmpfs', source: 'tmpfs', options: ['size=many'] })],
  [MOUNT, 'both uid and gid mappings', bind({ options: ['bind', 'idmap'] })],
  [
    '/linux/rootfsPropagation',
    'needs a mount namespace',
    both(hasOnly('pid'), (s) =>
      Object.assign(s.linux, { maskedPaths: [], readonlyPaths: [], rootfsPropagation: 'rslave' }),
    ),
  ],
  ['/process/user/uid', 'unmapped uid 5000', both(userns({}), (s) => (s.process.user.uid = 5000))],
  ['/process/selinuxLabel', 'selinux is disabled', (s) => (s.process.selinuxLabel = 'a:b:c:d')],
  ['/linux/mountLabel', 'selinux is disabled', (s) => (s.linux.mountLabel = 'a:b:c:d')],
  ['/linux/namespaces', 'ENOENT', (s) => s.linux.namespaces.push({ type: 'cgroup', path: '/no/such/ns' })],
  ['/linux/namespaces', 'EINVAL', (s) => (s.linux.namespaces[0].path = '/proc/self/ns/user')],
  ['/linux/memoryPolicy', 'EINVAL', (s) => (s.linux.memoryPolicy = { mode: 'MPOL_BIND', nodes: '1000' })],
  ['/linux/sysctl/net.no_such', 'ENOENT', (s) => (s.linux.sysctl = { 'net.no_such': '1' })],
  ['/linux/sysctl/kernel.shmmax', 'EINVAL', (s) => (s.linux.sysctl = { 'kernel.shmmax': 'much' })],
  ['/linux/netDevices/no-such-dev', '', (s) => (s.linux.netDevices = { 'no-such-dev': {} })],
]
