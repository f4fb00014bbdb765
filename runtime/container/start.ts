/**
 * The exec fifo, which init has open and full: reading it empty is what lets a created init go on. Invariant: a start has succeeded only
 * when init itself has said so there, by the byte that only it writes, its record, and the end of file that execve makes.
 */

import { constants, existsSync, openSync, readlinkSync, readSync, unlinkSync } from 'node:fs'
import { Socket } from 'node:net'
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import { HELPER_NAME } from '../init/helper.ts'
import { ENDED_EARLY, StartRecords } from '../init/records.ts'
import type { Logger } from '../logger.ts'
import { errnoOf, reasonOf } from '../sys/errno.ts'
import { OwnedFd } from '../sys/fd.ts'
import { EAGAIN } from '../sys/linux.ts'
import { openProcess, pollReadable, processStat } from '../sys/pids.ts'
import { exitText } from '../sys/words.ts'
import type { RunningProcess } from './running-process.ts'

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
  readonly logger: Logger
}

/**
 * Reads the fifo to its end, and removes it: the program runs, and the container is no longer "created". `onOpened` hears of the moment
 * from which on it may run. @throws FailedPrecondition when init is gone or started already, and what init met; then it has ended
 */
export async function releaseFifo(path: string, target: WaitingInit, onOpened: () => void): Promise<void> {
  using fifo = new OwnedFd(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK))
  failpoint('start:opened')
  onOpened()
  const records = new StartRecords()
  if (target.foreign) await awaitByte(fifo, target, records)
  else await readToEnd(fifo, records)
  await judge(records, target)
  failpoint('start:executed')
  try {
    unlinkSync(path)
  } catch (error) {
    // that the program runs cannot be undone; a look at init tells it from one that waits
    target.logger.warn({ reason: reasonOf(error) }, 'the container was started, but its exec fifo cannot be removed')
  }
  failpoint('start:done')
}

/** As much as a fifo holds that nobody has made smaller. */
const READ_BYTES = 65536

/** Our init has the fifo open for writing until it has executed the program, or is gone; without it the first read is the end of the file. */
async function readToEnd(fifo: OwnedFd, records: StartRecords): Promise<void> {
  const buffer = Buffer.allocUnsafe(READ_BYTES)
  const count = tryRead(fifo.fd, buffer)
  if (count === 0) return
  records.receive(buffer.subarray(0, count ?? 0))
  const rest = new Socket({ fd: fifo.take(), readable: true, writable: false })
  for await (const chunk of rest) records.receive(chunk)
}

/** Until another runtime's init opens it, the fifo reads as if at its end, and no end of file tells that init is gone. */
async function awaitByte(fifo: OwnedFd, { init, startTime }: WaitingInit, records: StartRecords): Promise<void> {
  using pidfd = openProcess(init.pid, startTime)
  const fds = pidfd === undefined ? [fifo.fd] : [fifo.fd, pidfd.fd]
  const buffer = Buffer.allocUnsafe(READ_BYTES)
  for (;;) {
    const dead = !(await pollReadable(fds, -1)).includes(0)
    const count = tryRead(fifo.fd, buffer)
    if (count === undefined && !dead) continue
    if (count === undefined || count === 0) return
    records.receive(buffer.subarray(0, count))
  }
}

async function judge(records: StartRecords, { init, foreign }: WaitingInit): Promise<void> {
  if (records.taken && foreign) return
  // the files of a process that dies are closed before it is dead
  if (!records.taken && init.alive && processStat(init.pid)?.exiting === false) {
    throw new RuntimeError('FailedPrecondition', 'exec fifo is empty: the container was started by somebody else')
  }
  if (records.executing) return
  await init.exited
  const how = init.exit === undefined ? '' : `: ${exitText(init.exit)}`
  throw records.failure ?? new RuntimeError('FailedPrecondition', `${ENDED_EARLY}${how}`)
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
