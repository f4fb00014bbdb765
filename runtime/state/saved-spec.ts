/**
 * The spec and the cgroup of a container that is loaded from disk. This runtime keeps the spec in the container's
 * folder. runc does not, but the bundle usually still has it. Where it cannot be read there, the facts in runc's state
 * are used, which are enough for everything but exec.
 */
import { join } from 'node:path'
import { Cgroup } from '../cgroup/cgroup.ts'
import { RuntimeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { loadSpec, parseSpec } from '../spec/load.ts'
import type { Spec } from '../spec/types.ts'
import { damagedFile } from './state-file.ts'
import { readConfig, type SavedState, stateDir } from './store.ts'

/** The spec of a loaded container. */
export interface SavedSpec {
  readonly spec: Spec
  /** why only a part of the spec is known; the error of exec */
  readonly lacking?: RuntimeError
}

/** Reads the spec of a container. @throws NotFound; Internal when it is missing or damaged */
export function readSavedSpec(root: string, state: SavedState): SavedSpec {
  if (state.foreign === undefined) return { spec: parseKept(root, state.id) }
  try {
    return { spec: loadSpec(state.bundle) }
  } catch (error) {
    if (!(error instanceof RuntimeError)) throw error
    const reason = `cannot exec in container "${state.id}" of another runtime: ${error.message}`
    const lacking = new RuntimeError('FailedPrecondition', reason, { cause: error })
    return { spec: parseSpec(state.foreign, 'state.json'), lacking }
  }
}

function parseKept(root: string, id: string): Spec {
  const text = readConfig(root, id)
  try {
    return parseSpec(text, 'the kept configuration')
  } catch (error) {
    if (!(error instanceof RuntimeError)) throw error
    throw damagedFile(join(stateDir(root, id), 'config.json'), error.message, error)
  }
}

/** The cgroup that a state names. @throws Internal for paths that cannot be those of a container's cgroup */
export function readSavedCgroup(root: string, { id, cgroupPaths, cgroupUnit }: SavedState, logger: Logger): Cgroup {
  try {
    return Cgroup.load(cgroupPaths, logger, cgroupUnit)
  } catch (error) {
    if (!(error instanceof RuntimeError)) throw error
    throw damagedFile(join(stateDir(root, id), 'state.json'), error.message, error)
  }
}
