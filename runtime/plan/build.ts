/**
 * From a spec to the plan that ts-init carries out. Read a function from top to bottom as the story of a start: first what the host side
 * does, then the clone, then what the container process does to itself until it becomes the user's program. The order is a matter of
 * security as much as of need; the comments say what would break. Pure: everything that depends on the machine comes in as input.
 */
import { type Op, PIVOT_MODE } from '../../proto/init-plan.ts'
import type { CgroupJoin } from '../cgroup/cgroup.ts'
import type { HostFacts } from '../container/host.ts'
import { specError } from '../errors.ts'
import { PROPAGATION } from '../spec/mount-options.ts'
import { sysctlPath } from '../spec/sysctl.ts'
import type { Linux, OciProcess, Spec } from '../spec/types.ts'
import { planDevices } from './devices.ts'
import { planMounts } from './mounts.ts'
import { CLONE_FLAGS, type NamespacePlan, planNamespaces, requireMappedIds } from './namespaces.ts'
import { cleanPath } from './paths.ts'
import {
  apparmor,
  chdir,
  credentials,
  noNewPrivileges,
  oomScore,
  type ProcessInput,
  program,
  raiseRlimits,
  requireSelinux,
  type SeccompFilter,
  seccomp,
  selinux,
  setRlimits,
  stdioOwner,
  terminal,
  umask,
} from './process.ts'

export type { HostFacts } from '../container/host.ts'

/** What a container is made from. */
export interface CreateInput {
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
  /** how many fds the program gets besides its standard streams */
  readonly extraFds?: number
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
  /** how many fds the program gets besides its standard streams */
  readonly extraFds?: number
  readonly host: HostFacts
}

/** The plan of a container: it ends waiting at the fifo, then executes the program. @throws InvalidArgument */
export function buildCreatePlan(input: CreateInput): Op[] {
  const { spec, host, cgroup } = input
  const { linux } = spec
  const namespaces = planNamespaces(linux)
  const ownMounts = namespaces.own.has('mount')
  const inUserNamespace = namespaces.own.has('user')
  const process: ProcessInput = { process: spec.process, at: '/process', host }
  const { rlimits } = spec.process
  refuseImpossible(input, namespaces)
  const mounts = planMounts({
    mounts: spec.mounts,
    bundle: input.bundle,
    namespaces,
    cgroup,
    host,
    mountLabel: linux.mountLabel,
  })
  const cgroupNamespace = namespaces.created.has('cgroup') ? enterCgroupNamespace(cgroup) : []

  return [
    // On the host's side, with its rights and its paths.
    ...oomScore(process),
    ...(inUserNamespace ? raiseRlimits(rlimits, '/process') : []),
    ...openCgroup(cgroup),
    { op: 'open_fifo', path: input.fifo },
    ...namespaces.join,
    namespaces.clone,

    // In the container process.
    { op: 'session', becomeRoot: inUserNamespace ? 1 : 0 },
    ...namespaces.unshare,
    ...keyring(input.keyring),
    ...(namespaces.created.has('network') ? [{ op: 'loopback_up' } as const] : []),

    // The file system, still seen from outside of the root.
    ...(ownMounts ? rootPropagation(linux) : []),
    { op: 'rootfs', path: input.rootfs, bind: ownMounts ? 1 : 0, origin: '/root/path' },
    ...(mounts.needsCgroupNamespace ? cgroupNamespace : []),
    ...mounts.ops,
    ...(mounts.bindsDev ? [] : planDevices(linux.devices, inUserNamespace)),
    { op: 'pivot', mode: pivotMode(input, ownMounts), origin: '/root/path' },

    // Inside. Whatever must be written is written before its mount becomes read-only.
    ...(ownMounts ? rootPropagationAgain(linux) : []),
    ...(spec.process.terminal ? [] : [{ op: 'reopen_null' } as const]),
    ...makeCwd(spec.process),
    ...terminal(process, ownMounts),
    ...mounts.readonlyLater,
    ...(spec.root.readonly ? [{ op: 'readonly_mount', path: '/', origin: '/root/readonly' } as const] : []),
    umask(process),
    ...names(spec),
    ...apparmor(process),
    ...sysctls(linux),
    // masks come last of all mounts: nothing may be mounted over them, and the kernel parameters above lie below them
    ...readonlyPaths(linux),
    ...maskedPaths(linux),
    ...(mounts.needsCgroupNamespace ? [] : cgroupNamespace),

    // The process gives up what it has. Loading a filter without no_new_privs needs CAP_SYS_ADMIN, so it comes before the capabilities go.
    ...setRlimits(rlimits, '/process'),
    ...noNewPrivileges(process),
    ...personality(linux),
    ...selinux(process),
    ...(spec.process.noNewPrivileges ? [] : seccomp(input.seccomp)),
    chdir(process, true),
    ...stdioOwner(process),
    credentials(process),
    chdir(process, false),
    program(process),
    // with no_new_privs as late as possible: the filter need allow little more than what follows
    ...(spec.process.noNewPrivileges ? seccomp(input.seccomp) : []),

    { op: 'ready' },
    { op: 'await_start' },
    ...(namespaces.created.has('cgroup') ? [] : waitForCgroup(cgroup)),
    { op: 'exec', fds: input.extraFds ?? 0 },
  ]
}

/** The plan of a further process in a container: no mounts, no fifo. @throws InvalidArgument */
export function buildExecPlan(input: ExecInput): Op[] {
  const { spec, cgroup, init, host } = input
  const inUserNamespace = (BigInt(init.namespaces) & CLONE_FLAGS.user) !== 0n
  const process: ProcessInput = { process: withDefaultsOf(spec.process, input.process), at: '', host }
  const { rlimits, noNewPrivileges: locked } = process.process
  requireMappedIds(spec.linux, process.process.user, '/user')

  return [
    ...oomScore(process),
    ...(inUserNamespace ? raiseRlimits(rlimits, '') : []),
    ...openCgroup(cgroup),
    { op: 'join_process', pid: init.pid, startTime: init.startTime, flags: BigInt(init.namespaces) },
    { op: 'clone', flags: 0n, uidMap: '', gidMap: '', runtimeMaps: 0 },

    { op: 'session', becomeRoot: inUserNamespace ? 1 : 0 },
    ...enterRoot(input),
    ...keyring(input.keyring),
    // the runtime's own null device would be an inode of the host in the container's hands
    ...(process.process.terminal ? [] : [{ op: 'reopen_null' } as const]),
    ...terminal(process, false),
    umask(process),
    ...apparmor(process),

    ...setRlimits(rlimits, ''),
    ...noNewPrivileges(process),
    ...personality(spec.linux),
    ...selinux(process),
    ...(locked ? [] : seccomp(input.seccomp)),
    chdir(process, true),
    ...stdioOwner(process),
    credentials(process),
    chdir(process, false),
    program(process),
    ...(locked ? seccomp(input.seccomp) : []),

    ...waitForCgroup(cgroup),
    { op: 'exec', fds: input.extraFds ?? 0 },
  ]
}

/** Joining a mount namespace changes the root; without one the container's is a folder of the host's, and is entered as create did. */
function enterRoot({ spec, rootfs }: ExecInput): readonly Op[] {
  if (planNamespaces(spec.linux).own.has('mount')) return []
  return [
    { op: 'rootfs', path: rootfs, bind: 0, origin: '/root/path' },
    { op: 'pivot', mode: PIVOT_MODE.CHROOT, origin: '/root/path' },
  ]
}

/** What no order of operations can achieve. */
function refuseImpossible({ spec, host, noPivot }: CreateInput, { own, created }: NamespacePlan): void {
  const { linux } = spec
  requireMappedIds(linux, spec.process.user, '/process/user')
  if (linux.mountLabel !== undefined) requireSelinux(host, '/linux/mountLabel')
  if (own.has('mount')) {
    if (noPivot && (linux.rootfsPropagation === 'private' || linux.rootfsPropagation === 'rprivate')) {
      const message = `rootfsPropagation=${linux.rootfsPropagation} is not supported without pivot_root`
      throw specError('/linux/rootfsPropagation', message)
    }
    return
  }
  // everything mounted from here on would be mounted on the host
  const needs = 'needs a mount namespace of the container'
  if (spec.mounts.length > 0) throw specError('/mounts/0', `the mount on "${spec.mounts[0]?.destination}" ${needs}`)
  if (spec.root.readonly) throw specError('/root/readonly', `a read-only root ${needs}`)
  if (linux.rootfsPropagation !== undefined) throw specError('/linux/rootfsPropagation', `rootfsPropagation ${needs}`)
  if (created.has('user')) throw specError('/linux/namespaces', `a new user namespace ${needs}`)
}

function openCgroup(cgroup: CgroupJoin): readonly Op[] {
  if (cgroup.kind === 'dir') return [{ op: 'cgroup_dir', path: cgroup.path, origin: '/linux/cgroupsPath' }]
  if (cgroup.kind === 'none') return []
  const tasks: Op[] = cgroup.paths.map((path) => ({ op: 'cgroup_tasks', path, origin: '/linux/cgroupsPath' }))
  // a hybrid host's v2 tree, beside the hierarchies of v1
  if (cgroup.dir !== undefined) tasks.unshift({ op: 'cgroup_dir', path: cgroup.dir, origin: '/linux/cgroupsPath' })
  return tasks
}

function waitForCgroup(cgroup: CgroupJoin): readonly Op[] {
  return cgroup.kind === 'none' ? [] : [{ op: 'wait_cgroup' }]
}

/** The root of a new cgroup namespace is the cgroup that the process is in. */
function enterCgroupNamespace(cgroup: CgroupJoin): readonly Op[] {
  return [...waitForCgroup(cgroup), { op: 'unshare', flags: CLONE_FLAGS.cgroup, origin: '/linux/namespaces' }]
}

function keyring(name: string | null): readonly Op[] {
  return name === null ? [] : [{ op: 'keyring', name, label: '' }]
}

/** Nothing that is mounted in the container reaches the host, unless the spec asks for it. */
function rootPropagation({ rootfsPropagation = 'rslave' }: Linux): readonly Op[] {
  return [{ op: 'root_propagation', flags: PROPAGATION[rootfsPropagation], origin: '/linux/rootfsPropagation' }]
}

/** The pivot needs a root that is neither shared nor unbindable: those two are set again on the new one. */
function rootPropagationAgain(linux: Linux): readonly Op[] {
  const word = linux.rootfsPropagation
  const lost = word === 'shared' || word === 'rshared' || word === 'unbindable' || word === 'runbindable'
  return lost ? rootPropagation(linux) : []
}

function pivotMode({ noPivot }: CreateInput, ownMounts: boolean): number {
  if (!ownMounts) return PIVOT_MODE.CHROOT
  return noPivot ? PIVOT_MODE.MOVE : PIVOT_MODE.PIVOT
}

function makeCwd({ cwd }: OciProcess): readonly Op[] {
  return cleanPath(cwd) === '/' ? [] : [{ op: 'make_cwd', path: cwd, origin: '/process/cwd' }]
}

function names({ hostname, domainname }: Spec): readonly Op[] {
  const ops: Op[] = []
  if (hostname !== undefined) ops.push({ op: 'hostname', name: hostname, origin: '/hostname' })
  if (domainname !== undefined) ops.push({ op: 'domainname', name: domainname, origin: '/domainname' })
  return ops
}

function sysctls({ sysctl }: Linux): readonly Op[] {
  return Object.entries(sysctl).map(([key, value]) => ({
    op: 'sysctl',
    path: sysctlPath(key),
    value,
    origin: `/linux/sysctl/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`,
  }))
}

function readonlyPaths(linux: Linux): readonly Op[] {
  return distinct(linux.readonlyPaths).map(({ path, index }) => ({
    op: 'readonly_path',
    path,
    origin: `/linux/readonlyPaths/${index}`,
  }))
}

function maskedPaths(linux: Linux): readonly Op[] {
  return distinct(linux.maskedPaths).map(({ path, index }) => ({
    op: 'mask_path',
    path,
    origin: `/linux/maskedPaths/${index}`,
  }))
}

/** Clean paths, each once, with their places in the list. */
function distinct(paths: readonly string[]): readonly { path: string; index: number }[] {
  const first = new Map<string, number>()
  for (const [index, path] of paths.entries()) {
    const clean = cleanPath(path)
    if (!first.has(clean)) first.set(clean, index)
  }
  return [...first].map(([path, index]) => ({ path, index }))
}

function personality(linux: Linux): readonly Op[] {
  if (linux.personality === undefined) return []
  // PER_LINUX and PER_LINUX32 of personality(2)
  const domain = linux.personality.domain === 'LINUX32' ? 8 : 0
  return [{ op: 'personality', domain, origin: '/linux/personality' }]
}

/** What an exec's document leaves out, it takes from the container's own process. */
function withDefaultsOf(container: OciProcess, process: OciProcess): OciProcess {
  const { capabilities, apparmorProfile, selinuxLabel, oomScoreAdj, user } = { ...container, ...process }
  const mask = process.user.umask ?? container.user.umask
  return {
    ...process,
    user: mask === undefined ? user : { ...user, umask: mask },
    rlimits: process.rlimits.length > 0 ? process.rlimits : container.rlimits,
    ...(capabilities === undefined ? {} : { capabilities }),
    ...(apparmorProfile === undefined ? {} : { apparmorProfile }),
    ...(selinuxLabel === undefined ? {} : { selinuxLabel }),
    ...(oomScoreAdj === undefined ? {} : { oomScoreAdj }),
  }
}
