/**
 * An id from the moment it is claimed until its state is on disk. The claim is the container's folder, locked by its
 * creator. A record in the folder lists what the create makes, one JSON object per line. A later command can therefore
 * clean up a create that was killed at any point. Each line is written before the thing that it names exists. A pid is
 * known only afterwards; init ends with its creator, and a hook is named by its input first.
 * Invariant: until the create is complete, the record names only what this create made: no cgroup that existed before,
 * no process of another program.
 */
import { closeSync, constants, existsSync, openSync, renameSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { CgroupPaths, CgroupUnit } from '../cgroup/request.ts'
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import type { HookJournal } from '../peers/run-hooks.ts'
import { intelRdtFields, type SavedIntelRdt } from '../state/intel-rdt.ts'
import { lockContainer, tryLockContainer } from '../state/lock.ts'
import type { RootMount } from '../state/root-mount.ts'
import { damagedFile, isOnDisk } from '../state/state-file.ts'
import { bootId, claimState, notFound, type SavedState, stateDir } from '../state/store.ts'
import type { OwnedFd } from '../sys/fd.ts'
import { getpid } from '../sys/libc.ts'
import { processStat } from '../sys/pids.ts'
import { isMade, MADE, RECORD } from './remains.ts'

/** An id that is being created. */
export class Claim {
  readonly #path: string
  readonly #lock: OwnedFd
  #record = -1

  private constructor(path: string, lock: OwnedFd) {
    this.#path = path
    this.#lock = lock
  }

  /** Claims an id. @throws AlreadyExists; what errnoCode says where the folder cannot be made */
  static async take(root: string, id: string): Promise<Claim> {
    const dir = claimState(root, id)
    failpoint('create:claimed')
    const lock = await lockContainer({ root, id, mode: 'exclusive' })
    failpoint('create:locked')
    return new Claim(join(dir, RECORD), lock)
  }

  /**
   * Records the cgroup directories that will be made, and the unit that they are. One that exists already is left out:
   * it must not be removed.
   */
  willMakeCgroup({ paths, unit, bundle }: { paths: CgroupPaths; unit: CgroupUnit | undefined; bundle: string }): void {
    const ours = Object.entries(paths).filter(([, path]) => !existsSync(path))
    const units = unit === undefined || ours.length === 0 ? {} : { cgroup_unit: unit }
    this.#write({ boot_id: bootId(), bundle, cgroup_paths: Object.fromEntries(ours), ...units })
    failpoint('create:recorded')
  }

  /** Records the Intel RDT groups that will be made. */
  willMakeIntelRdt(groups: SavedIntelRdt): void {
    this.#write({ boot_id: bootId(), ...intelRdtFields(groups) })
  }

  /** Records the mount on the root in the caller's mount namespace, before or after it is made. */
  willMountRoot(mount: RootMount | undefined): void {
    if (mount !== undefined) this.#write({ root_mount: mount })
  }

  /** Records the process that becomes the container's init. It waits for its creator and ends when the creator does. */
  madeProcess(pid: number): void {
    const start = processStat(pid)?.startTime
    if (start !== undefined) this.#write({ pid, start: Number(start) })
    failpoint('create:child')
  }

  /**
   * Records each hook. A hook does not end with its creator, so the command that cleans up must end it. Its pid is
   * known only once it runs; until the pid is recorded, the name of its input file identifies it. A child holds the
   * lock until it executes its program, so no other command looks before the hook has that input. Processes that a hook
   * leaves behind may have the same input; they are left alone.
   */
  readonly hooks: HookJournal = {
    willStart: () => {
      // unique within a boot; no process of an earlier boot is ever looked for
      const name = `hook-${getpid()}-${process.hrtime.bigint()}`
      this.#write({ hook_pid: null, hook_start: null, hook_input: name })
      return name
    },
    started: (pid) => {
      failpoint('hook:spawned')
      const start = processStat(pid)?.startTime
      this.#write({ hook_pid: pid, hook_start: start === undefined ? null : Number(start), hook_input: null })
    },
  }

  #write(line: Record<string, unknown>): void {
    if (this.#record < 0) {
      this.#record = openSync(this.#path, constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND, 0o600)
    }
    writeSync(this.#record, `${JSON.stringify(line)}\n`)
  }

  /**
   * Notes that the state is on disk. The record is kept under another name: should the state be damaged, it still says
   * what to remove.
   */
  complete({ pid, startTime, cgroupPaths, cgroupUnit, bundle, made }: SavedState): void {
    const hook = { hook_pid: null, hook_start: null, hook_input: null }
    const cgroup = { cgroup_paths: cgroupPaths, ...(cgroupUnit === undefined ? {} : { cgroup_unit: cgroupUnit }) }
    this.willMountRoot(made.rootMount)
    this.#write({ boot_id: bootId(), bundle, ...cgroup, pid, start: Number(startTime), ...hook })
    renameSync(this.#path, join(dirname(this.#path), MADE))
  }

  /** Releases the lock. */
  [Symbol.dispose](): void {
    if (this.#record >= 0) closeSync(this.#record)
    this.#record = -1
    this.#lock.close()
  }
}

/**
 * The error for a container without a state: it does not exist, is being made, was interrupted, or lost its state.
 * The last two say what to do.
 */
export function explainMissing(root: string, id: string): RuntimeError {
  if (!isOnDisk(stateDir(root, id))) return notFound(id)
  using free = tryLockContainer(root, id, 'shared')
  if (free !== undefined) return unfinished(root, id)
  return new RuntimeError('Unavailable', `container "${id}" is not made yet: another command is working on it`)
}

/** The error for what an interrupted create left, or for a container that lost its state. */
export function unfinished(root: string, id: string): RuntimeError {
  if (isMade(root, id)) return damagedFile(join(stateDir(root, id), 'state.json'), 'it is missing')
  return notFound(id, `its create was interrupted; \`delete --force ${id}\` removes what it left`)
}
