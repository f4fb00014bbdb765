/**
 * `linux` of config.json, checked field by field. The checks that need several fields at once (a sysctl and its namespace, masked paths
 * and the mount namespace) are here too, so that a Linux value is consistent in itself.
 */
import { specError } from '../errors.ts'
import {
  asObject,
  asString,
  defined,
  ID,
  integerField,
  listField,
  mapField,
  objectField,
  pointerTo,
  refuseField,
  refusePresence,
  requiredString,
  stringField,
  UINT32,
  unsupported,
  wordField,
} from './fields.ts'
import type { Json, JsonObject } from './json.ts'
import { PROPAGATION } from './mount-options.ts'
import { readResources } from './resources.ts'
import { readSeccomp } from './seccomp.ts'
import { checkSysctl } from './sysctl.ts'
import type { Device, IdMapping, Linux, Namespace, NamespaceType, Propagation } from './types.ts'

/** Kinds of namespaces that the specification knows. */
export const NAMESPACE_TYPES: readonly NamespaceType[] = [
  'cgroup',
  'ipc',
  'mount',
  'network',
  'pid',
  'time',
  'user',
  'uts',
]

/** Reads the Linux settings. @throws InvalidArgument, Unimplemented */
export function readLinux(linux: JsonObject, at: string): Linux {
  refusePresence(linux, 'intelRdt', at)
  refuseField(linux, 'netDevices', at)
  refusePresence(linux, 'memoryPolicy', at)
  refuseField(linux, 'timeOffsets', at)
  const namespaces = readNamespaces(linux, at)
  const owned: ReadonlySet<string> = new Set(namespaces.map(({ type }) => type))
  const resources = objectField(linux, 'resources', at)
  const seccomp = objectField(linux, 'seccomp', at)
  const result: Linux = defined({
    namespaces,
    uidMappings: readMappings(linux, 'uidMappings', at, namespaces),
    gidMappings: readMappings(linux, 'gidMappings', at, namespaces),
    devices: listField(linux, 'devices', at, readDevice),
    cgroupsPath: stringField(linux, 'cgroupsPath', at),
    resources: resources === undefined ? undefined : readResources(resources, pointerTo(at, 'resources')),
    rootfsPropagation: readPropagation(linux, at),
    seccomp: seccomp === undefined ? undefined : readSeccomp(seccomp, pointerTo(at, 'seccomp')),
    sysctl: readSysctl(linux, at, owned),
    maskedPaths: readHiddenPaths(linux, 'maskedPaths', at, owned),
    readonlyPaths: readHiddenPaths(linux, 'readonlyPaths', at, owned),
    mountLabel: stringField(linux, 'mountLabel', at),
    personality: readPersonality(linux, at),
    netDevices: {},
  })
  return result
}

function readNamespaces(linux: JsonObject, at: string): readonly Namespace[] {
  const seen = new Set<string>()
  return listField(linux, 'namespaces', at, (value, itemAt) => {
    const item = asObject(value, itemAt)
    const name = requiredString(item, 'type', itemAt, 'the namespace has no type')
    const type = NAMESPACE_TYPES.find((known) => known === name)
    if (type === undefined)
      throw specError(pointerTo(itemAt, 'type'), `namespace ${JSON.stringify(name)} does not exist`)
    if (seen.has(type)) throw specError(itemAt, `malformed spec file: duplicated ns "${type}"`)
    seen.add(type)
    const path = stringField(item, 'path', itemAt)
    if (path !== undefined && !path.startsWith('/')) {
      throw specError(pointerTo(itemAt, 'path'), `namespace path ${JSON.stringify(path)} is not absolute`)
    }
    if (type === 'time' && path === undefined) throw unsupported(itemAt, 'creating a time namespace')
    return defined({ type, path })
  })
}

function readMappings(
  linux: JsonObject,
  key: 'uidMappings' | 'gidMappings',
  at: string,
  namespaces: readonly Namespace[],
): readonly IdMapping[] {
  const pointer = pointerTo(at, key)
  const mappings = listField(linux, key, at, readMapping)
  const user = namespaces.find(({ type }) => type === 'user')
  if (mappings.length > 0 && user === undefined) {
    throw specError(pointer, "USER namespace mappings specified, but USER namespace isn't enabled in the config")
  }
  if (user === undefined || user.path !== undefined) return mappings
  if (mappings.length === 0) throw specError(pointer, `a new user namespace needs ${key}`)
  // user_namespaces(7): more lines than this are refused by the kernel
  if (mappings.length > 340)
    throw specError(pointer, `${mappings.length} mappings are more than the 340 that the kernel takes`)
  if (!mappings.some(({ containerID }) => containerID === 0)) {
    throw specError(pointer, 'container id 0 is not mapped, and the container cannot be set up without it')
  }
  refuseOverlap(mappings, pointer)
  return mappings
}

function readMapping(value: Json, at: string): IdMapping {
  const mapping = asObject(value, at)
  const containerID = integerField(mapping, 'containerID', at, ID) ?? 0
  const hostID = integerField(mapping, 'hostID', at, ID) ?? 0
  const size = integerField(mapping, 'size', at, { min: 1, max: UINT32.max })
  if (size === undefined) throw specError(pointerTo(at, 'size'), 'the mapping has no size')
  if (containerID + size > UINT32.max || hostID + size > UINT32.max) {
    throw specError(pointerTo(at, 'size'), `the mapping of ${size} ids goes beyond the last id`)
  }
  return { containerID, hostID, size }
}

function refuseOverlap(mappings: readonly IdMapping[], at: string): void {
  for (const side of ['containerID', 'hostID'] as const) {
    const sorted = mappings
      .map((mapping) => ({ from: mapping[side], size: mapping.size }))
      .sort((a, b) => a.from - b.from)
    for (const [index, { from, size }] of sorted.entries()) {
      const next = sorted[index + 1]
      if (next !== undefined && from + size > next.from) {
        throw specError(at, `two mappings share the ${side === 'hostID' ? 'host' : 'container'} id ${next.from}`)
      }
    }
  }
}

function readDevice(value: Json, at: string): Device {
  const device = asObject(value, at)
  const path = requiredString(device, 'path', at, 'the device has no path')
  if (!path.startsWith('/'))
    throw specError(pointerTo(at, 'path'), `device path ${JSON.stringify(path)} is not absolute`)
  const name = requiredString(device, 'type', at, 'the device has no type')
  const type = (['b', 'c', 'u', 'p'] as const).find((known) => known === name)
  if (type === undefined) throw specError(pointerTo(at, 'type'), `invalid device type ${JSON.stringify(name)}`)
  // a fifo has no numbers; the kernel keeps 12 and 20 bits of the others
  const number = (key: string, max: number) => {
    const found = integerField(device, key, at, { min: 0, max })
    if (found === undefined && type !== 'p') throw specError(pointerTo(at, key), `the device has no ${key} number`)
    return type === 'p' ? 0 : (found ?? 0)
  }
  return defined({
    type,
    path,
    major: number('major', 0xfff),
    minor: number('minor', 0xfffff),
    fileMode: integerField(device, 'fileMode', at, UINT32),
    uid: integerField(device, 'uid', at, ID) ?? 0,
    gid: integerField(device, 'gid', at, ID) ?? 0,
  })
}

function readPropagation(linux: JsonObject, at: string): Propagation | undefined {
  const word = stringField(linux, 'rootfsPropagation', at)
  if (word === undefined) return undefined
  if (!Object.hasOwn(PROPAGATION, word)) {
    throw specError(pointerTo(at, 'rootfsPropagation'), `rootfsPropagation=${word} is not supported`)
  }
  return word as Propagation
}

function readSysctl(linux: JsonObject, at: string, owned: ReadonlySet<string>): Readonly<Record<string, string>> {
  const sysctl = mapField(linux, 'sysctl', at, asString)
  for (const key of Object.keys(sysctl)) {
    const check = checkSysctl(key, owned)
    if ('refused' in check) throw specError(pointerTo(pointerTo(at, 'sysctl'), key), check.refused)
  }
  return sysctl
}

function readHiddenPaths(linux: JsonObject, key: string, at: string, owned: ReadonlySet<string>): readonly string[] {
  const paths = listField(linux, key, at, (value, itemAt) => {
    const path = asString(value, itemAt)
    if (!path.startsWith('/')) throw specError(itemAt, `path ${JSON.stringify(path)} is not absolute`)
    return path
  })
  if (paths.length > 0 && !owned.has('mount')) {
    throw specError(pointerTo(at, key), 'unable to restrict sys entries without a private MNT namespace')
  }
  return paths
}

function readPersonality(linux: JsonObject, at: string): Linux['personality'] {
  const personality = objectField(linux, 'personality', at)
  if (personality === undefined) return undefined
  const pointer = pointerTo(at, 'personality')
  refuseField(personality, 'flags', pointer)
  const domain = wordField(personality, 'domain', pointer, ['LINUX', 'LINUX32'], 'personality')
  if (domain === undefined) throw specError(pointerTo(pointer, 'domain'), 'the personality has no domain')
  return { domain }
}
