/**
 * The process half of a plan: what a process gets before its program runs, for a container's init and for an exec
 * alike. Each function returns the operations for one concern, or none if the spec does not ask for it. build.ts orders
 * them.
 */
import { CREDENTIALS, type Op } from '../../proto/init-plan.ts'
import { specError } from '../errors.ts'
import type { HostFacts } from '../host/facts.ts'
import { capabilityNumber } from '../spec/capabilities.ts'
import { RLIMITS } from '../spec/rlimits.ts'
import type { OciProcess, Rlimit } from '../spec/types.ts'

/** A process with the JSON pointer of its document, for errors. */
export interface ProcessInput {
  readonly process: OciProcess
  readonly at: string
  readonly host: HostFacts
}

/** A compiled seccomp profile. */
export interface SeccompFilter {
  /** SECCOMP_FILTER_FLAG_* bits */
  readonly flags: number
  /** struct sock_filter[] */
  readonly filter: Uint8Array
}

const DEFAULT_UMASK = 0o022

/** The score by which the OOM killer picks a process. */
export function oomScore({ process, at }: ProcessInput): readonly Op[] {
  const { oomScoreAdj } = process
  return oomScoreAdj === undefined ? [] : [{ op: 'oom_score_adj', value: oomScoreAdj, origin: `${at}/oomScoreAdj` }]
}

/** Raises hard limits on the host side, since a process inside another user namespace cannot. */
export function raiseRlimits(rlimits: readonly Rlimit[], at: string): readonly Op[] {
  return rlimits.map(({ type, hard }, index) => ({
    op: 'raise_rlimit',
    resource: rlimitNumber(type),
    hard,
    origin: `${at}/rlimits/${index}`,
  }))
}

/** The limits. Unless the document has one of open files, that is the one of the runtime's caller. */
export function setRlimits({ process: { rlimits }, at, host }: ProcessInput): readonly Op[] {
  const asked = rlimits.map(
    ({ type, soft, hard }, index): Op => ({
      op: 'rlimit',
      resource: rlimitNumber(type),
      soft,
      hard,
      origin: `${at}/rlimits/${index}`,
    }),
  )
  return rlimits.some(({ type }) => type === 'RLIMIT_NOFILE') ? asked : [...callersFileLimit(rlimits, host), ...asked]
}

/**
 * The limit of open files that the runtime's caller has, where the runtime's own differs. Its hard limit is raised to
 * the document's, so that a later operation can still set that.
 */
export function callersFileLimit(rlimits: readonly Rlimit[], { fileLimit }: HostFacts): readonly Op[] {
  if (fileLimit === undefined) return []
  const own = rlimits.find(({ type }) => type === 'RLIMIT_NOFILE')?.hard ?? 0n
  const hard = own > fileLimit.hard ? own : fileLimit.hard
  return [{ op: 'rlimit', resource: rlimitNumber('RLIMIT_NOFILE'), soft: fileLimit.soft, hard }]
}

function rlimitNumber(type: string): number {
  const number = RLIMITS.get(type)
  if (number === undefined) throw new Error(`rlimit ${type} passed the spec's checks`)
  return number
}

/** How the terminal of a process is made. */
export interface TerminalInput {
  /** it can be bound on /dev/console */
  readonly console: boolean
  /** no carriage return is put before a newline */
  readonly bareNewlines: boolean | undefined
}

/** A terminal of the container's own, if the document asks for one. */
export function terminal({ process, at }: ProcessInput, how: TerminalInput): readonly Op[] {
  if (!process.terminal) return []
  const { height = 0, width = 0 } = process.consoleSize ?? {}
  const [console, bareNewlines] = [how.console ? 1 : 0, how.bareNewlines === true ? 1 : 0]
  return [{ op: 'terminal', width, height, uid: process.user.uid, console, bareNewlines, origin: `${at}/terminal` }]
}

/** Without a terminal, pipes as streams are given to the process's user, so that it can open /dev/stdout again. */
export function stdioOwner({ process, at }: ProcessInput): readonly Op[] {
  const { uid } = process.user
  return process.terminal || uid === 0 ? [] : [{ op: 'stdio_owner', uid, origin: `${at}/user/uid` }]
}

/** The file mode mask. */
export function umask({ process, at }: ProcessInput): Op {
  return { op: 'umask', mask: process.user.umask ?? DEFAULT_UMASK, origin: `${at}/user/umask` }
}

/** The AppArmor profile; on a host without AppArmor it is ignored. */
export function apparmor({ process, at, host }: ProcessInput): readonly Op[] {
  const profile = process.apparmorProfile
  if (profile === undefined || !host.apparmor) return []
  return [{ op: 'apparmor', profile, origin: `${at}/apparmorProfile` }]
}

/**
 * The SELinux label. A host without SELinux refuses it, since a label promises isolation.
 * @throws InvalidArgument
 */
export function selinux({ process, at, host }: ProcessInput): readonly Op[] {
  const label = process.selinuxLabel
  if (label === undefined) return []
  requireSelinux(host, `${at}/selinuxLabel`)
  return [{ op: 'selinux', label, origin: `${at}/selinuxLabel` }]
}

/**
 * Refuses a label on a host without SELinux.
 * @throws InvalidArgument
 */
export function requireSelinux(host: HostFacts, at: string): void {
  if (host.selinux) return
  throw specError(at, 'selinux label is specified in config, but selinux is disabled or not supported')
}

/** From this operation on, no executed program gains privileges. */
export function noNewPrivileges({ process, at }: ProcessInput): readonly Op[] {
  return process.noNewPrivileges ? [{ op: 'no_new_privs', origin: `${at}/noNewPrivileges` }] : []
}

/** The system call filter. */
export function seccomp(filter: SeccompFilter | undefined): readonly Op[] {
  return filter === undefined ? [] : [{ op: 'seccomp', ...filter, origin: '/linux/seccomp' }]
}

/**
 * The working directory, tried first with the runtime's privileges (tolerant), and again with the user's if that
 * failed.
 */
export function chdir({ process, at }: ProcessInput, tolerant: boolean): Op {
  return { op: 'chdir', path: process.cwd, tolerant: tolerant ? 1 : 0, origin: `${at}/cwd` }
}

/**
 * User, groups and capabilities. A document without capabilities means none at all.
 * @throws InvalidArgument for groups that a rootless container cannot set
 */
export function credentials({ process, at, host }: ProcessInput, filter: SeccompFilter | undefined): Op {
  const { user, capabilities } = process
  if (!host.setgroups && user.additionalGids.length > 0) {
    throw specError(`${at}/user/additionalGids`, 'cannot set any additional groups in a rootless container')
  }
  const known = (1n << BigInt(host.lastCap + 1)) - 1n
  const bits = (names: readonly string[] = []) => capabilityBits(names) & known
  const permitted = bits(capabilities?.permitted)
  const inheritable = bits(capabilities?.inheritable)
  // seccomp(2): without no_new_privs only a privileged process may load a filter
  const lend = filter !== undefined && !process.noNewPrivileges
  return {
    op: 'credentials',
    uid: user.uid,
    gid: user.gid,
    groups: user.additionalGids,
    flags: CREDENTIALS.SET_CAPS | (host.setgroups ? CREDENTIALS.SET_GROUPS : 0) | (lend ? CREDENTIALS.LEND_ADMIN : 0),
    bounding: bits(capabilities?.bounding),
    effective: bits(capabilities?.effective),
    permitted,
    inheritable,
    // a capability can be ambient only when it is permitted and inheritable (capabilities(7))
    ambient: bits(capabilities?.ambient) & permitted & inheritable,
    origin: `${at}/user`,
  }
}

function capabilityBits(names: readonly string[]): bigint {
  let bits = 0n
  for (const name of names) {
    const number = capabilityNumber(name)
    // unknown names were warned about (warnings.ts)
    if (number !== undefined) bits |= 1n << BigInt(number)
  }
  return bits
}

/** The program to run. If a variable is given twice, the later one counts. */
export function program({ process, at }: ProcessInput): Op {
  const last = new Map<string, number>()
  for (const [index, variable] of process.env.entries()) last.set(variableName(variable), index)
  const env = process.env.filter((variable, index) => last.get(variableName(variable)) === index)
  return { op: 'program', args: process.args, env, uid: process.user.uid, origin: `${at}/args` }
}

function variableName(variable: string): string {
  return variable.slice(0, variable.indexOf('='))
}
