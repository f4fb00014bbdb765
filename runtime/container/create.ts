/**
 * Making a container: everything between its options and an init that waits at the exec fifo. Invariant: it either succeeds or leaves
 * nothing behind: no process, no cgroup, no folder.
 */
import { resolve } from 'node:path'
import { Cgroup } from '../cgroup/cgroup.ts'
import { RuntimeError } from '../errors.ts'
import { PlanProcess } from '../init/spawn.ts'
import { silentLogger } from '../logger.ts'
import { buildCreatePlan } from '../plan/build.ts'
import { resolveOnHost } from '../spec/host.ts'
import { stringifyJson } from '../spec/stringify.ts'
import type { Spec } from '../spec/types.ts'
import { specWarnings } from '../spec/warnings.ts'
import type { OwnedFd } from '../sys/fd.ts'
import { processStat } from '../sys/process.ts'
import { gateSpec } from './gates.ts'
import { connectAgent, connectPidfdSocket, sendListener, sendPidfd } from './handover.ts'
import { runHooks } from './hooks.ts'
import { hostFacts, NAMESPACE_FILES } from './host.ts'
import { ociState } from './oci-state.ts'
import type { CreateOptions } from './options.ts'
import { keyringName, makeFifo, rootfsPath, seccompOf, sized } from './prepare.ts'
import { claimState, removeState, type SavedState, saveState } from './store.ts'

/** What a new container consists of. */
export interface CreatedParts {
  readonly state: SavedState
  readonly spec: Spec
  readonly cgroup: Cgroup
  readonly run: PlanProcess
}

/** Makes a container whose init waits for its start. @throws AlreadyExists, InvalidArgument, and what the set-up met */
export async function createParts(options: CreateOptions): Promise<CreatedParts> {
  const { root, id, reaper, extraFds = [] } = options
  const logger = options.logger ?? silentLogger
  const host = hostFacts()
  const spec = gateSpec(resolveOnHost(options.spec), options.gates, logger)
  for (const warning of specWarnings(spec, host.lastCap)) logger.warn({ container: id }, warning)
  const bundle = resolve(options.bundle)
  const rootfs = rootfsPath(spec, bundle)
  options.signal?.throwIfAborted()
  claimState(root, id)
  let cgroup: Cgroup | undefined
  let run: PlanProcess | undefined
  let agent: OwnedFd | undefined
  let pidfdSocket: OwnedFd | undefined
  const facts = { id, bundle, spec }
  const onAbort = () => void run?.abort()
  try {
    const fifo = makeFifo(root, id, spec)
    const { cgroupsPath, resources } = spec.linux
    cgroup = Cgroup.create({
      id,
      systemd: false,
      resources,
      ...(cgroupsPath === undefined ? {} : { path: cgroupsPath }),
    })
    const seccomp = seccompOf(spec, logger)
    agent = connectAgent(spec.linux.seccomp, seccomp?.flags)
    if (options.pidfdSocket !== undefined) pidfdSocket = connectPidfdSocket(options.pidfdSocket)
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
      host,
      ...(seccomp === undefined ? {} : { seccomp }),
    })
    run = new PlanProcess({
      ops,
      stdio: sized(options.stdio, spec.process),
      reaper,
      logger: options.containerLogger ?? logger,
      extraFds,
      onChild: (pid) => {
        if (pidfdSocket !== undefined) sendPidfd(pidfdSocket, pid, 'standard')
      },
      stops: {
        async onRuntimeHooks({ pid, signal }) {
          const state = ociState({ ...facts, pid }, 'creating')
          for (const name of ['prestart', 'createRuntime'] as const) {
            await runHooks({ name, hooks: spec.hooks[name], state, logger, signal })
          }
        },
        onListener: ({ pid, signal }, fd) =>
          sendListener(agent, { ...facts, pid, fd, init: pid, status: 'creating' }, signal),
      },
    })
    options.signal?.addEventListener('abort', onAbort, { once: true })
    await run.handshake.ready
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
      cgroupPaths: cgroup.paths,
      namespacePaths: Object.fromEntries(
        NAMESPACE_FILES.map(({ file }) => [runcName(file), `/proc/${pid}/ns/${file}`]),
      ),
    }
    saveState(root, state, stringifyJson(spec))
    run.handshake.proceed()
    return { state, spec, cgroup, run }
  } catch (error) {
    const oom = cgroup !== undefined && run !== undefined && oomKilled(cgroup)
    await run?.abort()
    await cgroup?.remove()
    removeState(root, id)
    // what the hooks of a container that came into being have set up, those of its end take down
    if (run !== undefined) {
      await runHooks({
        name: 'poststop',
        hooks: spec.hooks.poststop,
        state: ociState({ ...facts, pid: 0 }, 'stopped'),
        logger,
      })
    }
    if (oom) {
      throw new RuntimeError('ResourceExhausted', 'container init was OOM-killed (memory limit too low?)', {
        cause: error,
      })
    }
    throw error
  } finally {
    agent?.close()
    pidfdSocket?.close()
    options.signal?.removeEventListener('abort', onAbort)
  }
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
