/**
 * From a spec to the plan that ts-init carries out. Read a function from top to bottom as the story of a start: first what the host side
 * does, then the clone, then what the container process does to itself until it becomes the user's program. The order is a matter of
 * security as much as of need; the comments say what would break. Pure: everything that depends on the machine comes in as input.
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

/** The plan of a container: it ends waiting at the fifo, then executes the program. @throws InvalidArgument */
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
  const needed = cgroupNeeded(spec, namespaces, mounts)
  const waitAt = (point: CgroupNeeded) => (point === needed ? waitForCgroup(cgroup) : [])

  return [
    // On the host's side, with its rights and its paths.
    ...oomScore(process),
    ...(inUserNamespace ? raiseRlimits(rlimits, '/process') : []),
    ...openCgroup(cgroup),
    { op: 'open_fifo', path: input.fifo },
    ...hostAgent([...mounts.ops, ...devices, ...networkDevices]),
    ...namespaces.join,
    namespaces.clone,

    // In the container process.
    { op: 'session', becomeRoot: inUserNamespace ? 1 : 0 },
    ...namespaces.unshare,
    ...namespaces.clocks,
    ...keyring(input.keyring, spec.process),
    ...(namespaces.created.has('network') ? [{ op: 'loopback_up' } as const] : []),
    ...networkDevices,

    // The file system, still seen from outside of the root.
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

    // Inside. Whatever must be written is written before its mount becomes read-only.
    ...(spec.process.terminal ? [] : [{ op: 'reopen_null' } as const]),
    ...makeCwd(spec.process),
    ...terminal(process, { console: ownMounts, bareNewlines: input.bareNewlines }),
    ...mounts.readonlyLater,
    ...(spec.root.readonly ? [{ op: 'readonly_mount', path: '/', origin: '/root/readonly' } as const] : []),
    umask(process),
    ...names(spec),
    ...apparmor(process),
    ...sysctls(linux),
    // masks come last of all mounts: nothing may be mounted over them, and the kernel parameters above lie below them
    ...hiddenPaths(linux),
    // an unbindable mount cannot be made read-only in a part of it
    ...(ownMounts ? propagationAgain(linux, mounts) : []),
    ...waitAt('process'),
    ...(needed === 'mounts' ? [] : cgroupNamespace),

    // The process gives up what it has, and finds its program with what is left.
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
    // as late as possible: the filter need allow nothing but what follows
    ...seccomp(input.seccomp),

    { op: 'ready' },
    { op: 'await_start' },
    ...waitAt('program'),
    ...startHooks(input),
    { op: 'exec', fds: input.extraFds },
  ]
}

/** What first needs the process to be in its cgroup; entering may take milliseconds, so nothing waits for it without need. */
type CgroupNeeded = 'mounts' | 'hooks' | 'process' | 'program'

function cgroupNeeded(spec: Spec, { created }: NamespacePlan, mounts: MountPlan): CgroupNeeded {
  // a mount shows the cgroup namespace that the mounter is in
  if (created.has('cgroup') && mounts.needsCgroupNamespace) return 'mounts'
  if (hasCreateHooks(spec.hooks)) return 'hooks'
  return created.has('cgroup') || needsCgroup(spec.process, spec.linux) ? 'process' : 'program'
}

/** The plan of a further process in a container: no mounts, no fifo. @throws InvalidArgument */
export function buildExecPlan(input: ExecInput): Op[] {
  const { spec, cgroup, init, host } = input
  const inUserNamespace = (BigInt(init.namespaces) & CLONE_FLAGS.user) !== 0n
  const process: ProcessInput = { process: withDefaultsOf(spec.process, input.process), at: '', host }
  const { rlimits } = process.process
  requireMappedIds(spec.linux, process.process.user, '/user')
  const waiting = waitForCgroup(cgroup)
  const early = needsCgroup(process.process, spec.linux) || process.process.execCPUAffinity !== undefined

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
    // the runtime's own null device would be an inode of the host in the container's hands
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

/** Joining a mount namespace changes the root; without one the container's is a folder of the host's, and is entered as create did. */
function enterRoot({ spec, rootfs, host }: ExecInput): readonly Op[] {
  if (planNamespaces(spec.linux, host).own.has('mount')) return []
  return [
    { op: 'rootfs', path: rootfs, how: ROOTFS_HOW.DIRECTORY, origin: '/root/path' },
    { op: 'pivot', mode: PIVOT_MODE.CHROOT, origin: '/root/path' },
  ]
}

/** What no order of operations can achieve. */
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
  // what is mounted from here on is mounted on the host, where its mounts are not ours to change
  const needs = 'needs a mount namespace of the container'
  if (linux.rootfsPropagation !== undefined) throw specError('/linux/rootfsPropagation', `rootfsPropagation ${needs}`)
  if (created.has('user')) throw specError('/linux/namespaces', `a new user namespace ${needs}`)
}

/** The keyring is the process's: it carries its label. */
function keyring(name: string | null, { selinuxLabel: label = '' }: OciProcess): readonly Op[] {
  return name === null ? [] : [{ op: 'keyring', name, label }]
}

/** What the kernel refuses of the root before the pivot, or of the mounts on their way into the container, and what they are until then. */
const UNTIL_PIVOT: Partial<Record<Propagation, Propagation>> = { unbindable: 'private', runbindable: 'rprivate' }

/** Nothing that is mounted in the container reaches the host, unless the spec asks for it. */
function rootPropagation({ rootfsPropagation: word = 'rslave' }: Linux): readonly Op[] {
  return [propagation(UNTIL_PIVOT[word] ?? word)]
}

function propagation(word: Propagation): Op {
  return { op: 'propagation', path: '/', flags: PROPAGATION[word], origin: '/linux/rootfsPropagation' }
}

/** A root that is to be a slave stays one: only a shared parent stands in the way of the pivot. */
function rootfsHow(spec: Spec, ownMounts: boolean): number {
  if (!ownMounts) return mountsAmongCallers(spec) ? ROOTFS_HOW.CALLERS : ROOTFS_HOW.DIRECTORY
  const word = spec.linux.rootfsPropagation
  return word === 'slave' || word === 'rslave' ? ROOTFS_HOW.SLAVE : ROOTFS_HOW.PRIVATE
}

/** The pivot needs a root that is neither shared nor unbindable: those two are set again on the new one. */
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

/** What an exec's document leaves out, it takes from the container's own process. */
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
