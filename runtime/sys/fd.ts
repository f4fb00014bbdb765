/**
 * Owned file descriptors. An OwnedFd is closed exactly once: by close(), by `using`, or by the caller that took the
 * number with take(). A bare number in a signature always means "borrowed for this call".
 */

import { closeSync, constants, fchownSync, openSync, writeSync } from 'node:fs'
import { errnoOf, syscallError } from './errno.ts'
import { declare, fcntl, getpid, ioctl, lastErrno, pipe } from './libc.ts'
import { EAGAIN, EINVAL, EPERM, EROFS, F_DUPFD_CLOEXEC, F_GETPIPE_SZ, F_SETPIPE_SZ } from './linux.ts'

const FIONREAD = 0x541b
const [F_GETFL, F_SETFL] = [3, 4]
/** SPLICE_F_MOVE and SPLICE_F_NONBLOCK (splice(2)). */
const MOVE_NOW = 3

const splice = declare(
  'long splice(int from, void *from_offset, int to, void *to_offset, unsigned long count, unsigned int flags)',
)

const lseek = declare('long lseek(int fd, long offset, int whence)')
const [SEEK_SET, SEEK_CUR] = [0, 1]

/** kcmp(2) has no wrapper in libc. */
const kcmp = declare('long syscall(long number, int pid1, int pid2, int type, unsigned long fd1, unsigned long fd2)')
const SYS_KCMP = { x64: 312, arm64: 272 } as const
const KCMP_FILE = 0

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

/** The null device, CLOEXEC, for reading and writing. */
export function openNull(): OwnedFd {
  return new OwnedFd(openSync('/dev/null', constants.O_RDWR))
}

/** Another descriptor, CLOEXEC, of the open file description of a borrowed one. */
export function duplicate(fd: number): OwnedFd {
  return new OwnedFd(fcntl(fd, F_DUPFD_CLOEXEC, 0))
}

/**
 * Opens the file, pipe or terminal behind a borrowed fd again, so that flags set on the new description do not change
 * the old one.
 * @throws node's own error: ENXIO for a socket, and for a pipe without a reader that is opened for writing only and
 * non-blocking
 */
export function reopen(fd: number, flags: number): OwnedFd {
  return new OwnedFd(openSync(`/proc/self/fd/${fd}`, flags | constants.O_NOCTTY))
}

/** How a borrowed fd was opened. */
export interface Access {
  readonly readable: boolean
  readonly writable: boolean
  /** each write goes to the end of the file */
  readonly appends: boolean
}

/** How a borrowed fd was opened. */
export function accessOf(fd: number): Access {
  const flags = fcntl(fd, F_GETFL, 0)
  const mode = flags & (constants.O_RDONLY | constants.O_WRONLY | constants.O_RDWR)
  const appends = (flags & constants.O_APPEND) !== 0
  return { readable: mode !== constants.O_WRONLY, writable: mode !== constants.O_RDONLY, appends }
}

/**
 * Makes reads and writes of an open file description non-blocking. Only for a description that this process does not
 * share, since the flag holds for all its descriptors.
 */
export function setNonBlocking(fd: number): void {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL, 0) | constants.O_NONBLOCK)
}

/**
 * Writes what fits into a non-blocking borrowed fd at this moment; the number of bytes written.
 * @throws node's own error, except EAGAIN
 */
export function writeAvailable(fd: number, chunk: Uint8Array): number {
  try {
    return writeSync(fd, chunk)
  } catch (error) {
    if (errnoOf(error) === EAGAIN) return 0
    throw error
  }
}

/** The file offset of a borrowed fd, in bytes. */
export function offsetOf(fd: number): number {
  return moveOffset(fd, 0, SEEK_CUR)
}

/** Sets the file offset of a borrowed fd, in bytes from the beginning; all descriptors of its description share it. */
export function setOffset(fd: number, offset: number): void {
  moveOffset(fd, offset, SEEK_SET)
}

function moveOffset(fd: number, offset: number, whence: number): number {
  const result = lseek(fd, offset, whence)
  if (result < 0) throw syscallError(`cannot seek in fd ${fd}`, { call: 'lseek', errno: lastErrno() })
  return result
}

/**
 * Whether two borrowed fds share one open file description, and so one offset (kcmp(2)); false where the kernel cannot
 * tell.
 */
export function sameDescription(one: number, other: number): boolean {
  const number = process.arch === 'arm64' ? SYS_KCMP.arm64 : SYS_KCMP.x64
  return kcmp(number, getpid(), getpid(), KCMP_FILE, one, other) === 0
}

/**
 * fchown(2) of a borrowed fd. A file whose owner cannot be changed (EPERM, EROFS, EINVAL) is left as it is, as runc
 * does with stdio.
 */
export function chownFd(fd: number, uid: number, gid: number): void {
  try {
    fchownSync(fd, uid, gid)
  } catch (error) {
    if (![EPERM, EROFS, EINVAL].includes(errnoOf(error))) throw error
  }
}

/**
 * Makes a pipe or fifo hold at least so many bytes (F_SETPIPE_SZ); the fd is borrowed. Where the limits of the user
 * forbid it (pipe(7)), the size stays as it is, which costs only speed.
 */
export function growPipe(fd: number, bytes: number): void {
  try {
    if (fcntl(fd, F_GETPIPE_SZ, 0) < bytes) fcntl(fd, F_SETPIPE_SZ, bytes)
  } catch {
    // EPERM, or no memory for it: no caller depends on the size
  }
}

/** How many bytes wait in a pipe or fifo (ioctl_pipe FIONREAD); the fd is borrowed and may be either end. */
export function unreadBytes(fd: number): number {
  const count = Buffer.alloc(4)
  ioctl(fd, FIONREAD, count)
  return count.readInt32LE(0)
}

/**
 * Moves bytes that wait in one pipe into another without copying them (splice(2)), at most `limitBytes`; never blocks.
 * 0 when nothing waits or nothing fits. Both fds are borrowed.
 */
export function movePipeBytes(from: number, to: number, limitBytes: number): number {
  const moved = splice(from, null, to, null, limitBytes, MOVE_NOW)
  if (moved >= 0) return moved
  const errno = lastErrno()
  if (errno === EAGAIN) return 0
  throw syscallError('cannot move bytes between pipes', { call: 'splice', errno })
}
