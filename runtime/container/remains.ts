/**
 * What is left of a container that cannot be loaded: its create was interrupted, or its state is of another version of this runtime or
 * damaged. The record of the create (claim.ts) and state.json say the same three things: which process, which cgroups, which bundle;
 * where neither does, the spec names the cgroup. Invariants: nothing is removed that none of them names; of an earlier boot there is
 * neither process nor cgroup, whatever they say.
 */

import { existsSync, statSync } from 'node:fs'
import { uptime } from 'node:os'
import { join } from 'node:path'
import { Cgroup } from '../cgroup/cgroup.ts'
import type { CgroupPaths } from '../cgroup/request.ts'
import { RuntimeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { runHooks } from '../peers/run-hooks.ts'
import { parseSpec, readSpecOf } from '../spec/load.ts'
import type { Spec } from '../spec/types.ts'
import { tryLockContainer } from '../state/lock.ts'
import { ociState } from '../state/oci-state.ts'
import { type RootMount, readRootMount, removeRootMount } from '../state/root-mount.ts'
import { readWhatIsThere } from '../state/state-file.ts'
import { bootId, hasState, isProcess, readConfig, removeState, stateDir } from '../state/store.ts'
import { SIGKILL } from '../sys/linux.ts'
import { groupLeadersReading, killGroup } from '../sys/pids.ts'
import { ForeignProcess } from './running-process.ts'

/** The record of a create that has not ended: one JSON object per line. */
export const RECORD = 'creating'
/** The same once it has: it tells what to remove should the state be damaged. */
export const MADE = 'made'
/** How long to wait for a killed init to vanish. */
const KILL_WAIT_MS = 10_000

interface Remains {
  /** undefined where nobody tells of any */
  readonly cgroupPaths: CgroupPaths | undefined
  /** the init that was made, of this boot or an unknown one */
  readonly init: ForeignProcess | undefined
  /** the same where it may be signalled: somebody tells that it is of this boot */
  readonly rootMount: RootMount | undefined
  readonly process: ForeignProcess | undefined
  /** ends the hook that was at work */
  readonly killHook: () => void
  /** a process was made, alive or not: hooks may have run for it */
  readonly begun: boolean
  readonly bundle: string
  /** somebody tells of another boot */
  readonly formerBoot: boolean
  /** it is of this boot, as far as that can be told: its processes and cgroups can be there */
  readonly present: boolean
}

type Fields = Readonly<Record<string, unknown>>

/** An object's fields; of one whose text breaks off those that are whole, of what is no object none. */
function fieldsOf(text: string): Fields {
  for (const part of [text, wholeMembers(text)]) {
    try {
      const value: unknown = JSON.parse(part)
      return typeof value === 'object' && value !== null ? { ...value } : {}
    } catch {
      // torn: what was written before is tried
    }
  }
  return {}
}

/** The leading members of an object whose text breaks off, as a text of their own. */
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

/** The process that two fields name, if they can. */
function processOf(pid: unknown, start: unknown): ForeignProcess | undefined {
  return isProcess(pid, start) && Number(pid) > 0 ? new ForeignProcess(Number(pid), BigInt(Number(start))) : undefined
}

/** Paths that are those of a container's cgroup. */
function cgroupsOf(paths: unknown): CgroupPaths | undefined {
  if (typeof paths !== 'object' || paths === null || Array.isArray(paths)) return undefined
  const entries = Object.entries(paths).filter((entry): entry is [string, string] => typeof entry[1] === 'string')
  if (entries.length < Object.keys(paths).length) return undefined
  try {
    return Cgroup.load(Object.fromEntries(entries)).paths
  } catch (error) {
    // not clean, or none below the mount points: whoever wrote it, it was not this runtime
    if (error instanceof RuntimeError) return undefined
    throw error
  }
}

/** What the record and the state tell. Each may be missing or damaged in any way; the record is the one that is short and written first. */
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

/** Whether a folder that does not tell its boot was changed in this one: no cgroup outlives its boot. */
function isOfThisBoot(folder: string): boolean {
  const changed = statSync(folder, { throwIfNoEntry: false })?.mtimeMs ?? 0
  return changed > Date.now() - uptime() * 1000
}

/** Whether a container was made to the end, whatever has become of its state: its spec or its record is there. */
export function isMade(root: string, id: string): boolean {
  return [MADE, 'config.json'].some((name) => existsSync(join(stateDir(root, id), name)))
}

/** Whether a container of that id is there for its owner, its state lost or not; one that is just being made is not yet. */
export function isThere(root: string, id: string): boolean {
  return hasState(root, id) || existsSync(join(stateDir(root, id), MADE))
}

/** Kills the init of a create that is under way: its maker then undoes the rest. */
export function killClaimed(root: string, id: string): void {
  kill(readRemains(root, id).process)
}

function kill(process: ForeignProcess | undefined): void {
  try {
    process?.signal(SIGKILL)
  } catch (error) {
    if (!(error instanceof RuntimeError) || error.code !== 'NotFound') throw error
  }
}

/**
 * Whether an id is taken by nothing that lives on: a container of an earlier boot, one of the very bundle that the caller has been given
 * to make a container from, or a create that was killed before it made anything.
 */
export function isLeftover(root: string, id: string, bundle: string): boolean {
  const remains = readRemains(root, id)
  if (remains.formerBoot || (bundle !== '' && remains.bundle === bundle)) return true
  if (remains.bundle !== '' || hasState(root, id) || !existsSync(stateDir(root, id))) return false
  using free = tryLockContainer(root, id, 'exclusive')
  return free !== undefined
}

/** The process and the start time of the init that a folder is about, where it tells. */
export function initOf(root: string, id: string): { readonly pid: number; readonly startTime: bigint } | undefined {
  return readRemains(root, id).init
}

/** The bundle that the container of an id was made from; empty when there is none, when it does not say, and when it is of an earlier boot. */
export function bundleOf(root: string, id: string): string {
  const { bundle, formerBoot } = readRemains(root, id)
  return formerBoot ? '' : bundle
}

/** Removes what is left, the folder last, and runs the poststop hooks of a container that had a process; the caller holds the lock. The host pid, 0 if unknown. */
export async function removeRemains(root: string, id: string, logger: Logger): Promise<number> {
  const { cgroupPaths, rootMount, process, killHook, begun, bundle } = readRemains(root, id)
  const spec = begun ? specOf(root, id, bundle, logger) : undefined
  const paths = cgroupPaths ?? (spec === undefined ? {} : Cgroup.named({ id, path: spec.linux.cgroupsPath }))
  logger.debug(
    { container: id, pid: process?.pid, cgroups: Object.values(paths).join(' ') },
    'removing what is left of a container',
  )
  killHook()
  kill(process)
  const cgroup = Cgroup.load(paths, logger)
  // first: what is frozen ends only when it is thawed
  if (cgroup.procs().length > 0) await cgroup.killAll(SIGKILL)
  await process?.waitGone(KILL_WAIT_MS)
  await cgroup.remove()
  removeRootMount(rootMount, logger)
  removeState(root, id)
  if (spec !== undefined) {
    const state = ociState({ id, bundle, spec, pid: 0 }, 'stopped')
    await runHooks({ name: 'poststop', hooks: spec.hooks.poststop, state, logger })
  }
  return process?.pid ?? 0
}

/** The spec that names the hooks: the one kept with the state, or the bundle's; without either there are none to run. */
function specOf(root: string, id: string, bundle: string, logger: Logger): Spec | undefined {
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
