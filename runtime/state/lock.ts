/**
 * Mutual exclusion between commands that work on one container, by flock(2) on its folder. There is no lock file to
 * make or to leave behind, and the kernel releases the lock of a command that is killed.
 * - Exclusive: create (from the claim to state.json), start, pause, set, delete.
 * - Shared: exec and resume, since an exec into a paused container ends only when that is resumed.
 * - No lock: looking and signalling.
 * Invariant: the locked folder is the one that the path names now, not one that was deleted meanwhile.
 */
import { constants, fstatSync, openSync, statSync } from 'node:fs'
import { abortError } from '../abort.ts'
import { RuntimeError } from '../errors.ts'
import { errnoOf } from '../sys/errno.ts'
import { OwnedFd } from '../sys/fd.ts'
import { type LockMode, tryLock, waitLock } from '../sys/flock.ts'
import { ENOENT } from '../sys/linux.ts'
import { notFound, stateDir } from './store.ts'

export type { LockMode } from '../sys/flock.ts'

/** How long a command waits for another one. Only a command that runs hooks should take longer. */
const WAIT_MS = 10_000

/** Whose folder is locked and how, and how long to wait for it. Neither limit ends a lock that is held. */
export interface LockRequest {
  readonly root: string
  readonly id: string
  readonly mode: LockMode
  /** default: ten seconds */
  readonly timeoutMs?: number
  /** aborting ends the wait */
  readonly signal?: AbortSignal | undefined
}

function open(root: string, id: string): OwnedFd {
  try {
    return new OwnedFd(openSync(stateDir(root, id), constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW))
  } catch (error) {
    if (errnoOf(error) === ENOENT) throw notFound(id)
    throw error
  }
}

/** Whether the path still names the folder that is open. */
function isCurrent(root: string, id: string, fd: number): boolean {
  const held = fstatSync(fd)
  const now = statSync(stateDir(root, id), { throwIfNoEntry: false })
  return now !== undefined && now.ino === held.ino && now.dev === held.dev
}

/**
 * Locks a container's folder. The caller owns the returned fd; closing it releases the lock.
 * @throws NotFound; Unavailable after `timeoutMs`; Canceled or DeadlineExceeded by the signal
 */
export async function lockContainer(request: LockRequest): Promise<OwnedFd> {
  const { root, id, mode } = request
  for (;;) {
    const folder = open(root, id)
    if (!tryLock(folder.fd, mode)) await wait(folder, request)
    if (isCurrent(root, id, folder.fd)) return folder
    // deleted meanwhile: the next open throws NotFound, or opens the folder of a new container of that id
    folder.close()
  }
}

/** Takes the lock only if no other command holds it; undefined otherwise. @throws NotFound */
export function tryLockContainer(root: string, id: string, mode: LockMode): OwnedFd | undefined {
  const folder = open(root, id)
  if (tryLock(folder.fd, mode) && isCurrent(root, id, folder.fd)) return folder
  folder.close()
  return undefined
}

/** Runs `work` under the lock. @throws NotFound, Unavailable, and what `work` throws */
export async function locked<T>(request: LockRequest, work: () => T | Promise<T>): Promise<T> {
  using _held = await lockContainer(request)
  return await work()
}

/** Waits for the kernel to grant the lock. After a timeout or an abort, the folder is closed once it is granted. */
async function wait(folder: OwnedFd, { id, mode, timeoutMs = WAIT_MS, signal }: LockRequest): Promise<void> {
  const granted = waitLock(folder.fd, mode)
  const { promise: over, reject: giveUp } = Promise.withResolvers<never>()
  const late = (): void =>
    giveUp(new RuntimeError('Unavailable', `container "${id}": another command is working on it`))
  const aborted = (): void => {
    if (signal !== undefined) giveUp(abortError(signal, `cannot lock container "${id}"`))
  }
  const timer = setTimeout(late, timeoutMs)
  signal?.addEventListener('abort', aborted, { once: true })
  if (signal?.aborted === true) aborted()
  try {
    await Promise.race([granted, over])
  } catch (error) {
    const close = (): void => folder.close()
    granted.then(close, close)
    throw error
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', aborted)
  }
}
