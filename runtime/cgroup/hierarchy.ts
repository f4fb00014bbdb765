/**
 * Where the cgroups of this host are: the mode, the mounted hierarchies with the runtime's own place in each, and how a
 * spec's cgroupsPath becomes a directory. Invariant: a path from a spec is normalized as an absolute path before it is
 * joined to another, so `..` never rises above its starting point.
 */
import { closeSync, constants, openSync, readSync, statfsSync } from 'node:fs'
import { posix } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { unescapeMountPath } from '../sys/mountinfo.ts'
import { isInitialIdMap } from '../sys/user-namespace.ts'
import { readText } from './files.ts'

/**
 * v1: one hierarchy per controller. hybrid: the same, with a v2 tree for its core files beside them. v2: one tree for
 * everything.
 */
export type CgroupMode = 'v1' | 'hybrid' | 'v2'

/** The directory below which every hierarchy is mounted. */
export const CGROUP_ROOT = '/sys/fs/cgroup'

const UNIFIED_ROOT = `${CGROUP_ROOT}/unified`
const CGROUP2_SUPER_MAGIC = 0x63677270
const MOUNTINFO_CHUNK = 4096

/** The key of the v2 tree in a record of paths, as in state.json. */
export const UNIFIED = ''

/** The controllers of v1 that containers are put into, where the host has them. */
const KNOWN_CONTROLLERS = new Set([
  'cpuset',
  'devices',
  'memory',
  'cpu',
  'cpuacct',
  'pids',
  'blkio',
  'hugetlb',
  'net_cls',
  'net_prio',
  'perf_event',
  'freezer',
  'rdma',
  'misc',
])

/** One mounted hierarchy. */
export interface Hierarchy {
  /** its controllers; "name=…" for a v1 hierarchy without any; "" (UNIFIED) for the v2 tree */
  readonly controllers: readonly string[]
  readonly mountpoint: string
  /** the runtime's own cgroup in it, relative to the mount point, with a leading "/" */
  readonly ownPath: string
}

function fsType(path: string): number | undefined {
  try {
    return statfsSync(path).type
  } catch {
    // missing or unreadable: either way there is no such hierarchy
    return undefined
  }
}

/** The mode of this host, by the types of the mounted file systems. */
export function detectMode(): CgroupMode {
  if (fsType(CGROUP_ROOT) === CGROUP2_SUPER_MAGIC) return 'v2'
  return fsType(UNIFIED_ROOT) === CGROUP2_SUPER_MAGIC ? 'hybrid' : 'v1'
}

/**
 * Parses /proc/PID/cgroup: the process's path in each hierarchy, keyed by its controllers as the kernel lists them
 * ("cpu,cpuacct", "" for v2).
 */
export function parseOwnCgroups(text: string): Map<string, string> {
  const own = new Map<string, string>()
  for (const line of text.split('\n')) {
    const first = line.indexOf(':')
    const second = line.indexOf(':', first + 1)
    if (first > 0 && second > first) own.set(line.slice(first + 1, second), line.slice(second + 1))
  }
  return own
}

interface CgroupMount {
  readonly key: string
  readonly mountpoint: string
  readonly root: string
}

/**
 * Parses one line of mountinfo; undefined unless it is a cgroup mount below /sys/fs/cgroup. `keys` are the keys of
 * parseOwnCgroups.
 */
export function parseCgroupMount(line: string, keys: Iterable<string>): CgroupMount | undefined {
  // a cheap test first: most lines of a host are other mounts
  if (!line.includes(' - cgroup')) return undefined
  const [head = '', tail = ''] = line.split(' - ')
  const [fstype, , options = ''] = tail.split(' ')
  if (fstype !== 'cgroup' && fstype !== 'cgroup2') return undefined
  const [, , , root = '', mountpoint = ''] = head.split(' ')
  if (mountpoint !== CGROUP_ROOT && !mountpoint.startsWith(`${CGROUP_ROOT}/`)) return undefined
  const place = { mountpoint: unescapeMountPath(mountpoint), root: unescapeMountPath(root) }
  if (fstype === 'cgroup2') return { key: UNIFIED, ...place }
  const words = new Set(options.split(','))
  for (const key of keys) {
    if (key !== UNIFIED && key.split(',').every((controller) => words.has(controller))) return { key, ...place }
  }
  return undefined
}

/**
 * The hierarchies that containers are put into, each with the runtime's own cgroup. mountinfo is read in pieces, and
 * only until every hierarchy was found. They are mounted at boot and come first, and a busy host has thousands of
 * mounts behind them.
 */
export function readHierarchies(mode: CgroupMode): Hierarchy[] {
  const own = parseOwnCgroups(readText('/proc/self/cgroup'))
  const unified = mode === 'v2' ? CGROUP_ROOT : UNIFIED_ROOT
  const wanted = new Set([...own.keys()].filter((key) => (key === UNIFIED ? mode !== 'v1' : mode !== 'v2')))
  const found = new Map<string, CgroupMount>()
  const fd = openSync('/proc/self/mountinfo', constants.O_RDONLY)
  try {
    const chunk = Buffer.allocUnsafe(MOUNTINFO_CHUNK)
    for (let rest = ''; found.size < wanted.size; ) {
      const length = readSync(fd, chunk, 0, chunk.length, null)
      if (length === 0) break
      const lines = (rest + chunk.toString('latin1', 0, length)).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        const mount = parseCgroupMount(line, wanted)
        if (mount === undefined || found.has(mount.key) || !wanted.has(mount.key)) continue
        if (mount.key !== UNIFIED || mount.mountpoint === unified) found.set(mount.key, mount)
      }
    }
  } finally {
    closeSync(fd)
  }
  const hierarchies: Hierarchy[] = []
  for (const [key, { mountpoint, root }] of found) {
    const controllers = key.split(',').filter((controller) => isKnown(controller))
    if (controllers.length === 0) continue
    hierarchies.push({ controllers, mountpoint, ownPath: belowRoot(own.get(key) ?? '/', root) })
  }
  return hierarchies
}

function isKnown(controller: string): boolean {
  return controller === UNIFIED || controller.startsWith('name=') || KNOWN_CONTROLLERS.has(controller)
}

/**
 * Whether the kernel refuses device rules to this process, as it does to every user but root of the initial user
 * namespace. The rules of the parent cgroups hold nevertheless.
 */
export function lacksDeviceRules(): boolean {
  return process.geteuid?.() !== 0 || !isInitialIdMap(readText('/proc/self/uid_map'))
}

/**
 * A path of /proc/self/cgroup as seen below a mount whose root is not the hierarchy's, as in a container's own view.
 */
function belowRoot(path: string, root: string): string {
  if (root === '/' || root.startsWith('/..')) return path
  if (path === root) return '/'
  return path.startsWith(`${root}/`) ? path.slice(root.length) : path
}

/**
 * The path of a container below a mount point. An absolute path counts from the mount point; a relative one, or else
 * the id, from `ownPath`. A colon has no meaning: the systemd driver is chosen by an option, never by the form of a
 * path.
 */
export function innerPath(path: string | undefined, id: string, ownPath: string): string {
  const wanted = path === undefined || path === '' ? id : path
  const cleaned = posix.normalize(`/${wanted}`).replace(/(?<=.)\/$/, '')
  const inner = wanted.startsWith('/') ? cleaned : posix.join('/', ownPath, cleaned)
  if (cleaned === '/')
    throw new RuntimeError('InvalidArgument', `cannot use "${wanted}" as a container's cgroup: it is the root`)
  return inner
}

/** The name of a cgroup in messages: its path within its hierarchy. */
export function displayName(key: string, path: string): string {
  const below = path.startsWith(`${CGROUP_ROOT}/`) ? path.slice(CGROUP_ROOT.length) : path
  // a v1 hierarchy or the hybrid v2 tree is mounted one level down
  const nested = key !== UNIFIED || below.startsWith('/unified/')
  return nested && path !== below ? below.replace(/^\/[^/]+/, '') : below
}
