/**
 * cgroup v2: one directory in one tree. A controller works in a directory only if every directory above enables it for
 * its children, so that is done on the way to the leaf. Invariant, as in v1.ts: the leaf exists with all limits set and
 * no process inside, or it does not exist.
 */

import { accessSync, constants } from 'node:fs'
import { posix } from 'node:path'
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises'
import { RuntimeError } from '../errors.ts'
import { errnoOf } from '../sys/errno.ts'
import { ENOENT } from '../sys/linux.ts'
import { type ApplyTarget, applyWrites } from './apply.ts'
import { attachDevicePolicy } from './ebpf.ts'
import { cgroupError, isGone, readText, readTextIfAny, writeText, writeTextAside } from './files.ts'
import { CGROUP_ROOT, displayName, innerPath, readHierarchies, UNIFIED } from './hierarchy.ts'
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
import { type ResourceWrite, toV2Writes } from './resources.ts'
import { makeDirectory, unmake } from './tree.ts'

const FREEZE_BOUND_MS = 10_000
const FREEZE_EAGER_ATTEMPTS = 10
const FREEZE_STEP_MS = 10

/** Controllers that work only on whole processes, and so do not exist in a threaded cgroup. */
const DOMAIN_CONTROLLERS = new Set(['memory', 'io', 'hugetlb', 'rdma', 'misc'])

/** The directory of a container's cgroup with this name. */
export function placeV2({ path, id }: CgroupName): string {
  return CGROUP_ROOT + innerPath(path, id, parentOfOwn(path))
}

/** Makes the directory of a container and sets its limits. */
export function createV2(request: CreateRequest): CgroupPaths {
  const resources = resourcesOr(request.resources)
  const writes = toV2Writes(resources)
  const policy = devicePolicyOf(resources)
  const dir = placeV2(request)
  const name = displayName(UNIFIED, dir)
  request.announce({ [UNIFIED]: dir })
  let made = false
  try {
    try {
      if (request.tolerant) requireMove(posix.dirname(dir))
      makeParents(posix.dirname(dir))
      made = makeDirectory(dir)
    } catch (error) {
      const failure = cgroupError(`cannot create cgroup "${name}"`, error, { call: 'mkdir', path: dir })
      if (!isForgivable(request, error)) throw failure
      if (writes.length === 0) return {}
      const needs = 'rootless needs no limits + no cgrouppath when no permission is granted for cgroups'
      throw new RuntimeError('PermissionDenied', `${needs}: ${failure instanceof Error ? failure.message : failure}`)
    }
    if (!made) {
      refuseUsed(dir, name)
      if (freezerStateV2(dir) !== 'thawed') throw frozenError(name)
    }
    settleType(dir, name, writes)
    applyWrites(writes, v2Target(dir, made))
    attachDevicePolicy(policy, { dir, name, fresh: made })
  } catch (error) {
    if (made) unmake([dir])
    throw error
  }
  return { [UNIFIED]: dir }
}

/**
 * Requires permission to move a process: to write cgroup.procs of the closest cgroup above both the old and the new
 * one.
 * @throws node's own error
 */
function requireMove(parent: string): void {
  accessSync(`${commonParent(parent)}/cgroup.procs`, constants.W_OK)
}

/** Whether this process may move one of its children to a cgroup. */
export function mayMoveTo(dir: string): boolean {
  try {
    requireMove(dir)
    return true
  } catch (error) {
    if (errnoOf(error) === 0) throw error
    return false
  }
}

/** The closest cgroup above, or equal to, both the runtime's own and another one. */
function commonParent(other: string): string {
  const own = readHierarchies('v2').find(({ controllers }) => controllers.includes(UNIFIED))?.ownPath ?? '/'
  let common = other
  while (common !== CGROUP_ROOT && !`${CGROUP_ROOT}${own}/`.startsWith(`${common}/`)) common = posix.dirname(common)
  return common
}

/**
 * The directory in which a relative path starts: beside the runtime's own cgroup, which has processes and so must stay
 * a leaf.
 */
function parentOfOwn(path: string | undefined): string {
  if (path?.startsWith('/')) return '/'
  const own = readHierarchies('v2').find(({ controllers }) => controllers.includes(UNIFIED))?.ownPath
  return posix.dirname(own ?? '/')
}

/** Makes every directory down to `parent`, and enables all controllers for the children of each. */
export function makeParents(parent: string): void {
  const wanted = words(readTextIfAny(`${CGROUP_ROOT}/cgroup.controllers`) ?? '')
  let level = CGROUP_ROOT
  const names = parent.slice(CGROUP_ROOT.length).split('/').filter(Boolean)
  for (const next of [undefined, ...names]) {
    if (next !== undefined) {
      level = `${level}/${next}`
      makeDirectory(level)
    }
    handDown(level, wanted)
  }
}

function words(text: string): string[] {
  return text.split(/\s+/).filter(Boolean)
}

function handDown(level: string, controllers: readonly string[]): void {
  const file = `${level}/cgroup.subtree_control`
  const have = new Set(words(readTextIfAny(file) ?? ''))
  const missing = controllers.filter((controller) => !have.has(controller)).map((controller) => `+${controller}`)
  if (missing.length === 0) return
  // If one controller cannot be enabled, the whole write fails, so each one is then written alone. Where a limit needs
  // one that is still missing, setting that limit fails and names the controller.
  for (const value of missing.length === 1 ? missing : [missing.join(' '), ...missing]) {
    try {
      writeText(file, value)
      if (value.includes(' ')) return
    } catch (error) {
      if (errnoOf(error) === 0) throw error
    }
  }
}

/** A child of a threaded cgroup is unusable until it becomes threaded too, which rules out some controllers. */
function settleType(dir: string, name: string, writes: readonly ResourceWrite[]): void {
  const type = readTextIfAny(`${dir}/cgroup.type`)?.trim()
  if (type === undefined || type === 'domain') return
  const domain = writes.find(({ controller }) => DOMAIN_CONTROLLERS.has(controller))
  if (domain !== undefined) {
    const message = `cannot set ${domain.what} on cgroup "${name}": it is in "${type}" mode, without the ${domain.controller} controller`
    throw new RuntimeError('FailedPrecondition', message)
  }
  if (type !== 'domain invalid') return
  try {
    writeText(`${dir}/cgroup.type`, 'threaded')
  } catch (error) {
    throw cgroupError(`cannot make cgroup "${name}" threaded`, error, { call: 'write', path: dir })
  }
}

/** Where the writes for v2 go. */
export function v2Target(dir: string, fresh: boolean): ApplyTarget {
  return { dir: () => dir, key: () => UNIFIED, fresh }
}

/** The state of this cgroup's own freezer; a frozen parent does not count. */
export function freezerStateV2(dir: string): FreezerState {
  if (readTextIfAny(`${dir}/cgroup.freeze`)?.trim() !== '1') return 'thawed'
  return /^frozen 1$/m.test(readTextIfAny(`${dir}/cgroup.events`) ?? '') ? 'frozen' : 'freezing'
}

/**
 * Freezes on v2 and waits until the kernel reports it; a cgroup that does not freeze in time is thawed again.
 * @throws DeadlineExceeded
 */
export async function freezeV2(dir: string, name: string): Promise<void> {
  const what = `cannot freeze cgroup "${name}"`
  const file = `${dir}/cgroup.freeze`
  try {
    await writeTextAside(file, '1')
    const deadline = performance.now() + FREEZE_BOUND_MS
    for (let attempt = 1; performance.now() < deadline; attempt++) {
      if (/^frozen 1$/m.test(readText(`${dir}/cgroup.events`))) return
      if (attempt <= FREEZE_EAGER_ATTEMPTS) await nextTurn()
      else await delay(FREEZE_STEP_MS)
    }
    await writeTextAside(file, '0')
  } catch (error) {
    const missing = errnoOf(error) === ENOENT ? ' (the cgroup is gone, or is the root)' : ''
    throw cgroupError(what, error, { call: 'write', path: file, note: missing })
  }
  throw new RuntimeError('DeadlineExceeded', `${what}: it was not frozen after ${FREEZE_BOUND_MS} ms`)
}

/** Thaws on v2. A cgroup that is gone has nothing frozen: systemd removes one as soon as its last process has ended. */
export async function thawV2(dir: string, name: string): Promise<void> {
  try {
    await writeTextAside(`${dir}/cgroup.freeze`, '0')
  } catch (error) {
    if (isGone(error)) return
    throw cgroupError(`cannot thaw cgroup "${name}"`, error, { call: 'write', path: dir })
  }
}
