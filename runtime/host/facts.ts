/**
 * Facts about the host that shape a plan: mounted cgroup hierarchies, security modules, the last capability. They are
 * read at the first use and kept, since none of them changes while this process lives. The functions at the end look at
 * the namespaces of one process, at each call.
 */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { detectMode, readHierarchies, UNIFIED } from '../cgroup/hierarchy.ts'
import { errnoOf } from '../sys/errno.ts'
import { type FileLimit, inheritedFileLimit } from '../sys/file-limit.ts'
import { EACCES, ENOENT, ENOTDIR, NAMESPACES } from '../sys/linux.ts'
import { isInitialIdMap } from '../sys/user-namespace.ts'

/** One mounted cgroup hierarchy. */
export interface CgroupMount {
  readonly controllers: readonly string[]
  readonly mountpoint: string
  /** path of this process's cgroup, from the mount point */
  readonly ownPath: string
}

/** The host's facts. */
export interface HostFacts {
  /** /sys/fs/cgroup itself is the v2 hierarchy */
  readonly cgroup2: boolean
  readonly cgroupMounts: readonly CgroupMount[]
  readonly apparmor: boolean
  readonly selinux: boolean
  /** /proc/kcore exists */
  readonly kcore: boolean
  /** not root of the machine, but another user or root of a user namespace: mknod(2) and much else is impossible */
  readonly rootless: boolean
  /** not even root of a user namespace: newuidmap(1) writes the id maps of a new one, unless they hold one id */
  readonly unprivileged: boolean
  /** setgroups(2) may be called; it may not where /proc/self/setgroups says deny (user_namespaces(7)) */
  readonly setgroups: boolean
  /** limit of open files for processes whose document has none; left out: they inherit the runtime's */
  readonly fileLimit?: FileLimit
  /** number of the highest capability that the kernel knows */
  readonly lastCap: number
}

function readOptional(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1')
  } catch (error) {
    if ([ENOENT, EACCES, ENOTDIR].includes(errnoOf(error))) return undefined
    throw error
  }
}

/** AppArmor counts as enabled when its parameter may not be read: then a profile fails, rather than being left out. */
function appArmor(): boolean {
  try {
    return readFileSync('/sys/module/apparmor/parameters/enabled', 'latin1').startsWith('Y')
  } catch (error) {
    if ([ENOENT, ENOTDIR].includes(errnoOf(error))) return false
    if (errnoOf(error) === EACCES) return true
    throw error
  }
}

/** Whether setgroups(2) may be called in the user namespace of a process. */
export function allowsSetgroups(pid: number | 'self'): boolean {
  return readOptional(`/proc/${pid}/setgroups`)?.trim() !== 'deny'
}

function inUserNamespace(): boolean {
  return !isInitialIdMap(readOptional('/proc/self/uid_map') ?? '')
}

let facts: HostFacts | undefined

/** Reads the host's facts, once for this process. */
export function hostFacts(): HostFacts {
  if (facts === undefined) {
    const mode = detectMode()
    const unprivileged = process.geteuid?.() !== 0
    const fileLimit = inheritedFileLimit()
    facts = {
      cgroup2: mode === 'v2',
      cgroupMounts: readHierarchies(mode).map(({ controllers, mountpoint, ownPath }) => ({
        // UNIFIED is only this runtime's name for the v2 tree
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

/**
 * Whether cgroups are made by the systemd of this user, and not by the machine's. Root of a user namespace may be a
 * user in disguise, as below podman, or root of a container with a systemd of its own. A runtime folder tells which.
 */
export function asksUsersManager(): boolean {
  const { rootless, unprivileged } = hostFacts()
  const folder = process.env['XDG_RUNTIME_DIR'] ?? ''
  return unprivileged || (rootless && folder !== '' && folder !== '/run/user/0')
}

/** The processes in the pid namespace of a process, that one first. Those that may not be looked at are left out. */
export function namespaceProcesses(pid: number): number[] {
  const namespaceOf = (name: string | number): string | undefined => {
    try {
      return readlinkSync(`/proc/${name}/ns/pid`)
    } catch {
      // it has ended, or belongs to another user
      return undefined
    }
  }
  const own = namespaceOf(pid)
  const others = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== pid)
  return own === undefined ? [pid] : [pid, ...others.filter((name) => namespaceOf(name) === own).map(Number)]
}

/** CLONE_NEW* flags of the namespaces in which a process differs from this one. @throws Node's error when it is gone */
export function differingNamespaces(pid: number): number {
  let flags = 0
  for (const { file, flag } of NAMESPACES) {
    const ours = readlinkSync(`/proc/self/ns/${file}`)
    if (readlinkSync(`/proc/${pid}/ns/${file}`) !== ours) flags |= flag
  }
  return flags
}
