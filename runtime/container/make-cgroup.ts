/**
 * The cgroup of a container that is being made or restored: by this runtime, or by systemd once there is a process for
 * it. Invariant: the claim has the paths before any of them is made.
 */
import { Cgroup } from '../cgroup/cgroup.ts'
import type { CgroupPaths, CgroupUnit } from '../cgroup/request.ts'
import { unitPlace } from '../cgroup/systemd/unit-name.ts'
import { asksUsersManager, hostFacts } from '../host/facts.ts'
import type { Logger } from '../logger.ts'
import type { Spec } from '../spec/types.ts'
import type { Claim } from './claim.ts'
import type { CreateOptions } from './options.ts'

/** What the cgroup is made for, and by whom. */
export interface CgroupWish extends Pick<CreateOptions, 'id' | 'cgroupManager' | 'rootless' | 'signal'> {
  readonly spec: Spec
  readonly bundle: string
  readonly claim: Claim
  readonly logger: Logger
}

/** Makes the cgroup, or decides the unit that systemd makes later. @throws what Cgroup.create and Cgroup.plan throw */
export async function makeCgroup(wish: CgroupWish): Promise<Cgroup> {
  const { id, spec, bundle, claim, logger, cgroupManager, signal, rootless = 'auto' } = wish
  const { cgroupsPath, resources } = spec.linux
  const request = {
    id,
    resources,
    logger,
    onPaths: (paths: CgroupPaths, unit?: CgroupUnit) => claim.willMakeCgroup({ paths, unit, bundle }),
    ...(cgroupsPath === undefined ? {} : { path: cgroupsPath }),
  }
  // unless this is root of the machine, a cgroup that cannot be made is done without
  const tolerant = rootless === 'auto' ? hostFacts().rootless : rootless
  if (cgroupManager !== 'systemd') return Cgroup.create({ ...request, tolerant })
  return Cgroup.plan({ ...request, annotations: spec.annotations, user: asksUsersManager(), signal })
}

/** The unit that it will be; undefined where this runtime makes it. @throws InvalidArgument for another form of path */
export function unitFor({ id, cgroupManager }: Pick<CreateOptions, 'id' | 'cgroupManager'>, spec: Spec) {
  return cgroupManager === 'systemd' ? unitPlace(spec.linux.cgroupsPath, id, asksUsersManager()) : undefined
}
