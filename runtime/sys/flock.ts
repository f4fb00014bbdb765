/**
 * flock(2): a lock belongs to an open file description, so it ends when its owner ends, however that happens. `tryLock`
 * never blocks; `waitLock` waits on a thread of koffi's pool.
 */

import { syscallError } from './errno.ts'
import { declare, declareAsync, lastErrno } from './libc.ts'
import { EAGAIN, EINTR } from './linux.ts'

const LOCK_SH = 1
const LOCK_EX = 2
const LOCK_NB = 4

const FLOCK = 'int flock(int fd, int operation)'
const flock = declare(FLOCK)
const flockAsync = declareAsync(FLOCK)

/** What a lock excludes: every other lock, or only exclusive ones. */
export type LockMode = 'exclusive' | 'shared'

function operation(mode: LockMode): number {
  return mode === 'exclusive' ? LOCK_EX : LOCK_SH
}

/** Locks an open file if that is possible now. */
export function tryLock(fd: number, mode: LockMode): boolean {
  for (;;) {
    if (flock(fd, operation(mode) | LOCK_NB) === 0) return true
    const errno = lastErrno()
    if (errno === EAGAIN) return false
    if (errno !== EINTR) throw syscallError('cannot lock a file', { call: 'flock', errno })
  }
}

/**
 * Waits until the file is locked. The wait cannot be cancelled: a caller that stops waiting must close the fd once the
 * promise has resolved.
 */
export async function waitLock(fd: number, mode: LockMode): Promise<void> {
  // errno is set on the pool's thread, out of reach: after an interrupt the loop waits again, and for any other failure
  // tryLock throws the reason
  while ((await flockAsync(fd, operation(mode))) !== 0) {
    if (tryLock(fd, mode)) return
  }
}
