/**
 * The cgroup of an exec: the container's, a sub-cgroup that the caller names, or the one that the container's init is
 * in now. The last holds when the container's own can take no process any more. Invariant: the process never enters a
 * cgroup outside the container's, except to follow an init that was moved.
 */

import { posix } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { errnoOf } from '../sys/errno.ts'
import { ENODEV, ENOENT } from '../sys/linux.ts'
import type { Cgroup, CgroupJoin } from './cgroup.ts'
import { readText } from './files.ts'
import { CGROUP_ROOT, parseOwnCgroups, UNIFIED } from './hierarchy.ts'
import { mayMoveTo } from './v2.ts'

/** Sub-cgroups by controller; under "" one for all. */
export type SubCgroups = Readonly<Record<string, string>>

/**
 * How the process enters its cgroup.
 * @throws InvalidArgument for a sub-cgroup that is outside the container's, unknown or missing
 */
export function execJoin(cgroup: Cgroup, initPid: number, subCgroups: SubCgroups = {}): CgroupJoin {
  const join = ownJoin(cgroup, initPid, subCgroups)
  if (join.kind !== 'dir' || cgroup.unit?.user !== true || mayMoveTo(join.path)) return join
  return { kind: 'placed', dirs: [join.path] }
}

function ownJoin(cgroup: Cgroup, initPid: number, subCgroups: SubCgroups): CgroupJoin {
  const join = cgroup.join()
  if (Object.keys(subCgroups).length > 0) return joinBelow(cgroup, join, subCgroups)
  if (join.kind !== 'dir') return join
  const dir = isBusy(join.path) ? currentDir(initPid) : undefined
  return dir === undefined ? join : { kind: 'dir', path: dir }
}

function refuse(reason: string): RuntimeError {
  return new RuntimeError('InvalidArgument', `error adding pid to cgroups: ${reason}`)
}

function joinBelow(cgroup: Cgroup, join: CgroupJoin, subs: SubCgroups): CgroupJoin {
  const all = subs[UNIFIED]
  if (join.kind === 'placed') return join
  if (join.kind === 'dir' || join.kind === 'none') {
    const controller = Object.keys(subs).find((key) => key !== UNIFIED)
    if (controller !== undefined) throw refuse(`unknown controller ${controller} in sub-cgroup paths`)
    if (join.kind === 'none') throw refuse('the container has no cgroup')
    return { kind: 'dir', path: below(join.path, all ?? '') }
  }
  // keyed by directory, since controllers may share one
  const changed = new Map<string, string>()
  for (const [controller, sub] of Object.entries(subs)) {
    if (controller === UNIFIED) continue
    const base = cgroup.paths[controller]
    if (base === undefined) throw refuse(`unknown controller ${controller} in sub-cgroup paths`)
    const path = below(base, sub)
    if ((changed.get(base) ?? path) !== path) {
      throw refuse(`controller ${controller} is in one hierarchy with another, for which another sub-cgroup is given`)
    }
    changed.set(base, path)
  }
  const move = (base: string): string => changed.get(base) ?? (all === undefined ? base : below(base, all))
  const paths = join.paths.map((tasks) => `${move(posix.dirname(tasks))}/tasks`)
  return join.dir === undefined ? { kind: 'tasks', paths } : { kind: 'tasks', paths, dir: move(join.dir) }
}

/**
 * The directory of a sub-cgroup.
 * @throws InvalidArgument for one outside `base`, or missing
 */
function below(base: string, sub: string): string {
  const path = posix.join(base, sub).replace(/\/$/, '')
  if (path !== base && !path.startsWith(`${base}/`)) throw refuse(`bad sub cgroup path: ${sub}`)
  try {
    readText(`${path}/cgroup.procs`)
  } catch (error) {
    if (errnoOf(error) !== ENOENT) throw error
    throw refuse(`open ${path}/cgroup.procs: no such file or directory`)
  }
  return path
}

/** Whether a v2 cgroup takes no processes: it hands controllers to sub-cgroups (EBUSY), or it was removed. */
function isBusy(dir: string): boolean {
  try {
    return readText(`${dir}/cgroup.subtree_control`).trim() !== ''
  } catch (error) {
    if (errnoOf(error) === ENOENT || errnoOf(error) === ENODEV) return true
    throw error
  }
}

/** The v2 cgroup of a process; undefined when it is outside the runtime's own cgroup namespace. */
function currentDir(pid: number): string | undefined {
  const path = parseOwnCgroups(readText(`/proc/${pid}/cgroup`)).get('')
  return path === undefined || path.startsWith('/..') ? undefined : posix.join(CGROUP_ROOT, path)
}
