/**
 * Create: from a bundle to a container whose init waits for Start. build() works on the host in the order of its lines,
 * and a failure undoes what was done before it.
 *
 * Invariant: after a failed Create there is no mount, no process, no cgroup and no open stream. The bundle then holds a
 * record that says so, and containerd's `delete` does not need to start Node.
 */
import { isAbsolute } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Code } from 'ttrpc-ts'
import { type CreateTaskRequest, TaskCreate } from 'ttrpc-ts/containerd'
import {
  Container,
  type CreateOptions,
  deleteContainer,
  loadSpec,
  type OciProcess,
  type RestoreOptions,
  RuntimeError,
  type Spec,
  withFields,
} from '../../runtime/index.ts'
import {
  failpoint,
  hostGid,
  hostUid,
  isLeftover,
  messageOf,
  newNamespaces,
  realtime,
  unmountTree,
} from '../../runtime/internal.ts'
import { clearRecords, stateRoot, writeExit, writeRoot } from '../bundle.ts'
import { criuOptions } from '../checkpoint.ts'
import { checkIdentifier } from '../identifier.ts'
import { ProcessIo } from '../io/process-io.ts'
import type { StdioPaths } from '../io/stdio-uri.ts'
import { parseOptions, type ShimOptions } from '../options.ts'
import { mountRootfs, rootfsOf } from '../rootfs.ts'
import { classError, stepFailed } from '../status.ts'
import { watchExit, watchOom } from './exits.ts'
import { type Shim, Task, TaskProcess } from './registry.ts'
import { RestorableContainer } from './restorable.ts'

/** The exit status in the record of a container that never ran; containerd's own value for an unknown status. */
const UNKNOWN_STATUS = 255

/**
 * Creates a container. When `signal` is aborted, the caller has gone, and what was done is undone.
 * @throws TtrpcError that begins with "OCI runtime create failed"; its code is AlreadyExists for an id in use,
 * Canceled, InvalidArgument for a wrong checkpoint, else Unknown
 */
export async function createTask(shim: Shim, request: CreateTaskRequest, signal: AbortSignal): Promise<Task> {
  checkIdentifier('a container', request.id)
  // a relative path would be relative to the shim's working folder, which is /
  if (!isAbsolute(request.bundle))
    throw classError(Code.INVALID_ARGUMENT, `the bundle ${JSON.stringify(request.bundle)} is not an absolute path`)
  const creation = shim.registry.beginCreate(request.id)
  // containerd may have died meanwhile; after its restart it would not know this container
  const giveUp = (): void => creation.abort.abort(new RuntimeError('Canceled', 'its caller has gone'))
  if (signal.aborted) giveUp()
  signal.addEventListener('abort', giveUp)
  try {
    const task = await build(shim, request, creation.abort.signal)
    failpoint('task:created')
    shim.registry.add(task)
    announce(shim, task, request)
    failpoint('task:announced')
    return task
  } catch (error) {
    throw stepFailed('OCI runtime create failed', error)
  } finally {
    signal.removeEventListener('abort', giveUp)
    creation.finish()
  }
}

async function build(shim: Shim, request: CreateTaskRequest, signal: AbortSignal): Promise<Task> {
  const { id, bundle, checkpoint } = request
  if (checkpoint !== '' && !isAbsolute(checkpoint))
    throw classError(Code.INVALID_ARGUMENT, `the checkpoint ${JSON.stringify(checkpoint)} is not an absolute path`)
  const { namespace, reaper, logger } = shim
  const made = new AsyncDisposableStack()
  try {
    failpoint('task:create')
    const { options, warnings } = await parseOptions(request.options)
    for (const warning of warnings) logger.warn({ container: id }, warning)
    const root = stateRoot(options.root, shim.namespace)
    await nextTurn()
    // the first look at the bundle: a folder that is no bundle is refused before anything is written or mounted there
    const spec = withReadOnlyTrees(withTerminal(loadSpec(bundle), request.terminal), options)
    await nextTurn()
    clearRecords(bundle)
    if (options.root !== '') writeRoot(bundle, root)
    if (await mountRootfs(bundle, request.rootfs, shim)) made.defer(() => unmountTree(rootfsOf(bundle)))
    failpoint('task:mounted')
    const { stdin, stdout, stderr, terminal } = request
    const stdio = { stdin, stdout, stderr, terminal }
    const io = await ProcessIo.open(stdio, {
      ...streamOwner(spec, options),
      relayOutput: mustRelay(spec),
      namespace,
      reaper,
      logger,
      id,
      bundle,
      signal,
    })
    made.defer(() => io.close())
    failpoint('task:io')
    const making = { root, id, bundle, spec, stdio: io.stdio, reaper, logger: withFields(logger, { container: id }) }
    if (checkpoint !== '') return toRestore(shim, { making, checkpoint, options, io, stdio })
    const { noPivotRoot: noPivot, noNewKeyring } = options
    const cgroupManager = options.systemdCgroup ? 'systemd' : 'cgroupfs'
    const wanted = { ...making, noPivot, noNewKeyring, cgroupManager, signal } as const
    const container = await withoutLeftover(shim, wanted, () => Container.create(wanted))
    made.defer(() => container.destroy({ force: true }))
    io.spawned(container.init.console)
    const init = new TaskProcess({ execId: '', stdio, pid: container.init.pid })
    init.attach(container.init, io)
    return new Task({ bundle, container, options, init })
  } catch (error) {
    await undo(shim, made, { id, bundle, error })
    throw error
  }
}

/** A container whose Start restores it. Its streams wait until then, and are this process's meanwhile. */
function toRestore(
  shim: Shim,
  parts: {
    readonly making: Omit<RestoreOptions, 'imagePath'>
    readonly checkpoint: string
    readonly options: ShimOptions
    readonly io: ProcessIo
    readonly stdio: StdioPaths
  },
): Task {
  const { making, checkpoint, options, io, stdio } = parts
  const workPath = options.criuWorkPath === '' ? making.bundle : options.criuWorkPath
  const cgroupManager = options.systemdCgroup ? 'systemd' : 'cgroupfs'
  const plan = { ...making, ...criuOptions(options.criu), cgroupManager, imagePath: checkpoint, workPath } as const
  const container = new RestorableContainer(plan, () => withoutLeftover(shim, making, () => Container.restore(plan)))
  const init = new TaskProcess({ execId: '', stdio, waitingIo: io })
  return new Task({ bundle: making.bundle, container, options, init })
}

/**
 * Makes the container. containerd gives an id and a bundle to one container at a time. What an earlier container of
 * this bundle, or of an earlier boot, has left under the id is therefore removed. Anything else under the id is another
 * container, and the id is taken.
 */
async function withoutLeftover(
  shim: Shim,
  { root, id, bundle }: Pick<CreateOptions, 'root' | 'id' | 'bundle'>,
  make: () => Promise<Container>,
): Promise<Container> {
  try {
    return await make()
  } catch (error) {
    const { logger } = shim
    const taken = error instanceof RuntimeError && error.code === 'AlreadyExists'
    if (!taken || !isLeftover(root, id, bundle)) throw error
    logger.warn({ container: id }, 'removing what an earlier container of this id has left')
    await deleteContainer(root, id, { force: true, logger })
    return await make()
  }
}

async function undo(
  shim: Shim,
  made: AsyncDisposableStack,
  { id, bundle, error }: { id: string; bundle: string; error: unknown },
): Promise<void> {
  try {
    await made.disposeAsync()
    // A container that is not this request's has the id. `delete` looks at it, and needs the record to be missing.
    const idTaken = error instanceof RuntimeError && error.code === 'AlreadyExists'
    if (!idTaken) writeExit(bundle, { pid: 0, exit: { status: UNKNOWN_STATUS, at: realtime() } })
  } catch (failure) {
    // without the record, `delete` tries again
    shim.logger.error({ container: id, error: messageOf(failure) }, 'cannot undo a failed create')
  }
}

function announce(shim: Shim, task: Task, request: CreateTaskRequest): void {
  const { stdin, stdout, stderr, terminal, rootfs, checkpoint } = request
  const { pid } = task.init.state
  shim.events.publish('/tasks/create', TaskCreate, {
    containerId: task.id,
    bundle: task.bundle,
    rootfs,
    io: { stdin, stdout, stderr, terminal },
    checkpoint,
    pid,
  })
  if (task.init.running !== undefined) {
    watchExit(shim, task, task.init)
    watchOom(shim, task)
  }
  shim.logger.info({ container: task.id, pid }, 'container created')
}

/** The request decides whether there is a terminal, and not the spec: it also names the streams. */
function withTerminal(spec: Spec, terminal: boolean): Spec {
  const { process } = spec
  return process === undefined || process.terminal === terminal ? spec : { ...spec, process: { ...process, terminal } }
}

/** With the option for it, read-only rbind mounts get "rro", unless they say "rro" or "rrw" themselves. */
function withReadOnlyTrees(spec: Spec, { recursiveReadOnly }: ShimOptions): Spec {
  if (!recursiveReadOnly) return spec
  const mounts = spec.mounts.map((mount) => {
    const { options } = mount
    const readOnly = options.lastIndexOf('ro') > options.lastIndexOf('rw')
    const decided = options.includes('rro') || options.includes('rrw')
    return options.includes('rbind') && readOnly && !decided ? { ...mount, options: [...options, 'rro'] } : mount
  })
  return { ...spec, mounts }
}

/** Whether the init's output must be relayed; process-io.ts says why. */
function mustRelay(spec: Spec): boolean {
  return isConfined(spec.process) || !newNamespaces(spec).has('pid')
}

/** Whether the process runs under the policy of a security module, which decides about its files. */
function isConfined(process: OciProcess | undefined): boolean {
  const { selinuxLabel = '', apparmorProfile = '' } = process ?? {}
  return selinuxLabel !== '' || (apparmorProfile !== '' && apparmorProfile !== 'unconfined')
}

/** The owner of the streams, in ids of the host: the one that the options name, else the process's user. */
export function streamOwner(spec: Spec, options: ShimOptions, user = spec.process?.user): { uid: number; gid: number } {
  return {
    uid: options.ioUid !== 0 ? options.ioUid : hostUid(spec, user?.uid ?? 0),
    gid: options.ioGid !== 0 ? options.ioGid : hostGid(spec, user?.gid ?? 0),
  }
}
