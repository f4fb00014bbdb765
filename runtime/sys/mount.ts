/**
 * Mounting on the host side: callers that prepare the root file system of a container mount fstab-style entries here,
 * and unmount whole trees. Mounts inside the container are made by ts-init. Invariant: a failed mount leaves nothing
 * behind, and only `setPropagation` and `detachTree` change how a mount propagates.
 */

import { promises, readFileSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { mount, mountAside, umount2, umount2Aside } from './libc.ts'
import {
  MNT_DETACH,
  MS_BIND,
  MS_RDONLY,
  MS_REC,
  MS_REMOUNT,
  MS_SLAVE,
  PAGE_BYTES,
  PROPAGATION_FLAGS,
  UMOUNT_NOFOLLOW,
} from './linux.ts'
import { attachLoop } from './loop-device.ts'
import { escapeMountPath, unescapeMountPath } from './mountinfo.ts'

/** An option for loop devices: the file is read and written past the page cache (LO_FLAGS_DIRECT_IO). */
const DIRECT = 'direct-io'

/** Options that set or clear an MS_* flag (mount(8)); all others are data for the file system. */
const FLAGS: Readonly<Record<string, { readonly bit: number; readonly clear?: true }>> = {
  async: { bit: 16, clear: true },
  atime: { bit: 1024, clear: true },
  bind: { bit: MS_BIND },
  dev: { bit: 4, clear: true },
  diratime: { bit: 2048, clear: true },
  dirsync: { bit: 128 },
  exec: { bit: 8, clear: true },
  iversion: { bit: 1 << 23 },
  lazytime: { bit: 1 << 25 },
  mand: { bit: 64 },
  noatime: { bit: 1024 },
  nodev: { bit: 4 },
  nodiratime: { bit: 2048 },
  noexec: { bit: 8 },
  noiversion: { bit: 1 << 23, clear: true },
  nolazytime: { bit: 1 << 25, clear: true },
  nomand: { bit: 64, clear: true },
  norelatime: { bit: 1 << 21, clear: true },
  nostrictatime: { bit: 1 << 24, clear: true },
  nosuid: { bit: 2 },
  rbind: { bit: MS_BIND | MS_REC },
  relatime: { bit: 1 << 21 },
  remount: { bit: MS_REMOUNT },
  ro: { bit: MS_RDONLY },
  rw: { bit: MS_RDONLY, clear: true },
  strictatime: { bit: 1 << 24 },
  suid: { bit: 2, clear: true },
  sync: { bit: 16 },
}

const PROPAGATION: Readonly<Record<string, number>> = PROPAGATION_FLAGS

/** One mount in fstab terms; `target` is absolute. */
export interface FsMount {
  readonly type: string
  readonly source: string
  readonly target: string
  readonly options: readonly string[]
}

/** Whether an option is about the propagation of a mount. */
export function isPropagation(option: string): boolean {
  return PROPAGATION[option] !== undefined
}

/** Sets the propagation that the options of a new mount ask for; unmounts it when that fails. */
export function setPropagation(target: string, options: readonly string[]): void {
  const flags = options.reduce((all, option) => all | (PROPAGATION[option] ?? 0), 0)
  if (flags !== 0) orUnmount(target, () => mount({ target, flags }))
}

function orUnmount(target: string, step: () => void): void {
  try {
    step()
  } catch (error) {
    umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW)
    throw error
  }
}

/**
 * Mounts one entry; the option `loop` mounts a file through a loop device.
 * @throws Unimplemented for file systems that a program mounts and for mapped ids: both belong to runtime/mounts/
 */
export async function mountFs(entry: FsMount): Promise<void> {
  const { source, target, type, options } = entry
  const refuse = (what: string): RuntimeError =>
    new RuntimeError('Unimplemented', `cannot mount "${source}" on "${target}": the ${what} is not supported here`)
  if (/^fuse3?\./.test(type)) throw refuse(`type "${type}"`)
  const loop = options.includes('loop')
  let flags = 0
  const data: string[] = []
  for (const option of options) {
    const flag = FLAGS[option]
    if (flag !== undefined) flags = flag.clear ? flags & ~flag.bit : flags | flag.bit
    else if (/^[ug]idmap=/.test(option)) throw refuse(`option "${option}"`)
    else if (!isOurs(option, loop)) data.push(option)
  }
  const readonly = (flags & MS_RDONLY) !== 0
  using device = loop ? attachLoop(source, { readonly, direct: options.includes(DIRECT) }) : undefined
  await mountData({ ...entry, source: device?.path ?? source }, flags, data)
  setPropagation(target, options)
  // a bind mount becomes read-only only in a second step (mount(2))
  if ((flags & MS_BIND) !== 0 && readonly) orUnmount(target, () => mount({ target, flags: flags | MS_REMOUNT }))
}

/** Whether an option is handled here, so that the file system must not see it. */
function isOurs(option: string, loop: boolean): boolean {
  return (
    option === '' ||
    option === 'defaults' ||
    isPropagation(option) ||
    (loop && (option === 'loop' || option === DIRECT))
  )
}

async function mountData(entry: FsMount, flags: number, data: readonly string[]): Promise<void> {
  const text = data.join(',')
  const { source, target } = entry
  const fstype = (flags & MS_BIND) !== 0 ? undefined : entry.type
  const call = { source, target, fstype, flags, data: text === '' ? undefined : text }
  if (entry.type === 'overlay' && Buffer.byteLength(text) >= PAGE_BYTES - 512) mountLongOverlay(entry, flags, data)
  // a mount without a disk behind it returns at once, so a thread of the pool would only cost time
  else if (fstype === undefined || fstype === 'overlay' || fstype === 'tmpfs') mount(call)
  else await mountAside(call)
}

/**
 * An overlay whose options do not fit into one page: its lower directories are given relative to their common parent,
 * which becomes the working directory during the call.
 */
function mountLongOverlay(entry: FsMount, flags: number, data: readonly string[]): void {
  const lowerOption = data.find((option) => option.startsWith('lowerdir='))
  const lowers = lowerOption?.slice('lowerdir='.length).split(':') ?? []
  const first = lowers[0] ?? ''
  let parent = first.slice(0, first.lastIndexOf('/'))
  while (parent !== '' && !lowers.every((dir) => dir.startsWith(`${parent}/`)))
    parent = parent.slice(0, parent.lastIndexOf('/'))
  const short =
    parent === ''
      ? data
      : data.map((o) => (o === lowerOption ? `lowerdir=${lowers.map((d) => d.slice(parent.length + 1)).join(':')}` : o))
  const text = short.join(',')
  if (Buffer.byteLength(text) >= PAGE_BYTES) {
    throw new RuntimeError(
      'InvalidArgument',
      `cannot mount "overlay" on "${entry.target}": ${lowers.length} layers make an option string of more than ${PAGE_BYTES} bytes`,
    )
  }
  // The working directory changes only within this synchronous block, in which no other JavaScript runs. Every path
  // that a pool thread may be using is absolute.
  const before = process.cwd()
  if (parent !== '') process.chdir(parent)
  try {
    mount({ source: entry.source, target: entry.target, fstype: entry.type, flags, data: text })
  } finally {
    process.chdir(before)
  }
}

/** The mount points at and below a path in the text of a /proc/PID/mountinfo, in its order, the latest last. */
export function mountsBelow(path: string, mountinfo: string): string[] {
  const found: string[] = []
  // a host may have thousands of mounts and few of them are below the path, so only lines that contain it are parsed
  const wanted = ` ${escapeMountPath(path)}`
  for (let at = mountinfo.indexOf(wanted); at >= 0; ) {
    const end = mountinfo.indexOf('\n', at)
    const line = mountinfo.slice(mountinfo.lastIndexOf('\n', at) + 1, end < 0 ? undefined : end)
    const target = unescapeMountPath(line.split(' ', 5)[4] ?? '')
    if (target === path || target.startsWith(`${path}/`)) found.push(target)
    at = end < 0 ? -1 : mountinfo.indexOf(wanted, end)
  }
  return found
}

interface MountLine {
  readonly id: number
  readonly parent: number
  readonly point: string
}

function mountTable(): MountLine[] {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter(Boolean)
  return lines.map((line) => {
    const [id, parent, , , point = ''] = line.split(' ', 5)
    return { id: Number(id), parent: Number(parent), point: unescapeMountPath(point) }
  })
}

/** The ids of the mounts at a path, the lowest first. */
export function mountIdsAt(path: string): number[] {
  const here = mountTable().filter(({ point }) => point === path)
  const ids = new Set(here.map(({ id }) => id))
  const stack: number[] = []
  for (let next = here.find(({ parent }) => !ids.has(parent)); next !== undefined; ) {
    const { id } = next
    stack.push(id)
    next = here.find(({ parent }) => parent === id)
  }
  return stack
}

/** The id of the mount that an open file is on (proc_pid_fdinfo(5)). */
export function mountIdOf(fd: number): number {
  return Number(/^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? -1)
}

/**
 * Unmounts the uppermost mount at a path and everything below it, lazily. The tree first becomes a slave, so that the
 * unmount does not propagate to the mounts that it is a copy of.
 */
export function detachTree(path: string): void {
  mount({ target: path, flags: MS_SLAVE | MS_REC })
  umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW)
}

/**
 * Unmounts everything at and below a path, lazily; nothing mounted there is no error. The table is read and the calls
 * are made on threads of the pool: the table may be long, and umount2(2) may wait for a disk or for other mounts.
 */
export async function unmountTree(path: string): Promise<void> {
  const mountinfo = await promises.readFile('/proc/self/mountinfo', 'utf8')
  for (const target of mountsBelow(path, mountinfo).reverse()) await umount2Aside(target, MNT_DETACH | UMOUNT_NOFOLLOW)
}
