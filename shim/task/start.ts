/**
 * Start: the init's program, or an exec. Both run in the lane of their process and inside its launch(), so that the
 * exit event comes after the start event, however soon the process ends.
 */
import { Code } from 'ttrpc-ts'
import { TaskExecStarted, TaskStart } from 'ttrpc-ts/containerd'
import { type OciProcess, type RunningProcess, withFields } from '../../runtime/index.ts'
import { failpoint } from '../../runtime/internal.ts'
import { ProcessIo } from '../io/process-io.ts'
import { classError, stepFailed } from '../status.ts'
import { streamOwner } from './create.ts'
import { watchExit, watchOom } from './exits.ts'
import { check } from './process-states.ts'
import { checkPresent, type Shim, type Task, type TaskProcess } from './registry.ts'

/**
 * Starts a created process; resolves with its pid when execve(2) has succeeded.
 * @throws TtrpcError that begins with "OCI runtime start failed" or "OCI runtime exec failed"; a refusal for a wrong
 * state
 */
export function startProcess(shim: Shim, task: Task, process: TaskProcess): Promise<number> {
  return process.inLane(() => {
    checkPresent(shim, task, process)
    check(process.state, 'start')
    const { spec } = process
    return spec === undefined ? startInit(shim, task) : startExec(shim, task, { process, spec })
  })
}

async function startInit(shim: Shim, task: Task): Promise<number> {
  const { init } = task
  try {
    return await launchInit(shim, task)
  } catch (error) {
    // The failed start has ended the init. Clients delete the container at once, and Delete takes only a stopped one.
    if (init.running?.exit !== undefined) await init.ended
    throw error
  }
}

function launchInit(shim: Shim, task: Task): Promise<number> {
  const { container, init } = task
  return init.launch(async () => {
    const restores = init.toRestore
    try {
      await container.start()
      if (restores) init.attachRestored(container.init)
    } catch (error) {
      throw stepFailed(restores ? 'OCI runtime restore failed' : 'OCI runtime start failed', error)
    }
    const { pid } = container.init
    init.apply({ kind: 'start', pid })
    shim.events.publish('/tasks/start', TaskStart, { containerId: task.id, pid })
    if (restores) {
      watchExit(shim, task, init)
      watchOom(shim, task)
    }
    shim.logger.info({ container: task.id, pid }, 'container started')
    failpoint('task:started')
    return pid
  })
}

function startExec(shim: Shim, task: Task, exec: { process: TaskProcess; spec: OciProcess }): Promise<number> {
  const { process, spec } = exec
  if (!hasInit(task)) throw noInit(task)
  check(task.init.state, 'exec')
  return process.launch(async () => {
    const { execId } = process
    const { pid } = await run(shim, task, exec)
    process.apply({ kind: 'start', pid })
    shim.events.publish('/tasks/exec-started', TaskExecStarted, { containerId: task.id, execId, pid })
    watchExit(shim, task, process)
    failpoint('task:exec-started')
    shim.logger.info({ container: task.id, exec: execId, pid, program: spec.args?.[0] }, 'exec started')
    return pid
  })
}

async function run(
  shim: Shim,
  task: Task,
  { process, spec }: { process: TaskProcess; spec: OciProcess },
): Promise<RunningProcess> {
  const { container, options } = task
  let io: ProcessIo | undefined
  try {
    io = await ProcessIo.open(process.stdio, {
      ...streamOwner(container.spec, options, spec.user),
      namespace: shim.namespace,
      reaper: shim.reaper,
      logger: shim.logger,
      id: process.execId,
      bundle: task.bundle,
      relayOutput: true,
      signal: task.gone.signal,
    })
    failpoint('task:exec-io')
    const running = await container.exec({
      process: spec,
      stdio: io.stdio,
      reaper: shim.reaper,
      containerLogger: withFields(shim.logger, { container: task.id, exec: process.execId }),
      noNewKeyring: options.noNewKeyring,
    })
    process.attach(running, io)
    io.spawned(running.console)
    return running
  } catch (error) {
    await io?.close()
    if (!hasInit(task)) throw noInit(task)
    throw stepFailed('OCI runtime exec failed: exec failed', error)
  }
}

function hasInit(task: Task): boolean {
  return task.init.state.kind !== 'stopped' && task.init.state.kind !== 'deleted' && !task.container.ending
}

function noInit(task: Task): Error {
  return classError(Code.FAILED_PRECONDITION, `container ${task.id} init process is not running`)
}
