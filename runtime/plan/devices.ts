/**
 * Device nodes and the links of /dev. Every container gets the six nodes that programs expect; an entry of the spec
 * with the same path replaces one. A process in a user namespace cannot make device nodes (fifos it can), so the host's
 * nodes are bound instead.
 */
import { MOUNT_HOW, type Op } from '../../proto/init-plan.ts'
import type { Device } from '../spec/types.ts'
import { cleanPath } from './paths.ts'

const TYPE_BITS = { c: 0o020000, u: 0o020000, b: 0o060000, p: 0o010000 } as const
const DEFAULT_MODE = 0o666

const DEFAULT_DEVICES: readonly Device[] = [
  { type: 'c', path: '/dev/null', major: 1, minor: 3, uid: 0, gid: 0 },
  { type: 'c', path: '/dev/zero', major: 1, minor: 5, uid: 0, gid: 0 },
  { type: 'c', path: '/dev/full', major: 1, minor: 7, uid: 0, gid: 0 },
  { type: 'c', path: '/dev/random', major: 1, minor: 8, uid: 0, gid: 0 },
  { type: 'c', path: '/dev/urandom', major: 1, minor: 9, uid: 0, gid: 0 },
  { type: 'c', path: '/dev/tty', major: 5, minor: 0, uid: 0, gid: 0 },
]

const DEV_LINKS: readonly Op[] = [
  // devpts has its own ptmx; a /dev/ptmx that the image brings must not be used
  { op: 'symlink', target: 'pts/ptmx', path: '/dev/ptmx', replace: 1 },
  { op: 'symlink', target: '/proc/self/fd', path: '/dev/fd', replace: 0 },
  { op: 'symlink', target: '/proc/self/fd/0', path: '/dev/stdin', replace: 0 },
  { op: 'symlink', target: '/proc/self/fd/1', path: '/dev/stdout', replace: 0 },
  { op: 'symlink', target: '/proc/self/fd/2', path: '/dev/stderr', replace: 0 },
]

const CORE_LINK: Op = { op: 'symlink', target: '/proc/kcore', path: '/dev/core', replace: 0 }

/** How the host and the namespaces decide about device nodes. */
export interface DeviceConditions {
  /** the process may not call mknod(2), so the host's nodes are bound */
  readonly bind: boolean
  /** MOUNT_HOW bits of such a bind besides BIND */
  readonly how: number
  /** the host has /proc/kcore, which the link /dev/core leads to */
  readonly kcore: boolean
}

/** Plans the nodes and links. */
export function planDevices(devices: readonly Device[], { bind, how, kcore }: DeviceConditions): readonly Op[] {
  const nodes = new Map<string, { device: Device; origin?: string }>()
  for (const device of DEFAULT_DEVICES) nodes.set(device.path, { device })
  for (const [index, device] of devices.entries()) {
    const path = cleanPath(device.path)
    if (path !== '/dev/ptmx') nodes.set(path, { device: { ...device, path }, origin: `/linux/devices/${index}` })
  }
  const ops = [...nodes.values()].map(({ device, origin }) =>
    bind && device.type !== 'p' ? bindNode(device, how, origin) : makeNode(device, origin),
  )
  return [...ops, ...DEV_LINKS, ...(kcore ? [CORE_LINK] : [])]
}

function makeNode({ type, path, major, minor, fileMode, uid, gid }: Device, origin: string | undefined): Op {
  const mode = TYPE_BITS[type] | ((fileMode ?? DEFAULT_MODE) & 0o7777)
  return { op: 'device', path, mode, major, minor, uid, gid, ...(origin === undefined ? {} : { origin }) }
}

function bindNode({ path }: Device, how: number, origin: string | undefined): Op {
  return {
    op: 'mount',
    source: path,
    target: path,
    fstype: '',
    options: [],
    how: MOUNT_HOW.BIND | how,
    set: 0n,
    clear: 0n,
    dropped: 0n,
    recSet: 0n,
    recClear: 0n,
    propagation: [],
    uidMap: '',
    gidMap: '',
    ...(origin === undefined ? {} : { origin }),
  }
}
