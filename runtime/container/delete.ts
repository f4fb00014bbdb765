/**
 * Deleting by id, whatever is there: a container, one that another command is just making, or what an interrupted create left. Without
 * force only what has stopped (or never started) is removed; with force it is killed first, and a missing one is fine.
 */
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import { type Logger, silentLogger } from '../logger.ts'
import { interrupted } from './claim.ts'
import { Container } from './container.ts'
import { locked } from './lock.ts'
import { killClaimed, removeRemains } from './remains.ts'
import { hasState } from './store.ts'

/** How a container is deleted. */
export interface DeleteOptions {
  /** kill it first if it runs; a missing one is fine */
  readonly force?: boolean
  /** with force, believe what a state of another version, or a damaged one, still says of process and cgroups: the owner wants it gone */
  readonly salvage?: boolean
  readonly logger?: Logger
}

/** Removes a container by id; the host pid of its init, 0 where that is not known. @throws NotFound, FailedPrecondition, Unavailable; NotFound never with force */
export async function deleteContainer(root: string, id: string, options: DeleteOptions = {}): Promise<number> {
  const { force = false, salvage = false, logger = silentLogger } = options
  try {
    if (!hasState(root, id) && (await removeUnfinished(root, id, force, logger))) return 0
    const container = load(root, id, { salvage: force && salvage, logger })
    if (container === undefined) return await locked(root, id, 'exclusive', () => removeRemains(root, id, logger))
    await container.destroy({ force })
    return Math.max(container.init.pid, 0)
  } catch (error) {
    if (force && error instanceof RuntimeError && error.code === 'NotFound') return 0
    throw error
  }
}

/** The container, or undefined for one whose state cannot be understood and is to be salvaged. */
function load(
  root: string,
  id: string,
  { salvage, logger }: { salvage: boolean; logger: Logger },
): Container | undefined {
  try {
    return Container.load(root, id, logger)
  } catch (error) {
    // a state without its spec is not understood either
    if (!salvage || !(error instanceof RuntimeError) || !hasState(root, id)) throw error
    logger.warn({ container: id, error: error.message }, 'deleting a container without understanding its state')
    return undefined
  }
}

/** Waits for a create under way; false when it has made a container after all. @throws NotFound without force, saying what to do */
async function removeUnfinished(root: string, id: string, force: boolean, logger: Logger): Promise<boolean> {
  if (force) killClaimed(root, id)
  return locked(root, id, 'exclusive', async () => {
    if (hasState(root, id)) return false
    failpoint('delete:locked')
    if (!force) throw interrupted(id)
    await removeRemains(root, id, logger)
    return true
  })
}
