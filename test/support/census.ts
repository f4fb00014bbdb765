/**
 * The leak census: everything outside a process that a container can leave behind, read before a test and again after
 * it. An item is a string, so the difference of two censuses is a report. What may stay is allowed here by name, with
 * the reason.
 */
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SLOWNESS } from './needs.ts'

/** Where a census looks: at the traces of one private containerd and one of its namespaces. */
export interface CensusScope {
  /** The daemon's own folder; its name occurs in the command lines, mounts and environments of all that it starts. */
  readonly folder: string
  readonly namespace: string
  /** The ids of all containers that the daemon was asked for so far. */
  readonly ids: readonly string[]
}

/** Sets of items by kind: 'process 12 (sh)', 'mount /run/…', … */
export type Census = ReadonlySet<string>

const CGROUP_ROOT = '/sys/fs/cgroup'
/** The folder of the sockets of all daemons' shims. A socket's name is a hash, which tells our own from others. */
const SOCKETS = '/run/containerd/s'

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    // it ended, or was removed, between the listing and the look
    return ''
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

/** The fields of /proc/PID/stat that follow the name, which may itself contain spaces and parentheses. */
function statOf(pid: number): { name: string; state: string; parent: number } | undefined {
  const text = read(`/proc/${pid}/stat`)
  const end = text.lastIndexOf(')')
  if (end < 0) return undefined
  const [state = '', parent = '0'] = text.slice(end + 2).split(' ')
  return { name: text.slice(text.indexOf('(') + 1, end), state, parent: Number(parent) }
}

/** Whether a process exists and is more than the record of its end. */
export function isAlive(pid: number): boolean {
  const state = statOf(pid)?.state
  return state !== undefined && state !== 'Z' && state !== 'X'
}

/** All process ids of this machine. */
export function allPids(): number[] {
  return list('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
}

/** The processes below one, itself not included, in no order. */
export function descendants(pid: number): { pid: number; name: string; state: string }[] {
  const children = new Map<number, { pid: number; name: string; state: string }[]>()
  for (const each of allPids()) {
    const stat = statOf(each)
    if (stat === undefined) continue
    children.set(stat.parent, [...(children.get(stat.parent) ?? []), { pid: each, name: stat.name, state: stat.state }])
  }
  const found: { pid: number; name: string; state: string }[] = []
  const pending = [pid]
  while (pending.length > 0) {
    const below = children.get(pending.pop()!) ?? []
    found.push(...below)
    pending.push(...below.map((each) => each.pid))
  }
  return found
}

function isOurs(pid: number, scope: CensusScope): boolean {
  const marks = [read(`/proc/${pid}/cmdline`), read(`/proc/${pid}/environ`)]
  if (marks.some((text) => text.includes(scope.folder))) return true
  return read(`/proc/${pid}/cgroup`)
    .split('\n')
    .some((line) => line.includes(`/${scope.namespace}/`))
}

function processes(scope: CensusScope, except: ReadonlySet<number>): string[] {
  return allPids()
    .filter((pid) => !except.has(pid) && isOurs(pid, scope))
    .map(
      (pid) =>
        `process ${pid} (${statOf(pid)?.name ?? '?'} ${read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim()})`,
    )
}

/** Zombies that one of our processes should have reaped. This machine's init reaps its own. */
function zombies(scope: CensusScope): string[] {
  return allPids().flatMap((pid) => {
    const stat = statOf(pid)
    return stat?.state === 'Z' && isOurs(stat.parent, scope) ? [`zombie ${pid} (${stat.name}) of ${stat.parent}`] : []
  })
}

function mounts(scope: CensusScope, mountinfo: string): string[] {
  return read(mountinfo)
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path.includes(scope.folder))
    .map((path) => `mount ${path}`)
}

/** Loop devices over files of the scope. */
function loops(scope: CensusScope): string[] {
  return list('/sys/block')
    .filter((name) => read(`/sys/block/${name}/loop/backing_file`).includes(scope.folder))
    .map((name) => `loop device /dev/${name}`)
}

function cgroupsBelow(path: string, found: string[]): void {
  for (const entry of list(path)) {
    const below = join(path, entry)
    if (!existsSync(join(below, 'cgroup.procs'))) continue
    found.push(below)
    cgroupsBelow(below, found)
  }
}

/** The cgroup folders of a namespace in every hierarchy, its own folder included. */
export function cgroupsOf(namespace: string): string[] {
  const found: string[] = []
  for (const root of [CGROUP_ROOT, ...list(CGROUP_ROOT).map((entry) => join(CGROUP_ROOT, entry))]) {
    const own = join(root, namespace)
    if (!existsSync(join(own, 'cgroup.procs'))) continue
    found.push(own)
    cgroupsBelow(own, found)
  }
  return found
}

function cgroups(scope: CensusScope): string[] {
  // allowed: the namespace's own folder. All of its containers share it, and no delete can tell which is the last
  return cgroupsOf(scope.namespace)
    .filter((path) => !path.endsWith(`/${scope.namespace}`))
    .map((path) => `cgroup ${path}`)
}

function sockets(scope: CensusScope): string[] {
  const address = join(scope.folder, 'c.sock')
  const hash = (id: string): string =>
    createHash('sha256')
      .update(join(address, scope.namespace, id))
      .digest('hex')
  return scope.ids
    .map((id) => join(SOCKETS, hash(id)))
    .filter((path) => existsSync(path))
    .map((path) => `socket ${path}`)
}

function files(scope: CensusScope): string[] {
  const task = (root: string): string => join(scope.folder, root, 'io.containerd.runtime.v2.task', scope.namespace)
  return [
    ...list(join(scope.folder, 'fifo')).map((name) => `fifo ${name}`),
    ...list(task('state')).map((name) => `bundle ${name}`),
    ...list(task('root')).map((name) => `work folder ${name}`),
    ...list(join(scope.folder, 'ts', scope.namespace))
      // allowed: the lock of the state folder, and the cache of compiled seccomp profiles, which outlives containers
      .filter((name) => !name.startsWith('.') && name !== 'seccomp')
      .map((name) => `state folder ${name}`),
    ...list(join('/run/containerd/runc', scope.namespace)).map((name) => `state folder ${name}`),
  ]
}

/**
 * Counts what is there now.
 * `except` are processes of the test itself, such as the daemon and an event recorder.
 * `mountinfo` is the mount table of the namespace where the daemon lives.
 */
export function takeCensus(
  scope: CensusScope,
  except: readonly number[] = [],
  mountinfo = '/proc/self/mountinfo',
): Census {
  return new Set([
    ...processes(scope, new Set(except)),
    ...zombies(scope),
    ...mounts(scope, mountinfo),
    ...loops(scope),
    ...cgroups(scope),
    ...sockets(scope),
    ...files(scope),
  ])
}

/** What `after` has and `before` has not. */
export function leaks(before: Census, after: Census): string[] {
  return [...after].filter((item) => !before.has(item)).sort()
}

/**
 * Waits until nothing is there that was not there before, and returns what is after the bound.
 * One look is not enough: this machine's init reaps orphans only after some seconds, and a shim ends after its last
 * answer.
 */
export async function settledLeaks(
  before: Census,
  take: () => Census | Promise<Census>,
  boundMs = 8_000 * SLOWNESS,
): Promise<string[]> {
  const deadline = performance.now() + boundMs
  for (;;) {
    const left = leaks(before, await take())
    if (left.length === 0 || performance.now() > deadline) return left
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
