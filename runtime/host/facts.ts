/**
 * What the plan needs to know about the machine: mounted cgroup hierarchies, security modules, the last capability. Read at the first
 * use and kept, since none of it changes while a process lives.
 */

import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { detectMode, readHierarchies, UNIFIED } from '../cgroup/hierarchy.ts'
import { errnoOf } from '../sys/errno.ts'
import { type FileLimit, inheritedFileLimit } from '../sys/file-limit.ts'
import { NAMESPACES } from '../sys/linux.ts'

/** One mounted cgroup hierarchy. */
export interface CgroupMount {
  readonly controllers: readonly string[]
  readonly mountpoint: string
  /** path of this process's own cgroup in it */
  readonly ownPath: string
}

/** Facts about the host that shape a plan. */
export interface HostFacts {
  /** true when /sys/fs/cgroup itself is the v2 hierarchy */
  readonly cgroup2: boolean
  readonly cgroupMounts: readonly CgroupMount[]
  readonly apparmor: boolean
  readonly selinux: boolean
  /** /proc/kcore exists */
  readonly kcore: boolean
  /** not root of the machine: another user, or root of a user namespace; mknod and much else is impossible */
  readonly rootless: boolean
  /** not even root of a user namespace: id maps of a new one are written by newuidmap(1), or hold one id */
  readonly unprivileged: boolean
  /** setgroups(2) may be called; it may not where /proc/self/setgroups says deny (user_namespaces(7)) */
  readonly setgroups: boolean
  /** the limit of open files of processes whose document has none; left out: ours */
  readonly fileLimit?: FileLimit
  /** number of the highest capability that the kernel knows */
  readonly lastCap: number
}

function readOptional(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1')
  } catch (error) {
    if ([2, 13, 20].includes(errnoOf(error))) return undefined
    throw error
  }
}

/** A parameter that may not be read is there: the module is taken as enabled, so that a profile fails rather than being left out. */
function appArmor(): boolean {
  try {
    return readFileSync('/sys/module/apparmor/parameters/enabled', 'latin1').startsWith('Y')
  } catch (error) {
    if ([2, 20].includes(errnoOf(error))) return false
    if (errnoOf(error) === 13) return true
    throw error
  }
}

/** Whether setgroups(2) may be called in the user namespace of a process. */
export function allowsSetgroups(pid: number | 'self'): boolean {
  return readOptional(`/proc/${pid}/setgroups`)?.trim() !== 'deny'
}

/** The initial user namespace maps every id to itself (user_namespaces(7)). */
function inUserNamespace(): boolean {
  return !/^\s*0\s+0\s+4294967295\s*$/.test(readOptional('/proc/self/uid_map') ?? '')
}

let facts: HostFacts | undefined

/** The host's facts. */
export function hostFacts(): HostFacts {
  if (facts === undefined) {
    const mode = detectMode()
    const unprivileged = process.geteuid?.() !== 0
    const fileLimit = inheritedFileLimit()
    facts = {
      cgroup2: mode === 'v2',
      cgroupMounts: readHierarchies(mode).map(({ controllers, mountpoint, ownPath }) => ({
        // the v2 tree is known by having no controllers of its own
        controllers: controllers.filter((name) => name !== UNIFIED),
        mountpoint,
        ownPath,
      })),
      apparmor: appArmor(),
      selinux: readOptional('/sys/fs/selinux/enforce') !== undefined,
      kcore: existsSync('/proc/kcore'),
      rootless: unprivileged || inUserNamespace(),
      unprivileged,
      setgroups: allowsSetgroups('self'),
      lastCap: Number(readOptional('/proc/sys/kernel/cap_last_cap') ?? '40'),
      ...(fileLimit === undefined ? {} : { fileLimit }),
    }
  }
  return facts
}

/** The processes in the pid namespace of a process, that one first; those that we may not look at are left out. */
export function namespaceProcesses(pid: number): number[] {
  const namespaceOf = (name: string | number): string | undefined => {
    try {
      return readlinkSync(`/proc/${name}/ns/pid`)
    } catch {
      // gone meanwhile, or somebody else's
      return undefined
    }
  }
  const own = namespaceOf(pid)
  const others = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== pid)
  return own === undefined ? [pid] : [pid, ...others.filter((name) => namespaceOf(name) === own).map(Number)]
}

/** CLONE_NEW* flags of the namespaces in which a process differs from this one. */
export function foreignNamespaces(pid: number): number {
  let flags = 0
  for (const { file, flag } of NAMESPACES) {
    const ours = readlinkSync(`/proc/self/ns/${file}`)
    if (readlinkSync(`/proc/${pid}/ns/${file}`) !== ours) flags |= flag
  }
  return flags
}
