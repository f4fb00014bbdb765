/**
 * The directories of cgroups: making one with its parents, walking down, listing processes, removing. Other containers
 * and programs share the parents, so no parent is ever removed: only a container's own directory and what the container
 * made below it.
 */

import { type Dirent, mkdirSync, promises, readdirSync, rmdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { makeDirectories } from '../sys/directory.ts'
import { errnoOf } from '../sys/errno.ts'
import { EBUSY, EEXIST, ENODEV, ENOENT, ENOTEMPTY, EOPNOTSUPP } from '../sys/linux.ts'
import { cgroupError, readText, readTextAside } from './files.ts'

const DIRECTORY_MODE = 0o755
const MAKE_ATTEMPTS = 5
const REMOVE_ATTEMPTS = 11
const [NEWLINE, ZERO] = [10, 48]

/** Makes a directory with its parents; false when it exists already. */
export function makeDirectory(path: string): boolean {
  for (let attempt = 1; ; attempt++) {
    try {
      mkdirSync(path, DIRECTORY_MODE)
      return true
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === EEXIST) return false
      // the parents are missing, and another program may remove them again before the next attempt
      if (errno !== ENOENT || attempt === MAKE_ATTEMPTS) throw error
      makeDirectories(dirname(path), DIRECTORY_MODE)
    }
  }
}

/** The directories directly below one. */
function subdirectories(path: string): string[] {
  // kernfs counts subdirectories in the link count, which saves listing the many files of a leaf
  if (statSync(path).nlink === 2) return []
  return directoriesOf(path, readdirSync(path, { withFileTypes: true }))
}

async function subdirectoriesAside(path: string): Promise<string[]> {
  if ((await promises.stat(path)).nlink === 2) return []
  return directoriesOf(path, await promises.readdir(path, { withFileTypes: true }))
}

function directoriesOf(path: string, entries: readonly Dirent[]): string[] {
  return entries.filter((entry) => entry.isDirectory()).map((entry) => `${path}/${entry.name}`)
}

/** The pids of a list that the kernel wrote. An incomplete list is refused: a cut number would be another process's. */
function parsePids(text: string, path: string): number[] {
  const pids: number[] = []
  let pid = 0
  let digits = 0
  // parsed digit by digit: splitting a list of thousands takes several times as long
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - ZERO
    if (digit >= 0 && digit <= 9) {
      pid = pid * 10 + digit
      digits++
    } else if (digit === NEWLINE - ZERO) {
      // the kernel writes 0 for a process outside the runtime's pid namespace
      if (pid > 0) pids.push(pid)
      pid = digits = 0
    } else throw notProcesses(path)
  }
  if (digits > 0) throw notProcesses(path)
  return pids
}

function notProcesses(path: string): Error {
  return new Error(`"${path}" is no list of processes`)
}

/**
 * Why the list of a directory cannot be read: the directory is gone, or lists no processes; throws any other failure.
 */
function isNobodys(error: unknown): { gone: boolean } {
  const errno = errnoOf(error)
  if (errno === ENOENT || errno === ENODEV) return { gone: true }
  // a threaded v2 cgroup lists no processes: they appear in the domain cgroup above
  if (errno === EOPNOTSUPP) return { gone: false }
  throw error
}

/** All processes in a cgroup and below, in no order; empty when it does not exist. */
export function processesIn(path: string): number[] {
  const pids = new Set<number>()
  const visit = (dir: string) => {
    try {
      const file = `${dir}/cgroup.procs`
      for (const pid of parsePids(readText(file), file)) pids.add(pid)
    } catch (error) {
      if (isNobodys(error).gone) return
    }
    try {
      for (const child of subdirectories(dir)) visit(child)
    } catch (error) {
      if (errnoOf(error) !== ENOENT) throw error
    }
  }
  visit(path)
  return [...pids]
}

/** Like processesIn, on threads of the pool: the kernel may take long to walk thousands of processes. */
export async function listProcesses(path: string): Promise<number[]> {
  const lists: number[][] = []
  const visit = async (dir: string): Promise<void> => {
    try {
      const file = `${dir}/cgroup.procs`
      lists.push(parsePids(await readTextAside(file), file))
    } catch (error) {
      if (isNobodys(error).gone) return
    }
    try {
      for (const child of await subdirectoriesAside(dir)) await visit(child)
    } catch (error) {
      if (errnoOf(error) !== ENOENT) throw error
    }
  }
  await visit(path)
  // a process that moved during the walk may be in two lists
  return lists.length === 1 && lists[0] !== undefined ? lists[0] : [...new Set(lists.flat())]
}

/** Removes a cgroup and all below it, deepest first; the errno of the failure, or 0. */
async function removeTree(path: string): Promise<number> {
  const errno = await removeDirectoryAside(path)
  if (errno !== EBUSY && errno !== ENOTEMPTY) return errno
  let children: string[]
  try {
    children = await subdirectoriesAside(path)
  } catch {
    // gone in the meantime: the next attempt finds out
    return errno
  }
  if (children.length === 0) return errno
  for (const child of children) {
    const failed = await removeTree(child)
    if (failed !== 0) return failed
  }
  return removeDirectoryAside(path)
}

/**
 * Removes one cgroup on a thread of the pool, since the kernel makes it wait for changes of other cgroups; the errno,
 * or 0.
 */
async function removeDirectoryAside(path: string): Promise<number> {
  try {
    await promises.rmdir(path)
    return 0
  } catch (error) {
    return removalErrno(error)
  }
}

function removalErrno(error: unknown): number {
  const errno = errnoOf(error)
  if (errno === 0) throw error
  return errno === ENOENT || errno === ENODEV ? 0 : errno
}

/** removeTree for callers that cannot wait. */
function removeTreeNow(path: string): number {
  const errno = removeDirectory(path)
  if (errno !== EBUSY && errno !== ENOTEMPTY) return errno
  let children: string[]
  try {
    children = subdirectories(path)
  } catch {
    // gone in the meantime: the next attempt finds out
    return errno
  }
  if (children.length === 0) return errno
  for (const child of children) {
    const failed = removeTreeNow(child)
    if (failed !== 0) return failed
  }
  return removeDirectory(path)
}

function removeDirectory(path: string): number {
  try {
    rmdirSync(path)
    return 0
  } catch (error) {
    return removalErrno(error)
  }
}

/**
 * Removes cgroups with all below them. A process that has just died may keep its cgroup busy for a moment (EBUSY). The
 * removal is then tried again, after 1 ms and doubling, for about a second in all.
 */
export async function removeTrees(paths: Iterable<string>, name: (path: string) => string): Promise<void> {
  let left = [...paths]
  for (let attempt = 0; ; attempt++) {
    let failure: { path: string; errno: number } | undefined
    const busyOnes: string[] = []
    for (const path of left) {
      const errno = await removeTree(path)
      if (errno === 0) continue
      failure ??= { path, errno }
      busyOnes.push(path)
    }
    left = busyOnes
    if (failure === undefined) return
    const busy = failure.errno === EBUSY || failure.errno === ENOTEMPTY
    if (!busy || attempt === REMOVE_ATTEMPTS - 1) {
      const count = (await listProcesses(failure.path)).length
      const note = count === 0 ? '' : ` (${count} process${count === 1 ? '' : 'es'} in it)`
      const cause = Object.assign(new Error('rmdir'), { errno: failure.errno })
      throw cgroupError(`cannot remove cgroup "${name(failure.path)}"`, cause, {
        call: 'rmdir',
        path: failure.path,
        note,
      })
    }
    await delay(2 ** attempt)
  }
}

/** Removes directories that were just made and never used, after a failure. */
export function unmake(paths: readonly string[]): void {
  for (const path of paths) removeTreeNow(path)
}
