/**
 * The Task service: one short function per call, for both versions of the service, which differ in name only. A
 * function finds what the request names, asks the state machine, and acts. The three longer calls are in create.ts,
 * start.ts and delete.ts.
 *
 * State, Wait, Kill, Pids, Connect and Stats may come at any time and never wait for a lane. State, Wait and CloseIO
 * wait for a Create in progress, because a client can use the streams before Create has answered. A client that waits
 * for the end of the output, or that ends the input, makes these calls only once.
 */
import { type CallContext, Code, packAny, type ServiceHandlers } from 'ttrpc-ts'
import {
  type CheckpointTaskRequest,
  type DeleteRequest,
  type DeleteResponse,
  type ExecProcessRequest,
  type KillRequest,
  ProcessDetails,
  type ProcessInfo,
  type ResizePtyRequest,
  type StateRequest,
  type StateResponse,
  TaskExecAdded,
  TaskPaused,
  TaskResumed,
  type TaskService,
  type UpdateTaskRequest,
} from 'ttrpc-ts/containerd'
import { parseProcess, parseResources, RuntimeError } from '../../runtime/index.ts'
import { SIGKILL } from '../../runtime/internal.ts'
import { checkpoint, parseCheckpoint } from '../checkpoint.ts'
import { checkIdentifier } from '../identifier.ts'
import { classError, isNotFound, notFound, refused, stepFailed } from '../status.ts'
import { createTask } from './create.ts'
import { deleteExec, deleteTask } from './delete.ts'
import { endUnrestored } from './exits.ts'
import { check, exitOf, statusOf } from './process-states.ts'
import { checkPresent, type Shim, type Task, TaskProcess } from './registry.ts'
import { startProcess } from './start.ts'

const HIGHEST_SIGNAL = 64

/** The handlers of the Task service, for TaskService and TaskV3Service alike. */
export function taskHandlers(shim: Shim): ServiceHandlers<typeof TaskService> {
  const { registry } = shim
  return {
    state: async (request) => state(await registry.created(request.id), request),
    create: async (request, { signal }) => ({ pid: (await createTask(shim, request, signal)).init.state.pid }),
    start: async ({ id, execId }) => {
      const task = registry.get(id)
      return { pid: await startProcess(shim, task, task.process(execId)) }
    },
    delete: (request) => remove(shim, request),
    pids: async ({ id }) => ({ processes: await pids(registry.get(id)) }),
    pause: ({ id }) => pause(shim, registry.get(id)),
    resume: ({ id }) => resume(shim, registry.get(id)),
    checkpoint: (request) => takeCheckpoint(shim, registry.get(request.id), request),
    kill: (request) => kill(shim, registry.get(request.id), request),
    exec: (request) => addExec(shim, registry.get(request.id), request),
    resizePty: (request) => resize(registry.get(request.id), request),
    closeIO: async ({ id, execId }) => (await registry.created(id)).process(execId).closeStdin(),
    update: (request) => update(registry.get(request.id), request),
    wait: async ({ id, execId }) => wait((await registry.created(id)).process(execId)),
    async stats({ id }) {
      // a part of the bundle, since many clients never ask
      const { packMetrics } = await import('../metrics.ts')
      return { stats: packMetrics(registry.get(id).container.cgroup.stats()) }
    },
    connect: ({ id }) => ({ shimPid: shim.pid, taskPid: registry.find(id)?.init.state.pid ?? 0 }),
    shutdown: (_, context) => shutdown(shim, context),
  }
}

function state(task: Task, { id, execId }: StateRequest): StateResponse {
  const process = task.process(execId)
  const { stdin, stdout, stderr, terminal } = process.stdio
  const { status: exitStatus, at: exitedAt } = exitOf(process.state)
  // an exec is as frozen as its container
  const { init } = task
  const frozen = process.state.kind === 'running' && (init.state.kind === 'pausing' || init.state.kind === 'paused')
  const status = statusOf(frozen ? init.state : process.state)
  const name = execId === '' ? id : execId
  const { pid } = process.state
  return {
    id: name,
    bundle: task.bundle,
    pid,
    status,
    stdin,
    stdout,
    stderr,
    terminal,
    exitStatus,
    exitedAt,
    execId: '',
  }
}

async function wait(
  process: TaskProcess,
): Promise<{ exitStatus: number; exitedAt: { seconds: bigint; nanos: number } }> {
  const { status, at } = await process.ended
  return { exitStatus: status, exitedAt: at }
}

async function remove(shim: Shim, { id, execId }: DeleteRequest): Promise<DeleteResponse> {
  const creation = shim.registry.creation(id)
  if (creation !== undefined) {
    // a client deletes what is still being created only after it has given up that Create
    creation.abort.abort(new RuntimeError('Canceled', 'the container was deleted while it was being created'))
    await creation.done
  }
  const task = shim.registry.get(id)
  return execId === '' ? deleteTask(shim, task) : deleteExec(shim, task, task.process(execId))
}

async function pids(task: Task): Promise<ProcessInfo[]> {
  if (task.init.state.kind === 'stopped') return []
  const all = await task.container.listProcesses()
  const execs = new Map<number, string>()
  for (const { state, execId } of task.execs.values()) if (state.kind === 'running') execs.set(state.pid, execId)
  return all.map((pid) => {
    const execId = execs.get(pid)
    return { pid, info: execId === undefined ? undefined : packAny(ProcessDetails, { execId }) }
  })
}

function pause(shim: Shim, task: Task): Promise<void> {
  const { container, init } = task
  return init.inLane(async () => {
    checkPresent(shim, task, init)
    check(init.state, 'pause')
    init.apply({ kind: 'pause' })
    try {
      await container.pause()
    } catch (error) {
      init.apply({ kind: 'thawed' })
      throw error
    }
    init.apply({ kind: 'frozen' })
    if (init.state.kind === 'paused') shim.events.publish('/tasks/paused', TaskPaused, { containerId: task.id })
    // the init has died meanwhile: what is left of the container must not stay frozen, or it could not be ended
    else await container.cgroup.thaw()
  })
}

function resume(shim: Shim, task: Task): Promise<void> {
  const { container, init } = task
  return init.inLane(async () => {
    checkPresent(shim, task, init)
    check(init.state, 'resume')
    await container.resume()
    init.apply({ kind: 'thawed' })
    // the init may have died meanwhile: no event may follow its exit event
    if (init.state.kind === 'running') shim.events.publish('/tasks/resumed', TaskResumed, { containerId: task.id })
  })
}

function takeCheckpoint(shim: Shim, task: Task, request: CheckpointTaskRequest): Promise<void> {
  const { init } = task
  return init.inLane(async () => {
    checkPresent(shim, task, init)
    check(init.state, 'checkpoint')
    const asked = parseCheckpoint(request)
    try {
      await checkpoint(task, asked)
    } catch (error) {
      throw stepFailed('OCI runtime checkpoint failed', error)
    }
    shim.logger.info({ container: task.id, path: asked.path }, 'container saved')
  })
}

async function kill(shim: Shim, task: Task, { execId, signal, all }: KillRequest): Promise<void> {
  if (signal > HIGHEST_SIGNAL) throw refused(`invalid signal ${signal}`)
  const process = task.process(execId)
  if (process.toRestore && process.state.kind === 'created') {
    // other signals do nothing, as to the waiting init of a container that is created
    if (signal === SIGKILL) await endUnrestored(shim, task)
    return
  }
  if (execId === '' && all) {
    try {
      await task.container.signalAll(signal)
    } catch (error) {
      if (!isNotFound(error)) throw error
    }
    return
  }
  if (process.state.kind === 'stopped') throw notFound('process already finished')
  if (execId === '') await task.container.signal(signal)
  else if (process.running === undefined) throw classError(Code.FAILED_PRECONDITION, 'process not created')
  else process.running.signal(signal)
}

function addExec(shim: Shim, task: Task, request: ExecProcessRequest): void {
  const { execId, terminal, stdin, stdout, stderr, spec: any } = request
  check(task.init.state, 'exec')
  checkIdentifier('an exec', execId)
  if (task.execs.has(execId)) throw classError(Code.ALREADY_EXISTS, `id ${execId}`)
  let spec: ReturnType<typeof parseProcess>
  try {
    spec = parseProcess(text(any?.value))
  } catch (error) {
    throw stepFailed('cannot read the process to execute', error)
  }
  if (spec.terminal !== terminal) spec = { ...spec, terminal }
  task.execs.set(execId, new TaskProcess({ execId, stdio: { stdin, stdout, stderr, terminal }, spec }))
  shim.events.publish('/tasks/exec-added', TaskExecAdded, { containerId: task.id, execId })
}

function resize(task: Task, { execId, width, height }: ResizePtyRequest): void {
  const process = task.process(execId)
  if (execId !== '') check(process.state, 'resize')
  process.io?.console?.resize({ width, height })
}

/** Sets new limits. The annotations of the request are accepted and not kept: nothing in the shim depends on them. */
async function update(task: Task, { resources }: UpdateTaskRequest): Promise<void> {
  check(task.init.state, 'update')
  if (resources === undefined || resources.value.length === 0) return
  await task.container.set(parseResources(text(resources.value)))
}

/** The JSON text of an OCI document. Its type URL is not looked at: containerd sends these documents as JSON only. */
function text(bytes: Uint8Array | undefined): string {
  return Buffer.from(bytes ?? new Uint8Array()).toString('utf8')
}

/**
 * Ignored while there is a container. A Create in progress is undone: a client that shuts the shim down has given it
 * up.
 */
function shutdown(shim: Shim, context: CallContext): void {
  if (shim.registry.taskCount > 0) return
  for (const { abort } of shim.registry.creations)
    abort.abort(new RuntimeError('Canceled', 'the shim is shutting down'))
  // before the answer: containerd may start a shim for the same id right after it
  shim.withdraw()
  context.afterReply(() => shim.leave())
}
