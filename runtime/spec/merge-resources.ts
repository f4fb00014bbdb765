/**
 * Resource limits set on a running container, merged with those that it has. A value that the later document leaves out
 * stays. A list that it names replaces the old one, since a list of rules or devices is one value; limits of huge pages
 * are merged by page size. Pure.
 */
import { defined } from './fields.ts'
import { type LinuxResources, NO_RESOURCES } from './types.ts'

/** The limits that hold after `later` is set. */
export function mergeResources(earlier: LinuxResources = NO_RESOURCES, later: LinuxResources): LinuxResources {
  const { memory, cpu, pids, blockIO, network } = earlier
  const merged = {
    devices: later.devices.length > 0 ? later.devices : earlier.devices,
    hugepageLimits: [
      ...earlier.hugepageLimits.filter(({ pageSize }) => !later.hugepageLimits.some((l) => l.pageSize === pageSize)),
      ...later.hugepageLimits,
    ],
    rdma: { ...earlier.rdma, ...later.rdma },
    unified: { ...earlier.unified, ...later.unified },
    memory: both(memory, later.memory),
    cpu: both(cpu, later.cpu),
    pids: later.pids ?? pids,
    blockIO: both(blockIO, later.blockIO),
    network: both(network, later.network),
  }
  return defined(merged)
}

/**
 * The limits to set for `later`, where some depend on what holds: a limit on memory and swap together stays as it was
 * said when only the limit on memory changes. (v2 keeps the difference of the two.) Without a limit on memory there is
 * none on both.
 */
export function completeUpdate(earlier: LinuxResources | undefined, later: LinuxResources): LinuxResources {
  const { memory } = later
  if (memory?.limit === undefined || memory.limit === 0n || memory.swap !== undefined) return later
  const swap = memory.limit < 0n ? 0n : earlier?.memory?.swap
  return swap === undefined ? later : { ...later, memory: { ...memory, swap } }
}

/** Merges two objects; an empty list counts as left out. */
function both<T extends object>(earlier: T | undefined, later: T | undefined): T | undefined {
  if (earlier === undefined || later === undefined) return later ?? earlier
  const named = Object.entries(later).filter(([, value]) => !Array.isArray(value) || value.length > 0)
  return { ...earlier, ...Object.fromEntries(named) }
}
