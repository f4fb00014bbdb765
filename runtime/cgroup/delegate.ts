/**
 * Giving a v2 cgroup to a user, who may then make cgroups below it and move processes between them, but not change its
 * limits. Exactly the files that the kernel lists for delegation change their owner. Invariant: the caller has made
 * sure that the user sees nothing above the cgroup.
 */

import { lchownSync } from 'node:fs'
import { errnoOf } from '../sys/errno.ts'
import { ENOENT } from '../sys/linux.ts'
import { cgroupError, readTextIfAny } from './files.ts'
import { displayName } from './hierarchy.ts'

const LIST = '/sys/kernel/cgroup/delegate'
/** The files that kernels without the list delegate. */
const OLD_LIST = ['cgroup.procs', 'cgroup.subtree_control', 'cgroup.threads']

/**
 * Makes a user the owner of a cgroup; its group stays.
 * @throws PermissionDenied when the runtime is not root
 */
export function delegateCgroup(dir: string, uid: number): void {
  const listed = readTextIfAny(LIST)?.split('\n').filter(Boolean) ?? OLD_LIST
  for (const path of [dir, ...listed.map((name) => `${dir}/${name}`)]) {
    try {
      lchownSync(path, uid, -1)
    } catch (error) {
      // the file of a controller that is not enabled in this cgroup
      if (errnoOf(error) === ENOENT && path !== dir) continue
      throw cgroupError(`cannot give cgroup "${displayName('', dir)}" to user ${uid}`, error, { call: 'lchown', path })
    }
  }
}
