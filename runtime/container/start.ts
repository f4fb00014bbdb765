/** The exec fifo: opening it for reading is what lets a created init go on, and its one byte says that the program is about to run. */
import { closeSync, constants, existsSync, openSync, readlinkSync, readSync, unlinkSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import { HELPER_NAME } from '../init/helper.ts'
import { errnoOf } from '../sys/errno.ts'
import { openProcess, pollReadable } from '../sys/process.ts'
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

/** Opens the fifo, waits until `executed` says that the program runs, and removes it: from then on the container is no longer "created". */
export async function releaseFifo(path: string, executed: (fifo: number) => Promise<void>): Promise<void> {
  const fifo = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  failpoint('start:opened')
  try {
    await executed(fifo)
  } finally {
    closeSync(fifo)
  }
  failpoint('start:executed')
  unlinkSync(path)
  failpoint('start:done')
}

/** For a container of another process: its init writes one byte just before it executes the program. @throws FailedPrecondition */
export async function awaitFifo(fifo: number, init: RunningProcess, startTime: bigint): Promise<void> {
  using pidfd = openProcess(init.pid, startTime)
  const byte = Buffer.alloc(1)
  for (;;) {
    await pollReadable(pidfd === undefined ? [fifo] : [fifo, pidfd.fd], -1)
    let count = 0
    try {
      count = readSync(fifo, byte, 0, 1, null)
    } catch (error) {
      if (errnoOf(error) !== 11) throw error
      if (init.alive) continue
    }
    if (count === 1) return
    if (!init.alive) throw new RuntimeError('FailedPrecondition', 'container process is already dead')
    throw new RuntimeError('FailedPrecondition', 'exec fifo is empty: the container was started by somebody else')
  }
}
