/**
 * Delete: the end of an exec, or of a whole container. Output gets a bounded time to reach the client, because another
 * process may hold the pipe for ever. The deletion completes even when its caller has given up.
 *
 * Invariant: an id is free again only when nothing of it is left. Until then a second Delete waits for the first one,
 * and then finds nothing.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type DeleteResponse, TaskDelete } from 'ttrpc-ts/containerd'
import { failpoint, messageOf, SIGKILL, unmountTree } from '../../runtime/internal.ts'
import { writeExit } from '../bundle.ts'
import { rootfsOf } from '../rootfs.ts'
import { isNotFound } from '../status.ts'
import { check, exitOf, type ProcessState } from './process-states.ts'
import { checkPresent, type Shim, type Task, type TaskProcess } from './registry.ts'

/**
 * How long Delete waits for output: less than the ten seconds after which the clients of Kubernetes give up a Delete.
 */
const DRAIN_MS = 8_000

/** Deletes a container that has stopped or never started. */
export function deleteTask(shim: Shim, task: Task): Promise<DeleteResponse> {
  return task.init.inLane(async () => {
    const { container, init, bundle } = task
    checkPresent(shim, task, init)
    check(init.state, 'delete')
    if (init.state.kind === 'created') await killCreated(task)
    await drain(shim, task, init)
    failpoint('task:drained')
    task.oomWatch?.[Symbol.dispose]()
    await Promise.all([...task.execs.values()].map(({ io }) => io?.close()))
    try {
      await container.destroy({ force: true })
    } catch (error) {
      if (!isNotFound(error)) throw error
    }
    await init.io?.close()
    await unmountTree(rootfsOf(bundle))
    failpoint('task:unmounted')
    const { pid } = init.state
    const exit = exitOf(init.state)
    // a failure is only logged: the container is gone, and without the record `delete` looks again and finds nothing
    try {
      writeExit(bundle, { pid, exit })
    } catch (error) {
      shim.logger.warn({ container: task.id, error: messageOf(error) }, 'cannot write the exit record')
    }
    failpoint('task:recorded')
    await answerOthers()
    // No await from here to the answer: calls that have come by now were answered with the stopped state.
    takeAlong(task)
    init.apply({ kind: 'delete' })
    shim.registry.remove(task)
    shim.events.publish('/tasks/delete', TaskDelete, {
      containerId: task.id,
      pid,
      exitStatus: exit.status,
      exitedAt: exit.at,
    })
    shim.logger.info({ container: task.id, pid }, 'container deleted')
    failpoint('task:deleted')
    return response(init.state)
  })
}

/** Ends and deletes a container that containerd has given up. */
export async function abandonTask(shim: Shim, task: Task): Promise<void> {
  const { container, init } = task
  if (init.state.kind !== 'stopped' && init.running !== undefined) {
    await container.signalAll(SIGKILL)
    await init.ended
  }
  await deleteTask(shim, task)
}

/** Deletes an exec that has stopped or never started. */
export function deleteExec(shim: Shim, task: Task, process: TaskProcess): Promise<DeleteResponse> {
  return process.inLane(async () => {
    checkPresent(shim, task, process)
    check(process.state, 'delete')
    await drain(shim, task, process)
    await process.io?.close()
    process.apply({ kind: 'delete' })
    task.execs.delete(process.execId)
    return response(process.state)
  })
}

/**
 * Lets the event loop answer the calls that have arrived. One turn accepts a connection and one reads its request; the
 * turn that is going on may be past both already, so there is a third.
 */
async function answerOthers(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await nextTurn()
}

/** Kills the init of a container that was not started. It ends like any other process, with an exit event. */
async function killCreated({ container, init }: Task): Promise<void> {
  if (init.running === undefined) {
    // it was to be restored: who waits for it is answered now
    init.apply({ kind: 'fail' })
    return
  }
  try {
    await container.signal(SIGKILL)
  } catch (error) {
    if (!isNotFound(error)) throw error
  }
  await init.ended
}

/** The execs go with their container. A client that waits for one that never ran is answered now. */
function takeAlong({ execs }: Task): void {
  for (const exec of execs.values()) if (exec.state.kind === 'created') exec.apply({ kind: 'delete' })
}

async function drain(shim: Shim, task: Task, { io, execId }: TaskProcess): Promise<void> {
  if (io === undefined || (await io.drain(DRAIN_MS))) return
  shim.logger.warn({ container: task.id, exec: execId || undefined }, 'gave up waiting for the rest of the output')
}

function response(state: ProcessState): DeleteResponse {
  const { status, at } = exitOf(state)
  return { pid: state.pid, exitStatus: status, exitedAt: at }
}
