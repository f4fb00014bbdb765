/**
 * The cgroup of the monitor, the process that makes a container and waits for it, where a manager wants to count it
 * separately. Invariant: it is never the container's cgroup or inside it, where the monitor would be frozen, limited
 * and killed with the container.
 */
import { RuntimeError } from '../errors.ts'
import { cgroupError, writeText } from './files.ts'
import { detectMode, displayName, innerPath, readHierarchies } from './hierarchy.ts'
import { type CgroupPaths, resourcesOr } from './request.ts'
import { makeDirectory } from './tree.ts'
import { fillCpuset } from './v1.ts'

/**
 * Moves this process with all its threads to a cgroup, whose absolute path counts from the mount point; makes it if it
 * is missing.
 * @throws InvalidArgument, PermissionDenied
 */
export function joinMonitorCgroup(path: string, container: CgroupPaths): void {
  const refuse = (why: string): RuntimeError =>
    new RuntimeError('InvalidArgument', `cannot use "${path}" as the monitor's cgroup: ${why}`)
  if (!path.startsWith('/')) throw refuse('it must be absolute')
  const mode = detectMode()
  const inner = innerPath(path, '', '/')
  const hierarchies = readHierarchies(mode)
  for (const { mountpoint } of hierarchies) {
    for (const own of Object.values(container)) {
      if (`${mountpoint}${inner}/`.startsWith(`${own}/`)) throw refuse("it is the container's own or inside of it")
    }
  }
  for (const { controllers, mountpoint } of hierarchies) {
    const dir = mountpoint + inner
    const name = displayName(controllers[0] ?? '', dir)
    try {
      const made = makeDirectory(dir)
      if (mode !== 'v2' && controllers.includes('cpuset'))
        fillCpuset({ dir, mountpoint, fresh: made, name }, resourcesOr(undefined))
      // 0 means the writing process
      writeText(`${dir}/cgroup.procs`, '0')
    } catch (error) {
      if (error instanceof RuntimeError) throw error
      throw cgroupError(`cannot move the monitor to cgroup "${name}"`, error, { call: 'write', path: dir })
    }
  }
}
