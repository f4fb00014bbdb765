/** What callers say when they make a container or a process in one. Plain data; every fd is borrowed for the call. */
import type { Stdio } from '../init/spawn.ts'
import type { Logger, LogLevel } from '../logger.ts'
import type { OciProcess, Spec } from '../spec/types.ts'
import type { Reaper } from '../sys/reaper.ts'

/** Parts of the isolation that can be switched off for debugging, by root only; true is on. */
export interface FeatureGates {
  readonly seccomp: boolean
  readonly capabilities: boolean
  readonly apparmor: boolean
  readonly cgroupDevices: boolean
}

/** What Container.create needs. */
export interface CreateOptions {
  /** folder that holds the state of many containers */
  readonly root: string
  readonly id: string
  readonly bundle: string
  readonly spec: Spec
  readonly stdio: Stdio
  readonly reaper: Reaper
  readonly logger?: Logger
  /** for what the container side says while it sets itself up; left out: the same logger */
  readonly containerLogger?: Logger
  /** move the root to / instead of pivot_root, for a host whose own root cannot be pivoted */
  readonly noPivot?: boolean
  /** keep the caller's session keyring */
  readonly noNewKeyring?: boolean
  /** fds that the program gets as 3, 4, …; borrowed and duplicated */
  readonly extraFds?: readonly number[]
  /** path of a unix socket that receives the master of the terminal, which is then not ours (SCM_RIGHTS) */
  readonly consoleSocket?: string
  /** written when the container is created */
  readonly pidFile?: string
  /** path of a unix socket that receives a pidfd of init (SCM_RIGHTS) */
  readonly pidfdSocket?: string
  /** whether a cgroup that we have no permission for is done without, where the spec asks for none; auto: unless we are root of the machine */
  readonly rootless?: 'auto' | boolean
  /** what is switched off for debugging */
  readonly gates?: Partial<FeatureGates>
  /** give the program a socket for sd_notify(3), from which a NotifySocket takes its readiness */
  readonly notify?: boolean
  /** how much of what the container side says is logged; left out: all that the logger takes */
  readonly logLevel?: LogLevel
  /** the init helper, instead of the one that is installed beside this runtime */
  readonly initPath?: string
  /** this process moves to that cgroup (from the mount point, made where it is missing), so that it is never counted with the container */
  readonly monitorCgroup?: string
  /** makes the process of a machine monitor, say, from the one of the document, before anything is checked against the host */
  readonly transformProcess?: (spec: Spec, bundle: string) => OciProcess
  /** aborting undoes the create; for a limit of time, AbortSignal.timeout */
  readonly signal?: AbortSignal
}

/** A process to run in a container: what is left out is as the container's own has it. */
export type ExecProcess = Pick<OciProcess, 'args'> & Partial<OciProcess>

/** What Container.exec needs. */
export interface ExecOptions {
  readonly process: ExecProcess
  readonly stdio: Stdio
  readonly reaper: Reaper
  readonly noNewKeyring?: boolean
  /** join a paused container too; the process starts when it is resumed */
  readonly ignorePaused?: boolean
  /** fds that the program gets as 3, 4, …; borrowed and duplicated */
  readonly extraFds?: readonly number[]
  /** path of a unix socket that receives the master of the terminal, which is then not ours (SCM_RIGHTS) */
  readonly consoleSocket?: string
  /** written when the process runs */
  readonly pidFile?: string
  /** path of a unix socket that receives a pidfd of the process (SCM_RIGHTS) */
  readonly pidfdSocket?: string
  /** cgroup below the container's own: by controller on v1, under '' for all of them or on v2; relative, must stay inside */
  readonly subCgroups?: Readonly<Record<string, string>>
  /** what is switched off for debugging */
  readonly gates?: Partial<FeatureGates>
  /** for what the container side says while it sets itself up; left out: the container's logger */
  readonly containerLogger?: Logger
  /** how much of that is logged; left out: all that the logger takes */
  readonly logLevel?: LogLevel
  /** the init helper, instead of the one that is installed beside this runtime */
  readonly initPath?: string
  /** aborting kills the process; into a paused container on cgroup v1 it takes effect when that is resumed */
  readonly signal?: AbortSignal
}
