/**
 * Owned file descriptors. An OwnedFd is closed exactly once, by close(), `using`, or by whoever took it with take();
 * a bare number in a signature always means "borrowed for this call".
 */
import { closeSync, fchownSync } from 'node:fs'
import { errnoOf, syscallError } from './errno.ts'
import { declare, fcntl, ioctl, lastErrno, pipe } from './libc.ts'

const FIONREAD = 0x541b
const EAGAIN = 11
const F_DUPFD_CLOEXEC = 1030
const F_SETPIPE_SZ = 1031
const F_GETPIPE_SZ = 1032
/** SPLICE_F_MOVE and SPLICE_F_NONBLOCK (splice(2)). */
const MOVE_NOW = 3

const splice = declare(
  'long splice(int from, void *from_offset, int to, void *to_offset, unsigned long count, unsigned int flags)',
)

/** A file descriptor with one owner. */
export class OwnedFd {
  #fd: number

  /** Takes over `fd`. */
  constructor(fd: number) {
    this.#fd = fd
  }

  /** The descriptor, borrowed; -1 once it was closed or taken. */
  get fd(): number {
    return this.#fd
  }

  /** Moves the ownership to the caller. */
  take(): number {
    const fd = this.#fd
    this.#fd = -1
    return fd
  }

  /** Closes it; a second call does nothing. */
  close(): void {
    if (this.#fd >= 0) closeSync(this.take())
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** A pipe with both ends CLOEXEC and blocking. */
export function pipePair(): { read: OwnedFd; write: OwnedFd } {
  const { read, write } = pipe()
  return { read: new OwnedFd(read), write: new OwnedFd(write) }
}

/** Another descriptor, CLOEXEC, for what a borrowed one has open. */
export function duplicate(fd: number): OwnedFd {
  return new OwnedFd(fcntl(fd, F_DUPFD_CLOEXEC, 0))
}

/** fchown(2) of a borrowed fd; what cannot have an owner changed (EPERM, EROFS, EINVAL) is left as it is, as runc does with stdio. */
export function chownFd(fd: number, uid: number, gid: number): void {
  try {
    fchownSync(fd, uid, gid)
  } catch (error) {
    if (![1, 30, 22].includes(errnoOf(error))) throw error
  }
}

/**
 * Lets a pipe or fifo hold at least so many bytes (F_SETPIPE_SZ). Where the user may have no more (pipe(7)), it stays as it is, which is
 * slower and nothing else. The fd is borrowed.
 */
export function growPipe(fd: number, bytes: number): void {
  try {
    if (fcntl(fd, F_GETPIPE_SZ, 0) < bytes) fcntl(fd, F_SETPIPE_SZ, bytes)
  } catch {
    // EPERM, or no memory for it: whoever uses the pipe does not depend on it
  }
}

/** How many bytes wait in a pipe or fifo (ioctl_pipe FIONREAD); the fd is borrowed and may be either end. */
export function unreadBytes(fd: number): number {
  const count = Buffer.alloc(4)
  ioctl(fd, FIONREAD, count)
  return count.readInt32LE(0)
}

/**
 * Moves what waits in one pipe into another without copying it (splice(2)), as much as the other has room for; never blocks. 0 when nothing
 * waits, or nothing fits. Both fds are borrowed; at most `limitBytes` are moved.
 */
export function movePipeBytes(from: number, to: number, limitBytes: number): number {
  const moved = splice(from, null, to, null, limitBytes, MOVE_NOW)
  if (moved >= 0) return moved
  const errno = lastErrno()
  if (errno === EAGAIN) return 0
  throw syscallError('cannot move bytes between pipes', 'splice', errno)
}
