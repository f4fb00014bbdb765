/** What a plan is made from. Everything that depends on the machine is in here, so that building a plan is a pure function. */
import type { CgroupJoin } from '../cgroup/cgroup.ts'
import type { HostFacts } from '../host/facts.ts'
import type { OciProcess, Spec } from '../spec/types.ts'
import type { SeccompFilter } from './process-ops.ts'

/** What a container is made from. */
export interface CreateInput {
  readonly id: string
  readonly spec: Spec
  /** absolute; relative sources of bind mounts count from here */
  readonly bundle: string
  /** absolute path of the root file system */
  readonly rootfs: string
  readonly cgroup: CgroupJoin
  /** path of the fifo at which the container waits for its start */
  readonly fifo: string
  readonly seccomp?: SeccompFilter
  /** move the root instead of pivoting */
  readonly noPivot: boolean
  /** name of the session keyring to make, or null for none */
  readonly keyring: string | null
  /** how many fds beyond its standard streams the program keeps */
  readonly extraFds: number
  /** the terminal of the process writes newlines as they are: its output is relayed to where they are right so */
  readonly bareNewlines?: boolean
  readonly host: HostFacts
}

/** What a further process in a running container is made from. */
export interface ExecInput {
  /** the container's */
  readonly spec: Spec
  readonly process: OciProcess
  /** absolute path of the container's root file system on the host */
  readonly rootfs: string
  readonly cgroup: CgroupJoin
  readonly init: {
    readonly pid: number
    readonly startTime: bigint
    /** CLONE_NEW* flags of the namespaces in which it differs from us */
    readonly namespaces: number
  }
  readonly seccomp?: SeccompFilter
  readonly keyring: string | null
  /** how many fds beyond its standard streams the program keeps */
  readonly extraFds: number
  /** the terminal of the process writes newlines as they are: its output is relayed to where they are right so */
  readonly bareNewlines?: boolean
  readonly host: HostFacts
}
