/**
 * The spec and the cgroup of a container that is read from disk. Ours keep their spec in their folder. One of runc's does not: there the
 * bundle still has it as a rule, and where that is gone or not for us, what runc's state tells must do, which is enough for everything
 * but running a process.
 */
import { Cgroup } from '../cgroup/cgroup.ts'
import { RuntimeError } from '../errors.ts'
import { loadSpec, parseSpec } from '../spec/load.ts'
import type { Spec } from '../spec/types.ts'
import { damagedFile } from './state-file.ts'
import { readConfig, type SavedState, stateDir } from './store.ts'

/** A spec, and why it is not the whole one, if it is not. */
export interface SavedSpec {
  readonly spec: Spec
  readonly lacking?: RuntimeError
}

/** Reads the spec of a container. @throws NotFound, Internal */
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
    throw damagedFile(stateDir(root, id), 'config.json', error.message, error)
  }
}

/** The cgroup that a state names. @throws Internal for paths that are no container's */
export function readSavedCgroup(root: string, { id, cgroupPaths }: SavedState): Cgroup {
  try {
    return Cgroup.load(cgroupPaths)
  } catch (error) {
    if (!(error instanceof RuntimeError)) throw error
    throw damagedFile(stateDir(root, id), 'state.json', error.message, error)
  }
}
