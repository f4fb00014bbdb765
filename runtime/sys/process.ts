/**
 * Starting and signalling processes. posix_spawn(3) is the one way in which a child is ever started: libuv's child processes would be
 * waited for behind the reaper's back. Invariant: a child gets exactly the fds it is given; everything else here is CLOEXEC.
 */
import { closeSync, readFileSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { errnoOf, syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { declare, declareAsync, fcntl, kill, lastErrno } from './libc.ts'

const F_DUPFD_CLOEXEC = 1030
/** Above every fd number that a child is given, so that a dup2 never overwrites a source that is still needed. */
const SCRATCH_FD = 64

const posixSpawn = declare(
  'int posix_spawn(void *pid, const char *path, const void *actions, const void *attr, const char **argv, const char **envp)',
)
const actionsInit = declare('int posix_spawn_file_actions_init(void *actions)')
const actionsDestroy = declare('int posix_spawn_file_actions_destroy(void *actions)')
const actionsDup2 = declare('int posix_spawn_file_actions_adddup2(void *actions, int fd, int target)')
const pidfdOpen = declare('int pidfd_open(int pid, unsigned int flags)')
const pidfdSendSignal = declare('int pidfd_send_signal(int pidfd, int sig, void *info, unsigned int flags)')
const pollAsync = declareAsync('int poll(void *fds, unsigned long count, int timeout)')

/** What to start: `fds` maps our (borrowed) descriptors to the child's numbers. */
export interface SpawnOptions {
  readonly path: string
  readonly argv: readonly string[]
  readonly env: readonly string[]
  readonly fds: readonly { readonly from: number; readonly to: number }[]
}

/** Starts a child and returns its pid; the caller's reaper must be told of it before returning to the event loop. */
export function spawnProcess(options: SpawnOptions): number {
  const actions = Buffer.alloc(256)
  const pid = Buffer.alloc(4)
  const scratch: number[] = []
  actionsInit(actions)
  try {
    for (const { from, to } of options.fds) {
      let source = from
      if (from !== to && from < SCRATCH_FD) {
        source = fcntl(from, F_DUPFD_CLOEXEC, SCRATCH_FD)
        scratch.push(source)
      }
      actionsDup2(actions, source, to)
    }
    const errno = posixSpawn(pid, options.path, actions, null, [...options.argv, null], [...options.env, null])
    if (errno !== 0) throw syscallError(`cannot start "${options.path}"`, 'posix_spawn', errno, options.path)
    return pid.readInt32LE(0)
  } finally {
    actionsDestroy(actions)
    for (const fd of scratch) closeSync(fd)
  }
}

/** State letter and start time (clock ticks since boot) of a process, from proc_pid_stat(5); undefined when it does not exist. */
export function processStat(pid: number): { state: string; startTime: bigint } | undefined {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1')
  } catch (error) {
    if ([2, 3].includes(errnoOf(error))) return undefined
    throw error
  }
  // the command name may hold blanks and parentheses: fields are counted after the last ")"
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const startTime = fields[19]
  if (fields[0] === undefined || startTime === undefined) {
    throw new RuntimeError('Internal', `cannot read the state of process ${pid}: /proc/${pid}/stat is malformed`)
  }
  return { state: fields[0], startTime: BigInt(startTime) }
}

/** Whether this very process (pid and start time) is there and not a zombie. */
export function isAlive(pid: number, startTime: bigint): boolean {
  const stat = processStat(pid)
  return stat !== undefined && stat.startTime === startTime && stat.state !== 'Z' && stat.state !== 'X'
}

/** A pidfd of this very process, or undefined when it is gone; the pid cannot be reused while the caller holds it. */
export function openProcess(pid: number, startTime: bigint): OwnedFd | undefined {
  const fd = pidfdOpen(pid, 0)
  if (fd < 0) {
    const errno = lastErrno()
    if (errno === 3) return undefined
    throw syscallError(`cannot open process ${pid}`, 'pidfd_open', errno)
  }
  const owned = new OwnedFd(fd)
  if (isAlive(pid, startTime)) return owned
  owned.close()
  return undefined
}

/** Signals this very process; false when it is gone. */
export function signalProcess(pid: number, startTime: bigint, signal: number): boolean {
  using pidfd = openProcess(pid, startTime)
  if (pidfd === undefined) return false
  if (pidfdSendSignal(pidfd.fd, signal, null, 0) === 0) return true
  const errno = lastErrno()
  if (errno === 3) return false
  throw syscallError(`cannot send signal ${signal} to process ${pid}`, 'pidfd_send_signal', errno)
}

/** Signals a child that the reaper has not reported yet, so that its pid cannot have been reused; false when it is gone. */
export function signalChild(pid: number, signal: number): boolean {
  return kill(pid, signal)
}

/** Waits until one of the fds is readable, hung up or failed; returns their indexes, none after `timeoutMs`. Occupies a pool thread meanwhile. */
export async function pollReadable(fds: readonly number[], timeoutMs: number): Promise<number[]> {
  const set = Buffer.alloc(8 * fds.length)
  for (const [i, fd] of fds.entries()) {
    set.writeInt32LE(fd, 8 * i)
    set.writeInt16LE(1, 8 * i + 4)
  }
  const count = await pollAsync(set, fds.length, timeoutMs)
  if (count <= 0) return []
  return fds.flatMap((_, i) => (set.readInt16LE(8 * i + 6) !== 0 ? [i] : []))
}
