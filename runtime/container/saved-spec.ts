/**
 * The spec of a container that is read from disk. Ours keep it in their folder. One of runc's does not: there the bundle still has it as
 * a rule, and where that is gone or not for us, what runc's state tells must do, which is enough for everything but running a process.
 */
import { RuntimeError } from '../errors.ts'
import { loadSpec, parseSpec } from '../spec/load.ts'
import type { Spec } from '../spec/types.ts'
import { readConfig, type SavedState } from './store.ts'

/** A spec, and why it is not the whole one, if it is not. */
export interface SavedSpec {
  readonly spec: Spec
  readonly lacking?: RuntimeError
}

/** Reads the spec of a container. @throws NotFound, Internal */
export function readSavedSpec(root: string, state: SavedState): SavedSpec {
  if (state.foreign === undefined) return { spec: parseSpec(readConfig(root, state.id), 'config.json') }
  try {
    return { spec: loadSpec(state.bundle) }
  } catch (error) {
    if (!(error instanceof RuntimeError)) throw error
    const reason = `cannot exec in container "${state.id}" of another runtime: ${error.message}`
    const lacking = new RuntimeError('FailedPrecondition', reason, { cause: error })
    return { spec: parseSpec(state.foreign, 'state.json'), lacking }
  }
}
