/**
 * cgroup v1, and hybrid, where a v2 tree without controllers stands beside: one directory per hierarchy under the same name. Invariant:
 * create leaves either a directory in every hierarchy, all limits set and no process inside, or none of the directories it would have
 * made. Speed is part of the job (every container waits for it): no file is read that a fresh cgroup makes superfluous.
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
import { cgroupError, readText, readTextAside, readTextIfAny, writeText, writeTextAside, writeValues } from './files.ts'
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

/** Where a container's cgroup of this name is: its directories by controller, and the mount point of each. */
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
  // What is wrong in the spec is found before anything is made.
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
        if (!isForgivable(request, error)) throw cgroupError(`cannot create cgroup "${name}"`, error, 'mkdir', dir)
        for (const controller of Object.keys(paths)) if (paths[controller] === dir) delete paths[controller]
        mountpoints.delete(dir)
      }
    }
    requireJoined(writes, paths, request)
    const { cpuset, freezer } = paths
    const fresh = made.length === mountpoints.size
    if (!fresh && freezer !== undefined && freezerStateV1(freezer) !== 'thawed') throw frozenError(name)
    if (cpuset !== undefined) fillCpuset(cpuset, mountpoints.get(cpuset) ?? '', resources, made.includes(cpuset), name)
    if (paths['devices'] === undefined || devices === undefined) {
      // no rules of our own: those of the cgroup that we are in hold
    } else if (made.includes(devices)) setFirstDevices(devices, policy, name)
    else setDevices(devices, currentDevices(devices), policy, name)
    applyWrites(writes, v1Target(paths, fresh))
  } catch (error) {
    unmake(made)
    throw error
  }
  return paths
}

/** A limit in a hierarchy that we have no permission for cannot be kept. */
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

/**
 * A new cpuset has no processors and no memory nodes, and no process may enter it: it takes its parent's, and so do the parents above
 * that are still empty.
 */
export function fillCpuset(
  dir: string,
  mountpoint: string,
  resources: LinuxResources,
  fresh: boolean,
  name: string,
): void {
  // A hierarchy mounted with noprefix has the files without it.
  let prefix = 'cpuset.'
  const read = (level: string, file: string): string => {
    const text = readTextIfAny(`${level}/${prefix}${file}`)
    if (text !== undefined) return text
    prefix = ''
    return readText(`${level}/${file}`)
  }
  // What the spec sets itself is written later, with the other limits.
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
    // A parent must have what the spec asks for, or at least something.
    for (const file of ['cpus', 'mems']) if (!files.includes(file as 'cpus')) inherit(dirname(dir), file)
  } catch (error) {
    throw cgroupError(`cannot give processors and memory nodes to cgroup "${name}"`, error, 'write', dir)
  }
}

/** The policy of a devices cgroup, undefined when it is "allow" with unknown exceptions. */
export function currentDevices(dir: string): DevicePolicy | undefined {
  return parseDevicesList(readText(`${dir}/devices.list`))
}

/** Turns a used devices cgroup from one policy to another and checks that the kernel agrees with the result. */
export function setDevices(dir: string, from: DevicePolicy | undefined, to: DevicePolicy, name: string): void {
  if (writeDevices(dir, toV1DeviceWrites(from, to), name)) checkDevices(dir, to, name)
}

/** The same for a fresh cgroup, where each rule that the kernel took is in force: there is only a restricted parent to look for. */
function setFirstDevices(dir: string, to: DevicePolicy, name: string): void {
  const writes = toV1DeviceWrites(ALLOW_ALL, to)
  if (writeDevices(dir, writes, name) && to.allowByDefault) checkDevices(dir, to, name)
}

/** False when the rules are not ours to set. */
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
  // The list of a cgroup that allows by default says no more than that.
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
    throw cgroupError(`${what}: cannot write "${current}"`, error, 'write', path)
  }
}

/** Neighbouring writes to one file share its open(2). */
function byFile(writes: readonly DeviceWrite[]): { file: string; values: string[] }[] {
  const groups: { file: string; values: string[] }[] = []
  for (const { file, value } of writes) {
    const last = groups.at(-1)
    if (last?.file === file) last.values.push(value)
    else groups.push({ file, values: [value] })
  }
  return groups
}

/** What the v1 freezer does to the cgroup for its own sake; that a parent is frozen does not count. */
export function freezerStateV1(dir: string): FreezerState {
  // every kernel has this file since 3.13; a cgroup that is being removed has none
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
 * Freezes by v1. The kernel walks all processes at each step, hence aside. FREEZING can last: a process that forks meanwhile, or waits for one that is frozen already, holds it up. Writing the
 * state again reaches the newcomers, and a short thaw lets the stuck ones go on.
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
    throw cgroupError(what, error, 'write', file)
  }
  await thawV1(dir, name)
  throw new RuntimeError('DeadlineExceeded', `${what}: it stayed in the state FREEZING`)
}

/** Thaws by v1. */
export async function thawV1(dir: string, name: string): Promise<void> {
  const file = `${dir}/freezer.state`
  try {
    await writeTextAside(file, 'THAWED')
  } catch (error) {
    throw cgroupError(`cannot thaw cgroup "${name}"`, error, 'write', file)
  }
}
