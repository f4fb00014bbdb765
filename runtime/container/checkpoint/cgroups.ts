/**
 * CRIU in the cgroup of the container that it restores: what it makes is born there, and can be found there when CRIU
 * has ended early. Invariant: only the cgroup of the container is entered or listed.
 */
import { readFileSync } from 'node:fs'
import type { Cgroup } from '../../cgroup/cgroup.ts'
import { cgroupError, writeText } from '../../cgroup/files.ts'
import { hostFacts } from '../../host/facts.ts'
import { getpid } from '../../sys/libc.ts'

/** Moves CRIU to the cgroup: what it makes is born there. */
export function enter(cgroup: Cgroup, pid: number): void {
  for (const dir of new Set(Object.values(cgroup.paths))) {
    const path = `${dir}/cgroup.procs`
    try {
      writeText(path, String(pid))
    } catch (error) {
      throw cgroupError(`cannot move criu to cgroup "${cgroup.name}"`, error, { call: 'write', path })
    }
  }
}

/** The places of CRIU, below which it makes the cgroups of the images again, by controller. */
export function cgroupRoots(pid: number): { ctrl: string; path: string }[] {
  if (hostFacts().cgroup2) return []
  const lines = readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('\n').filter(Boolean)
  return lines.flatMap((line) => {
    const [, controllers = '', path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? []
    return path === undefined ? [] : [{ ctrl: controllers, path }]
  })
}

/** The children of this process in a cgroup: what CRIU has made for it. */
export async function childrenIn(cgroup: Cgroup): Promise<readonly number[]> {
  const own = getpid()
  return (await cgroup.listProcesses()).filter((pid) => parentOf(pid) === own)
}

function parentOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  } catch {
    // it has ended
    return undefined
  }
}
