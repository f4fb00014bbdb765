/**
 * Deleting by id, whatever is there: a container, one that another command is just making, or what an interrupted create left. Without
 * force only what has stopped (or never started) is removed; with force it is killed first, and a missing one is fine.
 */
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import { type Logger, silentLogger } from '../logger.ts'
import { interrupted, killClaimed, removeLeftovers } from './claim.ts'
import { Container } from './container.ts'
import { lockContainer } from './lock.ts'
import { hasState } from './store.ts'

/** Removes a container by id; the host pid of its init, 0 where that is not known. @throws NotFound, FailedPrecondition, Unavailable; NotFound never with force */
export async function deleteContainer(
  root: string,
  id: string,
  options: { readonly force?: boolean; readonly logger?: Logger } = {},
): Promise<number> {
  const { force = false, logger = silentLogger } = options
  try {
    if (!hasState(root, id) && (await removeUnfinished(root, id, force, logger))) return 0
    const container = Container.load(root, id, logger)
    await container.destroy({ force })
    return Math.max(container.init.pid, 0)
  } catch (error) {
    if (force && error instanceof RuntimeError && error.code === 'NotFound') return 0
    throw error
  }
}

/** Waits for a create under way; false when it has made a container after all. @throws NotFound without force, saying what to do */
async function removeUnfinished(root: string, id: string, force: boolean, logger: Logger): Promise<boolean> {
  if (force) killClaimed(root, id)
  using _held = await lockContainer(root, id, 'exclusive')
  if (hasState(root, id)) return false
  failpoint('delete:locked')
  if (!force) throw interrupted(id)
  await removeLeftovers(root, id, logger)
  return true
}
