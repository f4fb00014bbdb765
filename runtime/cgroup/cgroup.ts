/**
 * The cgroup of one container, on every version: its place, its processes, its limits, its counters, its end. The
 * version follows from the paths alone. Only the key "" means v2; controllers mean v1. With "" beside them the host is
 * hybrid: its v2 tree has no limits but can kill. Invariant: only directories below /sys/fs/cgroup that were made for
 * this container, or loaded as such, are written to or removed.
 */

import { existsSync } from 'node:fs'
import { posix } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { RuntimeError } from '../errors.ts'
import { type Logger, silentLogger } from '../logger.ts'
import type { LinuxResources } from '../spec/types.ts'
import { errnoOf } from '../sys/errno.ts'
import { getpid } from '../sys/libc.ts'
import { ENODEV, ENOENT, EOPNOTSUPP, SIGKILL } from '../sys/linux.ts'
import { signalListed } from '../sys/pids.ts'
import type { Undo } from './apply.ts'
import { changeV1, changeV2, currentV2 } from './change.ts'
import { delegateCgroup } from './delegate.ts'
import { cgroupError, writeTextAside } from './files.ts'
import { CGROUP_ROOT, detectMode, displayName, UNIFIED } from './hierarchy.ts'
import { oomKillCount, watchOom } from './oom.ts'
import type { CgroupName, CgroupPaths, CgroupUnit, FreezerState } from './request.ts'
import type { CgroupStats } from './stats.ts'
import { readStatsV1 } from './stats-v1.ts'
import { readStatsV2 } from './stats-v2.ts'
import type { PlannedUnit } from './systemd/unit.ts'
import { pathOfUnit } from './systemd/unit-name.ts'
import { listProcesses, processesIn, removeTrees } from './tree.ts'
import { UnitOomCount } from './unit-oom.ts'
import { createV1, freezerStateV1, freezeV1, placesV1, thawV1 } from './v1.ts'
import { createV2, freezerStateV2, freezeV2, placeV2, thawV2 } from './v2.ts'

export { type CgroupMode, detectMode, type Hierarchy, readHierarchies } from './hierarchy.ts'
export type { CgroupStats } from './stats.ts'

const NO_CGROUP = 'the container: it has no cgroup of its own'
const KILL_ROUNDS = 10
const KILL_ROUND_MS = 1

/**
 * How a process enters a cgroup: cloned into a directory (v2), or by the tasks file of every v1 hierarchy. `dir` is a
 * hybrid host's v2 tree beside those. Or systemd moves it, while it waits: into directories that need not exist before.
 */
export type CgroupJoin = (
  | { readonly kind: 'placed'; readonly dirs: readonly string[] }
  | { readonly kind: 'dir'; readonly path: string }
  | { readonly kind: 'tasks'; readonly paths: readonly string[]; readonly dir?: string }
  | { readonly kind: 'none' }
) & {
  /** tasks files of Intel RDT groups, which a process enters in the same way; by default none */
  readonly rdt?: readonly string[]
}

/** Options of Cgroup.create. */
export interface CgroupCreateOptions {
  /**
   * linux.cgroupsPath: an absolute path counts from the mount point, a relative one from the runtime's own cgroup; by
   * default the id
   */
  readonly path?: string | undefined
  readonly id: string
  readonly resources: LinuxResources | undefined
  readonly logger?: Logger | undefined
  /** called with the directories, and the unit that they are, before any of them is made */
  readonly onPaths?: (paths: CgroupPaths, unit?: CgroupUnit) => void
  /** do without a cgroup that the runtime may not make, if the spec asks for no path and no limits */
  readonly tolerant?: boolean
}

/** Options of Cgroup.plan. */
export interface CgroupPlanOptions extends CgroupCreateOptions {
  /** those of the form `org.systemd.property.NAME` are further properties of the unit */
  readonly annotations: Readonly<Record<string, string>>
  /** systemd's manager of this user makes it, instead of the machine's */
  readonly user: boolean
  readonly signal?: AbortSignal | undefined
}

/** The code for systemd is loaded by the containers that it is for. */
const systemdUnits = () => import('./systemd/unit.ts')

/** The cgroup of a container. */
export class Cgroup {
  /** Absolute directories by controller, "name=systemd" and "" (v2) among them; what state.json keeps. */
  readonly paths: CgroupPaths
  /** The unit of systemd that it is; undefined where this runtime makes the directories itself. */
  readonly unit: CgroupUnit | undefined
  readonly #logger: Logger
  /** a unit that is made when there is a process for it */
  readonly #planned: PlannedUnit | undefined
  #admission: Promise<void> | undefined
  /** systemd has started the planned unit, whatever failed afterwards */
  #started = false
  /** of a unit on v2, which systemd may remove before its count is read */
  readonly #unitOom: UnitOomCount | undefined

  private constructor(
    paths: CgroupPaths,
    logger: Logger,
    { unit, planned }: { readonly unit?: CgroupUnit | undefined; readonly planned?: PlannedUnit } = {},
  ) {
    this.paths = paths
    this.unit = unit
    this.#logger = logger
    this.#planned = planned
    this.#unitOom = unit === undefined || this.#v2 === undefined ? undefined : new UnitOomCount(this.#v2)
  }

  /**
   * Makes the cgroup and sets its limits; a failure leaves nothing behind.
   * @throws FailedPrecondition when it is in use
   */
  static create(options: CgroupCreateOptions): Cgroup {
    const logger = options.logger ?? silentLogger
    const { path, id, resources, tolerant = false, onPaths: announce = () => {} } = options
    const request = { path, id, resources, tolerant, announce }
    const mode = detectMode()
    const cgroup = new Cgroup(mode === 'v2' ? createV2(request) : createV1(request, mode), logger)
    cgroup.#warnOfIgnored(resources)
    if (!cgroup.exists) logger.debug({ container: id }, 'no permission for cgroups: the container has none of its own')
    return cgroup
  }

  /**
   * Decides a cgroup that systemd makes once there is a process for it (`admit`). Nothing is made yet.
   * @throws InvalidArgument; FailedPrecondition where systemd does not run
   */
  static async plan(options: CgroupPlanOptions): Promise<Cgroup> {
    const { path, id, resources, annotations, user, signal, logger = silentLogger } = options
    const units = await systemdUnits()
    const planned = await units.planUnit({ path, id, resources, annotations, user }, signal)
    options.onPaths?.(planned.paths, planned.unit)
    const cgroup = new Cgroup(planned.paths, logger, { unit: planned.unit, planned })
    cgroup.#warnOfIgnored(resources)
    return cgroup
  }

  /**
   * Makes a planned cgroup with its first process, and sets its limits. A second call waits for the first.
   * @throws FailedPrecondition when there is a unit of this name
   */
  admit(pid: number, signal?: AbortSignal): Promise<void> {
    const planned = this.#planned
    if (planned === undefined) return Promise.resolve()
    const onStarted = (): void => {
      this.#started = true
      this.#unitOom?.read()
    }
    this.#admission ??= systemdUnits().then((units) => units.makeUnit(planned, { pid, signal, onStarted }))
    // a failure is reported to the process that waits for it
    this.#admission.catch(() => {})
    return this.#admission
  }

  /** Moves a process of an exec to one of the directories, by systemd. */
  async attach(dir: string, pid: number, signal?: AbortSignal): Promise<void> {
    const { unit } = this
    if (unit === undefined) return
    const own = this.#v2 ?? ''
    // init may have been moved out of its own cgroup; then systemd puts the process where init began
    const below = dir.startsWith(`${own}/`) ? dir.slice(own.length) : ''
    await (await systemdUnits()).attachToUnit(unit, { below, pid, ...(signal === undefined ? {} : { signal }) })
  }

  /**
   * The existing directories of the cgroup with this name, which this process made or could have made. Empty when this
   * process is in it: then it is not a container's.
   */
  static named(name: CgroupName): CgroupPaths {
    const mode = detectMode()
    // who made it is not known: systemd puts it elsewhere
    const unit = pathOfUnit(name)
    for (const path of unit === undefined ? [name.path] : [name.path, unit]) {
      const named = { ...name, path }
      const paths = mode === 'v2' ? { [UNIFIED]: placeV2(named) } : placesV1(named, mode).paths
      const there = Object.entries(paths).filter(([, dir]) => existsSync(dir))
      const isOurs = there.some(([, dir]) => processesIn(dir).includes(getpid()))
      if (there.length > 0) return isOurs ? {} : Object.fromEntries(there)
    }
    return {}
  }

  /**
   * The cgroup of a saved state.
   * @throws InvalidArgument for a path that no container can have
   */
  static load(
    saved: Readonly<Record<string, string>>,
    logger: Logger = silentLogger,
    unit?: CgroupUnit | undefined,
  ): Cgroup {
    const v2 = Object.keys(saved).every((key) => key === UNIFIED)
    for (const path of Object.values(saved)) {
      // v1 hierarchies and the hybrid v2 tree are mounted one level down, and a mount point is never a container's
      // cgroup
      const depth = path.slice(CGROUP_ROOT.length).split('/').length - 1
      const clean = posix.normalize(path) === path && path.startsWith(`${CGROUP_ROOT}/`) && !path.endsWith('/')
      if (clean && depth >= (v2 ? 1 : 2)) continue
      const message = `cannot load cgroup "${path}": it is not a clean path of a cgroup below ${CGROUP_ROOT}`
      throw new RuntimeError('InvalidArgument', message)
    }
    return new Cgroup({ ...saved }, logger, { unit })
  }

  /** The v2 directory of a pure v2 host. */
  get #v2(): string | undefined {
    return Object.keys(this.paths).every((key) => key === UNIFIED) ? this.paths[UNIFIED] : undefined
  }

  /**
   * The directory whose list of processes counts: on v1 the hierarchy that a container has the least reason to change.
   */
  get #main(): string | undefined {
    return this.#v2 ?? this.paths['devices'] ?? Object.values(this.paths)[0]
  }

  /** Whether there is a cgroup. A container has none if its user may not make cgroups. */
  get exists(): boolean {
    return this.#main !== undefined
  }

  /** The path within its hierarchy, for messages. */
  get name(): string {
    return displayName(this.#v2 === undefined ? 'devices' : UNIFIED, this.#main ?? '')
  }

  /**
   * Lets a user of the host make cgroups below this one. It does nothing on v1, where that is not safe.
   * @throws PermissionDenied
   */
  delegate(uid: number): void {
    if (this.#v2 !== undefined) delegateCgroup(this.#v2, uid)
  }

  /** How a process enters the cgroup. */
  join(): CgroupJoin {
    if (this.#planned !== undefined) return { kind: 'placed', dirs: [...this.#directories()] }
    const v2 = this.#v2
    if (v2 !== undefined) return { kind: 'dir', path: v2 }
    const unified = this.paths[UNIFIED]
    const paths = [...this.#directories()].filter((dir) => dir !== unified).map((dir) => `${dir}/tasks`)
    if (paths.length === 0) return { kind: 'none' }
    return unified === undefined ? { kind: 'tasks', paths } : { kind: 'tasks', paths, dir: unified }
  }

  /** The directories, each once: controllers of one hierarchy share a directory. */
  #directories(): Set<string> {
    return new Set(Object.values(this.paths))
  }

  /** All processes inside, sub-cgroups included; empty once the cgroup is removed. */
  procs(): number[] {
    const main = this.#main
    return main === undefined ? [] : processesIn(main)
  }

  /** Like procs, on a thread of the pool: the kernel may take long to list thousands of processes. */
  async listProcesses(): Promise<number[]> {
    const main = this.#main
    return main === undefined ? [] : listProcesses(main)
  }

  /** Freezes every process inside. Resolves when all have stopped; when it rejects, none stays stopped. */
  async freeze(): Promise<void> {
    const v2 = this.#v2
    const { freezer } = this.paths
    if (v2 !== undefined) await freezeV2(v2, this.name)
    else if (freezer !== undefined) await freezeV1(freezer, this.name)
    else {
      const what = this.exists ? `cgroup "${this.name}": the freezer hierarchy is not mounted` : NO_CGROUP
      throw new RuntimeError('FailedPrecondition', `cannot freeze ${what}`)
    }
  }

  /** Lets the processes run again; does nothing without a freezer, which cannot have stopped them. */
  async thaw(): Promise<void> {
    const v2 = this.#v2
    const { freezer } = this.paths
    if (v2 !== undefined) await thawV2(v2, this.name)
    else if (freezer !== undefined) await thawV1(freezer, this.name)
  }

  /** Whether the cgroup was told to freeze, and has; "thawed" without a freezer. */
  freezerState(): FreezerState {
    const v2 = this.#v2
    const { freezer } = this.paths
    if (v2 !== undefined) return freezerStateV2(v2)
    return freezer === undefined ? 'thawed' : freezerStateV1(freezer)
  }

  /** Whether the cgroup is frozen or freezing. */
  isFrozen(): boolean {
    return this.freezerState() !== 'thawed'
  }

  /**
   * Sends a signal to every process inside. SIGKILL also reaches processes that are being forked during the call, and
   * frozen ones, which on v1 must be thawed to die.
   */
  async killAll(signal: number): Promise<void> {
    if (signal !== SIGKILL) {
      await this.#signalAll(signal)
      return
    }
    if (await this.#killByKernel()) {
      if (this.#v2 !== undefined) return
      // hybrid: a process that left the v2 tree is still in the v1 hierarchies
      await this.#signalAll(SIGKILL)
      if (this.isFrozen()) await this.thaw()
      return
    }
    await this.#killFrozen()
  }

  /** Signals the processes that are inside now and still are when their batch is signalled; the number inside now. */
  #signalAll(signal: number): Promise<number> {
    return signalListed(() => this.listProcesses(), signal)
  }

  /**
   * Kills all processes at once by cgroup.kill, which no fork escapes (Linux 5.14); false where that is not possible.
   */
  async #killByKernel(): Promise<boolean> {
    const unified = this.paths[UNIFIED]
    if (unified === undefined) return false
    try {
      await writeTextAside(`${unified}/cgroup.kill`, '1')
      return true
    } catch (error) {
      const errno = errnoOf(error)
      // no such file: an older kernel, or the directory is gone; a threaded cgroup answers EOPNOTSUPP
      if (errno === ENOENT || errno === ENODEV || errno === EOPNOTSUPP) return false
      throw cgroupError(`cannot kill the processes of cgroup "${this.name}"`, error, { call: 'write', path: unified })
    }
  }

  /**
   * Frozen processes cannot fork, so one round reaches all. Without a freezer, rounds follow until no process is left,
   * at most KILL_ROUNDS.
   */
  async #killFrozen(): Promise<void> {
    if ((await this.listProcesses()).length === 0) return
    let frozen = true
    try {
      await this.freeze()
    } catch (error) {
      frozen = false
      this.#logger.debug({ error: String(error) }, 'killing without the freezer')
    }
    try {
      for (let round = 1; (await this.#signalAll(SIGKILL)) > 0 && round < KILL_ROUNDS; round++) {
        // other code runs between rounds, and may have thawed the cgroup
        if (frozen && this.freezerState() === 'frozen') break
        await delay(KILL_ROUND_MS)
      }
    } finally {
      if (frozen) await this.thaw()
    }
  }

  /**
   * Changes limits. When one is refused, those already changed get their old values back. Without device rules in
   * `resources` the old rules stay.
   */
  set(resources: LinuxResources): void {
    this.#write(resources)
  }

  /** Changes limits as set() does, and tells systemd of them where the cgroup is a unit. */
  async change(resources: LinuxResources): Promise<void> {
    const { unit, paths } = this
    if (unit === undefined) {
      this.set(resources)
      return
    }
    const { changeUnit } = await systemdUnits()
    const v2 = this.#v2
    const current = v2 === undefined ? {} : currentV2(v2)
    const undo = this.#write(resources)
    // on v1, systemd denies all devices for a moment while it changes the rules
    const frozen = v2 === undefined && resources.devices.length > 0 && !this.isFrozen()
    try {
      if (frozen) await this.freeze()
      try {
        await changeUnit(unit, resources, { paths, current })
        // systemd knows some limits less exactly, and has written them as it knows them
        this.#write(resources)
      } finally {
        if (frozen) await this.thaw()
      }
    } catch (error) {
      undo()
      throw error
    }
  }

  #write(resources: LinuxResources): Undo {
    const v2 = this.#v2
    const target = { name: this.name, logger: this.#logger }
    const undo = v2 === undefined ? changeV1(this.paths, resources, target) : changeV2(v2, resources, target)
    this.#warnOfIgnored(resources)
    return undo
  }

  /** The specification calls these limits unsupported by newer kernels and lets a runtime ignore them. */
  #warnOfIgnored(resources: LinuxResources | undefined): void {
    for (const name of ['kernel', 'kernelTCP'] as const) {
      if (resources?.memory?.[name] !== undefined) this.#logger.warn({ limit: name }, 'ignored a kernel memory limit')
    }
  }

  /** All counters. */
  stats(): CgroupStats {
    const v2 = this.#v2
    return v2 === undefined ? readStatsV1(this.paths) : readStatsV2(v2)
  }

  /** How many of its processes the OOM killer has killed. */
  oomKillCount(): number {
    return this.#unitOom?.read() ?? oomKillCount(this.paths)
  }

  /**
   * Calls `onOom` with the new count after each growth of oomKillCount(), until disposed. Calls `onEnd` when no process
   * is left, which also ends the watch. Keeps no process alive.
   */
  watchOom(onOom: (count: number) => void, onEnd?: () => void): Disposable {
    const own = watchOom(this.paths, onOom, onEnd)
    if (this.#unitOom === undefined) return own
    const watches = new DisposableStack()
    watches.use(own)
    watches.use(this.#unitOom.watch())
    return watches
  }

  /** Removes the cgroup with everything below it; waits up to about a second for processes that are still exiting. */
  async remove(): Promise<void> {
    if (this.unit !== undefined && !(await this.#stopUnit(this.unit))) return
    const keys = new Map(Object.entries(this.paths).map(([key, path]) => [path, key]))
    await removeTrees(keys.keys(), (path) => displayName(keys.get(path) ?? UNIFIED, path))
  }

  /** Ends the unit; false if this object planned one that was never made: another may have its name. */
  async #stopUnit(unit: CgroupUnit): Promise<boolean> {
    if (this.#planned !== undefined) {
      await this.#admission?.catch(() => {})
      if (!this.#started) return false
    }
    await (await systemdUnits()).stopUnit(unit, this.#logger)
    return true
  }
}
