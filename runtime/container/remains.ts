/**
 * What is left of a container that cannot be loaded: its create was interrupted, or its state is damaged or of another
 * version of this runtime. The record of the create (claim.ts) and state.json name the process, the cgroups, the mount
 * on the root and the bundle. Where neither names a cgroup, the spec does. Invariants: only what one of them names is
 * removed; processes, cgroups and mounts of an earlier boot no longer exist, so those are never acted on.
 */
import { statSync } from 'node:fs'
import { uptime } from 'node:os'
import { join } from 'node:path'
import { Cgroup } from '../cgroup/cgroup.ts'
import type { CgroupPaths, CgroupUnit } from '../cgroup/request.ts'
import { RuntimeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { runHooks } from '../peers/run-hooks.ts'
import { parseSpec, readSpecOf } from '../spec/load.ts'
import type { Spec } from '../spec/types.ts'
import { readIntelRdtFields, type SavedIntelRdt } from '../state/intel-rdt.ts'
import { tryLockContainer } from '../state/lock.ts'
import { ociState } from '../state/oci-state.ts'
import { type RootMount, readRootMount, removeRootMount } from '../state/root-mount.ts'
import { isOnDisk, readWhatIsThere } from '../state/state-file.ts'
import { bootId, hasState, isProcess, readConfig, readUnit, removeState, stateDir } from '../state/store.ts'
import { SIGKILL } from '../sys/linux.ts'
import { groupLeadersReading, killGroup } from '../sys/pids.ts'
import { OtherProcess } from './running-process.ts'

/** Name of the record of a create that has not ended: one JSON object per line. */
export const RECORD = 'creating'
/** Name of the record of a complete create: should the state be damaged, it says what to remove. */
export const MADE = 'made'
/** How long to wait for a killed init to end. */
const KILL_WAIT_MS = 10_000

interface Remains {
  /** undefined where neither file names any */
  readonly cgroupPaths: CgroupPaths | undefined
  /** the unit of systemd that those are */
  readonly cgroupUnit: CgroupUnit | undefined
  /** the mount on the root in the caller's mount namespace */
  readonly rootMount: RootMount | undefined
  readonly intelRdt: SavedIntelRdt | undefined
  /** the init that was made, in this boot or an unknown one */
  readonly init: OtherProcess | undefined
  /** the same init, only where a file says that it is of this boot: it may be signalled */
  readonly process: OtherProcess | undefined
  /** kills the hook that was running */
  readonly killHook: () => void
  /** a process was made, alive or not: hooks may have run for it */
  readonly begun: boolean
  readonly bundle: string
  /** one of the files is of another boot */
  readonly formerBoot: boolean
  /** the container seems to be of this boot: its processes and cgroups may still exist */
  readonly present: boolean
}

type Fields = Readonly<Record<string, unknown>>

/** The fields of a JSON object: of a text that breaks off, the whole ones; of any other text, none. */
function fieldsOf(text: string): Fields {
  for (const part of [text, wholeMembers(text)]) {
    try {
      const value: unknown = JSON.parse(part)
      return typeof value === 'object' && value !== null ? { ...value } : {}
    } catch {
      // a text that breaks off: next, its whole members are tried
    }
  }
  return {}
}

/** The whole members at the beginning of an object whose text breaks off, as an object of their own. */
function wholeMembers(text: string): string {
  let depth = 0
  let end = 1
  for (let at = 0; at < text.length; at++) {
    const character = text[at]
    if (character === '"') {
      for (at++; at < text.length && text[at] !== '"'; at++) if (text[at] === '\\') at++
    } else if (character === '{' || character === '[') depth++
    else if (character === '}' || character === ']') depth--
    else if (character === ',' && depth === 1) end = at
  }
  return `${text.slice(0, end)}}`
}

/** The process that two fields name, if they are of the right type. */
function processOf(pid: unknown, start: unknown): OtherProcess | undefined {
  return isProcess(pid, start) && Number(pid) > 0 ? new OtherProcess(Number(pid), BigInt(Number(start))) : undefined
}

/** The field as cgroup paths, if they can be those of a container. */
function cgroupsOf(paths: unknown): CgroupPaths | undefined {
  if (typeof paths !== 'object' || paths === null || Array.isArray(paths)) return undefined
  const entries = Object.entries(paths).filter((entry): entry is [string, string] => typeof entry[1] === 'string')
  if (entries.length < Object.keys(paths).length) return undefined
  try {
    return Cgroup.load(Object.fromEntries(entries)).paths
  } catch (error) {
    // this runtime writes only clean paths below the mount points
    if (error instanceof RuntimeError) return undefined
    throw error
  }
}

/** Reads the record and the state. Each may be missing or damaged in any way. */
function readRemains(root: string, id: string): Remains {
  const folder = stateDir(root, id)
  const lines = [MADE, RECORD].flatMap((name) => readWhatIsThere(folder, name).split('\n'))
  const record: Fields = Object.assign({}, ...lines.map(fieldsOf))
  const state = fieldsOf(readWhatIsThere(folder, 'state.json'))
  const boots = [record['boot_id'], state['boot_id']].filter((boot) => typeof boot === 'string')
  const formerBoot = boots.some((boot) => boot !== bootId())
  const present = boots.length === 0 ? isOfThisBoot(folder) : !formerBoot
  const told =
    processOf(record['pid'], record['start']) ?? processOf(state['init_process_pid'], state['init_process_start'])
  const { hook_pid: hook, hook_start: hookStart, hook_input: hookInput } = record
  return {
    rootMount: present ? (readRootMount(state['root_mount']) ?? readRootMount(record['root_mount'])) : undefined,
    cgroupPaths: present ? (cgroupsOf(state['cgroup_paths']) ?? cgroupsOf(record['cgroup_paths'])) : {},
    cgroupUnit: present ? (readUnit(state['cgroup_unit']) ?? readUnit(record['cgroup_unit'])) : undefined,
    intelRdt: present ? (readIntelRdtFields(state) ?? readIntelRdtFields(record)) : undefined,
    init: formerBoot ? undefined : told,
    process: present && boots.length > 0 ? told : undefined,
    killHook() {
      if (!present || boots.length === 0) return
      const leader = processOf(hook, hookStart)
      if (leader !== undefined) killGroup(Number(hook), BigInt(Number(hookStart)))
      for (const { pid, startTime } of typeof hookInput === 'string' ? groupLeadersReading(hookInput) : [])
        killGroup(pid, startTime)
    },
    begun: told !== undefined || isMade(root, id),
    bundle: [state['bundle'], record['bundle']].find((bundle) => typeof bundle === 'string') ?? '',
    formerBoot,
    present,
  }
}

/** Whether a folder without a boot id was changed in this boot; if not, its cgroups are gone. */
function isOfThisBoot(folder: string): boolean {
  const changed = statSync(folder, { throwIfNoEntry: false })?.mtimeMs ?? 0
  return changed > Date.now() - uptime() * 1000
}

/** Whether a create was completed, even if the state was lost since: the spec or the renamed record is there. */
export function isMade(root: string, id: string): boolean {
  return [MADE, 'config.json'].some((name) => isOnDisk(join(stateDir(root, id), name)))
}

/** Whether a complete container has that id, its state lost or not. One that is being made does not count. */
export function isThere(root: string, id: string): boolean {
  return hasState(root, id) || isOnDisk(join(stateDir(root, id), MADE))
}

/** Kills the init of a create that is under way; the creating command then undoes the rest. */
export function killClaimed(root: string, id: string): void {
  kill(readRemains(root, id).process)
}

function kill(process: OtherProcess | undefined): void {
  try {
    process?.signal(SIGKILL)
  } catch (error) {
    if (!(error instanceof RuntimeError) || error.code !== 'NotFound') throw error
  }
}

/**
 * Whether the folder of an id is a leftover that a new create may remove. It is one if it is of an earlier boot, or of
 * the very bundle that the new container is made from. So is that of a create that was killed before it made anything.
 */
export function isLeftover(root: string, id: string, bundle: string): boolean {
  const remains = readRemains(root, id)
  if (remains.formerBoot || (bundle !== '' && remains.bundle === bundle)) return true
  if (remains.bundle !== '' || hasState(root, id) || !isOnDisk(stateDir(root, id))) return false
  using free = tryLockContainer(root, id, 'exclusive')
  return free !== undefined
}

/** The pid and start time of the init that a folder names, if it names one of this boot or an unknown one. */
export function initOf(root: string, id: string): { readonly pid: number; readonly startTime: bigint } | undefined {
  return readRemains(root, id).init
}

/** The bundle of an id's container; empty when no bundle is recorded, or when the container is of an earlier boot. */
export function bundleOf(root: string, id: string): string {
  const { bundle, formerBoot } = readRemains(root, id)
  return formerBoot ? '' : bundle
}

/**
 * Removes what is left, the folder last, and then runs the poststop hooks of a container that had a process. The caller
 * holds the lock. Resolves with the host pid of init, 0 if unknown.
 */
export async function removeRemains(root: string, id: string, logger: Logger): Promise<number> {
  const { cgroupPaths, cgroupUnit, intelRdt, rootMount, process, killHook, begun, bundle } = readRemains(root, id)
  const spec = begun ? specOf({ root, id, bundle, logger }) : undefined
  const paths = cgroupPaths ?? (spec === undefined ? {} : Cgroup.named({ id, path: spec.linux.cgroupsPath }))
  logger.debug(
    { container: id, pid: process?.pid, cgroups: Object.values(paths).join(' ') },
    'removing what is left of a container',
  )
  killHook()
  kill(process)
  const cgroup = Cgroup.load(paths, logger, cgroupUnit)
  // before the wait: a frozen process ends only when killAll thaws it
  if (cgroup.procs().length > 0) await cgroup.killAll(SIGKILL)
  await process?.waitGone(KILL_WAIT_MS)
  await cgroup.remove()
  await removeIntelRdt(id, intelRdt)
  removeRootMount(rootMount, logger)
  removeState(root, id)
  if (spec !== undefined) {
    const state = ociState({ id, bundle, spec, pid: 0 }, 'stopped')
    await runHooks({ name: 'poststop', hooks: spec.hooks.poststop, state, logger })
  }
  return process?.pid ?? 0
}

/** Removes the Intel RDT groups that were made for a container. */
export async function removeIntelRdt(id: string, saved: SavedIntelRdt | undefined): Promise<void> {
  if (saved === undefined) return
  const { IntelRdt } = await import('../intelrdt/intel-rdt.ts')
  IntelRdt.load(saved).remove(id)
}

interface SpecPlaces {
  readonly root: string
  readonly id: string
  readonly bundle: string
  readonly logger: Logger
}

/** The spec that names hooks and cgroup: the one kept with the state, or the bundle's; undefined without either. */
function specOf({ root, id, bundle, logger }: SpecPlaces): Spec | undefined {
  for (const read of [() => parseSpec(readConfig(root, id), 'config.json'), () => readSpecOf(bundle)]) {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof RuntimeError)) throw error
      logger.debug({ container: id, error: error.message }, 'cannot read the spec of what is left of a container')
    }
  }
  return undefined
}
