/**
 * The cgroup of a container as a unit of systemd, which makes it and moves the container's first process into it. What
 * systemd does not know is set in files. Below the unit everything is the container's (Delegate). Invariants: a unit is
 * stopped only if this container's create has started it; a failed start leaves no unit that systemd still has to try.
 */
import { lstatSync } from 'node:fs'
import { posix } from 'node:path'
import { RuntimeError } from '../../errors.ts'
import type { Logger } from '../../logger.ts'
import type { LinuxResources } from '../../spec/types.ts'
import type { DbusProperty } from '../../sys/dbus-value.ts'
import { applyWrites } from '../apply.ts'
import { attachDevicePolicy } from '../ebpf.ts'
import { cgroupError, readText, readTextIfAny, writeTextAside } from '../files.ts'
import { CGROUP_ROOT, type CgroupMode, detectMode, displayName, parseOwnCgroups, UNIFIED } from '../hierarchy.ts'
import { type CgroupName, type CgroupPaths, type CgroupUnit, devicePolicyOf, resourcesOr } from '../request.ts'
import { type CurrentLimits, toV1Writes, toV2Writes } from '../resources.ts'
import { makeDirectory } from '../tree.ts'
import { currentDevices, fillCpuset, placesV1, setDevices, v1Target } from '../v1.ts'
import { makeParents, v2Target } from '../v2.ts'
import { annotatedProperties } from './annotations.ts'
import { type ConnectOptions, Systemd } from './connection.ts'
import { deviceProperties } from './device-properties.ts'
import { joinProperties, limitProperties, type PropertyInput, unitProperties } from './properties.ts'
import { unitPath, unitPlace } from './unit-name.ts'

/** How long a unit that may have been started in vain is given to be stopped. */
const UNDO_MS = 3_000

/** A unit that is decided, and not made yet. */
export interface PlannedUnit {
  readonly id: string
  readonly unit: CgroupUnit
  readonly slice: string
  readonly paths: CgroupPaths
  readonly mode: CgroupMode
  readonly resources: LinuxResources
  readonly annotated: readonly DbusProperty[]
}

/** What a unit is decided from. */
export interface UnitRequest extends CgroupName {
  readonly resources: LinuxResources | undefined
  readonly annotations: Readonly<Record<string, string>>
  /** the manager of this user makes it, instead of the machine's */
  readonly user: boolean
}

/** Whether systemd is the init of this machine. */
function isBooted(): boolean {
  return lstatSync('/run/systemd/system', { throwIfNoEntry: false })?.isDirectory() === true
}

/**
 * Decides the unit of a container. Errors in the spec are found before anything is made.
 * @throws InvalidArgument; FailedPrecondition where systemd does not run
 */
export async function planUnit(request: UnitRequest, signal?: AbortSignal): Promise<PlannedUnit> {
  const { id, path, user, annotations } = request
  const mode = detectMode()
  const resources = resourcesOr(request.resources)
  if (!isBooted()) {
    const message = 'systemd not running on this host, cannot use systemd cgroups manager'
    throw new RuntimeError('FailedPrecondition', message)
  }
  if (user && mode !== 'v2') {
    const message = "cgroup v2 not enabled on this host, can't use systemd (rootless) as cgroups manager"
    throw new RuntimeError('FailedPrecondition', message)
  }
  const place = unitPlace(path, id, user)
  const annotated = annotatedProperties(annotations)
  devicePolicyOf(resources)
  if (mode === 'v2') toV2Writes(resources)
  else toV1Writes(resources)
  const inner = (user ? await groupOfManager(place.name, signal) : '') + unitPath(place)
  const paths = mode === 'v2' ? { [UNIFIED]: CGROUP_ROOT + inner } : placesV1({ path: inner, id }, mode).paths
  return { id, unit: { name: place.name, user }, slice: place.slice, paths, mode, resources, annotated }
}

async function groupOfManager(name: string, signal: AbortSignal | undefined): Promise<string> {
  using systemd = new Systemd({ user: true, what: `create systemd unit "${name}"`, signal })
  return await systemd.controlGroup()
}

function mainOf(paths: CgroupPaths): string {
  return paths[UNIFIED] ?? paths['devices'] ?? Object.values(paths)[0] ?? ''
}

/** Whether io.bfq.weight is the file of a weight: without its scheduler, the kernel has none in any cgroup. */
function hasBfq(dir: string): boolean {
  return readTextIfAny(`${posix.dirname(dir)}/io.bfq.weight`) !== undefined
}

/**
 * Makes the unit with a process in it, and sets all limits.
 * @throws FailedPrecondition when there is a unit of this name; what systemd or the kernel says
 */
export async function makeUnit(
  planned: PlannedUnit,
  {
    pid,
    signal,
    onStarted,
  }: { readonly pid: number; readonly signal: AbortSignal | undefined; readonly onStarted: () => void },
): Promise<void> {
  const { unit, slice, id, mode, resources, paths } = planned
  const v2 = mode === 'v2'
  await startUnit(planned, { pid, signal }, (version) => {
    const input = { version, v2, bfq: v2 && hasBfq(mainOf(paths)) }
    const devices = unit.user ? [] : deviceProperties(devicePolicyOf(resources), version)
    return joinProperties(
      unitProperties({ name: unit.name, slice, id, pid }, input),
      planned.annotated,
      devices,
      limitProperties(resources, input),
    )
  })
  onStarted()
  if (v2) await fillV2(planned, pid)
  else await fillV1(planned, pid)
}

async function startUnit(
  { unit }: PlannedUnit,
  { pid, signal }: { readonly pid: number; readonly signal: AbortSignal | undefined },
  properties: (version: number) => DbusProperty[],
): Promise<void> {
  const what = `create systemd unit "${unit.name}"`
  using systemd = new Systemd({ user: unit.user, what, signal })
  const version = await systemd.version()
  try {
    await systemd.start(unit.name, properties(version), () => isInUnit(pid, unit.name))
  } catch (error) {
    const another = error instanceof RuntimeError && error.code === 'FailedPrecondition'
    if (!another) await forget({ user: unit.user, what }, unit.name)
    throw error
  }
}

/** Stops a unit that may or may not have been started; the failure that led here is the one to report. */
async function forget({ user, what }: Pick<ConnectOptions, 'user' | 'what'>, name: string): Promise<void> {
  using systemd = new Systemd({ user, what, boundMs: UNDO_MS })
  try {
    await systemd.stop(name)
  } catch {
    // systemd does not answer, or there is no such unit
  }
}

/** Whether a process is in the cgroup of a unit of this name. */
function isInUnit(pid: number, name: string): boolean {
  const own = parseOwnCgroups(readTextIfAny(`/proc/${pid}/cgroup`) ?? '')
  return [own.get(UNIFIED), own.get('name=systemd')].some(
    (path) => posix.basename(path ?? '').replace(/^_/, '') === name,
  )
}

async function fillV2({ unit, paths, resources }: PlannedUnit, pid: number): Promise<void> {
  const dir = mainOf(paths)
  const name = displayName(UNIFIED, dir)
  if (unit.name.endsWith('.slice')) await moveProcess(dir, pid, name)
  // systemd does not know every controller
  makeParents(posix.dirname(dir))
  applyWrites(toV2Writes(resources), v2Target(dir, true))
  attachDevicePolicy(devicePolicyOf(resources), { dir, name, fresh: true })
}

async function fillV1({ id, paths, mode, resources }: PlannedUnit, pid: number): Promise<void> {
  const name = displayName('devices', mainOf(paths))
  const { devices, cpuset } = paths
  const inner = displayName('devices', mainOf(paths))
  const { mountpoints } = placesV1({ path: inner, id }, mode)
  const made: string[] = []
  for (const dir of mountpoints.keys()) {
    try {
      if (makeDirectory(dir)) made.push(dir)
    } catch (error) {
      throw cgroupError(`cannot create cgroup "${name}"`, error, { call: 'mkdir', path: dir })
    }
  }
  if (cpuset !== undefined) {
    const place = { dir: cpuset, mountpoint: mountpoints.get(cpuset) ?? '', fresh: made.includes(cpuset), name }
    fillCpuset(place, resources)
  }
  if (devices !== undefined) setDevices(devices, { from: currentDevices(devices), to: devicePolicyOf(resources) }, name)
  applyWrites(toV1Writes(resources), v1Target(paths, false))
  for (const dir of mountpoints.keys()) await moveProcess(dir, pid, name)
}

/** Moves a process to a directory, unless it is there: on v1 the kernel makes each move wait for milliseconds. */
async function moveProcess(dir: string, pid: number, name: string): Promise<void> {
  const file = `${dir}/cgroup.procs`
  try {
    if (readText(file).split('\n').includes(String(pid))) return
    await writeTextAside(file, String(pid))
  } catch (error) {
    throw cgroupError(`cannot move process ${pid} to cgroup "${name}"`, error, { call: 'write', path: file })
  }
}

/** Tells systemd of changed limits, whose files are set already. */
export async function changeUnit(
  { name, user }: CgroupUnit,
  resources: LinuxResources,
  { paths, current }: { readonly paths: CgroupPaths; readonly current: CurrentLimits },
): Promise<void> {
  using systemd = new Systemd({ user, what: `change the limits of systemd unit "${name}"` })
  const v2 = Object.keys(paths).every((key) => key === UNIFIED)
  const version = await systemd.version()
  const input: PropertyInput = { version, v2, bfq: v2 && hasBfq(mainOf(paths)), current }
  const rules = resources.devices.length > 0 && !user
  const properties = [
    ...(rules ? deviceProperties(devicePolicyOf(resources), version) : []),
    ...limitProperties(resources, input),
  ]
  if (properties.length > 0) await systemd.setProperties(name, properties)
}

/** Moves a process into the unit's cgroup, or one below it, by systemd: the runtime itself may not. */
export async function attachToUnit(
  { name, user }: CgroupUnit,
  { below, pid, signal }: { readonly below: string; readonly pid: number; readonly signal?: AbortSignal },
): Promise<void> {
  using systemd = new Systemd({ user, what: `move process ${pid} to systemd unit "${name}"`, signal })
  await systemd.attach(name, below, pid)
}

/**
 * Stops the unit of a container whose processes have ended. Where systemd cannot be asked, its directory is removed all
 * the same: systemd drops a unit whose cgroup is empty.
 */
export async function stopUnit({ name, user }: CgroupUnit, logger: Logger): Promise<void> {
  using systemd = new Systemd({ user, what: `stop systemd unit "${name}"` })
  try {
    await systemd.stop(name)
  } catch (error) {
    if (!(error instanceof RuntimeError)) throw error
    logger.warn({ unit: name, error: error.message }, 'cannot stop the systemd unit of a container')
  }
}
