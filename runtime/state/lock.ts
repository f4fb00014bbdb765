/**
 * Mutual exclusion between processes that work on one container: flock(2) on its folder, so that there is no file to make or to leave
 * behind, and a killed command lets go by dying. Exclusive: create (from the claim to state.json), start, pause, set, delete. Shared:
 * exec and resume, since a process that joined a paused container ends its exec only when it is resumed. Looking and signalling take none.
 * Invariant: whoever holds the lock holds the folder that the path names now, not one that was deleted meanwhile.
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

/** How long a command waits for another one; only hooks take longer. */
const WAIT_MS = 10_000

/** How long to wait for a lock, and what ends the waiting early; the lock itself is not lost by either. */
export interface LockOptions {
  readonly timeoutMs?: number
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

/** Locks a container's folder; the caller owns the lock, which ends when it is closed. @throws NotFound, Unavailable when another command holds it too long */
export async function lockContainer(
  root: string,
  id: string,
  mode: LockMode,
  options: LockOptions = {},
): Promise<OwnedFd> {
  for (;;) {
    const folder = open(root, id)
    if (!tryLock(folder.fd, mode)) await wait(folder, mode, id, options)
    if (isCurrent(root, id, folder.fd)) return folder
    // deleted while we waited: the next look says that there is none, or finds a new container of that name
    folder.close()
  }
}

/** Takes the lock only if nobody stands in the way; undefined otherwise. @throws NotFound */
export function tryLockContainer(root: string, id: string, mode: LockMode): OwnedFd | undefined {
  const folder = open(root, id)
  if (tryLock(folder.fd, mode) && isCurrent(root, id, folder.fd)) return folder
  folder.close()
  return undefined
}

/** Runs `work` under the lock. @throws NotFound, Unavailable, and what `work` throws */
export async function locked<T>(
  root: string,
  id: string,
  mode: LockMode,
  work: () => T | Promise<T>,
  options: LockOptions = {},
): Promise<T> {
  using _held = await lockContainer(root, id, mode, options)
  return await work()
}

/** Waits for the kernel to give the lock; who gives up leaves the folder to be closed at that moment. */
async function wait(folder: OwnedFd, mode: LockMode, id: string, options: LockOptions): Promise<void> {
  const { timeoutMs = WAIT_MS, signal } = options
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
