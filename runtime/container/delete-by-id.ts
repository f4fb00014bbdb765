/**
 * Deletes by id, in whatever state the container is: complete, being made by another command, or left by an interrupted
 * create. Without force, only a container that has stopped or never started is removed. With force it is killed first,
 * and a missing one is no error.
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
   * kill a running container first, and accept a missing one. One whose state is damaged or of another version is
   * removed with all of it that can still be found. Default: false
   */
  readonly force?: boolean
  readonly logger?: Logger
}

interface Deletion extends Required<DeleteOptions> {
  readonly root: string
  readonly id: string
}

/**
 * Removes a container by id; resolves with the host pid of its init, 0 where that is not known.
 * @throws NotFound (never with force); FailedPrecondition when it still runs; Unavailable when another command holds it
 */
export async function deleteContainer(root: string, id: string, options: DeleteOptions = {}): Promise<number> {
  const { force = false, logger = silentLogger } = options
  try {
    for (;;) {
      const container = hasState(root, id) ? load({ root, id, force, logger }) : undefined
      if (container !== undefined) {
        await container.destroy({ force })
        return Math.max(container.init.pid, 0)
      }
      const pid = await removeUnloadable({ root, id, force, logger })
      if (pid !== undefined) return pid
    }
  } catch (error) {
    if (force && error instanceof RuntimeError && error.code === 'NotFound') return 0
    throw error
  }
}

/** Loads the container; with force, undefined for one whose state cannot be read. */
function load({ root, id, force, logger }: Deletion): Container | undefined {
  try {
    return Container.load(root, id, logger)
  } catch (error) {
    // without a state there is nothing to misread: another command is removing the container
    if (!force || !(error instanceof RuntimeError) || !hasState(root, id)) throw error
    logger.warn({ container: id, error: error.message }, 'deleting a container without understanding its state')
    return undefined
  }
}

/**
 * Removes what is left once no other command works on it; undefined when there is a container to load after all.
 * @throws NotFound or Internal without force, saying what to do
 */
async function removeUnloadable({ root, id, force, logger }: Deletion): Promise<number | undefined> {
  if (force) killClaimed(root, id)
  return locked({ root, id, mode: 'exclusive' }, async () => {
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
