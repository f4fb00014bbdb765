/**
 * A further process in a running container: its plan from the container's facts and its own document, and the helper that carries it
 * out. Invariant: it resolves when the program was executed; when it rejects, no process of it is left.
 */
import type { Cgroup } from '../cgroup/cgroup.ts'
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import { PlanProcess } from '../init/spawn.ts'
import type { Logger } from '../logger.ts'
import { buildExecPlan } from '../plan/build.ts'
import type { Spec } from '../spec/types.ts'
import { allowsSetgroups, type HostFacts, hostFacts } from './host.ts'
import type { ExecOptions } from './options.ts'
import { keyringName, seccompOf, sized } from './prepare.ts'
import { OwnProcess, type RunningProcess } from './process.ts'

/** What is known of the container that the process joins. */
export interface ExecTarget {
  readonly id: string
  /** where the state of containers is kept */
  readonly root: string
  readonly spec: Spec
  readonly rootfs: string
  readonly cgroup: Cgroup
  readonly init: RunningProcess
  /** of init, in clock ticks since boot */
  readonly startTime: bigint
  /** CLONE_NEW* flags of the namespaces in which init differs from us */
  readonly namespaces: () => number
  readonly logger: Logger
}

/** The host's facts, as they are in the user namespace that the process joins. */
function execFacts({ linux }: Spec, pid: number): HostFacts {
  const facts = hostFacts()
  const foreign = facts.rootless || linux.namespaces.some(({ type }) => type === 'user')
  return foreign ? { ...facts, setgroups: allowsSetgroups(pid) } : facts
}

/** Runs the process. @throws FailedPrecondition when the container is stopped or paused */
export async function execIn(target: ExecTarget, options: ExecOptions): Promise<RunningProcess> {
  const { id, spec, rootfs, cgroup, init, logger } = target
  if (!init.alive) throw new RuntimeError('FailedPrecondition', 'cannot exec in a stopped container')
  if (options.ignorePaused !== true && cgroup.isFrozen()) {
    throw new RuntimeError('FailedPrecondition', 'cannot exec in a paused container (use --ignore-paused to override)')
  }
  const seccomp = seccompOf(spec, target.root)
  const ops = buildExecPlan({
    spec,
    process: options.process,
    rootfs,
    cgroup: cgroup.join(),
    init: { pid: init.pid, startTime: target.startTime, namespaces: target.namespaces() },
    host: execFacts(spec, init.pid),
    keyring: keyringName(options, id),
    ...(seccomp === undefined ? {} : { seccomp }),
  })
  const run = new PlanProcess({ ops, stdio: sized(options.stdio, options.process), reaper: options.reaper, logger })
  failpoint('exec:spawned')
  try {
    await run.handshake.executed
    failpoint('exec:executed')
  } catch (error) {
    await run.abort()
    throw error
  }
  return new OwnProcess(run.process, run.console)
}
