/**
 * Makes a container: everything from the caller's options to an init that waits at the exec fifo. Invariant: it either
 * succeeds or leaves nothing behind, neither process, cgroup, mount nor folder. An undo that fails is a warning.
 */
import { readlinkSync } from 'node:fs'
import { resolve } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { abortError, refuseAborted } from '../abort.ts'
import { Cgroup } from '../cgroup/cgroup.ts'
import { joinMonitorCgroup } from '../cgroup/monitor.ts'
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import { hostFacts } from '../host/facts.ts'
import { cgroupOwner, newNamespaces } from '../host/ids.ts'
import { mapsOfUserNamespace } from '../init/joined-maps.ts'
import { PlanProcess } from '../init/spawn.ts'
import { type Logger, silentLogger } from '../logger.ts'
import { connectAgent, connectConsole, connectPidfdSocket, sendListener, sendPidfd } from '../peers/handover.ts'
import { planIdMaps, writeIdMaps } from '../peers/id-maps.ts'
import { moveNetDevices } from '../peers/net-devices.ts'
import { makeNotifyFolder, withNotifySocket } from '../peers/notify.ts'
import { runHooks } from '../peers/run-hooks.ts'
import { buildCreatePlan } from '../plan/build.ts'
import { encodePlan } from '../plan/encode.ts'
import { hostRootWarnings } from '../plan/host-root.ts'
import { defined } from '../spec/fields.ts'
import { parseProcess } from '../spec/load.ts'
import { resolveForCreate } from '../spec/resolve.ts'
import { stringifyJson } from '../spec/stringify.ts'
import type { Spec } from '../spec/types.ts'
import { specWarnings } from '../spec/warnings.ts'
import { ociState } from '../state/oci-state.ts'
import { futureRootMount, removeRootMount, rootMountOf } from '../state/root-mount.ts'
import { keepSpec, type MadeHow, removeState, type SavedState, saveState } from '../state/store.ts'
import type { OwnedFd } from '../sys/fd.ts'
import { getpid } from '../sys/libc.ts'
import { NAMESPACES } from '../sys/linux.ts'
import { processStat } from '../sys/pids.ts'
import { Claim } from './claim.ts'
import { gateSpec, namesOff } from './gates.ts'
import type { CreateOptions } from './options.ts'
import {
  containerSide,
  hasBareNewlines,
  keyringName,
  makeFifo,
  rootfsPath,
  seccompInTurns,
  sized,
  withConsole,
} from './prepare.ts'

/** The parts of a new container. */
export interface CreatedParts {
  readonly state: SavedState
  readonly spec: Spec
  readonly cgroup: Cgroup
  readonly run: PlanProcess
}

/**
 * Makes a container whose init waits for its start.
 * @throws AlreadyExists, InvalidArgument, Canceled or DeadlineExceeded by the signal, ResourceExhausted when init was
 * OOM-killed, and what the set-up met
 */
export async function createParts(options: CreateOptions): Promise<CreatedParts> {
  const { root, id, reaper, extraFds = [] } = options
  const logger = options.logger ?? silentLogger
  const what = `cannot create container "${id}"`
  const facts = hostFacts()
  const bundle = resolve(options.bundle)
  const helpers = { reaper, logger, helper: options.initPath }
  const asked = transformed(options, bundle)
  const resolved = await resolveForCreate(asked, (empty) => mapsOfUserNamespace(empty, helpers))
  const gated = gateSpec(resolved, options.gates, logger)
  const spec = options.notify === true ? withNotifySocket(gated, root, id) : gated
  const rootfs = rootfsPath(spec, bundle)
  const warnings = [...specWarnings(spec, facts.lastCap), ...hostRootWarnings({ spec, bundle, rootfs })]
  for (const warning of warnings) logger.warn({ container: id }, warning)
  const made = madeHow(options)
  const kept = keepSpec(id, spec, { bundle, rootfs, rootless: facts.rootless })
  const idMaps = planIdMaps(spec)
  const host = idMaps === undefined ? facts : { ...facts, setgroups: idMaps.setgroups }
  refuseAborted(options.signal, what)
  // a missing listener is found before there is anything to undo
  using consoleSocket = connectConsole(options)
  using claim = await Claim.take(root, id)
  const futureMount = futureRootMount(spec, rootfs)
  let cgroup: Cgroup | undefined
  let run: PlanProcess | undefined
  let agent: OwnedFd | undefined
  let pidfdSocket: OwnedFd | undefined
  const container = { id, bundle, spec }
  const onAbort = () => void run?.abort()
  try {
    // the signal may have fired while the claim waited for the lock
    refuseAborted(options.signal, what)
    const fifo = makeFifo(root, id)
    if (options.notify === true) makeNotifyFolder(root, id)
    failpoint('create:fifo')
    await nextTurn()
    const { cgroupsPath, resources } = spec.linux
    cgroup = Cgroup.create({
      id,
      resources,
      logger,
      tolerant: isTolerant(options),
      onPaths: (paths) => claim.willMakeCgroup(paths, bundle),
      ...(cgroupsPath === undefined ? {} : { path: cgroupsPath }),
    })
    failpoint('create:cgroup')
    if (options.monitorCgroup !== undefined) joinMonitorCgroup(options.monitorCgroup, cgroup.paths)
    const owner = cgroupOwner(spec)
    // an unprivileged runtime cannot give files to another owner
    if (owner !== undefined && owner !== 0 && !facts.unprivileged) cgroup.delegate(owner)
    warnOfSurvivors(cgroup, spec, logger)
    const seccomp = await seccompInTurns(spec, logger, root)
    agent = connectAgent(spec.linux.seccomp, seccomp?.flags, bundle)
    if (options.pidfdSocket !== undefined) pidfdSocket = connectPidfdSocket(options.pidfdSocket)
    // a long spec takes time: other work has its turn between the steps that follow
    await nextTurn()
    const ops = buildCreatePlan({
      id,
      spec,
      bundle,
      rootfs,
      cgroup: cgroup.join(),
      fifo,
      noPivot: options.noPivot ?? false,
      keyring: keyringName(options, id),
      extraFds: extraFds.length,
      bareNewlines: hasBareNewlines(options.stdio),
      host,
      ...(seccomp === undefined ? {} : { seccomp }),
    })
    await nextTurn()
    const encoded = encodePlan(ops)
    await nextTurn()
    // nothing listened for an abort during these turns; from here to the listener there is no further turn
    refuseAborted(options.signal, what)
    claim.willMountRoot(futureMount)
    run = new PlanProcess({
      ops,
      encoded,
      stdio: withConsole(sized(options.stdio, spec.process), consoleSocket),
      reaper,
      logger: containerSide(options, logger),
      extraFds,
      helper: options.initPath,
      onChild: (pid) => {
        claim.madeProcess(pid)
        if (pidfdSocket !== undefined) sendPidfd(pidfdSocket, pid, 'standard')
      },
      stops: {
        ...(idMaps === undefined
          ? {}
          : { onIdMaps: ({ pid, signal }) => writeIdMaps(idMaps, { pid, reaper, signal }) }),
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
    failpoint('create:spawned')
    options.signal?.addEventListener('abort', onAbort, { once: true })
    await run.handshake.ready
    failpoint('create:ready')
    refuseAborted(options.signal, what)
    const { pid } = run.process
    const startTime = processStat(pid)?.startTime
    if (startTime === undefined) {
      throw new RuntimeError('FailedPrecondition', `container "${id}": its process ended before it was created`)
    }
    const state: SavedState = {
      id,
      pid,
      startTime,
      created: new Date().toISOString(),
      bundle,
      rootfs,
      rootless: facts.rootless,
      made: futureMount === undefined ? made : { ...made, rootMount: rootMountOf(pid, rootfs) },
      cgroupPaths: cgroup.paths,
      namespacePaths: Object.fromEntries(NAMESPACES.map(({ name, file }) => [name, `/proc/${pid}/ns/${file}`])),
    }
    saveState(root, state, kept)
    failpoint('create:saved')
    claim.complete(state)
    run.handshake.proceed()
    failpoint('create:done')
    return { state, spec, cgroup, run }
  } catch (error) {
    // read before anything is awaited: an abort during the undo does not explain the failure
    const aborted = options.signal?.aborted === true ? abortError(options.signal, what) : undefined
    const oom = aborted === undefined && cgroup !== undefined && run !== undefined && oomKilled(cgroup)
    // one failed undo does not stop the next; the caller gets the error that made them necessary
    const unmount = () => (run === undefined ? undefined : removeRootMount(futureMount, logger))
    for (const undo of [() => run?.abort(), () => cgroup?.remove(), unmount, () => removeState(root, id)]) {
      try {
        await undo()
      } catch (failure) {
        const reason = failure instanceof Error ? failure.message : String(failure)
        logger.warn({ container: id, reason }, 'cannot undo all of a create that has failed')
      }
    }
    // the poststop hooks take down what hooks that ran have set up
    if (run !== undefined) {
      await runHooks({
        name: 'poststop',
        hooks: spec.hooks.poststop,
        state: ociState({ ...container, pid: 0 }, 'stopped'),
        logger,
      })
    }
    if (oom) {
      throw new RuntimeError('ResourceExhausted', 'container init was OOM-killed (memory limit too low?)', {
        cause: error,
      })
    }
    throw aborted ?? run?.explained(error) ?? error
  } finally {
    agent?.close()
    pidfdSocket?.close()
    options.signal?.removeEventListener('abort', onAbort)
  }
}

/** The document with the process that `transformProcess` made, checked like any other. */
function transformed({ spec, transformProcess }: CreateOptions, bundle: string): Spec {
  if (transformProcess === undefined) return spec
  return { ...spec, process: parseProcess(stringifyJson(transformProcess(spec, bundle))) }
}

/** How the container is made, for its state. Relative paths count from the current working directory. */
function madeHow({ consoleSocket, pidFile, monitorCgroup, gates, stdio }: CreateOptions): MadeHow {
  const pid = getpid()
  const startTime = processStat(pid)?.startTime
  return defined({
    monitor: startTime === undefined ? undefined : { pid, startTime },
    consoleSocket: consoleSocket === undefined ? undefined : resolve(consoleSocket),
    pidFile: pidFile === undefined ? undefined : resolve(pidFile),
    monitorCgroup,
    featuresOff: namesOff(gates),
    streams:
      stdio.kind === 'fds'
        ? [stdio.stdin, stdio.stdout, stdio.stderr].map((fd) => readlinkSync(`/proc/self/fd/${fd}`))
        : undefined,
  })
}

/** Whether a cgroup that cannot be made is done without: as the caller says, or unless this is root of the machine. */
function isTolerant({ rootless = 'auto' }: CreateOptions): boolean {
  return rootless === 'auto' ? hostFacts().rootless : rootless
}

/** Warns where neither a pid namespace nor a cgroup lists the processes: those that outlive init cannot be killed. */
function warnOfSurvivors(cgroup: Cgroup, spec: Spec, logger: Logger): void {
  if (cgroup.exists || newNamespaces(spec).has('pid')) return
  logger.warn(
    {},
    "Creating a rootless container with no cgroup and no private pid namespace. Such configuration is strongly discouraged (as it is impossible to properly kill all container's processes)",
  )
}

function oomKilled(cgroup: Cgroup): boolean {
  try {
    return cgroup.oomKillCount() > 0
  } catch {
    // the count only improves the message; the failure is reported anyway
    return false
  }
}
