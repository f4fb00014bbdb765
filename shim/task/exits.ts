/**
 * What happens when a process ends, and in which order the world hears of it:
 *
 *   its start event   before   its exit event                 (launch() of the process holds the exit back)
 *   exits of execs    before   the exit of the init           (execsEnded waits for them)
 *   OOM kills         before   the exit that they caused
 *   the exit event is queued, then Wait is answered            (output may still be on its way; nobody waits for it here)
 *
 * Invariant: every process that was started gets exactly one exit, whatever fails on the way.
 */

import { TaskExit, TaskOOM } from 'ttrpc-ts/containerd'
import { type Exit, failpoint, SIGKILL } from '../../runtime/index.ts'
import { writeStatus } from '../bundle.ts'
import { isNotFound, messageOf } from '../status.ts'
import type { Shim, Task, TaskProcess } from './registry.ts'

const OOM_WATCH_DELAY_MS = 100

/** Follows a process to its end; called once it exists and its creation has been published. */
export function watchExit(shim: Shim, task: Task, process: TaskProcess): void {
  const { running } = process
  if (running === undefined) throw new Error(`process "${process.execId}" of container "${task.id}" is not running`)
  void running.exited.then((exit) => settle(shim, task, process, exit))
}

async function settle(shim: Shim, task: Task, process: TaskProcess, exit: Exit): Promise<void> {
  if (process === task.init) task.gone.abort()
  if (process.launching !== undefined) await process.launching
  failpoint('task:exited')
  process.io?.exited()
  if (process === task.init) {
    try {
      await killRest(task)
    } catch (error) {
      shim.logger.error({ container: task.id, error: messageOf(error) }, 'cannot end what was left of a container')
    }
    await execsEnded(task)
    checkOom(shim, task)
  }
  if (process === task.init) noteStatus(shim, task, exit)
  process.apply({ kind: 'exit', exit })
  // an exec cannot be started in a container that has ended
  if (process === task.init) for (const exec of task.execs.values()) if (exec.state.kind === 'created') exec.giveUp()
  shim.events.publish('/tasks/exit', TaskExit, {
    containerId: task.id,
    id: process.execId === '' ? task.id : process.execId,
    pid: process.state.pid,
    exitStatus: exit.status,
    exitedAt: exit.at,
  })
  shim.logger.info(
    { container: task.id, exec: process.execId || undefined, pid: process.state.pid, status: exit.status },
    'process exited',
  )
  failpoint('task:exit-told')
}

/** For `delete`, should we not live to clean up: whoever is told now, and asks again then, hears the same. */
function noteStatus(shim: Shim, { bundle, init, id }: Task, exit: Exit): void {
  try {
    writeStatus(bundle, { pid: init.state.pid, exit })
  } catch (error) {
    shim.logger.debug({ container: id, error: messageOf(error) }, 'cannot note the exit status')
  }
}

/** The init has gone: ends what it left behind. */
async function killRest({ container, init }: Task): Promise<void> {
  // what is frozen cannot die on cgroup v1
  if (init.state.kind === 'paused' || init.state.kind === 'pausing') await container.cgroup.thaw()
  if (container.ownsPidNamespace) return
  try {
    await container.signalAll(SIGKILL)
  } catch (error) {
    if (!isNotFound(error)) throw error
  }
}

/** Waits for the exits of the execs, also of those that are just being started. */
async function execsEnded(task: Task): Promise<void> {
  for (let live = task.liveExecs(); live.length > 0; live = task.liveExecs()) {
    await Promise.all(live.map((exec) => exec.launching ?? exec.ended))
  }
}

/** Publishes what the kernel has killed for lack of memory since the last look: one event, however many died. */
export function checkOom(shim: Shim, task: Task): void {
  let count: number
  try {
    count = task.container.oomKillCount()
  } catch (error) {
    shim.logger.debug({ container: task.id, error: messageOf(error) }, 'cannot read the OOM counter')
    return
  }
  if (count <= task.oomKills) return
  task.oomKills = count
  shim.events.publish('/tasks/oom', TaskOOM, { containerId: task.id })
}

/**
 * Watches for OOM kills from a moment after now on: most containers are short, for them the count at the exit is enough, and the
 * client's next calls are not kept waiting. What was counted before the watch began is told when it begins.
 */
export function watchOom(shim: Shim, task: Task): void {
  const timer = setTimeout(() => {
    try {
      task.oomWatch = task.container.watchOom(() => checkOom(shim, task))
      checkOom(shim, task)
    } catch (error) {
      shim.logger.warn({ container: task.id, error: messageOf(error) }, 'cannot watch for OOM kills')
    }
  }, OOM_WATCH_DELAY_MS)
  timer.unref()
  task.oomWatch = { [Symbol.dispose]: () => clearTimeout(timer) }
}
