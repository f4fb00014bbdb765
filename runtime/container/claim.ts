/**
 * An id from the moment it is claimed until its state is on disk. The claim is the folder, locked; in it a record of what is about to
 * exist, one JSON object per line, each written before the thing it names, so that a create that was killed at any point can be cleaned
 * up. Invariant: the record names nothing that was there before: no cgroup that somebody else made, no process that is not ours.
 */
import { closeSync, constants, existsSync, openSync, renameSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { failpoint } from '../failpoint.ts'
import type { HookJournal } from '../peers/run-hooks.ts'
import { lockContainer, tryLockContainer } from '../state/lock.ts'
import type { RootMount } from '../state/root-mount.ts'
import { damagedFile } from '../state/state-file.ts'
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

  /** Claims an id. @throws AlreadyExists */
  static async take(root: string, id: string): Promise<Claim> {
    const dir = claimState(root, id)
    failpoint('create:claimed')
    const lock = await lockContainer(root, id, 'exclusive')
    failpoint('create:locked')
    return new Claim(join(dir, RECORD), lock)
  }

  /** Directories that will be made as the container's cgroup; one that is there already is not ours to remove. */
  willMakeCgroup(paths: Readonly<Record<string, string>>, bundle: string): void {
    const ours = Object.entries(paths).filter(([, path]) => !existsSync(path))
    this.#write({ boot_id: bootId(), bundle, cgroup_paths: Object.fromEntries(ours) })
    failpoint('create:recorded')
  }

  /** The mount that will be made on the root among our own, or was. */
  willMountRoot(mount: RootMount | undefined): void {
    if (mount !== undefined) this.#write({ root_mount: mount })
  }

  /** The process that becomes the container's init; it waits for us, and ends when we do. */
  madeProcess(pid: number): void {
    const start = processStat(pid)?.startTime
    if (start !== undefined) this.#write({ pid, start: Number(start) })
    failpoint('create:child')
  }

  /**
   * The hooks, which do not end with us: whoever removes what we left ends the one that runs. Its pid is known only when it runs already,
   * so until that is written down it is known by the name of its input; our lock, which a child holds until it executes its program,
   * keeps others from looking too early. What a hook leaves behind may have that input too, and is none of ours.
   */
  readonly hooks: HookJournal = {
    willStart: () => {
      // no other of this boot is called so, and of another boot nothing is looked for
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

  /** The state is on disk. The record stays, under a name that says so: it is short, and tells what to remove should the state be damaged. */
  complete({ pid, startTime, cgroupPaths, bundle, made }: SavedState): void {
    const hook = { hook_pid: null, hook_start: null, hook_input: null }
    this.willMountRoot(made.rootMount)
    this.#write({ boot_id: bootId(), bundle, cgroup_paths: cgroupPaths, pid, start: Number(startTime), ...hook })
    renameSync(this.#path, join(dirname(this.#path), MADE))
  }

  /** Lets others at the container. */
  [Symbol.dispose](): void {
    if (this.#record >= 0) closeSync(this.#record)
    this.#record = -1
    this.#lock.close()
  }
}

/** Why a container has no state: it is not there, it is just being made, its create was interrupted, or it was lost; and then what to do. */
export function explainMissing(root: string, id: string): RuntimeError {
  if (!existsSync(stateDir(root, id))) return notFound(id)
  using free = tryLockContainer(root, id, 'shared')
  if (free !== undefined) return unfinished(root, id)
  return new RuntimeError('Unavailable', `container "${id}" is not made yet: another command is working on it`)
}

/** The refusal of what an interrupted create, or the loss of its state, has left. */
export function unfinished(root: string, id: string): RuntimeError {
  if (isMade(root, id)) return damagedFile(stateDir(root, id), 'state.json', 'it is missing')
  return notFound(id, `its create was interrupted; \`delete --force ${id}\` removes what it left`)
}
