/** Device nodes of this host as entries of `linux.devices`, for callers that give a container some of them, or all. */
import { lstatSync, readdirSync, type Stats } from 'node:fs'
import { join } from 'node:path'
import { RuntimeError } from '../errors.ts'
import type { Device } from '../spec/types.ts'
import { errnoCode, errnoOf, errnoWords } from '../sys/errno.ts'

/** Folders of /dev that are left out: each container has its own, or they belong to a container manager or to udev. */
const NOT_DEVICES = new Set(['pts', 'shm', 'fd', 'mqueue', '.lxc', '.lxd-mounts', '.udev'])
/** The host's console, which is left out: a container gets its own. */
const CONSOLE = '/dev/console'

/** The entry of a device node. @throws NotFound; InvalidArgument when it is no device; PermissionDenied */
export function deviceFromPath(path: string): Device {
  let found: Stats
  try {
    found = lstatSync(path)
  } catch (error) {
    const errno = errnoOf(error)
    throw new RuntimeError(errnoCode(errno), `cannot look at the device "${path}": ${errnoWords(errno)}`, {
      cause: error,
    })
  }
  const device = deviceOf(path, found)
  if (device === undefined)
    throw new RuntimeError('InvalidArgument', `cannot use "${path}" as a device: not a device node`)
  return device
}

/** The entries of every device node below /dev. @throws Node's error for a folder that cannot be read */
export function hostDevices(folder = '/dev'): readonly Device[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) return NOT_DEVICES.has(entry.name) ? [] : hostDevices(path)
    if (path === CONSOLE) return []
    const found = lstatSync(path, { throwIfNoEntry: false })
    const device = found === undefined ? undefined : deviceOf(path, found)
    return device === undefined ? [] : [device]
  })
}

function deviceOf(path: string, found: Stats): Device | undefined {
  const type = found.isCharacterDevice() ? 'c' : found.isBlockDevice() ? 'b' : found.isFIFO() ? 'p' : undefined
  if (type === undefined) return undefined
  const { major, minor } = type === 'p' ? { major: 0, minor: 0 } : numbers(BigInt(found.rdev))
  return { type, path, major, minor, fileMode: found.mode & 0o7777, uid: found.uid, gid: found.gid }
}

/** glibc's layout of dev_t (makedev(3)). */
function numbers(device: bigint): { major: number; minor: number } {
  return {
    major: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn)),
    minor: Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n)),
  }
}
