/**
 * What happens when a process ends, and in which order clients learn of it:
 *
 *   the start event       before   the exit event              the state `starting` holds the exit back
 *   the exits of execs    before   the exit of the init        execsEnded() waits for them
 *   the OOM event         before   the exit that the kill has caused
 *   the exit event        before   the answer to Wait          neither waits for output, which may still be on its way
 *
 * Invariant: every process that was started gets exactly one exit, whatever fails on the way.
 */

import { TaskExit, TaskOOM } from 'ttrpc-ts/containerd'
import type { Exit } from '../../runtime/index.ts'
import { failpoint, messageOf, SIGKILL } from '../../runtime/internal.ts'
import { writeStatus } from '../bundle.ts'
import { isNotFound } from '../status.ts'
import type { Shim, Task, TaskProcess } from './registry.ts'

const OOM_WATCH_DELAY_MS = 100
const NS_PER_MS = 1_000_000
/** What a shell adds to the number of the signal that has ended a process. */
const SIGNALED = 128

/** Follows a process to its end; called once, when it exists and its creation has been published. */
export function watchExit(shim: Shim, task: Task, process: TaskProcess): void {
  const { running } = process
  if (running === undefined) throw new Error(`process "${process.execId}" of container "${task.id}" is not running`)
  void running.exited.then((exit) => settle(shim, task, { process, exit }))
}

/** Ends a container that is still to be restored. It has no process whose end could be followed. */
export async function endUnrestored(shim: Shim, task: Task): Promise<void> {
  const now = Date.now()
  const at = { seconds: BigInt(Math.floor(now / 1000)), nanos: (now % 1000) * NS_PER_MS }
  await settle(shim, task, { process: task.init, exit: { status: SIGNALED + SIGKILL, signal: SIGKILL, at } })
}

async function settle(shim: Shim, task: Task, { process, exit }: { process: TaskProcess; exit: Exit }): Promise<void> {
  if (process === task.init) task.gone.abort()
  if (process.state.kind === 'starting') await process.state.decided
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
  // the execs that were never started will not be: a container that has ended takes none
  if (process === task.init)
    for (const exec of task.execs.values()) if (exec.state.kind === 'created') exec.apply({ kind: 'fail' })
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

/** Leaves the exit for `delete`, in case the shim dies before its Delete: it answers what Wait has answered. */
function noteStatus(shim: Shim, { bundle, init, id }: Task, exit: Exit): void {
  try {
    writeStatus(bundle, { pid: init.state.pid, exit })
  } catch (error) {
    shim.logger.debug({ container: id, error: messageOf(error) }, 'cannot note the exit status')
  }
}

/** Ends the processes that the init has left behind. */
async function killRest({ container, init }: Task): Promise<void> {
  // on cgroup v1 a frozen process does not die of SIGKILL
  if (init.state.kind === 'paused' || init.state.kind === 'pausing') await container.cgroup.thaw()
  if (container.ownsPidNamespace) return
  try {
    await container.signalAll(SIGKILL)
  } catch (error) {
    if (!isNotFound(error)) throw error
  }
}

/** Waits for the exits of the execs, including those that are just being started. */
async function execsEnded(task: Task): Promise<void> {
  for (let live = task.liveExecs(); live.length > 0; live = task.liveExecs()) {
    await Promise.all(live.map((exec) => (exec.state.kind === 'starting' ? exec.state.decided : exec.ended)))
  }
}

/** Publishes one OOM event when the kernel has killed for lack of memory since the last look, however many died. */
function checkOom(shim: Shim, task: Task): void {
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
 * Begins to watch for OOM kills after OOM_WATCH_DELAY_MS. Most containers are short, and the look at their exit is
 * enough for them; the delay also lets the client's next calls go first. Kills before the watch are found by the look
 * with which it begins.
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
