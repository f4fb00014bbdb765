/**
 * Makes a container: everything from the caller's options to an init that waits at the exec fifo. Invariant: it either
 * succeeds or leaves nothing behind, neither process, cgroup, mount nor folder. An undo that fails is a warning.
 */
import { resolve } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Op } from '../../proto/init-plan.ts'
import { abortError, refuseAborted } from '../abort.ts'
import type { Cgroup, CgroupJoin } from '../cgroup/cgroup.ts'
import { joinMonitorCgroup } from '../cgroup/monitor.ts'
import { messageOf, RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import { type HostFacts, hostFacts } from '../host/facts.ts'
import { cgroupOwner, newNamespaces } from '../host/ids.ts'
import { mapsOfUserNamespace } from '../init/joined-maps.ts'
import { PlanProcess } from '../init/spawn.ts'
import { type Logger, silentLogger } from '../logger.ts'
import { connectConsole, connectPeers, sendListener, sendPidfd } from '../peers/handover.ts'
import { type IdMapPlan, planIdMaps, writeIdMaps } from '../peers/id-maps.ts'
import { moveNetDevices } from '../peers/net-devices.ts'
import { makeNotifyFolder, withNotifySocket } from '../peers/notify.ts'
import { runHooks } from '../peers/run-hooks.ts'
import { buildCreatePlan } from '../plan/build.ts'
import { encodePlan } from '../plan/encode.ts'
import { hostRootWarnings } from '../plan/host-root.ts'
import type { SeccompFilter } from '../plan/process-ops.ts'
import { parseProcess } from '../spec/load.ts'
import { resolveForCreate } from '../spec/resolve.ts'
import { stringifyJson } from '../spec/stringify.ts'
import type { Spec } from '../spec/types.ts'
import { specWarnings } from '../spec/warnings.ts'
import { type SavedIntelRdt, tasksFiles } from '../state/intel-rdt.ts'
import { ociState } from '../state/oci-state.ts'
import { futureRootMount, removeRootMount, rootMountOf } from '../state/root-mount.ts'
import { type KeptSpec, keepSpec, type MadeHow, removeState, type SavedState, saveState } from '../state/store.ts'
import type { OwnedFd } from '../sys/fd.ts'
import { NAMESPACES } from '../sys/linux.ts'
import { processStat } from '../sys/pids.ts'
import { Claim } from './claim.ts'
import { gateSpec } from './gates.ts'
import { madeHow } from './made-how.ts'
import { makeCgroup, unitFor } from './make-cgroup.ts'
import type { CreateOptions } from './options.ts'
import {
  hasBareNewlines,
  helperLogger,
  keyringName,
  makeFifo,
  rootfsPath,
  seccompInTurns,
  withConsole,
  withSize,
} from './prepare.ts'

/** The parts of a new container. */
export interface CreatedParts {
  readonly state: SavedState
  readonly spec: Spec
  readonly cgroup: Cgroup
  readonly run: PlanProcess
}

/** What is decided about a container before anything of it is made. */
interface Decision {
  readonly bundle: string
  readonly spec: Spec
  readonly rootfs: string
  readonly facts: HostFacts
  readonly idMaps: IdMapPlan | undefined
  readonly made: MadeHow
  readonly kept: KeptSpec
}

/**
 * Makes a container whose init waits for its start.
 * @throws AlreadyExists, InvalidArgument, Canceled or DeadlineExceeded by the signal, ResourceExhausted when init was
 * OOM-killed, and what the set-up met
 */
export async function createParts(options: CreateOptions): Promise<CreatedParts> {
  const { root, id, reaper, signal, initPath: helper } = options
  const logger = options.logger ?? silentLogger
  const what = `cannot create container "${id}"`
  const facts = hostFacts()
  const bundle = resolve(options.bundle)
  const asked = transformed(options, bundle)
  const resolved = await resolveForCreate(asked, (empty) => mapsOfUserNamespace(empty, { reaper, logger, helper }))
  const decision = decide(options, { bundle, facts, resolved })
  const { spec, rootfs } = decision
  const rdt = await planIntelRdt(options, spec)
  refuseAborted(signal, what)
  // a missing listener is found before there is anything to undo
  using consoleSocket = connectConsole(options)
  using claim = await Claim.take(root, id)
  using sockets = new DisposableStack()
  // disposed only after a failure
  const undo = new AsyncDisposableStack()
  const tried = triedFor(id, logger)
  undo.defer(tried(() => removeState(root, id)))
  let cgroup: Cgroup | undefined
  let run: PlanProcess | undefined
  const onAbort = () => void run?.abort()
  try {
    const futureMount = futureRootMount(spec, rootfs)
    undo.defer(tried(() => (run === undefined ? undefined : removeRootMount(futureMount, logger))))
    // the signal may have fired while the claim waited for the lock
    refuseAborted(signal, what)
    const fifo = makeFifo(root, id)
    if (options.notify === true) makeNotifyFolder(root, id)
    failpoint('create:fifo')
    await nextTurn()
    cgroup = await makeCgroup({ ...options, spec, bundle, claim, logger })
    undo.defer(tried(() => cgroup?.remove()))
    failpoint('create:cgroup')
    await nextTurn()
    if (cgroup.unit === undefined) prepareCgroup(cgroup, options, decision)
    rdt?.make(claim, (step) => undo.defer(tried(step)))
    const seccomp = await seccompInTurns(spec, logger, root)
    const filter = { profile: spec.linux.seccomp, flags: seccomp?.flags, bundle }
    const { agent, pidfdSocket } = sockets.use(
      connectPeers({ stdio: options.stdio, pidfdSocket: options.pidfdSocket }, filter),
    )
    // a long spec takes time: other work has its turn between the steps that follow
    await nextTurn()
    const ops = planOps(options, decision, { join: { ...cgroup.join(), rdt: tasksFiles(rdt?.saved) }, fifo, seccomp })
    await nextTurn()
    const encoded = encodePlan(ops)
    await nextTurn()
    // nothing listened for an abort during these turns; from here to the listener there is no further turn
    refuseAborted(signal, what)
    claim.willMountRoot(futureMount)
    run = startHelper(options, decision, { ops, encoded, cgroup, claim, consoleSocket, agent, pidfdSocket })
    undo.defer(tried(() => run?.abort()))
    failpoint('create:spawned')
    signal?.addEventListener('abort', onAbort, { once: true })
    await run.handshake.ready
    failpoint('create:ready')
    refuseAborted(signal, what)
    const state = stateOf(id, decision, { cgroup, run, hasRootMount: futureMount !== undefined, rdt })
    saveState(root, state, decision.kept)
    failpoint('create:saved')
    claim.complete(state)
    run.handshake.proceed()
    failpoint('create:done')
    return { state, spec, cgroup, run }
  } catch (error) {
    // read before anything is awaited: an abort during the undo does not explain the failure
    const aborted = signal?.aborted === true ? abortError(signal, what) : undefined
    const oom = aborted === undefined && cgroup !== undefined && run !== undefined && oomKilled(cgroup)
    await undo.disposeAsync()
    // the poststop hooks take down what hooks that ran have set up
    if (run !== undefined) await runPoststop(id, decision, logger)
    throw aborted ?? (oom ? oomError(error) : (run?.explained(error) ?? error))
  } finally {
    signal?.removeEventListener('abort', onAbort)
  }
}

/** Decides all that does not need anything to be made. @throws InvalidArgument, FailedPrecondition, PermissionDenied */
function decide(
  options: CreateOptions,
  { bundle, facts, resolved }: { readonly bundle: string; readonly facts: HostFacts; readonly resolved: Spec },
): Decision {
  const { root, id, logger = silentLogger } = options
  const gated = gateSpec(resolved, options.gates, logger)
  const spec = options.notify === true ? withNotifySocket(gated, root, id) : gated
  const rootfs = rootfsPath(spec, bundle)
  const warnings = [...specWarnings(spec, facts.lastCap), ...hostRootWarnings({ spec, bundle, rootfs })]
  for (const warning of warnings) logger.warn({ container: id }, warning)
  const made = madeHow(options)
  const { rootless } = facts
  const kept = keepSpec(id, spec, { bundle, rootfs, rootless, unit: unitFor(options, spec) })
  return { bundle, spec, rootfs, facts, made, kept, idMaps: planIdMaps(spec) }
}

/** The Intel RDT groups that the spec asks for; undefined without such a wish, which loads nothing of it. */
async function planIntelRdt({ id, resctrl }: CreateOptions, { linux: { intelRdt } }: Spec) {
  if (intelRdt === undefined) return undefined
  const { IntelRdt } = await import('../intelrdt/intel-rdt.ts')
  const groups = IntelRdt.plan(id, intelRdt, resctrl)
  return {
    saved: groups.saved,
    make(claim: Claim, defer: (step: () => void) => void): void {
      claim.willMakeIntelRdt(groups.saved)
      defer(() => groups.remove(id))
      groups.make(intelRdt)
    },
  }
}

/** Moves this process to its own cgroup, and gives the container's to its user where that user may manage it. */
function prepareCgroup(cgroup: Cgroup, options: CreateOptions, { spec, facts }: Decision): void {
  if (options.monitorCgroup !== undefined) joinMonitorCgroup(options.monitorCgroup, cgroup.paths)
  const owner = cgroupOwner(spec)
  // an unprivileged runtime cannot give files to another owner
  if (owner !== undefined && owner !== 0 && !facts.unprivileged) cgroup.delegate(owner)
  warnOfSurvivors(cgroup, spec, options.logger ?? silentLogger)
}

/** The operations that make the container process. */
function planOps(
  options: CreateOptions,
  { bundle, spec, rootfs, facts, idMaps }: Decision,
  {
    join,
    fifo,
    seccomp,
  }: { readonly join: CgroupJoin; readonly fifo: string; readonly seccomp: SeccompFilter | undefined },
): readonly Op[] {
  return buildCreatePlan({
    id: options.id,
    spec,
    bundle,
    rootfs,
    cgroup: join,
    fifo,
    noPivot: options.noPivot ?? false,
    keyring: keyringName(options, options.id),
    extraFds: options.extraFds?.length ?? 0,
    bareNewlines: hasBareNewlines(options.stdio),
    host: idMaps === undefined ? facts : { ...facts, setgroups: idMaps.setgroups },
    ...(seccomp === undefined ? {} : { seccomp }),
  })
}

/** Starts the helper that makes the container process, and serves the points at which that process waits. */
function startHelper(
  options: CreateOptions,
  decision: Decision,
  parts: {
    readonly ops: readonly Op[]
    readonly encoded: Uint8Array
    readonly cgroup: Cgroup
    readonly claim: Claim
    readonly consoleSocket: OwnedFd | undefined
    readonly agent: OwnedFd | undefined
    readonly pidfdSocket: OwnedFd | undefined
  },
): PlanProcess {
  const { id, reaper, logger = silentLogger, extraFds = [] } = options
  const { bundle, spec, idMaps } = decision
  const { ops, encoded, cgroup, claim, consoleSocket, agent, pidfdSocket } = parts
  const container = { id, bundle, spec }
  return new PlanProcess({
    ops,
    encoded,
    stdio: withConsole(withSize(options.stdio, spec.process), consoleSocket),
    reaper,
    logger: helperLogger(options, logger),
    extraFds,
    helper: options.initPath,
    onChild: (pid) => {
      claim.madeProcess(pid)
      // systemd works while the process sets itself up, until the process comes to the point where it waits
      void cgroup.admit(pid, options.signal)
      if (pidfdSocket !== undefined) sendPidfd(pidfdSocket, pid, 'standard')
    },
    stops: {
      ...(idMaps === undefined ? {} : { onIdMaps: ({ pid, signal }) => writeIdMaps(idMaps, { pid, reaper, signal }) }),
      async onCgroup({ pid, signal }) {
        await cgroup.admit(pid, signal)
        prepareCgroup(cgroup, options, decision)
      },
      async onRuntimeHooks({ pid, signal }) {
        const state = ociState({ ...container, pid }, 'creating')
        for (const name of ['prestart', 'createRuntime'] as const) {
          await runHooks({ name, hooks: spec.hooks[name], state, logger, signal, journal: claim.hooks })
        }
      },
      onNetDevices: ({ pid, signal }, fd) => moveNetDevices(spec.linux.netDevices, { pid, fd, signal }),
      onListener: ({ pid, signal }, fd) =>
        sendListener(agent, { ...container, pid, fd, init: pid, status: 'creating' }, signal),
    },
  })
}

/** Makes steps of an undo that never throw: a step that fails is a warning, and the next one still runs. */
function triedFor(id: string, logger: Logger): (step: () => void | Promise<void>) => () => Promise<void> {
  return (step) => async () => {
    try {
      await step()
    } catch (failure) {
      const reason = messageOf(failure)
      logger.warn({ container: id, reason }, 'cannot undo all of a create that has failed')
    }
  }
}

/** The state of a container whose init waits. @throws FailedPrecondition when init has ended already */
function stateOf(
  id: string,
  { bundle, rootfs, facts, made }: Decision,
  {
    cgroup,
    run,
    hasRootMount,
    rdt,
  }: {
    readonly cgroup: Cgroup
    readonly run: PlanProcess
    readonly hasRootMount: boolean
    readonly rdt: { readonly saved: SavedIntelRdt } | undefined
  },
): SavedState {
  const { pid } = run.process
  const startTime = processStat(pid)?.startTime
  if (startTime === undefined) {
    throw new RuntimeError('FailedPrecondition', `container "${id}": its process ended before it was created`)
  }
  return {
    id,
    pid,
    startTime,
    created: new Date().toISOString(),
    bundle,
    rootfs,
    rootless: facts.rootless,
    made: hasRootMount ? { ...made, rootMount: rootMountOf(pid, rootfs) } : made,
    cgroupPaths: cgroup.paths,
    ...(cgroup.unit === undefined ? {} : { cgroupUnit: cgroup.unit }),
    intelRdt: rdt?.saved,
    namespacePaths: Object.fromEntries(NAMESPACES.map(({ name, file }) => [name, `/proc/${pid}/ns/${file}`])),
  }
}

async function runPoststop(id: string, { bundle, spec }: Decision, logger: Logger): Promise<void> {
  const state = ociState({ id, bundle, spec, pid: 0 }, 'stopped')
  await runHooks({ name: 'poststop', hooks: spec.hooks.poststop, state, logger })
}

/** The document with the process that `transformProcess` made, checked like any other. */
function transformed({ spec, transformProcess }: CreateOptions, bundle: string): Spec {
  if (transformProcess === undefined) return spec
  return { ...spec, process: parseProcess(stringifyJson(transformProcess(spec, bundle))) }
}

/** Warns where neither a pid namespace nor a cgroup lists the processes: those that outlive init cannot be killed. */
function warnOfSurvivors(cgroup: Cgroup, spec: Spec, logger: Logger): void {
  if (cgroup.exists || newNamespaces(spec).has('pid')) return
  logger.warn(
    {},
    "Creating a rootless container with no cgroup and no private pid namespace. Such configuration is strongly discouraged (as it is impossible to properly kill all container's processes)",
  )
}

function oomError(cause: unknown): RuntimeError {
  return new RuntimeError('ResourceExhausted', 'container init was OOM-killed (memory limit too low?)', { cause })
}

function oomKilled(cgroup: Cgroup): boolean {
  try {
    return cgroup.oomKillCount() > 0
  } catch {
    // the count only improves the message; the failure is reported anyway
    return false
  }
}
