/**
 * What both versions share in making a cgroup: the request, the device policy that follows from it, and the refusals of a directory that
 * somebody else uses. Invariant: a container never shares its cgroup with a process that was there before it.
 */

import { RuntimeError } from '../errors.ts'
import type { LinuxResources } from '../spec/types.ts'
import { errnoOf } from '../sys/errno.ts'
import { EACCES, EPERM, EROFS } from '../sys/linux.ts'
import { DEFAULT_DEVICE_RULES, type DevicePolicy, emulate } from './devices.ts'
import { processesIn } from './tree.ts'

/** What a cgroup is called after: linux.cgroupsPath, or else the id. */
export interface CgroupName {
  readonly path: string | undefined
  readonly id: string
}

/** What a cgroup is made for. */
export interface CreateRequest extends CgroupName {
  readonly resources: LinuxResources | undefined
  /** do without the directories that we have no permission to make, where the spec asks for none */
  readonly tolerant: boolean
  /** told of the directories before any of them is made */
  readonly announce: (paths: CgroupPaths) => void
}

/** What a freezer does to a cgroup: freezing lasts until every process inside has stopped. */
export type FreezerState = 'thawed' | 'freezing' | 'frozen'

/** Paths by controller, as state.json keeps them. */
export type CgroupPaths = Readonly<Record<string, string>>

const NO_RESOURCES: LinuxResources = { devices: [], hugepageLimits: [], rdma: {}, unified: {} }

/** The resources of a spec, or none. */
export function resourcesOr(resources: LinuxResources | undefined): LinuxResources {
  return resources ?? NO_RESOURCES
}

/** The policy of a container: its rules, then what every container may do. */
export function devicePolicyOf(resources: LinuxResources): DevicePolicy {
  return emulate([...resources.devices, ...DEFAULT_DEVICE_RULES])
}

/** Refuses a cgroup that was there before and is in use: its processes would share our limits and our kill. */
export function refuseUsed(dir: string, name: string): void {
  const count = processesIn(dir).length
  if (count === 0) return
  const message = `cannot create cgroup "${name}": container's cgroup is not empty: ${count} process(es) found`
  throw new RuntimeError('FailedPrecondition', message)
}

/** Whether a failure is the lack of permission that a container may do without a cgroup for: it has not asked for a certain one. */
export function isForgivable(request: CreateRequest, error: unknown): boolean {
  const permission: readonly number[] = [EPERM, EACCES, EROFS]
  return request.tolerant && request.path === undefined && permission.includes(errnoOf(error))
}

/** The refusal of a leftover cgroup in which no process could ever start. */
export function frozenError(name: string): RuntimeError {
  return new RuntimeError(
    'FailedPrecondition',
    `cannot create cgroup "${name}": container's cgroup unexpectedly frozen`,
  )
}
