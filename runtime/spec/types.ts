/**
 * The OCI runtime configuration as the rest of the runtime sees it: checked by load.ts, with the field names of the
 * specification. A list that the document leaves out is empty; a string that is empty in the document is left out.
 * Numbers that may need 64 bits are bigint; ids and small numbers are number. Everything is readonly plain data and
 * survives JSON (a bigint as digits).
 */
import type { NAMESPACES } from '../sys/linux.ts'

/** config.json. */
export interface Spec {
  readonly ociVersion: string
  readonly root: Root
  readonly process: OciProcess
  readonly hostname?: string
  readonly domainname?: string
  readonly mounts: readonly Mount[]
  readonly hooks: Hooks
  readonly annotations: Readonly<Record<string, string>>
  readonly linux: Linux
}

/** The six points of a container's life at which hooks run. */
export const HOOK_NAMES = [
  'prestart',
  'createRuntime',
  'createContainer',
  'startContainer',
  'poststart',
  'poststop',
] as const

/** The name of one of these points. */
export type HookName = (typeof HOOK_NAMES)[number]

/** The hooks of a container, each list in its order of execution. */
export type Hooks = Readonly<Record<HookName, readonly Hook[]>>

/** A program that runs at one point of a container's life, with the state document on its standard input. */
export interface Hook {
  /** absolute */
  readonly path: string
  /** the whole argv; empty: the path alone */
  readonly args: readonly string[]
  /** the whole environment; by default that of its parent, the runtime or the container's program */
  readonly env?: readonly string[]
  /** in seconds; by default unlimited */
  readonly timeout?: number
}

/** The root file system; a relative path counts from the bundle. */
export interface Root {
  readonly path: string
  readonly readonly: boolean
}

/** One process of a container: `process` of config.json, or the document of an exec. */
export interface OciProcess {
  readonly terminal: boolean
  readonly consoleSize?: { readonly height: number; readonly width: number }
  readonly user: User
  readonly args: readonly string[]
  readonly env: readonly string[]
  readonly cwd: string
  /** by default no capabilities */
  readonly capabilities?: Capabilities
  readonly rlimits: readonly Rlimit[]
  readonly noNewPrivileges: boolean
  readonly apparmorProfile?: string
  readonly selinuxLabel?: string
  readonly oomScoreAdj?: number
  readonly scheduler?: Scheduler
  readonly ioPriority?: { readonly class: IoClass; readonly priority: number }
  readonly execCPUAffinity?: { readonly initial?: string; readonly final?: string }
}

/** Scheduling attributes (sched_setattr(2)); times are nanoseconds. */
export interface Scheduler {
  readonly policy: SchedulerPolicy
  readonly nice: number
  readonly priority: number
  readonly flags: readonly SchedulerFlag[]
  readonly runtime: bigint
  readonly deadline: bigint
  readonly period: bigint
}

/** Scheduling policies of the specification. */
export type SchedulerPolicy =
  | 'SCHED_OTHER'
  | 'SCHED_FIFO'
  | 'SCHED_RR'
  | 'SCHED_BATCH'
  | 'SCHED_ISO'
  | 'SCHED_IDLE'
  | 'SCHED_DEADLINE'

/** Scheduling flags of the specification. */
export type SchedulerFlag =
  | 'SCHED_FLAG_RESET_ON_FORK'
  | 'SCHED_FLAG_RECLAIM'
  | 'SCHED_FLAG_DL_OVERRUN'
  | 'SCHED_FLAG_KEEP_POLICY'
  | 'SCHED_FLAG_KEEP_PARAMS'
  | 'SCHED_FLAG_UTIL_CLAMP_MIN'
  | 'SCHED_FLAG_UTIL_CLAMP_MAX'

/** I/O scheduling classes (ioprio_set(2)). */
export type IoClass = 'IOPRIO_CLASS_RT' | 'IOPRIO_CLASS_BE' | 'IOPRIO_CLASS_IDLE'

/** Ids inside the container's user namespace. */
export interface User {
  readonly uid: number
  readonly gid: number
  readonly umask?: number
  readonly additionalGids: readonly number[]
}

/** The five capability sets, by CAP_* name; the runtime ignores an unknown name with a warning. */
export interface Capabilities {
  readonly bounding: readonly string[]
  readonly effective: readonly string[]
  readonly inheritable: readonly string[]
  readonly permitted: readonly string[]
  readonly ambient: readonly string[]
}

/** A resource limit; RLIM_INFINITY is 2^64-1. */
export interface Rlimit {
  readonly type: string
  readonly soft: bigint
  readonly hard: bigint
}

/** One entry of `mounts`. */
export interface Mount {
  readonly destination: string
  readonly type?: string
  readonly source?: string
  readonly options: readonly string[]
  /** for an id-mapped mount; both are empty where the container's own mappings are used */
  readonly uidMappings: readonly IdMapping[]
  readonly gidMappings: readonly IdMapping[]
}

/** Linux-only settings. */
export interface Linux {
  readonly namespaces: readonly Namespace[]
  readonly uidMappings: readonly IdMapping[]
  readonly gidMappings: readonly IdMapping[]
  readonly devices: readonly Device[]
  readonly cgroupsPath?: string
  readonly resources?: LinuxResources
  readonly rootfsPropagation?: Propagation
  readonly seccomp?: LinuxSeccomp
  readonly sysctl: Readonly<Record<string, string>>
  readonly maskedPaths: readonly string[]
  readonly readonlyPaths: readonly string[]
  readonly mountLabel?: string
  readonly personality?: { readonly domain: 'LINUX' | 'LINUX32'; readonly flags?: readonly string[] }
  /** for a new time namespace */
  readonly timeOffsets?: Readonly<Partial<Record<'monotonic' | 'boottime', TimeOffset>>>
  /** network devices of the host that move into the container, by their names on the host */
  readonly netDevices: Readonly<Record<string, { readonly name?: string }>>
  readonly memoryPolicy?: MemoryPolicy
  readonly intelRdt?: IntelRdt
}

/** The Intel RDT class of a container, and its shares of cache and memory. */
export interface IntelRdt {
  /** name of the class, "/" for the default one; by default the container's own, with its id as the name */
  readonly closID?: string
  /** lines for the kernel's file, written after the two below */
  readonly schemata: readonly string[]
  readonly l3CacheSchema?: string
  readonly memBwSchema?: string
  /** a group of its own in which the kernel counts what the container uses */
  readonly enableMonitoring: boolean
}

/** Offset of a clock. */
export interface TimeOffset {
  readonly secs: bigint
  readonly nanosecs: number
}

/** NUMA policy (set_mempolicy(2)); `nodes` is a list such as "0-3,7". */
export interface MemoryPolicy {
  readonly mode: MemoryPolicyMode
  readonly nodes?: string
  readonly flags: readonly MemoryPolicyFlag[]
}

/** Modes of a NUMA policy. */
export type MemoryPolicyMode =
  | 'MPOL_DEFAULT'
  | 'MPOL_BIND'
  | 'MPOL_INTERLEAVE'
  | 'MPOL_WEIGHTED_INTERLEAVE'
  | 'MPOL_PREFERRED'
  | 'MPOL_PREFERRED_MANY'
  | 'MPOL_LOCAL'

/** Flags of a NUMA policy. */
export type MemoryPolicyFlag = 'MPOL_F_NUMA_BALANCING' | 'MPOL_F_RELATIVE_NODES' | 'MPOL_F_STATIC_NODES'

/** Kinds of namespaces. */
export type NamespaceType = (typeof NAMESPACES)[number]['type']

/** A namespace to create; with a path, to join. */
export interface Namespace {
  readonly type: NamespaceType
  readonly path?: string
}

/** A range of ids. */
export interface IdMapping {
  readonly containerID: number
  readonly hostID: number
  readonly size: number
}

/** The propagation of a mount, alone or with everything below it. */
export type Propagation =
  | 'private'
  | 'rprivate'
  | 'slave'
  | 'rslave'
  | 'shared'
  | 'rshared'
  | 'unbindable'
  | 'runbindable'

/** A device node to make in the container. */
export interface Device {
  readonly type: 'b' | 'c' | 'u' | 'p'
  readonly path: string
  readonly major: number
  readonly minor: number
  readonly fileMode?: number
  readonly uid: number
  readonly gid: number
}

/** Resource limits, `linux.resources`; a field that is left out changes nothing. */
export interface LinuxResources {
  readonly devices: readonly DeviceRule[]
  readonly memory?: MemoryResources
  readonly cpu?: CpuResources
  readonly pids?: { readonly limit: bigint }
  readonly blockIO?: BlockIoResources
  readonly hugepageLimits: readonly { readonly pageSize: string; readonly limit: bigint }[]
  readonly network?: NetworkResources
  /** by device name */
  readonly rdma: Readonly<Record<string, { readonly hcaHandles?: number; readonly hcaObjects?: number }>>
  /** cgroup v2 files and their content */
  readonly unified: Readonly<Record<string, string>>
}

/** No limit at all. */
export const NO_RESOURCES: LinuxResources = { devices: [], hugepageLimits: [], rdma: {}, unified: {} }

/** One device rule; a missing number, or -1, means all. */
export interface DeviceRule {
  readonly allow: boolean
  readonly type?: 'a' | 'b' | 'c'
  readonly major?: number
  readonly minor?: number
  /** a combination of r, w and m */
  readonly access?: string
}

/** Bytes; -1 is unlimited. */
export interface MemoryResources {
  readonly limit?: bigint
  readonly reservation?: bigint
  readonly swap?: bigint
  readonly kernel?: bigint
  readonly kernelTCP?: bigint
  readonly swappiness?: number
  readonly disableOOMKiller?: boolean
  readonly useHierarchy?: boolean
  readonly checkBeforeUpdate?: boolean
}

/** Times are microseconds. */
export interface CpuResources {
  readonly shares?: bigint
  readonly quota?: bigint
  readonly burst?: bigint
  readonly period?: bigint
  readonly realtimeRuntime?: bigint
  readonly realtimePeriod?: bigint
  readonly cpus?: string
  readonly mems?: string
  readonly idle?: number
}

/** Block device weights and limits. */
export interface BlockIoResources {
  readonly weight?: number
  readonly leafWeight?: number
  readonly weightDevice: readonly WeightDevice[]
  readonly throttleReadBpsDevice: readonly ThrottleDevice[]
  readonly throttleWriteBpsDevice: readonly ThrottleDevice[]
  readonly throttleReadIOPSDevice: readonly ThrottleDevice[]
  readonly throttleWriteIOPSDevice: readonly ThrottleDevice[]
}

/** Weight of one block device. */
export interface WeightDevice {
  readonly major: number
  readonly minor: number
  readonly weight?: number
  readonly leafWeight?: number
}

/** Rate of one block device, per second. */
export interface ThrottleDevice {
  readonly major: number
  readonly minor: number
  readonly rate: bigint
}

/** net_cls and net_prio. */
export interface NetworkResources {
  readonly classID?: number
  readonly priorities: readonly { readonly name: string; readonly priority: number }[]
}

/** A seccomp profile. */
export interface LinuxSeccomp {
  readonly defaultAction: SeccompAction
  readonly defaultErrnoRet?: number
  readonly architectures: readonly string[]
  /** by default the runtime's flags; an empty list means none */
  readonly flags?: readonly string[]
  /** unix socket of the agent that answers SCMP_ACT_NOTIFY */
  readonly listenerPath?: string
  readonly listenerMetadata?: string
  readonly syscalls: readonly SeccompRule[]
}

/** What happens to a system call. SCMP_ACT_KILL is SCMP_ACT_KILL_THREAD. */
export type SeccompAction =
  | 'SCMP_ACT_KILL'
  | 'SCMP_ACT_KILL_PROCESS'
  | 'SCMP_ACT_KILL_THREAD'
  | 'SCMP_ACT_TRAP'
  | 'SCMP_ACT_ERRNO'
  | 'SCMP_ACT_TRACE'
  | 'SCMP_ACT_ALLOW'
  | 'SCMP_ACT_LOG'
  | 'SCMP_ACT_NOTIFY'

/** One rule for some system calls. */
export interface SeccompRule {
  readonly names: readonly string[]
  readonly action: SeccompAction
  readonly errnoRet?: number
  readonly args: readonly SeccompArg[]
}

/** Comparison operators. */
export type SeccompOperator =
  | 'SCMP_CMP_NE'
  | 'SCMP_CMP_LT'
  | 'SCMP_CMP_LE'
  | 'SCMP_CMP_EQ'
  | 'SCMP_CMP_GE'
  | 'SCMP_CMP_GT'
  | 'SCMP_CMP_MASKED_EQ'

/** A condition on one argument; for MASKED_EQ `value` is the mask and `valueTwo` the expected result. */
export interface SeccompArg {
  readonly index: number
  readonly value: bigint
  readonly valueTwo: bigint
  readonly op: SeccompOperator
}
