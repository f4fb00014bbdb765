/**
 * A container's state on disk, in the folder <root>/<id>/:
 * - state.json: runc's fields and this runtime's own; it marks a complete container.
 * - config.json: the spec that the container was made from, with the limits that were set since.
 * - exec.fifo: there until the program was started.
 * A folder that runc made can be read too. Invariants: state.json appears by rename, so a reader sees a whole one or
 * none; a state of an earlier boot is never taken for a live container.
 */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import type { CgroupUnit } from '../cgroup/request.ts'
import { RuntimeError } from '../errors.ts'
import { hostFacts } from '../host/facts.ts'
import { defined } from '../spec/fields.ts'
import { parseJson } from '../spec/load.ts'
import { stringifyJson } from '../spec/stringify.ts'
import type { Spec } from '../spec/types.ts'
import { makeDirectories } from '../sys/directory.ts'
import { errnoCode, errnoOf, errnoWords, syscallError } from '../sys/errno.ts'
import { EEXIST, ENOENT } from '../sys/linux.ts'
import { removeFile, removeTree } from '../sys/remove.ts'
import { intelRdtFields, readIntelRdtFields, type SavedIntelRdt } from './intel-rdt.ts'
import { type RootMount, readRootMount } from './root-mount.ts'
import { type RuncWhere, readRuncConfig, runcConfig } from './runc-state.ts'
import { damagedFile, isOnDisk, MAX_STATE_BYTES, readStateFile } from './state-file.ts'

const STATE_VERSION = 1
const ID_PATTERN = /^[A-Za-z0-9_+.-]+$/
/** an id is the name of a folder: NAME_MAX */
const MAX_ID_BYTES = 255
/** the kernel's PID_MAX_LIMIT */
const MAX_PID = 2 ** 22

/** How a container was made: what its create options and the creating process leave in its state. */
export interface MadeHow {
  /** the process that made it */
  readonly monitor?: { readonly pid: number; readonly startTime: bigint }
  readonly consoleSocket?: string
  readonly pidFile?: string
  readonly monitorCgroup?: string
  /** feature gates that were off */
  readonly featuresOff?: readonly string[]
  /** of a container without a mount namespace: the mounts at its root */
  readonly rootMount?: RootMount
  /** targets of the links in /proc/self/fd for init's streams 0, 1 and 2; kept for programs that look for them */
  readonly streams?: readonly string[]
}

/** The state of a container, as processes that work on it share it. */
export interface SavedState {
  readonly id: string
  readonly pid: number
  readonly startTime: bigint
  /** RFC 3339 time of creation */
  readonly created: string
  readonly bundle: string
  readonly rootfs: string
  readonly cgroupPaths: Readonly<Record<string, string>>
  /** set where systemd has made the cgroup */
  readonly cgroupUnit?: CgroupUnit
  readonly namespacePaths: Readonly<Record<string, string>>
  /** the runtime was not root of the machine when it made the container */
  readonly rootless: boolean
  readonly made: MadeHow
  /** the groups that its processes are in, where the spec asks for Intel RDT */
  readonly intelRdt?: SavedIntelRdt | undefined
  /** set for a container of another runtime with this layout: a config.json made from its state, not its whole spec */
  readonly foreign?: string
}

/** Refuses an id that could name anything but a folder directly below the root. @throws InvalidArgument */
function checkId(id: string): void {
  if (id.length === 0 || id.length > MAX_ID_BYTES || !ID_PATTERN.test(id) || id.startsWith('.')) {
    throw new RuntimeError('InvalidArgument', `invalid container ID format: "${id}"`)
  }
}

/** The folder of one container. */
export function stateDir(root: string, id: string): string {
  checkId(id)
  return join(root, id)
}

/** A path inside a container's folder, or the folder itself. @throws InvalidArgument for a name that leads out of it */
export function runtimePath(root: string, id: string, ...names: readonly string[]): string {
  const bad = names.find((name) => name === '' || name === '.' || name === '..' || /[/\0]/.test(name))
  if (bad !== undefined)
    throw new RuntimeError('InvalidArgument', `invalid name in a container's folder: ${JSON.stringify(bad)}`)
  return join(stateDir(root, id), ...names)
}

/** Path of the saved config.json of a container. */
export function configFilePath(root: string, id: string): string {
  return runtimePath(root, id, 'config.json')
}

/** Path of a container's exec fifo. */
export function fifoPath(root: string, id: string): string {
  return join(stateDir(root, id), 'exec.fifo')
}

let bootIdText: string | undefined

/** The kernel's id of this boot. A pid in a state of another boot does not name a process of this one. */
export function bootId(): string {
  bootIdText ??= readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
  return bootIdText
}

function makeRoot(root: string): void {
  makeDirectories(root, 0o700)
  // the umask masks the mode of mkdir(2). Old files below XDG_RUNTIME_DIR may be removed unless the sticky bit is set
  chmodSync(root, hostFacts().rootless ? 0o1700 : 0o700)
}

/**
 * Claims an id by making its folder, whose path it returns. Of two creators only one succeeds in mkdir(2).
 * @throws AlreadyExists; what errnoCode says where the root cannot be made or written
 */
export function claimState(root: string, id: string): string {
  const dir = stateDir(root, id)
  try {
    if (!existsSync(root)) makeRoot(root)
    mkdirSync(dir, { mode: 0o700 })
    // the umask has masked the mode of mkdir(2)
    chmodSync(dir, 0o700)
  } catch (error) {
    const errno = errnoOf(error)
    if (errno !== EEXIST) {
      throw new RuntimeError(errnoCode(errno), `cannot make the state folder "${dir}": ${errnoWords(errno)}`, {
        cause: error,
      })
    }
    throw new RuntimeError('AlreadyExists', `cannot create container "${id}": container with given ID already exists`, {
      cause: error,
    })
  }
  return dir
}

/** The texts of a spec that the state folder keeps. They are made before anything else, and short enough to be read. */
export interface KeptSpec {
  /** text of config.json */
  readonly config: string
  /** text of state.json's field `config`, for runc */
  readonly facts: string
}

/** Room for the fields of state.json other than `config`: paths and identities. */
const ROOM_BYTES = 1024 * 1024

/** Makes the texts to keep of a spec. @throws InvalidArgument for one that is too large to be read back */
export function keepSpec(id: string, spec: Spec, where: RuncWhere): KeptSpec {
  const kept = { config: stringifyJson(spec), facts: JSON.stringify(runcConfig(spec, where)) }
  const largest = Math.max(...Object.values(kept).map((text) => Buffer.byteLength(text)))
  if (largest <= MAX_STATE_BYTES - ROOM_BYTES) return kept
  const why = `${largest} bytes, ${MAX_STATE_BYTES - ROOM_BYTES} are possible`
  throw new RuntimeError(
    'InvalidArgument',
    `cannot create container "${id}": its configuration is too large to be kept: ${why}`,
  )
}

/** Writes the spec, then the state. @throws what writing met */
export function saveState(root: string, state: SavedState, { config, facts }: KeptSpec): void {
  const dir = stateDir(root, state.id)
  const json = JSON.stringify({
    version: STATE_VERSION,
    id: state.id,
    init_process_pid: state.pid,
    // a JSON number, as runc writes it; exact, since clock ticks since boot stay far below 2^53
    init_process_start: Number(state.startTime),
    created: state.created,
    rootless: state.rootless,
    cgroup_paths: state.cgroupPaths,
    ...(state.cgroupUnit === undefined ? {} : { cgroup_unit: state.cgroupUnit }),
    namespace_paths: state.namespacePaths,
    boot_id: bootId(),
    bundle: state.bundle,
    rootfs: state.rootfs,
    ...intelRdtFields(state.intelRdt),
    ...madeFields(state.made),
  })
  writeFileSync(join(dir, 'config.json'), config, { mode: 0o600 })
  stageFile(dir, 'state.json', `${json.slice(0, -1)},"config":${facts}}`).commit()
}

/** A text on disk that readers see once it is committed. Disposing it without a commit removes it. */
export interface StagedFile extends Disposable {
  commit(): void
}

/** Stages a changed spec of a complete container. @throws InvalidArgument when it is too large; what writing met */
export function stageSpec(root: string, id: string, spec: Spec): StagedFile {
  return stageFile(stateDir(root, id), 'config.json', stringifyJson(spec))
}

/** The commit is a rename: a reader sees the old text or the new one. The caller's lock excludes a second writer. */
function stageFile(dir: string, name: string, text: string): StagedFile {
  const bytes = Buffer.byteLength(text)
  const path = join(dir, name)
  if (bytes > MAX_STATE_BYTES) {
    const why = `${bytes} bytes are more than the ${MAX_STATE_BYTES} that are read`
    throw new RuntimeError('InvalidArgument', `cannot write "${path}": ${why}`)
  }
  let temporary: string | undefined = join(dir, `.${name}`)
  try {
    writeFileSync(temporary, text, { mode: 0o600 })
  } catch (error) {
    throw syscallError(`cannot write "${path}"`, { call: 'write', errno: errnoOf(error), path })
  }
  return {
    commit() {
      if (temporary !== undefined) renameSync(temporary, path)
      temporary = undefined
    },
    [Symbol.dispose]() {
      if (temporary !== undefined) removeFile(temporary)
    },
  }
}

/** The error for a container that does not exist, with the reason if there is more to say. */
export function notFound(id: string, reason?: string): RuntimeError {
  return new RuntimeError('NotFound', `container does not exist: "${id}"${reason === undefined ? '' : `: ${reason}`}`)
}

/** Whether a container is complete: its state is on disk. */
export function hasState(root: string, id: string): boolean {
  return isOnDisk(join(stateDir(root, id), 'state.json'))
}

function record(value: unknown): Record<string, string> {
  const entries = typeof value === 'object' && value !== null ? Object.entries(value) : []
  return Object.fromEntries(entries.filter((e): e is [string, string] => typeof e[1] === 'string'))
}

/** Reads the state of a container. @throws NotFound when there is none; Internal when it is damaged */
export function readState(root: string, id: string): SavedState {
  const text = readStateFile(stateDir(root, id), 'state.json')
  if (text === undefined) throw notFound(id)
  const damaged = (why: string): RuntimeError => damagedFile(join(stateDir(root, id), 'state.json'), why)
  let json: unknown
  try {
    json = parseJson(text)
  } catch {
    throw damaged('it is not JSON')
  }
  if (typeof json !== 'object' || json === null) throw damaged('it is not an object')
  const fields: Record<string, unknown> = { ...json }
  const { version, init_process_pid: pid, init_process_start: start, created } = fields
  // runc writes no version; this runtime has always written one
  const foreign = version === undefined ? readRuncConfig(fields['config']) : undefined
  if (foreign === undefined && version !== STATE_VERSION) {
    throw damaged(`its version is ${JSON.stringify(version)}, and this runtime knows only ${STATE_VERSION}`)
  }
  const { bundle, rootfs } = foreign ?? fields
  const unit = foreign === undefined ? readUnit(fields['cgroup_unit']) : foreign.unit
  if (!isProcess(pid, start)) throw damaged('its process is missing')
  if (typeof fields['cgroup_paths'] !== 'object') throw damaged('its cgroups are missing')
  // after a reboot the pid means nothing: -1 is never alive
  const stale = typeof fields['boot_id'] === 'string' && fields['boot_id'] !== bootId()
  return {
    id,
    pid: stale ? -1 : Number(pid),
    startTime: BigInt(Number(start)),
    created: typeof created === 'string' ? created : '',
    bundle: typeof bundle === 'string' ? bundle : '',
    rootfs: typeof rootfs === 'string' ? rootfs : '',
    // no cgroup outlives its boot: one of this name would be another program's
    cgroupPaths: stale ? {} : record(fields['cgroup_paths']),
    ...(stale || unit === undefined ? {} : { cgroupUnit: unit }),
    namespacePaths: record(fields['namespace_paths']),
    rootless: fields['rootless'] === true,
    made: foreign === undefined ? readMade(fields, stale) : {},
    // no group outlives its boot
    intelRdt: stale ? undefined : readIntelRdtFields(fields),
    ...(foreign === undefined ? {} : { foreign: foreign.document }),
  }
}

/** The field as a unit of systemd; undefined for anything else. */
export function readUnit(value: unknown): CgroupUnit | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { name, user }: { name?: unknown; user?: unknown } = value
  if (typeof name !== 'string' || !/^[^/\s]+\.(scope|slice)$/.test(name)) return undefined
  return { name, user: user === true }
}

/** Whether two fields can be a pid and a start time. runc writes pid 0 for a container without a process. */
export function isProcess(pid: unknown, start: unknown): boolean {
  return Number.isSafeInteger(pid) && Number.isSafeInteger(start) && Number(pid) <= MAX_PID && Number(start) >= 0
}

/** As fields of state.json. `external_descriptors` is runc's name. */
function madeFields({
  monitor,
  consoleSocket,
  pidFile,
  monitorCgroup,
  featuresOff,
  streams,
  rootMount,
}: MadeHow): object {
  return {
    ...(rootMount === undefined ? {} : { root_mount: rootMount }),
    ...(streams === undefined ? {} : { external_descriptors: streams }),
    ...(monitor === undefined ? {} : { monitor_pid: monitor.pid, monitor_start: Number(monitor.startTime) }),
    ...(consoleSocket === undefined ? {} : { console_socket: consoleSocket }),
    ...(pidFile === undefined ? {} : { pid_file: pidFile }),
    ...(monitorCgroup === undefined ? {} : { monitor_cgroup: monitorCgroup }),
    ...(featuresOff === undefined || featuresOff.length === 0 ? {} : { features_off: featuresOff }),
  }
}

function readMade(fields: Readonly<Record<string, unknown>>, stale: boolean): MadeHow {
  const text = (name: string): string | undefined => {
    const value = fields[name]
    return typeof value === 'string' ? value : undefined
  }
  const texts = (name: string): readonly string[] | undefined => {
    const value = fields[name]
    return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : undefined
  }
  const { monitor_pid: pid, monitor_start: start } = fields
  const known = !stale && typeof pid === 'number' && typeof start === 'number'
  return defined({
    monitor: known ? { pid, startTime: BigInt(start) } : undefined,
    consoleSocket: text('console_socket'),
    pidFile: text('pid_file'),
    monitorCgroup: text('monitor_cgroup'),
    featuresOff: texts('features_off'),
    streams: texts('external_descriptors'),
    // no mount outlives its boot
    rootMount: stale ? undefined : readRootMount(fields['root_mount']),
  })
}

/** The text of the kept spec. @throws NotFound; Internal when only the spec is missing */
export function readConfig(root: string, id: string): string {
  const text = readStateFile(stateDir(root, id), 'config.json')
  if (text !== undefined) return text
  // removeState removes the state first: the container is being removed
  if (!hasState(root, id)) throw notFound(id)
  throw damagedFile(join(stateDir(root, id), 'config.json'), 'it is missing')
}

/** Name of the user who owns a container's folder; "#" and the uid for one without a name; "" without a folder. */
export function ownerOf(root: string, id: string): string {
  const uid = statSync(stateDir(root, id), { throwIfNoEntry: false })?.uid
  if (uid === undefined) return ''
  if (uid === 0) return 'root'
  try {
    const line = new RegExp(`^([^:]*):[^:]*:${uid}:`, 'm').exec(readFileSync('/etc/passwd', 'utf8'))
    return line?.[1] ?? `#${uid}`
  } catch {
    // without the file no user has a name
    return `#${uid}`
  }
}

/**
 * Where the root of a container is bound while CRIU restores it. It lies beside the containers' folders, which are
 * removed with their content.
 */
export function restorePoint(root: string, id: string): string {
  checkId(id)
  return resolve(root, '.criu', id)
}

/** Removes that place, which a killed restore leaves. One that is in use, or has gone, is left as it is. */
export function removeRestorePoint(root: string, id: string): void {
  const point = restorePoint(root, id)
  for (const folder of [point, dirname(point)]) {
    try {
      rmdirSync(folder)
    } catch {
      // mounted, used by another restore, or gone
    }
  }
}

/** Removes a container's folder, if it exists. @throws what the kernel says, with the path that stays */
export function removeState(root: string, id: string): void {
  try {
    // first, so that an interrupted removal does not leave a complete container without its spec
    removeTree(join(stateDir(root, id), 'state.json'))
    removeTree(stateDir(root, id))
    removeRestorePoint(root, id)
  } catch (error) {
    if (!(error instanceof RuntimeError)) throw error
    const { code, detail, message } = error
    throw new RuntimeError(code, `cannot delete the state of container "${id}": ${message}`, { detail, cause: error })
  }
}

/** The ids with a folder below the root, sorted, complete or not. A root that does not exist has none. */
export function listIds(root: string): string[] {
  try {
    return readdirSync(root, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && ID_PATTERN.test(entry.name) && !entry.name.startsWith('.'))
      .map((entry) => entry.name)
      .sort()
  } catch (error) {
    if (errnoOf(error) === ENOENT) return []
    throw syscallError(`cannot list the containers in "${root}"`, {
      call: 'scandir',
      errno: errnoOf(error),
      path: root,
    })
  }
}
