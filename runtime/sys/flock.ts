/**
 * flock(2): locks that belong to an open file, so that they end with it however its owner ends. A try never blocks; waiting is the
 * kernel's, on a thread of koffi's pool.
 */

import { syscallError } from './errno.ts'
import { declare, declareAsync, lastErrno } from './libc.ts'
import { EINTR } from './linux.ts'

const LOCK_SH = 1
const LOCK_EX = 2
const LOCK_NB = 4
const EWOULDBLOCK = 11

const flock = declare('int flock(int fd, int operation)')
const flockAsync = declareAsync('int flock(int fd, int operation)')

/** Whom a lock keeps out: everybody, or those who want it exclusively. */
export type LockMode = 'exclusive' | 'shared'

function operation(mode: LockMode): number {
  return mode === 'exclusive' ? LOCK_EX : LOCK_SH
}

/** Locks an open file if that is possible now. */
export function tryLock(fd: number, mode: LockMode): boolean {
  for (;;) {
    if (flock(fd, operation(mode) | LOCK_NB) === 0) return true
    const errno = lastErrno()
    if (errno === EWOULDBLOCK) return false
    if (errno !== EINTR) throw syscallError('cannot lock a file', 'flock', errno)
  }
}

/** Waits until the file is locked. It cannot be given up: whoever stops waiting must still close the fd once this has resolved. */
export async function waitLock(fd: number, mode: LockMode): Promise<void> {
  // errno belongs to the pool's thread; a wait fails by a signal (again, then) or for a reason that the try then names
  while ((await flockAsync(fd, operation(mode))) !== 0) {
    if (tryLock(fd, mode)) return
  }
}
