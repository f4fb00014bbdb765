/**
 * The exec fifo, which init holds open and full. Reading it empty lets a created init go on. Invariant: a start has
 * succeeded only when the fifo says so: by the byte that only init writes, by init's record, and by the end of file
 * that execve(2) causes.
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
import { EAGAIN, PAGE_BYTES } from '../sys/linux.ts'
import { openProcess, pollReadable, processStat } from '../sys/pids.ts'
import { exitText } from '../sys/words.ts'
import type { RunningProcess } from './running-process.ts'
import { refusal, type Status } from './status.ts'

/**
 * Whether init waits at the fifo. A start that was killed half-way leaves the fifo beside a running program. So if this
 * runtime made the container (`ours`), the process must still be its helper. Where that may not be looked at, the fifo
 * alone decides.
 */
export function waitsAtFifo(path: string, pid: number, ours: boolean): boolean {
  if (!existsSync(path)) return false
  if (!ours) return true
  try {
    return readlinkSync(`/proc/${pid}/exe`).startsWith(`/memfd:${HELPER_NAME}`)
  } catch {
    // a process of another user, or one that is ending
    return true
  }
}

/** Refuses to start a container that is not created. @throws FailedPrecondition */
export function requireCreated(status: Status): void {
  if (status === 'created') return
  if (status === 'stopped') throw refusal(status, 'cannot start a container that has stopped')
  const which = status === 'running' ? 'an already running container' : `a container in the ${status} state`
  throw refusal(status, `cannot start ${which}`)
}

/** The init at the other end of the fifo. */
export interface WaitingInit {
  readonly init: RunningProcess
  readonly startTime: bigint
  /** init is of another runtime, and opens the fifo only to write its one byte */
  readonly foreign: boolean
  readonly logger: Logger
}

/**
 * Reads the fifo to its end and removes it: the program runs, and the container is no longer "created". `onOpened` is
 * called when the fifo is open, from which moment on the program may run.
 * @throws FailedPrecondition when init has gone or was started already; what init met, after init has ended
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
    // the program runs, which cannot be undone; waitsAtFifo still sees that it does
    target.logger.warn({ reason: reasonOf(error) }, 'the container was started, but its exec fifo cannot be removed')
  }
  failpoint('start:done')
}

/** Usually enough for the filler and the first record; what is left is read afterwards. */
const READ_BYTES = 2 * PAGE_BYTES

/** This runtime's init holds the fifo open for writing until it executes the program or ends; then a read returns 0. */
async function readToEnd(fifo: OwnedFd, records: StartRecords): Promise<void> {
  const buffer = Buffer.allocUnsafe(READ_BYTES)
  const count = tryRead(fifo.fd, buffer)
  if (count === 0) return
  records.receive(buffer.subarray(0, count ?? 0))
  const rest = new Socket({ fd: fifo.take(), readable: true, writable: false })
  for await (const chunk of rest) records.receive(chunk)
}

/** Until another runtime's init opens the fifo, a read returns 0. So only a pidfd can report that such an init died. */
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
  // a dying process closes its files before it is dead
  if (!records.taken && init.alive && processStat(init.pid)?.exiting === false) {
    throw new RuntimeError('FailedPrecondition', 'exec fifo is empty: the container was started by somebody else')
  }
  if (records.executing) return
  await init.exited
  const how = init.exit === undefined ? '' : `: ${exitText(init.exit)}`
  throw records.failure ?? new RuntimeError('FailedPrecondition', `${ENDED_EARLY}${how}`)
}

/** The number of bytes read, 0 at the end of the file; undefined when there are none yet. */
function tryRead(fifo: number, buffer: Buffer): number | undefined {
  try {
    return readSync(fifo, buffer)
  } catch (error) {
    if (errnoOf(error) === EAGAIN) return undefined
    throw error
  }
}
