/**
 * A restore: a container from the images of a checkpoint and a bundle. Everything around the processes is made as a
 * create makes it; CRIU then makes the processes, the first one as a child of this process. Invariant: it either
 * succeeds or leaves nothing behind, neither process, cgroup, mount nor folder. An undo that fails is a warning.
 */
import { mkdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { CriuRequestType } from 'ttrpc-ts/criu'
import { refuseAborted } from '../../abort.ts'
import type { Cgroup } from '../../cgroup/cgroup.ts'
import { joinMonitorCgroup } from '../../cgroup/monitor.ts'
import { RuntimeError } from '../../errors.ts'
import { failpoint } from '../../failpoint.ts'
import { type HostFacts, hostFacts } from '../../host/facts.ts'
import { cgroupOwner, hostGid } from '../../host/ids.ts'
import { mapsOfUserNamespace } from '../../init/joined-maps.ts'
import { type Logger, silentLogger } from '../../logger.ts'
import { connectConsole } from '../../peers/handover.ts'
import { runHooks } from '../../peers/run-hooks.ts'
import { resolveForCreate } from '../../spec/resolve.ts'
import type { Spec } from '../../spec/types.ts'
import { ociState } from '../../state/oci-state.ts'
import {
  keepSpec,
  removeRestorePoint,
  removeState,
  restorePoint,
  type SavedState,
  saveState,
} from '../../state/store.ts'
import type { OwnedFd } from '../../sys/fd.ts'
import { mount, umount2 } from '../../sys/libc.ts'
import { MNT_DETACH, MS_BIND, MS_REC, NAMESPACES, SIGKILL, UMOUNT_NOFOLLOW } from '../../sys/linux.ts'
import { processStat } from '../../sys/pids.ts'
import type { Child } from '../../sys/reaper.ts'
import { sendFd } from '../../sys/socket.ts'
import { Claim } from '../claim.ts'
import { gateSpec } from '../gates.ts'
import { madeHow } from '../made-how.ts'
import { makeCgroup, unitFor } from '../make-cgroup.ts'
import { rootfsPath } from '../prepare.ts'
import { cgroupRoots, childrenIn, enter } from './cgroups.ts'
import { Criu, type CriuAbility, fdOf, type Notified, requireCriu, requireVersion } from './criu.ts'
import { makeMountPoints, mountsToRestore } from './mounts.ts'
import { NamespaceFiles } from './namespaces.ts'
import type { RestoreOptions } from './options.ts'
import {
  type CriuRequestOptions,
  commonOptions,
  criuFailure,
  Folders,
  refusalOf,
  requireOwnMounts,
  saying,
} from './request.ts'
import { streamsToInherit } from './streams.ts'
import { Undo } from './undo.ts'

const LOG = 'restore.log'

/** The parts of a restored container. */
export interface RestoredParts {
  readonly state: SavedState
  readonly spec: Spec
  readonly cgroup: Cgroup
  readonly process: Child
  /** master of the terminal, unless a console socket has it */
  readonly console: OwnedFd | undefined
}

/** What is decided before anything is made. */
interface Decision {
  readonly bundle: string
  readonly spec: Spec
  readonly rootfs: string
  readonly facts: HostFacts
}

/**
 * Restores a container, whose processes run when the promise resolves.
 * @throws AlreadyExists, InvalidArgument, FailedPrecondition without a CRIU that can do it; Internal with the end of
 * CRIU's log
 */
export async function restore(options: RestoreOptions): Promise<RestoredParts> {
  const { root, id, signal, logger = silentLogger } = options
  const decision = await decide(options)
  await saying(`cannot restore container "${id}"`, async () => {
    requireOwnMounts(decision.spec)
    requireCriu()
  })
  refuseAborted(signal, `cannot restore container "${id}"`)
  using consoleSocket = connectConsole(options)
  const folders = new Folders(options, LOG, { make: false })
  using _open = folders
  using namespaces = new NamespaceFiles(decision.spec)
  using claim = await Claim.take(root, id)
  const undo = new Undo(id, logger)
  undo.defer(() => removeState(root, id))
  const work = new Restoration({ options, decision, folders, namespaces, claim, undo, consoleSocket })
  try {
    return await work.run()
  } catch (error) {
    await undo.run()
    // the poststop hooks take down what hooks that ran have set up
    if (work.begun) {
      const { bundle, spec } = decision
      const state = ociState({ id, bundle, spec, pid: 0 }, 'stopped')
      await runHooks({ name: 'poststop', hooks: spec.hooks.poststop, state, logger })
    }
    throw error
  }
}

async function decide(options: RestoreOptions): Promise<Decision> {
  const { reaper, logger = silentLogger, initPath: helper } = options
  const bundle = resolve(options.bundle)
  const resolved = await resolveForCreate(options.spec, (at) => mapsOfUserNamespace(at, { reaper, logger, helper }))
  const spec = gateSpec(resolved, options.gates, logger)
  return { bundle, spec, rootfs: rootfsPath(spec, bundle), facts: hostFacts() }
}

/** A restore from the claim of its id on. */
class Restoration {
  readonly #options: RestoreOptions
  readonly #decision: Decision
  readonly #folders: Folders
  readonly #namespaces: NamespaceFiles
  readonly #claim: Claim
  readonly #undo: Undo
  readonly #consoleSocket: OwnedFd | undefined
  readonly #logger: Logger
  #cgroup: Cgroup | undefined
  #process: Child | undefined
  #state: SavedState | undefined
  #console: OwnedFd | undefined
  #hasTerminal = false
  #begun = false

  constructor(parts: {
    readonly options: RestoreOptions
    readonly decision: Decision
    readonly folders: Folders
    readonly namespaces: NamespaceFiles
    readonly claim: Claim
    readonly undo: Undo
    readonly consoleSocket: OwnedFd | undefined
  }) {
    this.#options = parts.options
    this.#decision = parts.decision
    this.#folders = parts.folders
    this.#namespaces = parts.namespaces
    this.#claim = parts.claim
    this.#undo = parts.undo
    this.#consoleSocket = parts.consoleSocket
    this.#logger = parts.options.logger ?? silentLogger
  }

  /** A process was made: hooks may have run for it. */
  get begun(): boolean {
    return this.#begun
  }

  async run(): Promise<RestoredParts> {
    const { reaper, signal, initPath: helper } = this.#options
    this.#undo.defer(() => this.#folders.removeLeftovers({ images: false }))
    const { bundle, spec, rootfs } = this.#decision
    this.#undo.defer(() => this.#console?.close())
    const cgroup = await this.#makeCgroup()
    const container = { spec, bundle, rootfs, join: cgroup.join() }
    await makeMountPoints(container, { reaper, logger: this.#logger, helper })
    const root = this.#bindRoot()
    if (spec.linux.uidMappings.length > 0) this.#folders.letGroupSearch(hostGid(spec, 0))
    const opts = this.#request(root, [...mountsToRestore(container)])
    refuseAborted(signal, `cannot restore container "${this.#options.id}"`)
    await saying(`cannot restore container "${this.#options.id}"`, () => this.#ask(opts, cgroup))
    this.#unbindRoot()
    const { state, process } = this.#restored()
    if (this.#options.stdio.kind === 'terminal' && !this.#hasTerminal) {
      throw new RuntimeError('FailedPrecondition', 'cannot restore a terminal: the images have none')
    }
    // the images of a paused container have a frozen cgroup
    if (cgroup.isFrozen()) await cgroup.thaw()
    return { state, spec, cgroup, process, console: this.#console }
  }

  async #makeCgroup(): Promise<Cgroup> {
    const { spec, bundle } = this.#decision
    const cgroup = await makeCgroup({ ...this.#options, spec, bundle, claim: this.#claim, logger: this.#logger })
    this.#cgroup = cgroup
    this.#undo.defer(() => cgroup.remove())
    this.#undo.defer(() => this.#endProcesses(cgroup))
    if (cgroup.unit === undefined) this.#prepareCgroup(cgroup)
    return cgroup
  }

  /** Moves this process to its own cgroup, and gives the container's to its user. */
  #prepareCgroup(cgroup: Cgroup): void {
    const { monitorCgroup } = this.#options
    if (monitorCgroup !== undefined) joinMonitorCgroup(monitorCgroup, cgroup.paths)
    const owner = cgroupOwner(this.#decision.spec)
    if (owner !== undefined && owner !== 0) cgroup.delegate(owner)
  }

  /** What CRIU makes is born in its cgroup. A unit of systemd is made with CRIU as its first process. */
  async #enterCgroup(cgroup: Cgroup, pid: number): Promise<void> {
    if (cgroup.unit === undefined) {
      enter(cgroup, pid)
      return
    }
    await cgroup.admit(pid, this.#options.signal)
    this.#prepareCgroup(cgroup)
  }

  get #rootPoint(): string {
    return restorePoint(this.#options.root, this.#options.id)
  }

  /** Undoes #bindRoot; a second call does nothing. */
  #unbindRoot(): void {
    umount2(this.#rootPoint, MNT_DETACH | UMOUNT_NOFOLLOW)
    removeRestorePoint(this.#options.root, this.#options.id)
  }

  /**
   * Binds the root to a place of its own: CRIU wants a root that is a mount point, and whose parent is not covered. The
   * record names it before it is there.
   */
  #bindRoot(): string {
    const point = this.#rootPoint
    this.#claim.willMountRoot({ path: point, before: [] })
    mkdirSync(point, { recursive: true, mode: 0o700 })
    this.#undo.defer(() => this.#unbindRoot())
    mount({ source: this.#decision.rootfs, target: point, flags: MS_BIND | MS_REC })
    failpoint('restore:bound')
    return point
  }

  #request(root: string, extMnt: NonNullable<CriuRequestOptions['extMnt']>): CriuRequestOptions {
    const { lsmProfile, lsmMountContext, tcpClose, stdio } = this.#options
    const { inherited, joined } = this.#namespaces
    return {
      ...commonOptions(this.#options, LOG, this.#decision.spec),
      ...this.#folders.descriptors,
      root,
      rstSibling: true,
      evasiveDevices: true,
      extMnt,
      tcpClose: tcpClose === true,
      inheritFd: [
        ...streamsToInherit(this.#folders.imagePath, stdio),
        ...inherited.map((key, index) => ({ key, fd: fdOf(index) })),
      ],
      joinNs: [...joined],
      ...(lsmProfile ? { lsmProfile } : {}),
      ...(lsmMountContext ? { lsmMountContext } : {}),
    }
  }

  /** Has CRIU restore. After a failure nothing of it is left. @throws Internal with the end of its log */
  async #ask(opts: CriuRequestOptions, cgroup: Cgroup): Promise<void> {
    const { reaper, stdio, signal } = this.#options
    const streams = stdio.kind === 'fds' ? { stdio: [stdio.stdin, stdio.stdout, stdio.stderr] as const } : {}
    const criu = Criu.start(reaper, { ...streams, files: this.#namespaces.files })
    let stopped: Promise<void> | undefined
    const stop = (): void => {
      stopped = criu.abort()
    }
    signal?.addEventListener('abort', stop, { once: true })
    // CRIU names the process it makes in the middle of its work
    reaper.expect()
    try {
      await requireVersion(criu, this.#abilities())
      await this.#enterCgroup(cgroup, criu.pid)
      failpoint('restore:asked')
      const ask = { ...opts, cgRoot: cgroupRoots(criu.pid) }
      await this.#converse(criu, ask)
      failpoint('restore:done')
    } catch (error) {
      await (stopped ?? criu.abort())
      refuseAborted(signal, `cannot restore container "${this.#options.id}"`)
      throw error
    } finally {
      signal?.removeEventListener('abort', stop)
      if (this.#process === undefined) reaper.forget()
    }
  }

  async #converse(criu: Criu, opts: CriuRequestOptions): Promise<void> {
    try {
      const response = await criu.ask({ type: CriuRequestType.RESTORE, opts }, (at) => this.#notified(at))
      if (!response.success) throw refusalOf(response)
      const failed = await criu.end()
      if (failed !== undefined) throw new RuntimeError('Internal', `criu failed: ${failed}`)
    } catch (error) {
      if (error instanceof RuntimeError && error.detail.source === 'hook') throw error
      throw criuFailure('criu restore', error, this.#folders.logPath)
    }
  }

  #abilities(): readonly CriuAbility[] {
    const { lsmProfile, lsmMountContext } = this.#options
    return [
      ...this.#namespaces.abilities,
      ...(lsmProfile || lsmMountContext ? (['a label of a security module'] as const) : []),
    ]
  }

  async #notified({ script, pid, fd }: Notified): Promise<void> {
    this.#logger.debug({ script, pid }, 'criu has reached a step')
    if (script === 'orphan-pts-master' && fd !== undefined) this.#takeTerminal(fd)
    else fd?.close()
    if (script === 'setup-namespaces') await this.#runHooks(pid)
    if (script === 'post-restore') this.#adopt(pid)
  }

  #takeTerminal(master: OwnedFd): void {
    const socket = this.#consoleSocket
    if (this.#options.stdio.kind !== 'terminal') {
      master.close()
      throw new RuntimeError('FailedPrecondition', 'the saved processes have a terminal, and none was asked for')
    }
    // further terminals are of processes whose caller has gone
    if (this.#hasTerminal) master.close()
    else if (socket === undefined) this.#console = master
    else {
      using sent = master
      sendFd(socket.fd, Buffer.from('/dev/ptmx'), sent.fd)
    }
    this.#hasTerminal = true
  }

  async #runHooks(pid: number): Promise<void> {
    this.#begun = true
    this.#claim.madeProcess(pid)
    const { bundle, spec } = this.#decision
    const state = ociState({ id: this.#options.id, bundle, spec, pid }, 'creating')
    const { signal } = this.#options
    for (const name of ['prestart', 'createRuntime'] as const) {
      await runHooks({ name, hooks: spec.hooks[name], state, logger: this.#logger, signal, journal: this.#claim.hooks })
    }
  }

  /** The processes are as they were, and still wait: the state is written before any of them runs. */
  #adopt(pid: number): void {
    const { root, id, reaper } = this.#options
    const { bundle, spec, rootfs, facts } = this.#decision
    this.#process = reaper.adopt(pid)
    const startTime = processStat(pid)?.startTime
    if (startTime === undefined) throw new RuntimeError('FailedPrecondition', 'the restored process has ended already')
    this.#state = {
      id,
      pid,
      startTime,
      created: new Date().toISOString(),
      bundle,
      rootfs,
      rootless: facts.rootless,
      // a command that ends a killed restore finds the mount by it
      made: { ...madeHow(this.#options), rootMount: { path: this.#rootPoint, before: [] } },
      cgroupPaths: this.#cgroup?.paths ?? {},
      ...(this.#cgroup?.unit === undefined ? {} : { cgroupUnit: this.#cgroup.unit }),
      namespacePaths: Object.fromEntries(NAMESPACES.map(({ name, file }) => [name, `/proc/${pid}/ns/${file}`])),
    }
    saveState(
      root,
      this.#state,
      keepSpec(id, spec, { bundle, rootfs, rootless: facts.rootless, unit: unitFor(this.#options, spec) }),
    )
    this.#claim.complete(this.#state)
    failpoint('restore:saved')
  }

  #restored(): { readonly state: SavedState; readonly process: Child } {
    if (this.#state !== undefined && this.#process !== undefined) {
      return { state: this.#state, process: this.#process }
    }
    throw new RuntimeError('Internal', 'criu has restored no process')
  }

  /** Kills what CRIU has made. Its children are this process's, known or not. */
  async #endProcesses(cgroup: Cgroup): Promise<void> {
    const { reaper } = this.#options
    const pids = (await childrenIn(cgroup)).filter((pid) => pid !== this.#process?.pid)
    const children = pids.map((pid) => {
      reaper.expect()
      return reaper.adopt(pid)
    })
    if (this.#process !== undefined) children.push(this.#process)
    await cgroup.killAll(SIGKILL)
    for (const child of children) {
      child.kill(SIGKILL)
      await child.exited
    }
  }
}
