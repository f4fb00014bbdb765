/**
 * A further process in a running container: its plan from the container's facts and its own document, and the helper that carries it
 * out. Invariant: it resolves when the program was executed; when it rejects, no process of it is left.
 */
import type { Cgroup } from '../cgroup/cgroup.ts'
import { execJoin } from '../cgroup/exec-join.ts'
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import { PlanProcess } from '../init/spawn.ts'
import type { Logger } from '../logger.ts'
import { buildExecPlan } from '../plan/build.ts'
import type { Spec } from '../spec/types.ts'
import { processWarnings } from '../spec/warnings.ts'
import { gateExec } from './gates.ts'
import { connectAgent, connectPidfdSocket, sendListener, sendPidfd } from './handover.ts'
import { allowsSetgroups, type HostFacts, hostFacts } from './host.ts'
import type { ExecOptions } from './options.ts'
import { keyringName, seccompOf, sized } from './prepare.ts'
import { OwnProcess, type RunningProcess } from './process.ts'

/** What is known of the container that the process joins. */
export interface ExecTarget {
  readonly id: string
  /** where the state of containers is kept */
  readonly root: string
  readonly bundle: string
  readonly spec: Spec
  readonly rootfs: string
  readonly cgroup: Cgroup
  readonly init: RunningProcess
  /** of init, in clock ticks since boot */
  readonly startTime: bigint
  /** CLONE_NEW* flags of the namespaces in which init differs from us */
  readonly namespaces: () => number
  readonly logger: Logger
  /** whether the kernel has killed one more process for want of memory */
  readonly oomKilled: () => boolean
}

/** The host's facts, as they are in the user namespace that the process joins. */
function execFacts({ linux }: Spec, pid: number): HostFacts {
  const facts = hostFacts()
  const foreign = facts.rootless || linux.namespaces.some(({ type }) => type === 'user')
  return foreign ? { ...facts, setgroups: allowsSetgroups(pid) } : facts
}

/** Runs the process. @throws FailedPrecondition when the container is stopped or paused */
export async function execIn(target: ExecTarget, options: ExecOptions): Promise<RunningProcess> {
  const { id, bundle, rootfs, cgroup, init } = target
  if (!init.alive) throw new RuntimeError('FailedPrecondition', 'cannot exec in a stopped container')
  if (options.ignorePaused !== true && cgroup.isFrozen()) {
    throw new RuntimeError('FailedPrecondition', 'cannot exec in a paused container (use --ignore-paused to override)')
  }
  const logger = options.containerLogger ?? target.logger
  const { spec, process } = gateExec({ spec: target.spec, process: options.process }, options.gates, target.logger)
  const host = execFacts(spec, init.pid)
  for (const warning of processWarnings(process, host.lastCap)) target.logger.warn({ container: id }, warning)
  const { extraFds = [] } = options
  const join = execJoin(cgroup, init.pid, options.subCgroups)
  const seccomp = seccompOf(spec, target.logger, target.root)
  using agent = connectAgent(spec.linux.seccomp, seccomp?.flags)
  using pidfdSocket = options.pidfdSocket === undefined ? undefined : connectPidfdSocket(options.pidfdSocket)
  const ops = buildExecPlan({
    spec,
    process,
    rootfs,
    cgroup: join,
    init: { pid: init.pid, startTime: target.startTime, namespaces: target.namespaces() },
    extraFds: extraFds.length,
    host,
    keyring: keyringName(options, id),
    ...(seccomp === undefined ? {} : { seccomp }),
  })
  const run = new PlanProcess({
    ops,
    stdio: sized(options.stdio, process),
    reaper: options.reaper,
    logger,
    extraFds,
    onChild: (pid) => {
      if (pidfdSocket !== undefined) sendPidfd(pidfdSocket, pid, 'setns')
    },
    stops: {
      onListener: ({ pid, signal }, fd) =>
        sendListener(agent, { id, bundle, spec, pid, fd, init: init.pid, status: 'running' }, signal),
    },
  })
  failpoint('exec:spawned')
  try {
    await run.handshake.executed
    failpoint('exec:executed')
  } catch (error) {
    await run.abort()
    throw error
  }
  return new OwnProcess(run.process, run.console, target.oomKilled)
}
