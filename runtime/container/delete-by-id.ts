/**
 * Deleting by id, whatever is there: a container, one that another command is just making, or what an interrupted create left. Without
 * force only what has stopped (or never started) is removed; with force it is killed first, and a missing one is fine.
 */
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import { type Logger, silentLogger } from '../logger.ts'
import { locked } from '../state/lock.ts'
import { hasState } from '../state/store.ts'
import { unfinished } from './claim.ts'
import { Container } from './container.ts'
import { killClaimed, removeRemains } from './remains.ts'

/** How a container is deleted. */
export interface DeleteOptions {
  /**
   * kill it first if it runs; a missing one is fine, and so is one whose state is damaged or of another version: the owner wants it gone,
   * with all of it that can still be found
   */
  readonly force?: boolean
  readonly logger?: Logger
}

/** Removes a container by id; the host pid of its init, 0 where that is not known. @throws NotFound, FailedPrecondition, Unavailable; NotFound never with force */
export async function deleteContainer(root: string, id: string, options: DeleteOptions = {}): Promise<number> {
  const { force = false, logger = silentLogger } = options
  try {
    for (;;) {
      const container = hasState(root, id) ? load(root, id, force, logger) : undefined
      if (container !== undefined) {
        await container.destroy({ force })
        return Math.max(container.init.pid, 0)
      }
      const pid = await removeUnloadable(root, id, force, logger)
      if (pid !== undefined) return pid
    }
  } catch (error) {
    if (force && error instanceof RuntimeError && error.code === 'NotFound') return 0
    throw error
  }
}

/** The container, or with force undefined for one whose state cannot be understood. */
function load(root: string, id: string, force: boolean, logger: Logger): Container | undefined {
  try {
    return Container.load(root, id, logger)
  } catch (error) {
    // one that is just being removed is no such thing; a state without its spec is
    if (!force || !(error instanceof RuntimeError) || !hasState(root, id)) throw error
    logger.warn({ container: id, error: error.message }, 'deleting a container without understanding its state')
    return undefined
  }
}

/** Waits for a command that is at work on it; undefined when there is a container to load after all. @throws NotFound without force, saying what to do */
async function removeUnloadable(root: string, id: string, force: boolean, logger: Logger): Promise<number | undefined> {
  if (force) killClaimed(root, id)
  return locked(root, id, 'exclusive', async () => {
    if (hasState(root, id) && isLoadable(root, id)) return undefined
    failpoint('delete:locked')
    if (!force) throw unfinished(root, id)
    return await removeRemains(root, id, logger)
  })
}

function isLoadable(root: string, id: string): boolean {
  try {
    Container.load(root, id)
    return true
  } catch (error) {
    if (error instanceof RuntimeError) return false
    throw error
  }
}
