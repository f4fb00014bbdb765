/**
 * What is left of a container that cannot be loaded: its create was interrupted, or its state is of another version of this runtime or
 * damaged. The record of the create (claim.ts) and state.json say the same three things: which process, which cgroups, which bundle.
 * Invariants: nothing is removed that the record does not name; of an earlier boot there is neither process nor cgroup, whatever it says.
 */
import { existsSync } from 'node:fs'
import { Cgroup } from '../cgroup/cgroup.ts'
import { RuntimeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { loadSpec, parseSpec } from '../spec/load.ts'
import type { Spec } from '../spec/types.ts'
import { groupLeadersReading, killGroup } from '../sys/process.ts'
import { runHooks } from './hooks.ts'
import { tryLockContainer } from './lock.ts'
import { ociState } from './oci-state.ts'
import { ForeignProcess } from './process.ts'
import { readStateFile } from './state-file.ts'
import { bootId, hasState, readConfig, removeState, stateDir } from './store.ts'

/** The record of a create that has not ended: one JSON object per line. */
export const RECORD = 'creating'
const SIGKILL = 9
/** How long to wait for a killed init to vanish. */
const KILL_WAIT_MS = 10_000

interface Remains {
  readonly cgroupPaths: Readonly<Record<string, string>>
  readonly process: ForeignProcess | undefined
  /** ends the hook that was at work */
  readonly killHook: () => void
  /** a process was made, alive or not: hooks may have run for it */
  readonly begun: boolean
  readonly bundle: string
  readonly formerBoot: boolean
}

/** Objects that are one text each; what is torn or no object says nothing. */
function fieldsOf(texts: readonly string[]): Record<string, unknown> {
  const fields: Record<string, unknown> = {}
  for (const text of texts) {
    try {
      const value: unknown = JSON.parse(text)
      if (typeof value === 'object' && value !== null) Object.assign(fields, value)
    } catch {
      // a torn last line names what was not made yet
    }
  }
  return fields
}

function readRemains(root: string, id: string): Remains {
  const folder = stateDir(root, id)
  const state = readStateFile(folder, 'state.json')
  const record = readStateFile(folder, RECORD)
  const {
    boot_id: boot,
    cgroup_paths: paths,
    bundle,
    ...fields
  } = fieldsOf([...(record ?? '').split('\n'), state ?? ''])
  const { pid = fields['init_process_pid'], start = fields['init_process_start'] } = fields
  const { hook_pid: hook, hook_start: hookStart, hook_input: hookInput } = fields
  const known = typeof pid === 'number' && typeof start === 'number'
  const formerBoot = typeof boot === 'string' && boot !== bootId()
  const gone = boot !== bootId()
  return {
    cgroupPaths: !gone && typeof paths === 'object' && paths !== null ? Object.fromEntries(Object.entries(paths)) : {},
    process: !gone && known ? new ForeignProcess(pid, BigInt(start)) : undefined,
    killHook() {
      if (gone) return
      if (typeof hook === 'number' && typeof hookStart === 'number') killGroup(hook, BigInt(hookStart))
      for (const { pid, startTime } of typeof hookInput === 'string' ? groupLeadersReading(hookInput) : [])
        killGroup(pid, startTime)
    },
    begun: known,
    bundle: typeof bundle === 'string' ? bundle : '',
    formerBoot,
  }
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

/** The bundle that the container of an id was made from; empty when there is none, when it does not say, and when it is of an earlier boot. */
export function bundleOf(root: string, id: string): string {
  const { bundle, formerBoot } = readRemains(root, id)
  return formerBoot ? '' : bundle
}

/** Removes what is left, the folder last, and runs the poststop hooks of a container that had a process; the caller holds the lock. The host pid, 0 if unknown. */
export async function removeRemains(root: string, id: string, logger: Logger): Promise<number> {
  const { cgroupPaths, process, killHook, begun, bundle } = readRemains(root, id)
  logger.debug(
    { container: id, pid: process?.pid, cgroups: Object.values(cgroupPaths).join(' ') },
    'removing what is left of a container',
  )
  killHook()
  kill(process)
  await process?.waitGone(KILL_WAIT_MS)
  const cgroup = Cgroup.load(cgroupPaths, logger)
  if (cgroup.procs().length > 0) await cgroup.killAll(SIGKILL)
  await cgroup.remove()
  const spec = begun ? specOf(root, id, bundle, logger) : undefined
  removeState(root, id)
  if (spec !== undefined) {
    const state = ociState({ id, bundle, spec, pid: 0 }, 'stopped')
    await runHooks({ name: 'poststop', hooks: spec.hooks.poststop, state, logger })
  }
  return process?.pid ?? 0
}

/** The spec that names the hooks: the one kept with the state, or the bundle's; without either there are none to run. */
function specOf(root: string, id: string, bundle: string, logger: Logger): Spec | undefined {
  for (const read of [() => parseSpec(readConfig(root, id), 'config.json'), () => loadSpec(bundle)]) {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof RuntimeError)) throw error
      logger.debug({ container: id, error: error.message }, 'cannot read the spec of what is left of a container')
    }
  }
  return undefined
}
