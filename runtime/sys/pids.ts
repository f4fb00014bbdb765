/**
 * Looking at processes and signalling them. Invariant: no signal goes to a pid that could have been reused. Either the
 * process is a child that the reaper has not reported. Or it was checked while a pidfd held it: its start time was
 * compared, or the list that had named it was read again and named it again.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { RuntimeError } from '../errors.ts'
import { errnoCode, errnoOf, syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { declare, declareAsync, getpid, kill, lastErrno } from './libc.ts'
import { EINVAL, ENOENT, ESRCH, SIGKILL, SIGSTOP } from './linux.ts'

const pidfdOpen = declare('int pidfd_open(int pid, unsigned int flags)')
const pidfdGetfd = declare('int pidfd_getfd(int pidfd, int fd, unsigned int flags)')
const pidfdSendSignal = declare('int pidfd_send_signal(int pidfd, int sig, void *info, unsigned int flags)')
/**
 * The most pidfds that are open at once: a program may often open only 1024 files, and opening some hundred takes a
 * millisecond.
 */
const HELD_AT_ONCE = 256

const pollAsync = declareAsync('int poll(void *fds, unsigned long count, int timeout)')
const [POLLIN, POLLOUT] = [1, 4]

/**
 * The kernel's flag of a task whose exit has begun (linux/sched.h). Its namespaces can no longer be joined, long before
 * it is a zombie.
 */
const PF_EXITING = 4

/**
 * Fields of proc_pid_stat(5): the state letter, the process group, whether the exit has begun, and the start time in
 * clock ticks since boot. Undefined when there is no such process.
 */
export function processStat(
  pid: number,
): { state: string; group: number; exiting: boolean; startTime: bigint } | undefined {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1')
  } catch (error) {
    if ([ENOENT, ESRCH].includes(errnoOf(error))) return undefined
    throw error
  }
  // the command name may hold blanks and parentheses: fields are counted after the last ")"
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const startTime = fields[19]
  if (fields[0] === undefined || startTime === undefined) {
    throw new RuntimeError('Internal', `cannot read the state of process ${pid}: /proc/${pid}/stat is malformed`)
  }
  const exiting = (Number(fields[6]) & PF_EXITING) !== 0
  return { state: fields[0], group: Number(fields[2]), exiting, startTime: BigInt(startTime) }
}

/** Whether the process with this pid and start time exists and is not a zombie. */
export function isAlive(pid: number, startTime: bigint): boolean {
  const stat = processStat(pid)
  return stat !== undefined && stat.startTime === startTime && stat.state !== 'Z' && stat.state !== 'X'
}

/**
 * A pidfd of a child that the reaper has not reported, whose pid therefore cannot have been reused; undefined when it
 * is gone.
 */
export function openChild(pid: number): OwnedFd | undefined {
  const fd = pidfdOpen(pid, 0)
  if (fd >= 0) return new OwnedFd(fd)
  const errno = lastErrno()
  // besides ESRCH, kernels answer ENOENT or EINVAL for a process that is being reaped, and for a thread that has this
  // number
  if ([ENOENT, ESRCH, EINVAL].includes(errno)) return undefined
  throw syscallError(`cannot open process ${pid}`, { call: 'pidfd_open', errno })
}

/** A copy of an fd of another process (pidfd_getfd(2)); the caller needs the right to trace that process. */
export function copyFdOf(pidfd: number, fd: number): OwnedFd {
  const copy = pidfdGetfd(pidfd, fd, 0)
  if (copy < 0) throw syscallError(`cannot take fd ${fd} of a process`, { call: 'pidfd_getfd', errno: lastErrno() })
  return new OwnedFd(copy)
}

/**
 * A pidfd of the process with this pid and start time; undefined when it is gone. The pid cannot be reused while the
 * pidfd is open.
 */
export function openProcess(pid: number, startTime: bigint): OwnedFd | undefined {
  const owned = openChild(pid)
  if (owned === undefined) return undefined
  if (isAlive(pid, startTime)) return owned
  owned.close()
  return undefined
}

/** Signals the process with this pid and start time; false when it is gone. */
export function signalProcess(pid: number, startTime: bigint, signal: number): boolean {
  using pidfd = openProcess(pid, startTime)
  return pidfd !== undefined && sendSignal(pidfd, pid, signal)
}

/** False when the process is gone. */
function sendSignal(pidfd: OwnedFd, pid: number, signal: number): boolean {
  if (pidfdSendSignal(pidfd.fd, signal, null, 0) === 0) return true
  const errno = lastErrno()
  if (errno === ESRCH) return false
  throw syscallError(`cannot send signal ${signal} to process ${pid}`, { call: 'pidfd_send_signal', errno })
}

/** Lists processes that existed at the moment of the call, or later before it resolves. */
type ListOfPids = () => readonly number[] | Promise<readonly number[]>

/**
 * Signals the processes that `list` names now and names again when their batch is signalled; the number that it names
 * now. The event loop runs between batches.
 * @throws ResourceExhausted when not even one pidfd can be opened
 */
export async function signalListed(list: ListOfPids, signal: number): Promise<number> {
  const pids = await list()
  let atOnce = HELD_AT_ONCE
  for (let done = 0; done < pids.length; ) {
    if (pids.length > atOnce) await nextTurn()
    const some = pids.slice(done, done + atOnce)
    let held: Map<number, OwnedFd>
    try {
      held = await holdListed(some, list)
    } catch (error) {
      if (some.length === 1 || errnoCode(errnoOf(error)) !== 'ResourceExhausted') throw error
      // no process of this batch was signalled, since this process or the machine has too many open files: try a
      // smaller one
      atOnce = Math.ceil(some.length / 2)
      continue
    }
    try {
      for (const [pid, pidfd] of held) sendSignal(pidfd, pid, signal)
    } finally {
      closeAll(held)
    }
    done += some.length
  }
  return pids.length
}

/**
 * Pidfds of the processes that the list names again after the pidfds were opened. A number in the second list belongs
 * to the process of the pidfd, unless that process is gone, because the kernel reuses no pid of a process that still
 * exists. If it is gone, a signal through the pidfd reaches no process, even if another one has the number by now.
 */
async function holdListed(pids: readonly number[], list: ListOfPids): Promise<Map<number, OwnedFd>> {
  const held = new Map<number, OwnedFd>()
  try {
    for (const pid of pids) {
      const pidfd = openChild(pid)
      if (pidfd !== undefined) held.set(pid, pidfd)
    }
    const named = new Map<number, OwnedFd>()
    for (const pid of await list()) {
      const pidfd = held.get(pid)
      if (pidfd !== undefined) named.set(pid, pidfd)
    }
    for (const [pid, pidfd] of held) if (!named.has(pid)) pidfd.close()
    return named
  } catch (error) {
    closeAll(held)
    throw error
  }
}

function closeAll(held: ReadonlyMap<number, OwnedFd>): void {
  for (const pidfd of held.values()) pidfd.close()
}

/**
 * Kills the process with this pid and start time and the process group that it leads; false when it is gone. It is
 * stopped first: the number stays its group's while the leader exists, and a stopped leader does not end by itself. The
 * group of this process is never killed: then the leader itself is the caller.
 */
export function killGroup(pid: number, startTime: bigint): boolean {
  if (processStat(getpid())?.group === pid) return false
  if (!signalProcess(pid, startTime, SIGSTOP) || !isAlive(pid, startTime)) return false
  return kill(-pid, SIGKILL)
}

/**
 * The leaders of process groups whose standard input is the memory file of this name (memfd_create(2)). The name is
 * checked before anything else, since only processes with such an input are the runtime's. It is checked again after
 * the start time was read, so that the start time is not that of another process that has the pid by now.
 */
export function groupLeadersReading(name: string): { pid: number; startTime: bigint }[] {
  const reads = (pid: string): boolean => inputOf(pid) === `/memfd:${name} (deleted)`
  return readdirSync('/proc').flatMap((entry) => {
    if (!/^\d+$/.test(entry) || !reads(entry)) return []
    const pid = Number(entry)
    const stat = processStat(pid)
    return stat?.group === pid && reads(entry) ? [{ pid, startTime: stat.startTime }] : []
  })
}

function inputOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/fd/0`)
  } catch {
    // it ended, has no standard input, or may not be looked at: not one of the runtime's
    return undefined
  }
}

/**
 * Signals a child that the reaper has not reported, whose pid therefore cannot have been reused; false when it is gone.
 */
export function signalChild(pid: number, signal: number): boolean {
  return kill(pid, signal)
}

/**
 * Waits until one of the borrowed fds is readable, hung up or failed; the indexes of those, none after `timeoutMs`.
 * Occupies a thread of the pool while it waits.
 */
export function pollReadable(fds: readonly number[], timeoutMs: number): Promise<number[]> {
  return pollFor(POLLIN, fds, timeoutMs)
}

/**
 * Waits until a borrowed fd can be written, its reader is gone, or `timeoutMs` are over. Occupies a thread of the pool
 * while it waits.
 */
export async function pollWritable(fd: number, timeoutMs: number): Promise<void> {
  await pollFor(POLLOUT, [fd], timeoutMs)
}

async function pollFor(events: number, fds: readonly number[], timeoutMs: number): Promise<number[]> {
  const set = Buffer.alloc(8 * fds.length)
  for (const [i, fd] of fds.entries()) {
    set.writeInt32LE(fd, 8 * i)
    set.writeInt16LE(events, 8 * i + 4)
  }
  const count = await pollAsync(set, fds.length, timeoutMs)
  if (count <= 0) return []
  return fds.flatMap((_, i) => (set.readInt16LE(8 * i + 6) !== 0 ? [i] : []))
}
