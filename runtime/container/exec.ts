/**
 * Runs a further process in a container. Its plan follows from the container's facts and the process's own document;
 * the init helper carries the plan out. Invariant: execIn resolves when the program was executed; when it rejects, the
 * process has been killed and reaped.
 */
import { resolve } from 'node:path'
import type { Op } from '../../proto/init-plan.ts'
import { abortError, refuseAborted } from '../abort.ts'
import type { Cgroup, CgroupJoin } from '../cgroup/cgroup.ts'
import { execJoin } from '../cgroup/exec-join.ts'
import { failpoint } from '../failpoint.ts'
import { allowsSetgroups, type HostFacts, hostFacts } from '../host/facts.ts'
import { createPidFile } from '../host/pid-file.ts'
import { PlanProcess } from '../init/spawn.ts'
import type { Logger } from '../logger.ts'
import { connectPeers, type Peers, sendListener, sendPidfd } from '../peers/handover.ts'
import { buildExecPlan } from '../plan/build.ts'
import type { OciProcess, Spec } from '../spec/types.ts'
import { processWarnings } from '../spec/warnings.ts'
import { type SavedIntelRdt, tasksFiles } from '../state/intel-rdt.ts'
import { gateExec } from './gates.ts'
import { possiblyOomKilled } from './oom.ts'
import type { ExecOptions } from './options.ts'
import { hasBareNewlines, helperLogger, keyringName, seccompInTurns, withConsole, withSize } from './prepare.ts'
import { OwnProcess, type RunningProcess } from './running-process.ts'
import { refusal } from './status.ts'

/** The container that the process joins. */
export interface ExecTarget {
  readonly id: string
  /** folder that holds the state of many containers */
  readonly root: string
  readonly bundle: string
  readonly spec: Spec
  readonly rootfs: string
  readonly cgroup: Cgroup
  readonly init: RunningProcess
  /** start time of init, in clock ticks since boot */
  readonly startTime: bigint
  /** CLONE_NEW* flags of the namespaces in which init differs from this process */
  readonly namespaces: () => number
  readonly intelRdt: SavedIntelRdt | undefined
  readonly logger: Logger
  /** asked once for a killed process: whether the kernel's OOM killer has killed one more of the container */
  readonly oomKilled: () => boolean
}

/** The host's facts as they hold in the user namespace that the process joins. */
function execFacts({ linux }: Spec, pid: number): HostFacts {
  const facts = hostFacts()
  const otherUsers = facts.rootless || linux.namespaces.some(({ type }) => type === 'user')
  return otherUsers ? { ...facts, setgroups: allowsSetgroups(pid) } : facts
}

/** Completes the caller's document with the container's own process. */
function completed(container: OciProcess, { process, stdio }: ExecOptions): OciProcess {
  const whole = { ...container, ...process }
  return process.terminal === undefined ? { ...whole, terminal: stdio.kind === 'terminal' } : whole
}

/**
 * Runs the process; resolves when its program was executed.
 * @throws FailedPrecondition when the container is stopped or paused; Canceled or DeadlineExceeded by the signal; what
 * the set-up met
 */
export async function execIn(target: ExecTarget, options: ExecOptions): Promise<RunningProcess> {
  const { id, cgroup, init } = target
  if (!init.alive) throw refusal('stopped', 'cannot exec in a stopped container')
  if (options.ignorePaused !== true && cgroup.isFrozen()) {
    throw refusal('paused', 'cannot exec in a paused container (use --ignore-paused to override)')
  }
  const what = `cannot exec in container "${id}"`
  refuseAborted(options.signal, what)
  const asked = completed(target.spec.process, options)
  const { spec, process } = gateExec({ spec: target.spec, process: asked }, options.gates, target.logger)
  const pidFile = options.pidFile === undefined ? undefined : resolve(options.pidFile)
  const host = execFacts(spec, init.pid)
  for (const warning of processWarnings(process, host.lastCap)) target.logger.warn({ container: id }, warning)
  const join = execJoin(cgroup, init.pid, options.subCgroups)
  const seccomp = await seccompInTurns(spec, target.logger, target.root)
  using peers = connectPeers(options, { profile: spec.linux.seccomp, flags: seccomp?.flags, bundle: target.bundle })
  const ops = buildExecPlan({
    spec,
    process,
    rootfs: target.rootfs,
    cgroup: { ...join, rdt: tasksFiles(target.intelRdt) },
    init: { pid: init.pid, startTime: target.startTime, namespaces: target.namespaces() },
    extraFds: options.extraFds?.length ?? 0,
    bareNewlines: hasBareNewlines(options.stdio),
    host,
    keyring: keyringName(options, id),
    ...(seccomp === undefined ? {} : { seccomp }),
  })
  // compiling the profile may have taken turns of the event loop
  refuseAborted(options.signal, what)
  // A live init still owns its pid, so what procfs said about that pid was about init.
  if (!init.alive) throw refusal('stopped', 'cannot exec in a stopped container')
  const run = startHelper(target, options, { ops, spec, process, peers, join })
  failpoint('exec:spawned')
  const { signal } = options
  const onAbort = () => void run.abort()
  signal?.addEventListener('abort', onAbort, { once: true })
  try {
    await run.handshake.executed
    refuseAborted(signal, what)
    failpoint('exec:executed')
    const { pid } = run.process
    if (pidFile !== undefined) createPidFile(pidFile, pid)
  } catch (error) {
    await run.abort()
    if (signal?.aborted === true) throw abortError(signal, what)
    const failure = run.explained(error)
    throw target.oomKilled() ? possiblyOomKilled(failure) : failure
  } finally {
    signal?.removeEventListener('abort', onAbort)
  }
  return new OwnProcess(run.process, run.console, target.oomKilled)
}

/** Starts the helper that makes the process, and serves the point at which that process waits. */
function startHelper(
  { id, bundle, init, cgroup, logger }: ExecTarget,
  options: ExecOptions,
  parts: {
    readonly ops: readonly Op[]
    readonly spec: Spec
    readonly process: OciProcess
    readonly peers: Peers
    readonly join: CgroupJoin
  },
): PlanProcess {
  const { ops, spec, process, peers, join } = parts
  const { agent, consoleSocket, pidfdSocket } = peers
  return new PlanProcess({
    ops,
    stdio: withConsole(withSize(options.stdio, process), consoleSocket),
    reaper: options.reaper,
    logger: helperLogger(options, logger),
    extraFds: options.extraFds ?? [],
    helper: options.initPath,
    onChild: (pid) => {
      if (pidfdSocket !== undefined) sendPidfd(pidfdSocket, pid, 'setns')
    },
    stops: {
      async onCgroup({ pid, signal }) {
        if (join.kind === 'placed') await cgroup.attach(join.dirs[0] ?? '', pid, signal)
      },
      onListener: ({ pid, signal }, fd) =>
        sendListener(agent, { id, bundle, spec, pid, fd, init: init.pid, status: 'running' }, signal),
    },
  })
}
