/**
 * Looking at processes and signalling them. Invariant: no signal goes to a pid that could have been reused: either it is a child that
 * the reaper has not reported, or its start time was compared while a pidfd held the pid.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { errnoOf, syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { declare, declareAsync, getpid, kill, lastErrno } from './libc.ts'

const pidfdOpen = declare('int pidfd_open(int pid, unsigned int flags)')
const pidfdGetfd = declare('int pidfd_getfd(int pidfd, int fd, unsigned int flags)')
const pidfdSendSignal = declare('int pidfd_send_signal(int pidfd, int sig, void *info, unsigned int flags)')
const SIGKILL = 9
const SIGSTOP = 19

const pollAsync = declareAsync('int poll(void *fds, unsigned long count, int timeout)')
const [POLLIN, POLLOUT] = [1, 4]

/** The kernel's flag of a task whose exit has begun (linux/sched.h); long before it is a zombie nobody can join its namespaces. */
const PF_EXITING = 4

/** State letter, process group, whether it is on its way out, and start time (clock ticks since boot), from proc_pid_stat(5); undefined when it does not exist. */
export function processStat(
  pid: number,
): { state: string; group: number; exiting: boolean; startTime: bigint } | undefined {
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
  const exiting = (Number(fields[6]) & PF_EXITING) !== 0
  return { state: fields[0], group: Number(fields[2]), exiting, startTime: BigInt(startTime) }
}

/** Whether this very process (pid and start time) is there and not a zombie. */
export function isAlive(pid: number, startTime: bigint): boolean {
  const stat = processStat(pid)
  return stat !== undefined && stat.startTime === startTime && stat.state !== 'Z' && stat.state !== 'X'
}

/** A pidfd of a child that the reaper has not reported yet, so that the pid cannot have been reused; undefined when it is gone. */
export function openChild(pid: number): OwnedFd | undefined {
  const fd = pidfdOpen(pid, 0)
  if (fd >= 0) return new OwnedFd(fd)
  const errno = lastErrno()
  if (errno === 3) return undefined
  throw syscallError(`cannot open process ${pid}`, 'pidfd_open', errno)
}

/** A copy of an fd of another process (pidfd_getfd(2)), which needs the right to trace it. */
export function copyFdOf(pidfd: number, fd: number): OwnedFd {
  const copy = pidfdGetfd(pidfd, fd, 0)
  if (copy < 0) throw syscallError(`cannot take fd ${fd} of a process`, 'pidfd_getfd', lastErrno())
  return new OwnedFd(copy)
}

/** A pidfd of this very process, or undefined when it is gone; the pid cannot be reused while the caller holds it. */
export function openProcess(pid: number, startTime: bigint): OwnedFd | undefined {
  const owned = openChild(pid)
  if (owned === undefined) return undefined
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

/**
 * Kills this very process and the process group that it leads; false when it is gone. It is stopped first: a number is a group's as long
 * as its leader is there, and one that is stopped does not end by itself. Never our own group: then it is the leader who asks us.
 */
export function killGroup(pid: number, startTime: bigint): boolean {
  if (processStat(getpid())?.group === pid) return false
  if (!signalProcess(pid, startTime, SIGSTOP) || !isAlive(pid, startTime)) return false
  return kill(-pid, SIGKILL)
}

/**
 * The leaders of process groups whose standard input is the memory file of this name (memfd_create(2)). The name is read first, since only
 * processes that show it are ours to look at, and again after the time of the start, so that this is never another's who has the pid by now.
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
    // it ended, has no standard input, or is none of ours
    return undefined
  }
}

/** Signals a child that the reaper has not reported yet, so that its pid cannot have been reused; false when it is gone. */
export function signalChild(pid: number, signal: number): boolean {
  return kill(pid, signal)
}

/** Waits until one of the fds is readable, hung up or failed; returns their indexes, none after `timeoutMs`. Occupies a pool thread meanwhile. */
export function pollReadable(fds: readonly number[], timeoutMs: number): Promise<number[]> {
  return pollFor(POLLIN, fds, timeoutMs)
}

/** Waits until a borrowed fd can be written, its reader has gone, or the time is over. Occupies a pool thread meanwhile. */
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
