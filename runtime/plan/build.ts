/**
 * From a spec to the plan that ts-init carries out. Each function reads from top to bottom as the story of a start.
 * First comes the host side, then the clone, then what the container process does until it becomes the user's program.
 * The order matters for security as well as for function; the comments say what would break. Pure: everything that
 * depends on the machine comes in as input.
 */
import { type Op, PIVOT_MODE, ROOTFS_HOW } from '../../proto/init-plan.ts'
import { specError } from '../errors.ts'
import { PROPAGATION } from '../spec/mount-options.ts'
import { sysctlPath } from '../spec/sysctl.ts'
import type { Linux, OciProcess, Propagation, Spec } from '../spec/types.ts'
import { PERSONALITIES } from '../sys/linux.ts'
import { enterCgroupNamespace, openCgroup, waitForCgroup } from './cgroup-join.ts'
import { planDevices } from './devices.ts'
import { hiddenPaths } from './hidden-paths.ts'
import { createHooks, hasCreateHooks, startHooks } from './hook-ops.ts'
import { hostAgent, hostSource, netDevices } from './host-agent.ts'
import { hostRoots } from './host-root.ts'
import type { CreateInput, ExecInput } from './input.ts'
import { type MountPlan, planMounts } from './mounts.ts'
import {
  CLONE_FLAGS,
  mountsAmongCallers,
  type NamespacePlan,
  planNamespaces,
  requireMappedIds,
  requireMappedOptions,
} from './namespaces.ts'
import { cleanPath } from './paths.ts'
import {
  apparmor,
  callersFileLimit,
  chdir,
  credentials,
  noNewPrivileges,
  oomScore,
  type ProcessInput,
  program,
  raiseRlimits,
  requireSelinux,
  seccomp,
  selinux,
  setRlimits,
  stdioOwner,
  terminal,
  umask,
} from './process-ops.ts'
import { affinity, everyCpu, initialAffinity, ioPriority, memoryPolicy, needsCgroup, scheduler } from './scheduling.ts'

export type { HostFacts } from '../host/facts.ts'
export type { CreateInput, ExecInput } from './input.ts'

/**
 * The plan of a container's init: it waits at the fifo, then executes the program.
 * @throws InvalidArgument
 */
export function buildCreatePlan(input: CreateInput): Op[] {
  const { spec, host, cgroup } = input
  const { linux } = spec
  const namespaces = planNamespaces(linux, host)
  const ownMounts = namespaces.own.has('mount')
  const inUserNamespace = namespaces.own.has('user')
  const process: ProcessInput = { process: spec.process, at: '/process', host }
  const { rlimits } = spec.process
  refuseImpossible(input, namespaces)
  const mounts = planMounts({
    mounts: spec.mounts,
    bundle: input.bundle,
    hostRoots: hostRoots(input),
    namespaces,
    cgroup,
    host,
    mountLabel: linux.mountLabel,
  })
  const devices = mounts.bindsDev
    ? []
    : planDevices(linux.devices, {
        bind: inUserNamespace || host.rootless,
        how: hostSource(namespaces, host),
        kcore: host.kcore,
      })
  const networkDevices = netDevices(linux, host)
  const cgroupNamespace = namespaces.created.has('cgroup') ? [enterCgroupNamespace()] : []
  const needed = cgroupNeeded(input, namespaces, mounts)
  const waitAt = (point: CgroupNeeded) => (point === needed ? waitForCgroup(cgroup) : [])

  return [
    // on the host side, with the runtime's privileges and the host's paths
    ...oomScore(process),
    ...(inUserNamespace ? raiseRlimits(rlimits, '/process') : []),
    ...openCgroup(cgroup),
    { op: 'open_fifo', path: input.fifo },
    ...hostAgent([...mounts.ops, ...devices, ...networkDevices]),
    ...namespaces.join,
    namespaces.clone,

    // in the container process
    { op: 'session', becomeRoot: inUserNamespace ? 1 : 0 },
    ...namespaces.unshare,
    ...namespaces.clocks,
    ...keyring(input.keyring, spec.process),
    ...(namespaces.created.has('network') ? [{ op: 'loopback_up' } as const] : []),
    ...networkDevices,

    // the file system, still seen from outside the new root
    ...(ownMounts ? rootPropagation(linux) : []),
    { op: 'rootfs', path: input.rootfs, how: rootfsHow(spec, ownMounts), origin: '/root/path' },
    ...waitAt('mounts'),
    ...(needed === 'mounts' ? cgroupNamespace : []),
    ...mounts.ops,
    ...devices,
    ...waitAt('hooks'),
    ...(hasCreateHooks(spec.hooks) ? callersFileLimit(rlimits, host) : []),
    ...createHooks(input),
    { op: 'pivot', mode: pivotMode(input, ownMounts), origin: '/root/path' },

    // inside the new root: files are written before the mount that holds them becomes read-only
    ...(spec.process.terminal ? [] : [{ op: 'reopen_null' } as const]),
    ...makeCwd(spec.process),
    ...terminal(process, { console: ownMounts, bareNewlines: input.bareNewlines }),
    ...mounts.readonlyLater,
    ...(spec.root.readonly ? [{ op: 'readonly_mount', path: '/', origin: '/root/readonly' } as const] : []),
    umask(process),
    ...names(spec),
    ...apparmor(process),
    ...sysctls(linux),
    // masks come last of all mounts: nothing may be mounted over them, and the kernel parameters set above lie below
    // them
    ...hiddenPaths(linux),
    // after the read-only paths: below an unbindable mount no part can be made read-only
    ...(ownMounts ? propagationAgain(linux, mounts) : []),
    ...waitAt('process'),
    ...(needed === 'mounts' ? [] : cgroupNamespace),

    // the process gives up privileges, and finds its program with those that are left
    ...setRlimits(process),
    ...noNewPrivileges(process),
    everyCpu(),
    ...scheduler(process),
    ...ioPriority(process),
    ...personality(linux),
    ...memoryPolicy(linux),
    ...selinux(process),
    chdir(process, true),
    ...stdioOwner(process),
    credentials(process, input.seccomp),
    chdir(process, false),
    program(process),
    // as late as possible, so that the filter has to allow only the calls that follow
    ...seccomp(input.seccomp),

    { op: 'ready' },
    { op: 'await_start' },
    ...waitAt('program'),
    ...startHooks(input),
    { op: 'exec', fds: input.extraFds },
  ]
}

/**
 * The first step that needs the process in its cgroup. Entering may take milliseconds on v1, so the plan waits no
 * earlier.
 */
type CgroupNeeded = 'mounts' | 'hooks' | 'process' | 'program'

function cgroupNeeded({ spec, cgroup }: CreateInput, { created }: NamespacePlan, mounts: MountPlan): CgroupNeeded {
  const placed = cgroup.kind === 'placed'
  // A cgroup mount shows the cgroup namespace of the process that mounts it. Or it shows the directory of the
  // container, which must be there then.
  if ((created.has('cgroup') || placed) && mounts.needsCgroupNamespace) return 'mounts'
  if (hasCreateHooks(spec.hooks)) return 'hooks'
  // a container whose cgroup cannot be made is never created
  return placed || created.has('cgroup') || needsCgroup(spec.process, spec.linux) ? 'process' : 'program'
}

/**
 * The plan of an exec in a running container: no mounts, no fifo.
 * @throws InvalidArgument
 */
export function buildExecPlan(input: ExecInput): Op[] {
  const { spec, cgroup, init, host } = input
  const inUserNamespace = (BigInt(init.namespaces) & CLONE_FLAGS.user) !== 0n
  const process: ProcessInput = { process: withDefaultsOf(spec.process, input.process), at: '', host }
  const { rlimits } = process.process
  requireMappedIds(spec.linux, process.process.user, '/user')
  const waiting = waitForCgroup(cgroup)
  const early =
    cgroup.kind === 'placed' ||
    needsCgroup(process.process, spec.linux) ||
    process.process.execCPUAffinity !== undefined

  return [
    ...oomScore(process),
    ...(inUserNamespace ? raiseRlimits(rlimits, '') : []),
    ...openCgroup(cgroup),
    { op: 'join_process', pid: init.pid, startTime: init.startTime, flags: BigInt(init.namespaces) },
    ...initialAffinity(process),
    { op: 'clone', flags: 0n, uidMap: '', gidMap: '', runtimeMaps: 0 },

    { op: 'session', becomeRoot: inUserNamespace ? 1 : 0 },
    ...enterRoot(input),
    ...keyring(input.keyring, process.process),
    // the runtime's null device is an inode of the host, which the container must not hold
    ...(process.process.terminal ? [] : [{ op: 'reopen_null' } as const]),
    ...terminal(process, { console: false, bareNewlines: input.bareNewlines }),
    umask(process),
    ...apparmor(process),

    ...setRlimits(process),
    ...noNewPrivileges(process),
    ...(early ? waiting : []),
    ...affinity(process),
    ...scheduler(process),
    ...ioPriority(process),
    ...personality(spec.linux),
    ...memoryPolicy(spec.linux),
    ...selinux(process),
    chdir(process, true),
    ...stdioOwner(process),
    credentials(process, input.seccomp),
    chdir(process, false),
    program(process),
    ...seccomp(input.seccomp),

    ...(early ? [] : waiting),
    { op: 'exec', fds: input.extraFds },
  ]
}

/**
 * Joining a mount namespace changes the root. A container without one has a folder of the host as its root, which is
 * entered as at create.
 */
function enterRoot({ spec, rootfs, host }: ExecInput): readonly Op[] {
  if (planNamespaces(spec.linux, host).own.has('mount')) return []
  return [
    { op: 'rootfs', path: rootfs, how: ROOTFS_HOW.DIRECTORY, origin: '/root/path' },
    { op: 'pivot', mode: PIVOT_MODE.CHROOT, origin: '/root/path' },
  ]
}

/** Refuses what no order of operations can achieve. */
function refuseImpossible({ spec, host, noPivot }: CreateInput, { own, created }: NamespacePlan): void {
  const { linux } = spec
  requireMappedIds(linux, spec.process.user, '/process/user')
  requireMappedOptions(spec)
  if (linux.mountLabel !== undefined) requireSelinux(host, '/linux/mountLabel')
  if (own.has('mount')) {
    if (noPivot && (linux.rootfsPropagation === 'private' || linux.rootfsPropagation === 'rprivate')) {
      const message = `rootfsPropagation=${linux.rootfsPropagation} is not supported without pivot_root`
      throw specError('/linux/rootfsPropagation', message)
    }
    return
  }
  // without a mount namespace every mount is made on the host, whose mounts the container must not change
  const needs = 'needs a mount namespace of the container'
  if (linux.rootfsPropagation !== undefined) throw specError('/linux/rootfsPropagation', `rootfsPropagation ${needs}`)
  if (created.has('user')) throw specError('/linux/namespaces', `a new user namespace ${needs}`)
}

/** The keyring carries the SELinux label of the process. */
function keyring(name: string | null, { selinuxLabel: label = '' }: OciProcess): readonly Op[] {
  return name === null ? [] : [{ op: 'keyring', name, label }]
}

/**
 * Propagation types that the kernel refuses for the root before the pivot or for mounts that are moved into the
 * container, and their stand-ins until then.
 */
const UNTIL_PIVOT: Partial<Record<Propagation, Propagation>> = { unbindable: 'private', runbindable: 'rprivate' }

/** By default a mount in the container does not propagate to the host. */
function rootPropagation({ rootfsPropagation: word = 'rslave' }: Linux): readonly Op[] {
  return [propagation(UNTIL_PIVOT[word] ?? word)]
}

function propagation(word: Propagation): Op {
  return { op: 'propagation', path: '/', flags: PROPAGATION[word], origin: '/linux/rootfsPropagation' }
}

/**
 * pivot_root(2) refuses a root whose parent mount is shared; a slave is allowed, so a root that the spec wants as a
 * slave stays one.
 */
function rootfsHow(spec: Spec, ownMounts: boolean): number {
  if (!ownMounts) return mountsAmongCallers(spec) ? ROOTFS_HOW.CALLERS : ROOTFS_HOW.DIRECTORY
  const word = spec.linux.rootfsPropagation
  return word === 'slave' || word === 'rslave' ? ROOTFS_HOW.SLAVE : ROOTFS_HOW.PRIVATE
}

/**
 * pivot_root(2) needs a root that is neither shared nor unbindable, so these two types are set on the new root
 * afterwards.
 */
function propagationAgain(
  { rootfsPropagation: word }: Linux,
  { propagationAgain: ofMounts }: MountPlan,
): readonly Op[] {
  if (word === 'shared' || word === 'unbindable') return [propagation(word)]
  return word === 'rshared' || word === 'runbindable' ? [propagation(word), ...ofMounts] : []
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

function personality(linux: Linux): readonly Op[] {
  if (linux.personality === undefined) return []
  return [{ op: 'personality', domain: PERSONALITIES[linux.personality.domain], origin: '/linux/personality' }]
}

/** An exec takes what its document leaves out from the container's own process. */
function withDefaultsOf(container: OciProcess, process: OciProcess): OciProcess {
  const { capabilities, apparmorProfile, selinuxLabel, oomScoreAdj, user } = { ...container, ...process }
  const { scheduler, ioPriority, execCPUAffinity } = { ...container, ...process }
  const mask = process.user.umask ?? container.user.umask
  return {
    ...process,
    user: mask === undefined ? user : { ...user, umask: mask },
    rlimits: process.rlimits.length > 0 ? process.rlimits : container.rlimits,
    ...(capabilities === undefined ? {} : { capabilities }),
    ...(apparmorProfile === undefined ? {} : { apparmorProfile }),
    ...(selinuxLabel === undefined ? {} : { selinuxLabel }),
    ...(oomScoreAdj === undefined ? {} : { oomScoreAdj }),
    ...(scheduler === undefined ? {} : { scheduler }),
    ...(ioPriority === undefined ? {} : { ioPriority }),
    ...(execCPUAffinity === undefined ? {} : { execCPUAffinity }),
  }
}
