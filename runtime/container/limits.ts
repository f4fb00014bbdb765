/**
 * Changes the resource limits of a container. Invariant: limits that cannot be kept on disk are not set, and limits
 * that the kernel refuses are not kept. A document that another runtime wrote is never changed.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Cgroup } from '../cgroup/cgroup.ts'
import { completeUpdate, mergeResources } from '../spec/merge-resources.ts'
import type { LinuxResources, Spec } from '../spec/types.ts'
import { readSavedSpec } from '../state/saved-spec.ts'
import { type SavedState, stageSpec } from '../state/store.ts'

/** The container whose limits change. */
export interface LimitedContainer {
  /** folder that holds the state of many containers */
  readonly root: string
  readonly spec: Spec
  readonly cgroup: Cgroup
}

/**
 * Sets the limits that `resources` has, and keeps them; resolves with the changed spec. The caller holds the lock.
 * @throws InvalidArgument, and what reading, writing or setting met
 */
export async function changeLimits(
  container: LimitedContainer,
  { state, resources }: { readonly state: SavedState; readonly resources: LinuxResources },
): Promise<Spec> {
  const { root, cgroup } = container
  const ours = state.foreign === undefined
  // read again: another command may have set limits since this container was loaded
  const saved = ours ? readSavedSpec(root, state).spec : container.spec
  const earlier = saved.linux.resources
  const later = completeUpdate(earlier, resources)
  const spec = { ...saved, linux: { ...saved.linux, resources: mergeResources(earlier, later) } }
  // a long spec takes time to read and to write: other work has its turn in between
  await nextTurn()
  using staged = ours ? stageSpec(root, state.id, spec) : undefined
  await nextTurn()
  await cgroup.change(later)
  staged?.commit()
  return spec
}
