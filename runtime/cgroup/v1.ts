/**
 * cgroup v1, and hybrid, where a v2 tree without controllers stands beside it: one directory per hierarchy under the
 * same name. Invariant: createV1 leaves a directory in every hierarchy, with all limits set and no process inside, or
 * none of the directories that it made. Every start waits for this code, so it does not read what is known of a cgroup
 * that was made just now.
 */

import { dirname } from 'node:path'
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises'
import { RuntimeError } from '../errors.ts'
import type { LinuxResources } from '../spec/types.ts'
import { errnoOf } from '../sys/errno.ts'
import { EPERM } from '../sys/linux.ts'
import { type ApplyTarget, applyWrites } from './apply.ts'
import {
  ALLOW_ALL,
  type DevicePolicy,
  type DeviceWrite,
  parseDevicesList,
  samePolicy,
  toV1DeviceWrites,
} from './devices.ts'
import {
  cgroupError,
  isGone,
  readText,
  readTextAside,
  readTextIfAny,
  writeText,
  writeTextAside,
  writeValues,
} from './files.ts'
import { type CgroupMode, displayName, innerPath, lacksDeviceRules, readHierarchies } from './hierarchy.ts'
import {
  type CgroupName,
  type CgroupPaths,
  type CreateRequest,
  devicePolicyOf,
  type FreezerState,
  frozenError,
  isForgivable,
  refuseUsed,
  resourcesOr,
} from './request.ts'
import { type ResourceWrite, toV1Writes } from './resources.ts'
import { makeDirectory, unmake } from './tree.ts'

const FREEZE_ATTEMPTS = 1000
const FREEZE_EAGER_ATTEMPTS = 10
const FREEZE_REST_EVERY = 50
const FREEZE_REST_MS = 10

/** The place of a container's cgroup with this name: its directories by controller, and the mount point of each. */
export function placesV1(
  { path, id }: CgroupName,
  mode: CgroupMode,
): { readonly paths: Record<string, string>; readonly mountpoints: Map<string, string> } {
  const paths: Record<string, string> = {}
  const mountpoints = new Map<string, string>()
  for (const { controllers, mountpoint, ownPath } of readHierarchies(mode)) {
    const dir = mountpoint + innerPath(path, id, ownPath)
    for (const controller of controllers) paths[controller] = dir
    mountpoints.set(dir, mountpoint)
  }
  return { paths, mountpoints }
}

/** Makes the directories of a container and sets its limits. */
export function createV1(request: CreateRequest, mode: CgroupMode): CgroupPaths {
  const resources = resourcesOr(request.resources)
  // errors in the spec are found before anything is made
  const writes = toV1Writes(resources)
  const policy = devicePolicyOf(resources)
  const { paths, mountpoints } = placesV1(request, mode)
  const devices = paths['devices']
  if (devices === undefined && !request.tolerant) {
    throw new RuntimeError('FailedPrecondition', 'cannot create a cgroup: the devices hierarchy is not mounted')
  }
  const name = displayName('devices', devices ?? '')
  request.announce(paths)
  const made: string[] = []
  try {
    for (const dir of mountpoints.keys()) {
      try {
        if (makeDirectory(dir)) made.push(dir)
        else refuseUsed(dir, name)
      } catch (error) {
        if (!isForgivable(request, error))
          throw cgroupError(`cannot create cgroup "${name}"`, error, { call: 'mkdir', path: dir })
        for (const controller of Object.keys(paths)) if (paths[controller] === dir) delete paths[controller]
        mountpoints.delete(dir)
      }
    }
    requireJoined(writes, paths, request)
    const { cpuset, freezer } = paths
    const fresh = made.length === mountpoints.size
    if (!fresh && freezer !== undefined && freezerStateV1(freezer) !== 'thawed') throw frozenError(name)
    if (cpuset !== undefined) {
      const place = { dir: cpuset, mountpoint: mountpoints.get(cpuset) ?? '', fresh: made.includes(cpuset), name }
      fillCpuset(place, resources)
    }
    if (paths['devices'] === undefined || devices === undefined) {
      // no rules of its own: those of the runtime's own cgroup hold
    } else if (made.includes(devices)) setFirstDevices(devices, policy, name)
    else setDevices(devices, { from: currentDevices(devices), to: policy }, name)
    applyWrites(writes, v1Target(paths, fresh))
  } catch (error) {
    unmake(made)
    throw error
  }
  return paths
}

/**
 * Refuses a limit in a hierarchy where the runtime may not make the container's directory.
 * @throws PermissionDenied
 */
function requireJoined(writes: readonly ResourceWrite[], paths: CgroupPaths, { tolerant }: CreateRequest): void {
  const lost = writes.find(({ controller, optional }) => optional !== true && paths[controller] === undefined)
  if (!tolerant || lost === undefined) return
  const message = `cannot set ${lost.controller} limit: container could not join or create cgroup`
  throw new RuntimeError('PermissionDenied', message)
}

/** Where the writes for v1 go. */
export function v1Target(paths: CgroupPaths, fresh: boolean): ApplyTarget {
  return { dir: (controller) => paths[controller], key: (controller) => controller, fresh }
}

/** A directory of the cpuset hierarchy. */
export interface CpusetPlace {
  readonly dir: string
  /** where the hierarchy is mounted: the walk up to the parents ends there */
  readonly mountpoint: string
  /** the directory was made just now */
  readonly fresh: boolean
  /** for messages */
  readonly name: string
}

/**
 * A new cpuset has no CPUs and no memory nodes, and no process can enter it. It gets its parent's, and so do the
 * parents above that are still empty.
 */
export function fillCpuset({ dir, mountpoint, fresh, name }: CpusetPlace, resources: LinuxResources): void {
  // a hierarchy mounted with noprefix has the files without the prefix
  let prefix = 'cpuset.'
  const read = (level: string, file: string): string => {
    const text = readTextIfAny(`${level}/${prefix}${file}`)
    if (text !== undefined) return text
    prefix = ''
    return readText(`${level}/${file}`)
  }
  // a value from the spec is written later, with the other limits
  const files = (['cpus', 'mems'] as const).filter((file) => (resources.cpu?.[file] ?? '') === '')
  const inherit = (level: string, file: string): string => {
    const own = fresh && level === dir ? '' : read(level, file).trim()
    if (own !== '' || level === mountpoint) return own
    const inherited = inherit(dirname(level), file)
    writeText(`${level}/${prefix}${file}`, inherited)
    return inherited
  }
  try {
    for (const file of files) inherit(dir, file)
    // the parents still need values, even where the spec sets the leaf's
    for (const file of ['cpus', 'mems']) if (!files.includes(file as 'cpus')) inherit(dirname(dir), file)
  } catch (error) {
    throw cgroupError(`cannot give processors and memory nodes to cgroup "${name}"`, error, {
      call: 'write',
      path: dir,
    })
  }
}

/** The policy of a devices cgroup; undefined when it is "allow" with unknown exceptions. */
export function currentDevices(dir: string): DevicePolicy | undefined {
  return parseDevicesList(readText(`${dir}/devices.list`))
}

/** A policy in place of another; `from` is undefined when that one has unknown exceptions. */
export interface PolicyChange {
  readonly from: DevicePolicy | undefined
  readonly to: DevicePolicy
}

/** Changes a used devices cgroup from one policy to another, and checks that the kernel has the result. */
export function setDevices(dir: string, { from, to }: PolicyChange, name: string): void {
  if (writeDevices(dir, toV1DeviceWrites(from, to), name)) checkDevices(dir, to, name)
}

/**
 * Like setDevices, for a fresh cgroup, which begins with the rules of its parent. A policy that denies by default is
 * written rule by rule, and the kernel refuses each that the parent does not have. One that allows by default writes
 * nothing that a restricted parent would refuse, so only then the result is read back.
 */
function setFirstDevices(dir: string, to: DevicePolicy, name: string): void {
  const writes = toV1DeviceWrites(ALLOW_ALL, to)
  if (writeDevices(dir, writes, name) && to.allowByDefault) checkDevices(dir, to, name)
}

/** Writes the rules; false when this process may not set any. */
function writeDevices(dir: string, writes: readonly DeviceWrite[], name: string): boolean {
  const what = `cannot set device rules on cgroup "${name}"`
  try {
    for (const { file, values } of byFile(writes)) writeRules(`${dir}/${file}`, values, what)
    return true
  } catch (error) {
    if (errnoOf(error) === EPERM && lacksDeviceRules()) return false
    throw error
  }
}

function checkDevices(dir: string, wanted: DevicePolicy, name: string): void {
  const now = currentDevices(dir)
  // the list of a cgroup that allows by default shows no exceptions
  if (wanted.allowByDefault ? now === undefined : now !== undefined && samePolicy(now, wanted)) return
  const reason = 'the kernel has other rules than were asked for, a parent may be restricted'
  throw new RuntimeError('FailedPrecondition', `cannot set device rules on cgroup "${name}": ${reason}`)
}

function writeRules(path: string, values: readonly string[], what: string): void {
  let current = ''
  function* each() {
    for (current of values) yield current
  }
  try {
    writeValues(path, each())
  } catch (error) {
    throw cgroupError(`${what}: cannot write "${current}"`, error, { call: 'write', path })
  }
}

/** Groups neighbouring writes to one file, which then share its open(2). */
function byFile(writes: readonly DeviceWrite[]): { file: string; values: string[] }[] {
  const groups: { file: string; values: string[] }[] = []
  for (const { file, value } of writes) {
    const last = groups.at(-1)
    if (last?.file === file) last.values.push(value)
    else groups.push({ file, values: [value] })
  }
  return groups
}

/** The state of the v1 freezer of this cgroup itself; a frozen parent does not count. */
export function freezerStateV1(dir: string): FreezerState {
  // kernels have this file since 3.13; it is missing only while the cgroup is being removed
  if (readTextIfAny(`${dir}/freezer.self_freezing`)?.trim() === '0') return 'thawed'
  switch (readTextIfAny(`${dir}/freezer.state`)?.trim()) {
    case 'FROZEN':
      return 'frozen'
    case 'FREEZING':
      return 'freezing'
    default:
      return 'thawed'
  }
}

/**
 * Freezes on v1. The kernel walks all processes at each step, so the files are used on threads of the pool. The state
 * can stay FREEZING: a process that is forking, or waits for a frozen one, holds it up. Writing the state again reaches
 * new processes, and a short thaw lets blocked ones go on.
 * @throws DeadlineExceeded
 */
export async function freezeV1(dir: string, name: string): Promise<void> {
  const file = `${dir}/freezer.state`
  const what = `cannot freeze cgroup "${name}"`
  try {
    for (let attempt = 1; attempt <= FREEZE_ATTEMPTS; attempt++) {
      await writeTextAside(file, 'FROZEN')
      if ((await readTextAside(file)).trim() === 'FROZEN') return
      if (attempt % FREEZE_REST_EVERY === 0) {
        await writeTextAside(file, 'THAWED')
        await delay(FREEZE_REST_MS)
      } else if (attempt <= FREEZE_EAGER_ATTEMPTS) await nextTurn()
      else await delay(1)
    }
  } catch (error) {
    throw cgroupError(what, error, { call: 'write', path: file })
  }
  await thawV1(dir, name)
  throw new RuntimeError('DeadlineExceeded', `${what}: it stayed in the state FREEZING`)
}

/** Thaws on v1. A cgroup that is gone has nothing frozen. */
export async function thawV1(dir: string, name: string): Promise<void> {
  const file = `${dir}/freezer.state`
  try {
    await writeTextAside(file, 'THAWED')
  } catch (error) {
    if (isGone(error)) return
    throw cgroupError(`cannot thaw cgroup "${name}"`, error, { call: 'write', path: file })
  }
}
