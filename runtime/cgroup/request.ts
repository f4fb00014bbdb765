/**
 * What both versions share in making a cgroup: the request, the device policy that follows from it, and the refusal of
 * a directory that is already in use. Invariant: a container never shares its cgroup with a process that was there
 * before it.
 */

import { RuntimeError } from '../errors.ts'
import { type LinuxResources, NO_RESOURCES } from '../spec/types.ts'
import { errnoOf } from '../sys/errno.ts'
import { EACCES, EPERM, EROFS } from '../sys/linux.ts'
import { DEFAULT_DEVICE_RULES, type DevicePolicy, emulate } from './devices.ts'
import { processesIn } from './tree.ts'

/** What names a cgroup: linux.cgroupsPath, or else the id. */
export interface CgroupName {
  readonly path: string | undefined
  readonly id: string
}

/** The unit of systemd that a cgroup is. */
export interface CgroupUnit {
  readonly name: string
  /** it belongs to the manager of a user, and not to the machine's */
  readonly user: boolean
}

/** The request for a cgroup. */
export interface CreateRequest extends CgroupName {
  readonly resources: LinuxResources | undefined
  /** do without the directories that the runtime may not make, if the spec asks for no path */
  readonly tolerant: boolean
  /** called with the directories before any of them is made */
  readonly announce: (paths: CgroupPaths) => void
}

/** The state of a freezer: "freezing" lasts until every process inside has stopped. */
export type FreezerState = 'thawed' | 'freezing' | 'frozen'

/** Paths by controller, as state.json keeps them. */
export type CgroupPaths = Readonly<Record<string, string>>

/** The resources of a spec, or none. */
export function resourcesOr(resources: LinuxResources | undefined): LinuxResources {
  return resources ?? NO_RESOURCES
}

/** The policy of a container: its rules, then what every container may do. */
export function devicePolicyOf(resources: LinuxResources): DevicePolicy {
  return emulate([...resources.devices, ...DEFAULT_DEVICE_RULES])
}

/** Refuses an existing cgroup with processes: they would share the container's limits, and be killed with it. */
export function refuseUsed(dir: string, name: string): void {
  const count = processesIn(dir).length
  if (count === 0) return
  const message = `cannot create cgroup "${name}": container's cgroup is not empty: ${count} process(es) found`
  throw new RuntimeError('FailedPrecondition', message)
}

/**
 * Whether the container may do without a cgroup after this failure: the runtime lacks the permission, and the spec
 * names no path.
 */
export function isForgivable(request: CreateRequest, error: unknown): boolean {
  const permission: readonly number[] = [EPERM, EACCES, EROFS]
  return request.tolerant && request.path === undefined && permission.includes(errnoOf(error))
}

/** The error for a leftover cgroup that is frozen, in which no process could start. */
export function frozenError(name: string): RuntimeError {
  return new RuntimeError(
    'FailedPrecondition',
    `cannot create cgroup "${name}": container's cgroup unexpectedly frozen`,
  )
}
