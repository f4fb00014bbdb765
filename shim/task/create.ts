/**
 * Create: from a bundle to a container whose init waits for Start. The order below is the order of things on the host, and every failure
 * takes back what was done before it. Invariant: after a failed Create there is no mount, no process, no cgroup and no open stream, and
 * the bundle holds a record that says so, so that containerd's `delete` has nothing to start Node for.
 */
import { isAbsolute } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Code } from 'ttrpc-ts'
import { type CreateTaskRequest, TaskCreate } from 'ttrpc-ts/containerd'
import {
  Container,
  type CreateOptions,
  deleteContainer,
  failpoint,
  hostGid,
  hostUid,
  isLeftover,
  loadSpec,
  type OciProcess,
  RuntimeError,
  realtime,
  type Spec,
  unmountTree,
  withFields,
} from '../../runtime/index.ts'
import { clearRecords, stateRoot, writeExit, writeRoot } from '../bundle.ts'
import { checkIdentifier } from '../identifier.ts'
import { ProcessIo } from '../io/process-io.ts'
import { parseOptions, type ShimOptions } from '../options.ts'
import { mountRootfs, rootfsOf } from '../rootfs.ts'
import { classError, messageOf, stepFailed } from '../status.ts'
import { watchExit, watchOom } from './exits.ts'
import { type Shim, Task, TaskProcess } from './registry.ts'

/** What a container that never ran reports: nobody knows a status. */
const UNKNOWN_STATUS = 255

/** Creates a container; gives up when `signal` says that nobody waits for it any more. @throws TtrpcError that begins with "OCI runtime create failed"; AlreadyExists for an id in use, Unimplemented for a checkpoint */
export async function createTask(shim: Shim, request: CreateTaskRequest, signal: AbortSignal): Promise<Task> {
  checkIdentifier('a container', request.id)
  // our working folder is the root of the host: nothing may be relative to it
  if (!isAbsolute(request.bundle))
    throw classError(Code.INVALID_ARGUMENT, `the bundle ${JSON.stringify(request.bundle)} is not an absolute path`)
  const creation = shim.registry.beginCreate(request.id)
  // a daemon that died meanwhile would not know what it got
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
  const { id, bundle } = request
  if (request.checkpoint !== '')
    throw new RuntimeError('Unimplemented', `cannot restore the checkpoint "${request.checkpoint}"`)
  let mounted = false
  let io: ProcessIo | undefined
  let container: Container | undefined
  try {
    failpoint('task:create')
    const { options, warnings } = await parseOptions(request.options)
    for (const warning of warnings) shim.logger.warn({ container: id }, warning)
    const root = stateRoot(options.root, shim.namespace)
    await nextTurn()
    // first: a bundle that is none is found out before anything is written or mounted there
    const spec = withReadOnlyTrees(withTerminal(loadSpec(bundle), request.terminal), options)
    await nextTurn()
    clearRecords(bundle)
    if (options.root !== '') writeRoot(bundle, root)
    mounted = await mountRootfs(bundle, request.rootfs, shim)
    failpoint('task:mounted')
    const { stdin, stdout, stderr, terminal } = request
    io = await ProcessIo.open(
      { stdin, stdout, stderr, terminal },
      { ...initIo(spec), ...owner(spec, options), ...shimOf(shim), id, bundle, signal },
    )
    failpoint('task:io')
    container = await createContainer(shim, {
      root,
      id,
      bundle,
      spec,
      stdio: io.stdio,
      reaper: shim.reaper,
      logger: withFields(shim.logger, { container: id }),
      noPivot: options.noPivotRoot,
      noNewKeyring: options.noNewKeyring,
      signal,
    })
    io.spawned(container.init.console)
    const init = new TaskProcess({ execId: '', stdio: { stdin, stdout, stderr, terminal }, pid: container.init.pid })
    init.running = container.init
    init.attachIo(io)
    return new Task({ bundle, container, options, init })
  } catch (error) {
    await undo(shim, { id, bundle, mounted, io, container, error })
    throw error
  }
}

/**
 * Creates the container. The daemon gives an id and a bundle to one container at a time: what an earlier one of this bundle, or of an
 * earlier boot, has left under the id is removed; anything else is somebody's container, and the id is taken.
 */
async function createContainer(shim: Shim, options: CreateOptions): Promise<Container> {
  try {
    return await Container.create(options)
  } catch (error) {
    const { root, id, bundle } = options
    const { logger } = shim
    const taken = error instanceof RuntimeError && error.code === 'AlreadyExists'
    if (!taken || !isLeftover(root, id, bundle)) throw error
    logger.warn({ container: id }, 'removing what an earlier container of this id has left')
    await deleteContainer(root, id, { force: true, logger })
    return Container.create(options)
  }
}

interface Leftovers {
  readonly id: string
  readonly bundle: string
  readonly mounted: boolean
  readonly io: ProcessIo | undefined
  readonly container: Container | undefined
  readonly error: unknown
}

async function undo(shim: Shim, { id, bundle, mounted, io, container, error }: Leftovers): Promise<void> {
  try {
    await container?.destroy({ force: true })
    await io?.close()
    if (mounted) await unmountTree(rootfsOf(bundle))
    // a container of that id that is not ours is left for `delete` to look at
    const foreign = error instanceof RuntimeError && error.code === 'AlreadyExists'
    if (!foreign) writeExit(bundle, { pid: 0, exit: { status: UNKNOWN_STATUS, at: realtime() } })
  } catch (failure) {
    // without the record, `delete` will try again
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
  watchExit(shim, task, task.init)
  watchOom(shim, task)
  shim.logger.info({ container: task.id, pid }, 'container created')
}

/** The request decides about the terminal, as it decides about the streams. */
function withTerminal(spec: Spec, terminal: boolean): Spec {
  const { process } = spec
  return process === undefined || process.terminal === terminal ? spec : { ...spec, process: { ...process, terminal } }
}

/** The options of a read-only bind mount with all that is mounted below it get the word for that, if they say nothing else of it. */
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

/** Whether the init's output can go direct; process-io.ts says why. */
function initIo(spec: Spec): { relayOutput: boolean } {
  const ownPids = spec.linux?.namespaces.some((ns) => ns.type === 'pid' && (ns.path ?? '') === '') ?? false
  return { relayOutput: isConfined(spec.process) || !ownPids }
}

/** Whether the policy of a security module decides which files the process may use. */
function isConfined(process: OciProcess | undefined): boolean {
  const { selinuxLabel = '', apparmorProfile = '' } = process ?? {}
  return selinuxLabel !== '' || (apparmorProfile !== '' && apparmorProfile !== 'unconfined')
}

/** What the streams of a process need of the shim. */
export function shimOf({ namespace, reaper, logger }: Shim): Pick<Shim, 'namespace' | 'reaper' | 'logger'> {
  return { namespace, reaper, logger }
}

/** Who owns the streams on the host: who the options say, or the process's user. */
export function owner(spec: Spec, options: ShimOptions, user = spec.process?.user): { uid: number; gid: number } {
  return {
    uid: options.ioUid !== 0 ? options.ioUid : hostUid(spec, user?.uid ?? 0),
    gid: options.ioGid !== 0 ? options.ioGid : hostGid(spec, user?.gid ?? 0),
  }
}
