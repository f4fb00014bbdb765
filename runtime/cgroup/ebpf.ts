/**
 * Device rules on cgroup v2: the program of devices.ts, attached to the container's directory. Invariant: while a
 * program is replaced, one of the two is always attached. A second program beside the runtime's is no failure, since
 * the kernel asks all of them; systemd attaches its own.
 */

import { closeSync, constants, openSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { attachDeviceProgram, attachedDevicePrograms, detachDeviceProgram, loadDeviceProgram } from '../sys/bpf.ts'
import { errnoCode, errnoOf, errnoWords } from '../sys/errno.ts'
import { EINVAL, EPERM } from '../sys/linux.ts'
import { type DevicePolicy, toEbpf } from './devices.ts'
import { lacksDeviceRules } from './hierarchy.ts'

/** A v2 cgroup for a policy: its directory, its name for messages, and whether it was made just now. */
export interface PolicyTarget {
  readonly dir: string
  readonly name: string
  /** it has no program of its own yet */
  readonly fresh: boolean
}

/** Puts a policy in force on a v2 cgroup. */
export function attachDevicePolicy(policy: DevicePolicy, { dir, name, fresh }: PolicyTarget): void {
  if (fresh && policy.allowByDefault && policy.exceptions.size === 0) return
  const cgroup = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  try {
    replacePrograms(cgroup, toEbpf(policy), fresh)
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === EPERM && lacksDeviceRules()) return
    if (errno === 0) throw error
    const detail = { source: 'syscall', call: 'bpf', errno, path: dir } as const
    const message = `cannot set device rules on cgroup "${name}": ${errnoWords(errno)}`
    throw new RuntimeError(errnoCode(errno), message, { detail, cause: error })
  } finally {
    closeSync(cgroup)
  }
}

function replacePrograms(cgroup: number, program: Uint8Array, fresh: boolean): void {
  const old = fresh ? [] : attachedDevicePrograms(cgroup)
  try {
    using loaded = loadDeviceProgram(program)
    const [only] = old
    if (old.length === 1 && only !== undefined) {
      try {
        attachDeviceProgram(cgroup, loaded.fd, only.fd)
        return
      } catch (error) {
        // fallback: a program that was attached without "multi" cannot be replaced in one step
        if (errnoOf(error) !== EINVAL) throw error
      }
    }
    attachDeviceProgram(cgroup, loaded.fd)
    for (const program of old) detachDeviceProgram(cgroup, program.fd)
  } finally {
    for (const program of old) program.close()
  }
}
