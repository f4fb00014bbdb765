/** What callers say when they make a container or a process in one. Plain data; every fd is borrowed for the call. */
import type { Stdio } from '../init/spawn.ts'
import type { Logger } from '../logger.ts'
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
  /** path of a unix socket that receives a pidfd of init (SCM_RIGHTS) */
  readonly pidfdSocket?: string
  /** whether a cgroup that we have no permission for is done without, where the spec asks for none; auto: unless we are root of the machine */
  readonly rootless?: 'auto' | boolean
  /** what is switched off for debugging */
  readonly gates?: Partial<FeatureGates>
  /** give the program a socket for sd_notify(3), from which a NotifySocket takes its readiness */
  readonly notify?: boolean
  /** aborting undoes the create */
  readonly signal?: AbortSignal
}

/** What Container.exec needs. */
export interface ExecOptions {
  readonly process: OciProcess
  readonly stdio: Stdio
  readonly reaper: Reaper
  readonly noNewKeyring?: boolean
  /** join a paused container too; the process starts when it is resumed */
  readonly ignorePaused?: boolean
  /** fds that the program gets as 3, 4, …; borrowed and duplicated */
  readonly extraFds?: readonly number[]
  /** path of a unix socket that receives a pidfd of the process (SCM_RIGHTS) */
  readonly pidfdSocket?: string
  /** cgroup below the container's own: by controller on v1, under '' for all of them or on v2; relative, must stay inside */
  readonly subCgroups?: Readonly<Record<string, string>>
  /** what is switched off for debugging */
  readonly gates?: Partial<FeatureGates>
  /** for what the container side says while it sets itself up; left out: the container's logger */
  readonly containerLogger?: Logger
}
