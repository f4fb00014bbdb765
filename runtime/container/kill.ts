/**
 * Ending the processes of a container. Invariant: SIGKILL reaches every process of it, also those outside a pid namespace of its own and
 * frozen ones; no signal goes to anybody else.
 */

import type { Cgroup } from '../cgroup/cgroup.ts'
import { RuntimeError } from '../errors.ts'
import { SIGKILL } from '../sys/linux.ts'
import { ForeignProcess, type RunningProcess } from './running-process.ts'

/** How long to wait for a killed init to vanish. */
const KILL_WAIT_MS = 10_000

/** Whose end it is. */
export interface KillTarget {
  readonly id: string
  readonly init: RunningProcess
  readonly cgroup: Cgroup
  /** init's death ends every process of the container */
  readonly ownsPidNamespace: boolean
}

/** Signals init, and with SIGKILL all others too, whether init is still there or not. @throws NotFound when nothing is left to signal */
export async function signalContainer({ init, cgroup, ownsPidNamespace }: KillTarget, signal: number): Promise<void> {
  const pids = signal === SIGKILL && !ownsPidNamespace ? await cgroup.listProcesses() : []
  if (pids.length > 0) {
    await cgroup.killAll(signal)
    // unless it has left its cgroup, that was all
    if (!init.alive || pids.includes(init.pid)) return
  }
  init.signal(signal)
  // a frozen v1 cgroup keeps even a killed process: let it die
  if (signal === SIGKILL && cgroup.isFrozen()) await cgroup.thaw()
}

/** Kills, and resolves when init has gone; nothing left to kill is fine. @throws DeadlineExceeded */
export async function endContainer(target: KillTarget): Promise<void> {
  const { id, init } = target
  try {
    await signalContainer(target, SIGKILL)
  } catch (error) {
    if (!(error instanceof RuntimeError) || error.code !== 'NotFound') throw error
  }
  if (!(init instanceof ForeignProcess)) await init.exited
  else if (!(await init.waitGone(KILL_WAIT_MS))) {
    const message = `cannot delete container "${id}": process ${init.pid} did not end after SIGKILL`
    throw new RuntimeError('DeadlineExceeded', message)
  }
}
