/**
 * The mounts of a container that come from outside. CRIU saves the others itself. For these it keeps a name, and a
 * restore says where the source of each name is on the host now. The plan of a create tells which they are: every mount
 * that it binds. Invariant: what a container has changed in its tree decides about names, and never about a source.
 */
import { lstatSync, readFileSync, readlinkSync } from 'node:fs'
import { posix } from 'node:path'
import { MOUNT_HOW, type Op, ROOTFS_HOW, SYNC_POINTS } from '../../../proto/init-plan.ts'
import type { CgroupJoin } from '../../cgroup/cgroup.ts'
import { hostFacts } from '../../host/facts.ts'
import { lookAtProcess } from '../../init/temporary-process.ts'
import type { Logger } from '../../logger.ts'
import { planDevices } from '../../plan/devices.ts'
import { hostRoots } from '../../plan/host-root.ts'
import { planMounts } from '../../plan/mounts.ts'
import { planNamespaces } from '../../plan/namespaces.ts'
import { cleanPath } from '../../plan/paths.ts'
import type { Spec } from '../../spec/types.ts'
import { MS_PRIVATE, MS_REC } from '../../sys/linux.ts'
import { unescapeMountPath } from '../../sys/mountinfo.ts'
import type { ProcessMaker } from '../../sys/reaper.ts'

/** The longest chain of symlinks that is followed, as in path_resolution(7). */
const MOST_LINKS = 40
/** CRIU's name of a file that masks another. */
const NULL_DEVICE = '/dev/null'

/** A container, as far as its mounts depend on it. */
export interface MountedContainer {
  readonly spec: Spec
  readonly bundle: string
  readonly rootfs: string
  readonly join: CgroupJoin
}

/** A mount from outside: its point in the container, and its source on the host. */
interface Bind {
  readonly target: string
  readonly source: string
}

/** One line of a mountinfo. */
export interface MountLine {
  readonly id: number
  /** the part of the file system that is mounted */
  readonly root: string
  readonly point: string
}

/** The mounts of a process (proc_pid_mountinfo(5)). */
export function mountsOf(pid: number): readonly MountLine[] {
  const lines = readFileSync(`/proc/${pid}/mountinfo`, 'utf8').split('\n').filter(Boolean)
  return lines.map((line) => {
    const [id, , , root = '', point = ''] = line.split(' ', 5)
    return { id: Number(id), root: unescapeMountPath(root), point: unescapeMountPath(point) }
  })
}

/** The names of the mounts from outside by their points, for a dump. */
export function mountsToDump(container: MountedContainer, pid: number): readonly { key: string; val: string }[] {
  const points = binds(container).map(({ target }) => resolveIn(`/proc/${pid}/root`, target))
  const mounted = mountsOf(pid)
  const masks = container.spec.linux.maskedPaths
    .map(cleanPath)
    .filter((path) => mounted.findLast(({ point }) => point === path)?.root.endsWith('/null'))
  return [
    ...[...new Set(points)].map((point) => ({ key: point, val: point })),
    ...[...new Set(masks)].map((path) => ({ key: path, val: NULL_DEVICE })),
  ]
}

/** The sources of the mounts from outside by their names, for a restore. */
export function mountsToRestore(container: MountedContainer): readonly { key: string; val: string }[] {
  const sources = new Map<string, string>()
  for (const { target, source } of binds(container)) {
    sources.set(target, source)
    // the name is the point behind the symlinks of the image
    sources.set(resolveIn(container.rootfs, target), source)
  }
  if (container.spec.linux.maskedPaths.length > 0) sources.set(NULL_DEVICE, NULL_DEVICE)
  return [...sources].map(([key, val]) => ({ key, val }))
}

/** Every mount that a create binds from the host. */
function binds({ spec, bundle, rootfs, join }: MountedContainer): readonly Bind[] {
  const host = hostFacts()
  const namespaces = planNamespaces(spec.linux, host)
  const roots = hostRoots({ spec, bundle, rootfs })
  const plan = planMounts({
    mounts: spec.mounts,
    bundle,
    hostRoots: roots,
    namespaces,
    cgroup: join,
    host,
    mountLabel: spec.linux.mountLabel,
  })
  const devices = plan.bindsDev
    ? []
    : planDevices(spec.linux.devices, { bind: namespaces.own.has('user') || host.rootless, how: 0, kcore: false })
  return [...plan.ops, ...devices].flatMap((op) =>
    op.op === 'mount' && (op.how & MOUNT_HOW.BIND) !== 0 ? [{ target: op.target, source: op.source }] : [],
  )
}

/**
 * The path behind the symlinks in a tree, as far as they exist: where a mount on `path` lies. Only a name follows from
 * it, so it does no harm that the tree may change meanwhile.
 */
function resolveIn(root: string, path: string): string {
  const todo = path.split('/').filter(Boolean)
  let done = '/'
  for (let links = 0; ; ) {
    const name = todo.shift()
    if (name === undefined) return done
    const next = posix.join(done, name)
    const target = links < MOST_LINKS ? linkAt(`${root}${next}`) : undefined
    if (target === undefined) {
      done = next
      continue
    }
    links++
    todo.unshift(...target.split('/').filter(Boolean))
    if (target.startsWith('/')) done = '/'
  }
}

function linkAt(path: string): string | undefined {
  try {
    return lstatSync(path).isSymbolicLink() ? readlinkSync(path) : undefined
  } catch {
    // it does not exist, so it is no symlink
    return undefined
  }
}

/**
 * Makes the mount points that a restore needs, in a root that may be new: CRIU makes none. A temporary process mounts
 * everything in the order of a create, in a mount namespace that ends with it. What it makes in a mount goes with that
 * mount, and what it makes in the root stays.
 */
export async function makeMountPoints(
  container: MountedContainer,
  helpers: { readonly reaper: ProcessMaker; readonly logger: Logger; readonly helper: string | undefined },
): Promise<void> {
  const { spec, bundle, rootfs } = container
  if (spec.mounts.length === 0) return
  const host = hostFacts()
  const namespaces = planNamespaces({ ...spec.linux, namespaces: [{ type: 'mount' }] }, host)
  const mounts = planMounts({
    mounts: spec.mounts.map(({ options, ...mount }) => ({
      ...mount,
      options: options.filter((option) => !option.includes('idmap')),
      uidMappings: [],
      gidMappings: [],
    })),
    bundle,
    hostRoots: hostRoots({ spec, bundle, rootfs }),
    namespaces,
    cgroup: container.join,
    host,
    mountLabel: undefined,
  })
  const ops: Op[] = [
    namespaces.clone,
    { op: 'propagation', path: '/', flags: MS_PRIVATE | MS_REC, origin: '/linux/rootfsPropagation' },
    { op: 'rootfs', path: rootfs, how: ROOTFS_HOW.PRIVATE, origin: '/root/path' },
    ...mounts.ops.map(standIn),
    { op: 'sync', point: SYNC_POINTS.RUNTIME_HOOKS, origin: '/mounts' },
  ]
  await lookAtProcess({ ops, stop: 'onRuntimeHooks', look: () => undefined }, helpers)
}

/** Anything but a bind is made by a tmpfs at its point: CRIU mounts what was there. */
function standIn(op: Op): Op {
  if (op.op !== 'mount' || (op.how & MOUNT_HOW.BIND) !== 0) return op
  return { ...op, source: 'tmpfs', fstype: 'tmpfs', options: [], how: 0, set: 0n, clear: 0n, recSet: 0n, recClear: 0n }
}
