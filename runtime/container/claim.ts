/**
 * An id from the moment it is claimed until its state is on disk. The claim is the folder, locked; in it a record of what is about to
 * exist, one JSON object per line, each written before the thing it names, so that a create that was killed at any point can be cleaned
 * up. Invariant: the record names nothing that was there before: no cgroup that somebody else made, no process that is not ours.
 */
import { closeSync, constants, existsSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { Cgroup } from '../cgroup/cgroup.ts'
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import type { Logger } from '../logger.ts'
import type { OwnedFd } from '../sys/fd.ts'
import { killGroup, processStat } from '../sys/process.ts'
import { lockContainer, tryLockContainer } from './lock.ts'
import { ForeignProcess } from './process.ts'
import { readStateFile } from './state-file.ts'
import { bootId, claimState, notFound, removeState, stateDir } from './store.ts'

const RECORD = 'creating'
const SIGKILL = 9
/** How long to wait for a killed init to vanish. */
const KILL_WAIT_MS = 10_000

/** An id that is being created. */
export class Claim {
  readonly #path: string
  readonly #lock: OwnedFd
  #record = -1

  private constructor(path: string, lock: OwnedFd) {
    this.#path = path
    this.#lock = lock
  }

  /** Claims an id. @throws AlreadyExists */
  static async take(root: string, id: string): Promise<Claim> {
    const dir = claimState(root, id)
    failpoint('create:claimed')
    const lock = await lockContainer(root, id, 'exclusive')
    failpoint('create:locked')
    return new Claim(join(dir, RECORD), lock)
  }

  /** Directories that will be made as the container's cgroup; one that is there already is not ours to remove. */
  willMakeCgroup(paths: Readonly<Record<string, string>>): void {
    const ours = Object.entries(paths).filter(([, path]) => !existsSync(path))
    this.#write({ boot_id: bootId(), cgroup_paths: Object.fromEntries(ours) })
    failpoint('create:recorded')
  }

  /** The process that becomes the container's init; it waits for us, and ends when we do. */
  madeProcess(pid: number): void {
    const start = processStat(pid)?.startTime
    if (start !== undefined) this.#write({ pid, start: Number(start) })
    failpoint('create:child')
  }

  /** A hook, which does not end with us: whoever removes what we left ends it. */
  madeHook(pid: number): void {
    const start = processStat(pid)?.startTime
    if (start !== undefined) this.#write({ hook_pid: pid, hook_start: Number(start) })
  }

  #write(line: Record<string, unknown>): void {
    if (this.#record < 0) {
      this.#record = openSync(this.#path, constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND, 0o600)
    }
    writeSync(this.#record, `${JSON.stringify(line)}\n`)
  }

  /** The state is on disk and says all that the record did. */
  complete(): void {
    if (this.#record >= 0) unlinkSync(this.#path)
  }

  /** Lets others at the container. */
  [Symbol.dispose](): void {
    if (this.#record >= 0) closeSync(this.#record)
    this.#record = -1
    this.#lock.close()
  }
}

/** What the record of an interrupted create says. */
interface Leftovers {
  readonly cgroupPaths: Readonly<Record<string, string>>
  readonly process: ForeignProcess | undefined
  /** ends the hook that was at work */
  readonly killHook: () => void
}

const NOTHING: Leftovers = { cgroupPaths: {}, process: undefined, killHook() {} }

/** Reads the record; nothing in it, or none, means that nothing was made. A torn last line names what was not made yet. */
function readLeftovers(root: string, id: string): Leftovers {
  const text = readStateFile(stateDir(root, id), RECORD)
  if (text === undefined) return NOTHING
  const fields: Record<string, unknown> = {}
  for (const line of text.split('\n').slice(0, -1)) Object.assign(fields, JSON.parse(line))
  const { boot_id: boot, cgroup_paths: paths, pid, start, hook_pid: hook, hook_start: hookStart } = fields
  // of an earlier boot nothing is left, and its pid may be anybody's
  if (boot !== bootId()) return NOTHING
  const known = typeof pid === 'number' && typeof start === 'number'
  return {
    cgroupPaths: typeof paths === 'object' && paths !== null ? Object.fromEntries(Object.entries(paths)) : {},
    process: known ? new ForeignProcess(pid, BigInt(start)) : undefined,
    killHook() {
      if (typeof hook === 'number' && typeof hookStart === 'number') killGroup(hook, BigInt(hookStart))
    },
  }
}

/** Why a container has no state: it is not there, it is just being made, or its create was interrupted, and then what to do. */
export function explainMissing(root: string, id: string): RuntimeError {
  if (!existsSync(stateDir(root, id))) return notFound(id)
  using free = tryLockContainer(root, id, 'shared')
  if (free !== undefined) return interrupted(id)
  return new RuntimeError('Unavailable', `container "${id}" is not made yet: another command is working on it`)
}

/** The refusal of what an interrupted create left. */
export function interrupted(id: string): RuntimeError {
  return notFound(id, `its create was interrupted; \`delete --force ${id}\` removes what it left`)
}

/** Kills the init of a create that is under way: its maker then undoes the rest. */
export function killClaimed(root: string, id: string): void {
  kill(readLeftovers(root, id).process)
}

function kill(process: ForeignProcess | undefined): void {
  try {
    process?.signal(SIGKILL)
  } catch (error) {
    if (!(error instanceof RuntimeError) || error.code !== 'NotFound') throw error
  }
}

/** Removes what an interrupted create left, the folder last; the caller holds the lock. */
export async function removeLeftovers(root: string, id: string, logger: Logger): Promise<void> {
  const { cgroupPaths, process, killHook } = readLeftovers(root, id)
  logger.debug(
    { container: id, pid: process?.pid, cgroups: Object.values(cgroupPaths).join(' ') },
    'removing an interrupted create',
  )
  killHook()
  kill(process)
  await process?.waitGone(KILL_WAIT_MS)
  const cgroup = Cgroup.load(cgroupPaths, logger)
  if (cgroup.procs().length > 0) await cgroup.killAll(SIGKILL)
  await cgroup.remove()
  removeState(root, id)
}
