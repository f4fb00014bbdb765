/**
 * Making a container: everything between its options and an init that waits at the exec fifo. Invariant: it either succeeds or leaves
 * nothing behind: no process, no cgroup, no folder.
 */
import { resolve } from 'node:path'
import { Cgroup } from '../cgroup/cgroup.ts'
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import { PlanProcess } from '../init/spawn.ts'
import { type Logger, silentLogger } from '../logger.ts'
import { buildCreatePlan } from '../plan/build.ts'
import type { Spec } from '../spec/types.ts'
import { processStat } from '../sys/process.ts'
import { Claim } from './claim.ts'
import { hostFacts, NAMESPACE_FILES } from './host.ts'
import { newNamespaces } from './ids.ts'
import type { CreateOptions } from './options.ts'
import { keyringName, makeFifo, rootfsPath, seccompOf, sized } from './prepare.ts'
import { removeState, type SavedState, saveState } from './store.ts'

/** What a new container consists of. */
export interface CreatedParts {
  readonly state: SavedState
  readonly spec: Spec
  readonly cgroup: Cgroup
  readonly run: PlanProcess
}

/** Makes a container whose init waits for its start. @throws AlreadyExists, InvalidArgument, and what the set-up met */
export async function createParts(options: CreateOptions): Promise<CreatedParts> {
  const { root, id, spec, reaper } = options
  const logger = options.logger ?? silentLogger
  const bundle = resolve(options.bundle)
  const rootfs = rootfsPath(spec, bundle)
  options.signal?.throwIfAborted()
  using claim = await Claim.take(root, id)
  let cgroup: Cgroup | undefined
  let run: PlanProcess | undefined
  const onAbort = () => void run?.abort()
  try {
    const fifo = makeFifo(root, id, spec)
    failpoint('create:fifo')
    const { cgroupsPath, resources } = spec.linux
    cgroup = Cgroup.create({
      id,
      systemd: false,
      resources,
      tolerant: isTolerant(options),
      onPaths: (paths) => claim.willMakeCgroup(paths),
      ...(cgroupsPath === undefined ? {} : { path: cgroupsPath }),
    })
    failpoint('create:cgroup')
    warnOfSurvivors(cgroup, spec, logger)
    const seccomp = seccompOf(spec, root)
    const ops = buildCreatePlan({
      spec,
      bundle,
      rootfs,
      cgroup: cgroup.join(),
      fifo,
      noPivot: options.noPivot ?? false,
      keyring: keyringName(options, id),
      host: hostFacts(),
      ...(seccomp === undefined ? {} : { seccomp }),
    })
    const onChild = (pid: number): void => claim.madeProcess(pid)
    run = new PlanProcess({ ops, stdio: sized(options.stdio, spec.process), reaper, logger, onChild })
    failpoint('create:spawned')
    options.signal?.addEventListener('abort', onAbort, { once: true })
    await run.handshake.ready
    failpoint('create:ready')
    options.signal?.throwIfAborted()
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
      rootless: hostFacts().rootless,
      cgroupPaths: cgroup.paths,
      namespacePaths: Object.fromEntries(
        NAMESPACE_FILES.map(({ file }) => [runcName(file), `/proc/${pid}/ns/${file}`]),
      ),
    }
    saveState(root, state, spec)
    failpoint('create:saved')
    claim.complete()
    run.handshake.proceed()
    failpoint('create:done')
    return { state, spec, cgroup, run }
  } catch (error) {
    const oom = cgroup !== undefined && run !== undefined && oomKilled(cgroup)
    await run?.abort()
    await cgroup?.remove()
    removeState(root, id)
    if (oom) {
      throw new RuntimeError('ResourceExhausted', 'container init was OOM-killed (memory limit too low?)', {
        cause: error,
      })
    }
    throw error
  } finally {
    options.signal?.removeEventListener('abort', onAbort)
  }
}

/** Whether we may do without a cgroup: asked for, or not root of the machine. */
function isTolerant({ rootless = 'auto' }: CreateOptions): boolean {
  return rootless === 'auto' ? hostFacts().rootless : rootless
}

/** Neither a pid namespace nor a cgroup tells which processes are the container's: those that init leaves behind cannot be killed. */
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
    // the count is only for a better message; the failure that brought us here is reported anyway
    return false
  }
}

function runcName(file: string): string {
  const names: Readonly<Record<string, string>> = { mnt: 'NEWNS', net: 'NEWNET' }
  return names[file] ?? `NEW${file.toUpperCase()}`
}
