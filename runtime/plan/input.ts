/** The input of a plan. It holds everything that depends on the machine, so that building a plan is a pure function. */
import type { CgroupJoin } from '../cgroup/cgroup.ts'
import type { HostFacts } from '../host/facts.ts'
import type { OciProcess, Spec } from '../spec/types.ts'
import type { SeccompFilter } from './process-ops.ts'

/** The input of a container's plan. */
export interface CreateInput {
  readonly id: string
  readonly spec: Spec
  /** absolute; relative sources of bind mounts are resolved against it */
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
  /** the terminal puts no carriage return before a newline, since its output is relayed to where that would be wrong */
  readonly bareNewlines?: boolean
  readonly host: HostFacts
}

/** The input of an exec's plan. */
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
    /** CLONE_NEW* flags of the namespaces in which the process differs from the runtime */
    readonly namespaces: number
  }
  readonly seccomp?: SeccompFilter
  readonly keyring: string | null
  /** how many fds beyond its standard streams the program keeps */
  readonly extraFds: number
  /** the terminal puts no carriage return before a newline, since its output is relayed to where that would be wrong */
  readonly bareNewlines?: boolean
  readonly host: HostFacts
}
