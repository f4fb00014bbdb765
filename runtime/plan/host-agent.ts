/**
 * Work that needs the host's privileges after the container process has given them up:
 * - opening sources of mounts that a mapped root may not reach
 * - id-mapped mounts
 * - a socket in the container's network, through which devices are moved
 *
 * A helper process, the host agent, keeps the privileges during the set-up, and only for plans that have such work.
 */
import { MOUNT_HOW, type Op } from '../../proto/init-plan.ts'
import { specError } from '../errors.ts'
import type { HostFacts } from '../host/facts.ts'
import type { Linux } from '../spec/types.ts'
import type { NamespacePlan } from './namespaces.ts'

/**
 * The bit for binds whose source the host agent opens: the container has a user namespace, and the runtime runs as the
 * host's root.
 */
export function hostSource({ own }: NamespacePlan, host: HostFacts): number {
  return own.has('user') && !host.rootless ? MOUNT_HOW.HOST_SOURCE : 0
}

/** The host agent, if one of the operations needs it. */
export function hostAgent(ops: readonly Op[]): readonly Op[] {
  const needed = ops.some(
    (op) => op.op === 'net_devices' || (op.op === 'mount' && (op.how & MOUNT_HOW.HOST_SOURCE) !== 0),
  )
  return needed ? [{ op: 'host_agent' }] : []
}

/**
 * The point at which the runtime moves devices into the container's network namespace.
 * @throws InvalidArgument without the privileges to move them
 */
export function netDevices({ netDevices }: Linux, host: HostFacts): readonly Op[] {
  const devices = Object.entries(netDevices)
  if (devices.length > 0 && host.rootless) {
    throw specError('/linux/netDevices', 'network devices are not supported for rootless containers')
  }
  const quote = JSON.stringify
  const moves = devices.map(([name, { name: newName }]) =>
    newName === undefined ? quote(name) : `${quote(name)} as ${quote(newName)}`,
  )
  return moves.length === 0
    ? []
    : [{ op: 'net_devices', note: `moves ${moves.join(', ')}`, origin: '/linux/netDevices' }]
}
