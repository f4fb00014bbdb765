/**
 * The directories of cgroups: making one with its parents, walking down, counting who is inside, removing. Parents are shared between
 * containers and with other programs, so nobody here ever removes one: what is removed is a container's own directory and what the
 * container has made below it.
 */
import { mkdirSync, readdirSync, rmdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { makeDirectories } from '../sys/directory.ts'
import { errnoOf } from '../sys/errno.ts'
import { cgroupError, ERRNO, readText } from './files.ts'

const DIRECTORY_MODE = 0o755
const MAKE_ATTEMPTS = 5
const REMOVE_ATTEMPTS = 11

/** Makes a directory with its parents; false when it was there. */
export function makeDirectory(path: string): boolean {
  for (let attempt = 1; ; attempt++) {
    try {
      mkdirSync(path, DIRECTORY_MODE)
      return true
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === ERRNO.EEXIST) return false
      // The parents are missing; another program may remove them again before we are back here.
      if (errno !== ERRNO.ENOENT || attempt === MAKE_ATTEMPTS) throw error
      makeDirectories(dirname(path), DIRECTORY_MODE)
    }
  }
}

/** The directories directly below one. */
export function subdirectories(path: string): string[] {
  // kernfs counts subdirectories in the link count, which spares listing the many files of a leaf.
  if (statSync(path).nlink === 2) return []
  const entries = readdirSync(path, { withFileTypes: true })
  return entries.filter((entry) => entry.isDirectory()).map((entry) => `${path}/${entry.name}`)
}

/** The pids of a list that the kernel wrote. Only a whole list counts: a part could end in somebody else's number. */
function parsePids(text: string, path: string): number[] {
  const whole = text === '' || text.endsWith('\n')
  if (!whole || /[^\d\n]/.test(text)) throw new Error(`"${path}" is no list of processes`)
  // The kernel writes 0 for a process that our pid namespace does not show; the empty end of the text becomes 0 too.
  return text
    .split('\n')
    .map(Number)
    .filter((pid) => pid > 0)
}

/** All processes in a cgroup and below, in no order; none when it does not exist. */
export function processesIn(path: string): number[] {
  const pids = new Set<number>()
  const visit = (dir: string) => {
    try {
      const file = `${dir}/cgroup.procs`
      for (const pid of parsePids(readText(file), file)) pids.add(pid)
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === ERRNO.ENOENT || errno === ERRNO.ENODEV) return
      // A threaded v2 cgroup does not list processes; they all appear in its domain above.
      if (errno !== ERRNO.EOPNOTSUPP) throw error
    }
    try {
      for (const child of subdirectories(dir)) visit(child)
    } catch (error) {
      if (errnoOf(error) !== ERRNO.ENOENT) throw error
    }
  }
  visit(path)
  return [...pids]
}

/** Removes a cgroup and all below it, deepest first; the errno that stopped it, or 0. */
function removeTree(path: string): number {
  const errno = removeDirectory(path)
  if (errno !== ERRNO.EBUSY && errno !== ERRNO.ENOTEMPTY) return errno
  let children: string[]
  try {
    children = subdirectories(path)
  } catch {
    // Vanished since: the next attempt finds out.
    return errno
  }
  if (children.length === 0) return errno
  for (const child of children) {
    const failed = removeTree(child)
    if (failed !== 0) return failed
  }
  return removeDirectory(path)
}

function removeDirectory(path: string): number {
  try {
    rmdirSync(path)
    return 0
  } catch (error) {
    const errno = errnoOf(error)
    if (errno === 0) throw error
    return errno === ERRNO.ENOENT || errno === ERRNO.ENODEV ? 0 : errno
  }
}

/**
 * Removes cgroups with all below them. A process that has just died may hold its cgroup for a moment (EBUSY), so that is tried again,
 * from 1 ms doubling up to about a second in all.
 */
export async function removeTrees(paths: Iterable<string>, name: (path: string) => string): Promise<void> {
  let left = [...paths]
  for (let attempt = 0; ; attempt++) {
    let failure: { path: string; errno: number } | undefined
    left = left.filter((path) => {
      const errno = removeTree(path)
      if (errno === 0) return false
      failure ??= { path, errno }
      return true
    })
    if (failure === undefined) return
    const busy = failure.errno === ERRNO.EBUSY || failure.errno === ERRNO.ENOTEMPTY
    if (!busy || attempt === REMOVE_ATTEMPTS - 1) {
      const count = processesIn(failure.path).length
      const note = count === 0 ? '' : ` (${count} process${count === 1 ? '' : 'es'} in it)`
      const cause = Object.assign(new Error('rmdir'), { errno: failure.errno })
      throw cgroupError(`cannot remove cgroup "${name(failure.path)}"`, cause, 'rmdir', failure.path, note)
    }
    await delay(2 ** attempt)
  }
}

/** Takes back directories that were just made and never used; for the way out of a failure. */
export function unmake(paths: readonly string[]): void {
  for (const path of paths) removeTree(path)
}
