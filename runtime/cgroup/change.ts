/**
 * Changes of limits while a container runs. Invariant: either all limits that were asked for hold afterwards, or all
 * old ones do. Without device rules in the request the old rules stay.
 */
import type { Logger } from '../logger.ts'
import type { LinuxResources } from '../spec/types.ts'
import { applyWrites, type Undo } from './apply.ts'
import { attachDevicePolicy } from './ebpf.ts'
import { readTextIfAny } from './files.ts'
import { type CgroupPaths, devicePolicyOf } from './request.ts'
import { type CurrentLimits, checkMemoryBeforeUpdate, toV1Writes, toV2Writes } from './resources.ts'
import { parseNumber } from './stats.ts'
import { currentDevices, setDevices, v1Target } from './v1.ts'
import { v2Target } from './v2.ts'

/** The cgroup, for messages. */
export interface ChangeTarget {
  readonly name: string
  readonly logger: Logger
}

/** Changes the limits of a cgroup on v1; what was changed goes back when one is refused. */
export function changeV1(paths: CgroupPaths, resources: LinuxResources, { name, logger }: ChangeTarget): Undo {
  const { memory } = paths
  const swap = memory === undefined ? undefined : readTextIfAny(`${memory}/memory.memsw.limit_in_bytes`)
  const current: CurrentLimits = swap === undefined ? {} : { memorySwap: parseNumber(swap) }
  const undo = applyWrites(toV1Writes(resources, current), v1Target(paths, false))
  const { devices } = paths
  if (resources.devices.length === 0 || devices === undefined) return undo
  let before: ReturnType<typeof currentDevices>
  try {
    before = currentDevices(devices)
    setDevices(devices, { from: before, to: devicePolicyOf(resources) }, name)
  } catch (error) {
    try {
      if (before !== undefined) setDevices(devices, { from: currentDevices(devices), to: before }, name)
    } catch (second) {
      logger.warn({ error: String(second) }, 'could not restore the device rules')
    }
    undo()
    throw error
  }
  return undo
}

/** The same on v2. */
export function changeV2(dir: string, resources: LinuxResources, { name }: ChangeTarget): Undo {
  const current = currentV2(dir)
  if (resources.memory?.checkBeforeUpdate === true) {
    const usage = parseNumber(readTextIfAny(`${dir}/memory.current`))
    checkMemoryBeforeUpdate(resources.memory, usage, parseNumber(readTextIfAny(`${dir}/memory.swap.current`)))
  }
  const undo = applyWrites(toV2Writes(resources, current), v2Target(dir, false))
  if (resources.devices.length === 0) return undo
  try {
    attachDevicePolicy(devicePolicyOf(resources), { dir, name, fresh: false })
  } catch (error) {
    undo()
    throw error
  }
  return undo
}

/** The present limits on which an update depends. */
export function currentV2(dir: string): CurrentLimits {
  const memoryMax = readTextIfAny(`${dir}/memory.max`)?.trim()
  const cpuMax = readTextIfAny(`${dir}/cpu.max`)?.trim()
  return {
    ...(memoryMax === undefined ? {} : { memory: memoryMax === 'max' ? -1n : parseNumber(memoryMax) }),
    ...(cpuMax === undefined ? {} : { cpuMax }),
  }
}
