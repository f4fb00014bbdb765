/**
 * The exec fifo, which init has open and full: reading it empty is what lets a created init go on. Invariant: a start has succeeded only
 * when init itself has said so there, by the byte that only it writes, its record, and the end of file that execve makes.
 */
import { closeSync, constants, existsSync, openSync, readlinkSync, readSync, unlinkSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import { HELPER_NAME } from '../init/helper.ts'
import { ENDED_EARLY, StartRecords } from '../init/records.ts'
import { errnoOf } from '../sys/errno.ts'
import { openProcess, pollReadable, processStat } from '../sys/process.ts'
import { exitText } from '../sys/words.ts'
import type { RunningProcess } from './process.ts'

/**
 * Whether init waits at the fifo. A start that was killed in the middle leaves the fifo of a program that runs, so that init itself is
 * looked at too, where it is our helper that waits; where we may not look, the fifo counts.
 */
export function waitsAtFifo(path: string, pid: number, ours: boolean): boolean {
  if (!existsSync(path)) return false
  if (!ours) return true
  try {
    return readlinkSync(`/proc/${pid}/exe`).startsWith(`/memfd:${HELPER_NAME}`)
  } catch {
    // a user may not look at a program of another user id, nor at one that is about to be gone
    return true
  }
}

/** What is known of the init at the other end. */
export interface WaitingInit {
  readonly init: RunningProcess
  readonly startTime: bigint
  /** it is another runtime's, which opens the fifo only to write its one byte */
  readonly foreign: boolean
}

/**
 * Reads the fifo to its end, and removes it: the program runs, and the container is no longer "created". `onOpened` hears of the moment
 * from which on it may run. @throws FailedPrecondition when init is gone or started already, and what init met; then it has ended
 */
export async function releaseFifo(path: string, target: WaitingInit, onOpened: () => void): Promise<void> {
  const fifo = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  failpoint('start:opened')
  onOpened()
  try {
    await readToEnd(fifo, target)
  } catch (error) {
    if (error instanceof RuntimeError && error.detail.source === 'helper') await target.init.exited
    throw error
  } finally {
    closeSync(fifo)
  }
  failpoint('start:executed')
  unlinkSync(path)
  failpoint('start:done')
}

/** As much as a fifo holds that nobody has made smaller. */
const READ_BYTES = 65536
const EAGAIN = 11

async function readToEnd(fifo: number, { init, startTime, foreign }: WaitingInit): Promise<void> {
  using pidfd = openProcess(init.pid, startTime)
  const fds = pidfd === undefined ? [fifo] : [fifo, pidfd.fd]
  const buffer = Buffer.allocUnsafe(READ_BYTES)
  const records = new StartRecords()
  // a fifo that nobody has open for writing yet reads as if at its end
  for (let wait = foreign; ; wait = true) {
    const dead = wait && !(await pollReadable(fds, -1)).includes(0)
    const count = tryRead(fifo, buffer)
    if (count === undefined && !dead) continue
    if (count === undefined || count === 0) break
    records.receive(buffer.subarray(0, count))
  }
  if (records.taken && foreign) return
  // the files of a process that dies are closed before it is dead
  if (!records.taken && init.alive && processStat(init.pid)?.exiting === false) {
    throw new RuntimeError('FailedPrecondition', 'exec fifo is empty: the container was started by somebody else')
  }
  if (records.conclude()) return
  await init.exited
  const how = init.exit === undefined ? '' : `: ${exitText(init.exit)}`
  throw new RuntimeError('FailedPrecondition', `${ENDED_EARLY}${how}`)
}

/** How many bytes came, none at the end of the file; undefined when there are none yet. */
function tryRead(fifo: number, buffer: Buffer): number | undefined {
  try {
    return readSync(fifo, buffer)
  } catch (error) {
    if (errnoOf(error) === EAGAIN) return undefined
    throw error
  }
}
