/**
 * Changes the resource limits of a container. Invariant: limits that cannot be kept on disk are not set, and limits
 * that the kernel refuses are not kept. A document that another runtime wrote is never changed.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Cgroup } from '../cgroup/cgroup.ts'
import { RuntimeError } from '../errors.ts'
import type { IntelRdtUpdate } from '../intelrdt/intel-rdt.ts'
import { completeUpdate, mergeResources } from '../spec/merge-resources.ts'
import type { IntelRdt, LinuxResources, Spec } from '../spec/types.ts'
import { readSavedSpec } from '../state/saved-spec.ts'
import { type SavedState, stageSpec } from '../state/store.ts'

/** The container whose limits change. */
export interface LimitedContainer {
  /** folder that holds the state of many containers */
  readonly root: string
  readonly spec: Spec
  readonly cgroup: Cgroup
}

/** What changes. */
export interface NewLimits {
  readonly state: SavedState
  readonly resources: LinuxResources
  readonly intelRdt: IntelRdtUpdate
}

/**
 * Sets the limits that are named, and keeps them; resolves with the changed spec. The caller holds the lock.
 * @throws InvalidArgument, and what reading, writing or setting met
 */
export async function changeLimits(
  container: LimitedContainer,
  { state, resources, intelRdt }: NewLimits,
): Promise<Spec> {
  const { root, cgroup } = container
  const ours = state.foreign === undefined
  // read again: another command may have set limits since this container was loaded
  const saved = ours ? readSavedSpec(root, state).spec : container.spec
  const earlier = saved.linux.resources
  const later = completeUpdate(earlier, resources)
  const rdt = Object.keys(intelRdt).length === 0 ? undefined : await rdtChange(state, saved.linux.intelRdt, intelRdt)
  const linux = { ...saved.linux, resources: mergeResources(earlier, later) }
  const spec = { ...saved, linux: rdt === undefined ? linux : { ...linux, intelRdt: rdt.settings } }
  // a long spec takes time to read and to write: other work has its turn in between
  await nextTurn()
  using staged = ours ? stageSpec(root, state.id, spec) : undefined
  await nextTurn()
  const undo = rdt?.set()
  try {
    await cgroup.change(later)
  } catch (error) {
    undo?.()
    throw error
  }
  staged?.commit()
  return spec
}

/** The changed settings of Intel RDT, and what sets them. @throws FailedPrecondition in runc's words */
async function rdtChange({ intelRdt: groups }: SavedState, settings: IntelRdt | undefined, change: IntelRdtUpdate) {
  const refuse = (why: string) => new RuntimeError('FailedPrecondition', why)
  const { IntelRdt } = await import('../intelrdt/intel-rdt.ts')
  const { cat, mba } = IntelRdt.abilities(groups)
  if (change.l3CacheSchema !== undefined && !cat) throw refuse('Intel RDT/CAT: l3 cache schema is not enabled')
  if (change.memBwSchema !== undefined && !mba) throw refuse('Intel RDT/MBA: memory bandwidth schema is not enabled')
  if (settings === undefined || groups === undefined) {
    throw refuse('updating a non-existent Intel RDT configuration is not supported')
  }
  const changed = { ...settings, ...change }
  return { settings: changed, set: () => IntelRdt.load(groups).set(changed) }
}
