/**
 * Removes a container: its processes, its cgroup, the mounts at its root, its state. Invariants: the state goes last,
 * so that an interrupted removal can be repeated. The folder of a later container of the same id is left alone.
 */
import { failpoint } from '../failpoint.ts'
import type { Logger } from '../logger.ts'
import { removeRootMount } from '../state/root-mount.ts'
import { hasState, removeState, type SavedState } from '../state/store.ts'
import { SIGKILL } from '../sys/linux.ts'
import { endContainer, type KillTarget } from './kill.ts'
import { initOf, removeIntelRdt } from './remains.ts'
import { refusal, type Status } from './status.ts'

/** The container to remove. */
export interface Removal {
  /** folder that holds the state of many containers */
  readonly root: string
  readonly target: KillTarget
  readonly state: SavedState
  readonly status: Status
  readonly logger: Logger
}

/**
 * Removes it. A created container is killed first; with force any other too. The caller holds the lock.
 * @throws FailedPrecondition when it still runs; DeadlineExceeded when init does not end; what the kernel says
 */
export async function removeContainer({ root, target, state, status, logger }: Removal, force: boolean): Promise<void> {
  const { id, cgroup } = target
  if (status !== 'stopped') {
    if (status !== 'created' && !force) {
      throw refusal(status, `cannot delete container "${id}" that is not stopped: ${status}`)
    }
    await endContainer(target)
  }
  failpoint('delete:killed')
  // processes that outlive init: without a pid namespace of its own, or moved into sub-cgroups
  if ((await cgroup.listProcesses()).length > 0) await cgroup.killAll(SIGKILL)
  await cgroup.remove()
  await removeIntelRdt(id, state.intelRdt)
  failpoint('delete:cgroup')
  removeRootMount(state.made.rootMount, logger)
  removeState(root, id)
  failpoint('delete:done')
}

/**
 * Whether the folder on disk still belongs to the container of that state, and not to a later one of the same id.
 * `made` says that this process made the container.
 */
export function isCurrent(root: string, { id, pid, startTime }: SavedState, { made }: { made: boolean }): boolean {
  const init = initOf(root, id)
  // the files may be damaged; a folder that names no other process belongs to the container that this process made
  if (init === undefined) return made || hasState(root, id)
  return init.pid === pid && init.startTime === startTime
}
