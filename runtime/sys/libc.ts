/**
 * The libc functions that several files call through koffi; a function that one file needs is declared there with
 * `declare`. A declaration is made at its first call, so importing this file costs nothing. The wrappers return what
 * the caller needs and throw syscallError; those that may wait say so. On the 64-bit Linux ABIs a variadic function
 * takes integers and pointers like any other, so ioctl and fcntl are declared with fixed arguments.
 */
import koffi, { type KoffiFunc, type LibraryHandle } from 'koffi'
import { type SyscallFailure, syscallError } from './errno.ts'
import { EINVAL, ENOENT, ESRCH, O_CLOEXEC } from './linux.ts'

type Native = (...args: readonly unknown[]) => unknown

let library: LibraryHandle | undefined

function libc(): LibraryHandle {
  library ??= koffi.load(null)
  return library
}

/**
 * Declares a libc function by its C prototype, lazily; int and long results come back as numbers. For runtime/sys only.
 */
export function declare(prototype: string): (...args: readonly unknown[]) => number {
  let native: Native | undefined
  return (...args) => {
    native ??= libc().func(prototype)
    return Number(native(...args))
  }
}

/** errno of the last call made through koffi on this thread. */
export function lastErrno(): number {
  return koffi.errno()
}

/** Runs a declared prototype on koffi's thread pool: for the few calls that wait. */
export function declareAsync(prototype: string): (...args: readonly unknown[]) => Promise<number> {
  let native: KoffiFunc<Native> | undefined
  return (...args) => {
    native ??= libc().func(prototype)
    const call = native.async
    return new Promise((resolve, reject) => {
      call(...args, (error: unknown, result: unknown) => (error ? reject(error) : resolve(Number(result))))
    })
  }
}

const MFD_CLOEXEC = 1

// called on this thread and on the pool's
const MOUNT =
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)'
const UMOUNT2 = 'int umount2(const char *target, int flags)'

const c = {
  mount: declare(MOUNT),
  umount2: declare(UMOUNT2),
  mkfifo: declare('int mkfifo(const char *path, unsigned int mode)'),
  memfd_create: declare('int memfd_create(const char *name, unsigned int flags)'),
  fcntl: declare('int fcntl(int fd, int cmd, long arg)'),
  ioctl: declare('int ioctl(int fd, unsigned long request, void *arg)'),
  ioctl_number: declare('int ioctl(int fd, unsigned long request, long arg)'),
  prctl: declare('int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)'),
  kill: declare('int kill(int pid, int sig)'),
  getpid: declare('int getpid()'),
  pipe2: declare('int pipe2(void *fds, int flags)'),
  clock_gettime: declare('int clock_gettime(int clock, void *ts)'),
  _exit: declare('void _exit(int status)'),
}

function check(result: number, what: string, failure: Omit<SyscallFailure, 'errno'>): number {
  if (result < 0) throw syscallError(what, { ...failure, errno: koffi.errno() })
  return result
}

/** The arguments of mount(2). Those that a call does not need are left out. */
export interface MountCall {
  readonly source?: string
  readonly target: string
  readonly fstype?: string | undefined
  /** MS_* bits */
  readonly flags: number | bigint
  /** at most one page */
  readonly data?: string | undefined
}

/** mount(2). */
export function mount({ source, target, fstype, flags, data }: MountCall): void {
  check(
    c.mount(source ?? null, target, fstype ?? null, flags, data ?? null),
    `cannot mount "${source ?? fstype ?? ''}" on "${target}"`,
    { call: 'mount', path: target },
  )
}

const mountOnPool = declareAsync(MOUNT)

/** mount(2) on a thread of the pool, since a file system on a disk may have to replay its journal first. */
export async function mountAside(call: MountCall): Promise<void> {
  const { source, target, fstype, flags, data } = call
  if ((await mountOnPool(source ?? null, target, fstype ?? null, flags, data ?? null)) === 0) return
  // errno was set on the pool's thread, out of reach: the same call fails here for the same reason and reports it
  mount(call)
}

/** umount2(2); returns false when nothing is mounted there (EINVAL) or the path is gone (ENOENT). */
export function umount2(target: string, flags: number): boolean {
  if (c.umount2(target, flags) === 0) return true
  const errno = koffi.errno()
  if (errno === EINVAL || errno === ENOENT) return false
  throw syscallError(`cannot unmount "${target}"`, { call: 'umount2', errno, path: target })
}

const umount2OnPool = declareAsync(UMOUNT2)

/** umount2(2) on a thread of the pool, since it may wait for a disk or for other mounts. */
export async function umount2Aside(target: string, flags: number): Promise<boolean> {
  if ((await umount2OnPool(target, flags)) === 0) return true
  // errno was set on the pool's thread, out of reach: the same call fails here for the same reason and reports it
  return umount2(target, flags)
}

/** mkfifo(3). */
export function mkfifo(path: string, mode: number): void {
  check(c.mkfifo(path, mode), `cannot make the fifo "${path}"`, { call: 'mkfifo', path })
}

/** memfd_create(2) with MFD_CLOEXEC and the given further flags; the caller owns the fd. */
export function memfdCreate(name: string, flags = 0): number {
  return check(c.memfd_create(name, flags | MFD_CLOEXEC), `cannot create the memory file "${name}"`, {
    call: 'memfd_create',
  })
}

/** fcntl(2) with an integer argument. */
export function fcntl(fd: number, cmd: number, arg: number): number {
  return check(c.fcntl(fd, cmd, arg), `cannot change fd ${fd}`, { call: 'fcntl' })
}

/** ioctl(2) as it is, with either kind of argument, for callers that look at its errno. */
export const rawIoctl = { buffer: c.ioctl, number: c.ioctl_number } as const

/** ioctl(2) with a buffer argument. */
export function ioctl(fd: number, request: number, arg: Uint8Array): void {
  check(c.ioctl(fd, request, arg), `cannot control fd ${fd}`, { call: 'ioctl' })
}

/** ioctl(2) with an integer argument; its result. */
export function ioctlNumber(fd: number, request: number, arg: number): number {
  return check(c.ioctl_number(fd, request, arg), `cannot control fd ${fd}`, { call: 'ioctl' })
}

/** prctl(2). */
export function prctl(option: number, arg: number): void {
  check(c.prctl(option, arg, 0, 0, 0), `cannot set process option ${option}`, { call: 'prctl' })
}

/** kill(2): false when no such process exists. */
export function kill(pid: number, signal: number): boolean {
  if (c.kill(pid, signal) === 0) return true
  const errno = koffi.errno()
  if (errno === ESRCH) return false
  throw syscallError(`cannot send signal ${signal} to process ${pid}`, { call: 'kill', errno })
}

/** getpid(2), which is also right in a forked copy, where Node's process.pid is the parent's. */
export function getpid(): number {
  return c.getpid()
}

/** pipe2(2) with O_CLOEXEC; the caller owns both fds. */
export function pipe(): { read: number; write: number } {
  const fds = Buffer.alloc(8)
  check(c.pipe2(fds, O_CLOEXEC), 'cannot make a pipe', { call: 'pipe2' })
  return { read: fds.readInt32LE(0), write: fds.readInt32LE(4) }
}

const timespec = Buffer.alloc(16)

/** The wall clock to the nanosecond (clock_gettime(2), CLOCK_REALTIME). */
export function realtime(): { seconds: bigint; nanos: number } {
  check(c.clock_gettime(0, timespec), 'cannot read the clock', { call: 'clock_gettime' })
  return { seconds: timespec.readBigInt64LE(0), nanos: Number(timespec.readBigInt64LE(8)) }
}

/** Ends the process at once by _exit(2), without exit handlers and without waiting for V8's threads. */
export function exitNow(status: number): never {
  c._exit(status)
  throw new Error('_exit returned')
}
