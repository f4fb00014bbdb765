/**
 * cgroup v2: one directory in one tree. A controller works in a directory only when every directory above hands it down, so on the way
 * to the leaf each parent is told to. Invariant as in v1.ts: the leaf exists with all limits set and nobody in it, or it does not exist.
 */

import { accessSync, constants } from 'node:fs'
import { posix } from 'node:path'
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises'
import { RuntimeError } from '../errors.ts'
import { errnoOf } from '../sys/errno.ts'
import { ENOENT } from '../sys/linux.ts'
import { type ApplyTarget, applyWrites } from './apply.ts'
import { attachDevicePolicy } from './ebpf.ts'
import { cgroupError, readText, readTextIfAny, writeText, writeTextAside } from './files.ts'
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

/** Controllers that work on whole processes only and are therefore not found in a threaded cgroup. */
const DOMAIN_CONTROLLERS = new Set(['memory', 'io', 'hugetlb', 'rdma', 'misc'])

/** Where a container's cgroup of this name is. */
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
      const failure = cgroupError(`cannot create cgroup "${name}"`, error, 'mkdir', dir)
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
    attachDevicePolicy(dir, policy, name, made)
  } catch (error) {
    if (made) unmake([dir])
    throw error
  }
  return { [UNIFIED]: dir }
}

/** A process moves only with permission to write the list of processes of the cgroup above both its old and its new one. */
function requireMove(parent: string): void {
  const own = readHierarchies('v2').find(({ controllers }) => controllers.includes(UNIFIED))?.ownPath ?? '/'
  let common = parent
  while (common !== CGROUP_ROOT && !`${CGROUP_ROOT}${own}/`.startsWith(`${common}/`)) common = posix.dirname(common)
  accessSync(`${common}/cgroup.procs`, constants.W_OK)
}

/** A relative path starts beside our own cgroup, which has processes and therefore must stay a leaf. */
function parentOfOwn(path: string | undefined): string {
  if (path?.startsWith('/')) return '/'
  const own = readHierarchies('v2').find(({ controllers }) => controllers.includes(UNIFIED))?.ownPath
  return posix.dirname(own ?? '/')
}

/** Makes every directory down to `parent` and has each hand down all controllers to the next. */
function makeParents(parent: string): void {
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
  // One that cannot be handed down spoils the whole write. Without it the rest still works; a limit that needs it fails later by name.
  for (const value of missing.length === 1 ? missing : [missing.join(' '), ...missing]) {
    try {
      writeText(file, value)
      if (value.includes(' ')) return
    } catch (error) {
      if (errnoOf(error) === 0) throw error
    }
  }
}

/** A child of a threaded cgroup is born unusable, and must become threaded too, which rules out some controllers. */
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
    throw cgroupError(`cannot make cgroup "${name}" threaded`, error, 'write', dir)
  }
}

/** Where the writes for v2 go. */
export function v2Target(dir: string, fresh: boolean): ApplyTarget {
  return { dir: () => dir, key: () => UNIFIED, fresh }
}

/** What the cgroup itself was told, and whether all inside have stopped yet; a frozen parent does not count. */
export function freezerStateV2(dir: string): FreezerState {
  if (readTextIfAny(`${dir}/cgroup.freeze`)?.trim() !== '1') return 'thawed'
  return /^frozen 1$/m.test(readTextIfAny(`${dir}/cgroup.events`) ?? '') ? 'frozen' : 'freezing'
}

/** Freezes by v2 and waits for the kernel to say so; what cannot be frozen in time is thawed again. */
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
    throw cgroupError(what, error, 'write', file, missing)
  }
  throw new RuntimeError('DeadlineExceeded', `${what}: it was not frozen after ${FREEZE_BOUND_MS} ms`)
}

/** Thaws by v2. */
export async function thawV2(dir: string, name: string): Promise<void> {
  try {
    await writeTextAside(`${dir}/cgroup.freeze`, '0')
  } catch (error) {
    throw cgroupError(`cannot thaw cgroup "${name}"`, error, 'write', dir)
  }
}
