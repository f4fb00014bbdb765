/**
 * Ends the processes of a container. Invariant: SIGKILL reaches every process of the container, also frozen ones and
 * those of a container without its own pid namespace; no signal goes to any other process.
 */
import type { Cgroup } from '../cgroup/cgroup.ts'
import { RuntimeError } from '../errors.ts'
import { SIGKILL } from '../sys/linux.ts'
import { OtherProcess, type RunningProcess } from './running-process.ts'

/** How long to wait for a killed init to end. */
const KILL_WAIT_MS = 10_000

/** The container to end. */
export interface KillTarget {
  readonly id: string
  readonly init: RunningProcess
  readonly cgroup: Cgroup
  /** init's death ends every process of the container */
  readonly ownsPidNamespace: boolean
}

/**
 * Signals init. SIGKILL goes to all other processes too, even when init has gone.
 * @throws NotFound when nothing is left to signal
 */
export async function signalContainer({ init, cgroup, ownsPidNamespace }: KillTarget, signal: number): Promise<void> {
  const pids = signal === SIGKILL && !ownsPidNamespace ? await cgroup.listProcesses() : []
  if (pids.length > 0) {
    await cgroup.killAll(signal)
    // killAll has reached init, unless init has left the cgroup
    if (!init.alive || pids.includes(init.pid)) return
  }
  init.signal(signal)
  // a process in a frozen v1 cgroup dies only after it is thawed
  if (signal === SIGKILL && cgroup.isFrozen()) await cgroup.thaw()
}

/**
 * Kills every process and resolves when init has gone. It is no error when none is left.
 * @throws DeadlineExceeded when an init that another process made is still there after KILL_WAIT_MS
 */
export async function endContainer(target: KillTarget): Promise<void> {
  const { id, init } = target
  try {
    await signalContainer(target, SIGKILL)
  } catch (error) {
    if (!(error instanceof RuntimeError) || error.code !== 'NotFound') throw error
  }
  if (!(init instanceof OtherProcess)) await init.exited
  else if (!(await init.waitGone(KILL_WAIT_MS))) {
    const message = `cannot delete container "${id}": process ${init.pid} did not end after SIGKILL`
    throw new RuntimeError('DeadlineExceeded', message)
  }
}
