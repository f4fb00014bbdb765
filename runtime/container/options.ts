/**
 * The options for making a container or a further process in one. Plain data. Every fd is borrowed for the call; every
 * default is given at its field.
 */
import type { Stdio } from '../init/spawn.ts'
import type { Logger, LogLevel } from '../logger.ts'
import type { OciProcess, Spec } from '../spec/types.ts'
import type { ProcessMaker } from '../sys/reaper.ts'

/** Parts of the isolation that root can switch off for debugging. Each is on unless it is false. */
export interface FeatureGates {
  readonly seccomp: boolean
  readonly capabilities: boolean
  readonly apparmor: boolean
  readonly cgroupDevices: boolean
}

/** The options of Container.create. */
export interface CreateOptions {
  /** folder that holds the state of many containers */
  readonly root: string
  readonly id: string
  readonly bundle: string
  readonly spec: Spec
  readonly stdio: Stdio
  readonly reaper: ProcessMaker
  /** default: nothing is logged */
  readonly logger?: Logger
  /** logs the messages of the init helper; default: `logger` */
  readonly containerLogger?: Logger
  /** move the root to / instead of pivot_root(2), for a host whose own root cannot be pivoted; default: false */
  readonly noPivot?: boolean
  /** keep the caller's session keyring instead of a new one; default: false */
  readonly noNewKeyring?: boolean
  /** fds that the program gets as 3, 4, …; borrowed and duplicated; default: none */
  readonly extraFds?: readonly number[]
  /** path of a unix socket that receives the terminal's master (SCM_RIGHTS); the runtime then does not keep it */
  readonly consoleSocket?: string
  /** file that receives the pid once the container is created */
  readonly pidFile?: string
  /** path of a unix socket that receives a pidfd of init (SCM_RIGHTS) */
  readonly pidfdSocket?: string
  /**
   * whether to go on without a cgroup where there is no permission for one and the spec asks for none. 'auto', the
   * default, means: unless the runtime is root of the machine
   */
  readonly rootless?: 'auto' | boolean
  /**
   * who makes the cgroup: this runtime, in the file system, or systemd, as a unit. linux.cgroupsPath is a path for the
   * one and "slice:prefix:name" for the other. Default: 'cgroupfs'
   */
  readonly cgroupManager?: 'cgroupfs' | 'systemd'
  /** parts of the isolation that are switched off for debugging; default: none */
  readonly gates?: Partial<FeatureGates>
  /** give the program a socket for sd_notify(3), which a NotifySocket reads; default: false */
  readonly notify?: boolean
  /** the lowest level of the init helper's messages that is logged; default: that of the logger */
  readonly logLevel?: LogLevel
  /** path of the init helper; default: the one installed beside this runtime */
  readonly initPath?: string
  /**
   * cgroup that this process moves to, so that it is never counted with the container. It is a path from the mount
   * point, made where it is missing. Default: this process stays where it is
   */
  readonly monitorCgroup?: string
  /**
   * a folder to take for the resctrl file system (Intel RDT), for tests on hosts without the hardware; default: where
   * the host has mounted it
   */
  readonly resctrl?: string
  /** replaces the document's process, for a machine monitor; called before anything is checked against the host */
  readonly transformProcess?: (spec: Spec, bundle: string) => OciProcess
  /** aborting undoes the create; AbortSignal.timeout sets a limit of time */
  readonly signal?: AbortSignal
}

/** A process to run in a container. A field that is left out is as the container's own process has it. */
export type ExecProcess = Pick<OciProcess, 'args'> & Partial<OciProcess>

/** The options of Container.exec. */
export interface ExecOptions {
  readonly process: ExecProcess
  readonly stdio: Stdio
  readonly reaper: ProcessMaker
  /** keep the caller's session keyring instead of the container's; default: false */
  readonly noNewKeyring?: boolean
  /** join a paused container too; the process starts when the container is resumed; default: false */
  readonly ignorePaused?: boolean
  /** fds that the program gets as 3, 4, …; borrowed and duplicated; default: none */
  readonly extraFds?: readonly number[]
  /** path of a unix socket that receives the terminal's master (SCM_RIGHTS); the runtime then does not keep it */
  readonly consoleSocket?: string
  /** file that receives the pid once the program was executed */
  readonly pidFile?: string
  /** path of a unix socket that receives a pidfd of the process (SCM_RIGHTS) */
  readonly pidfdSocket?: string
  /**
   * cgroups below the container's own, as relative paths that must stay inside it: by controller on v1; under '' for
   * all of them, and on v2; default: the container's own
   */
  readonly subCgroups?: Readonly<Record<string, string>>
  /** parts of the isolation that are switched off for debugging; default: none */
  readonly gates?: Partial<FeatureGates>
  /** logs the messages of the init helper; default: the container's logger */
  readonly containerLogger?: Logger
  /** the lowest level of those messages that is logged; default: that of the logger */
  readonly logLevel?: LogLevel
  /** path of the init helper; default: the one installed beside this runtime */
  readonly initPath?: string
  /** aborting kills the process; in a paused container on cgroup v1 the kill takes effect when it is resumed */
  readonly signal?: AbortSignal
}
