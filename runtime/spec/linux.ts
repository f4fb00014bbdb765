/**
 * `linux` of config.json, checked field by field. Checks that need several fields (a sysctl and its namespace, masked
 * paths and the mount namespace) are here too, so that a Linux value is consistent in itself.
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
  requiredString,
  stringField,
  UINT32,
  wordField,
} from './fields.ts'
import { readIntelRdt } from './intel-rdt.ts'
import type { Json, JsonObject } from './json.ts'
import { PROPAGATION } from './mount-options.ts'
import { readMappings, readNamespaces, readTimeOffsets } from './namespaces.ts'
import { readNetDevices } from './net-devices.ts'
import { readResources } from './resources.ts'
import { readMemoryPolicy } from './scheduling.ts'
import { readSeccomp } from './seccomp.ts'
import { checkSysctl } from './sysctl.ts'
import type { Device, Linux, Propagation } from './types.ts'

/** Reads the Linux settings. @throws InvalidArgument, Unimplemented */
export function readLinux(linux: JsonObject, at: string): Linux {
  const namespaces = readNamespaces(linux, at)
  const owned: ReadonlySet<string> = new Set(namespaces.map(({ type }) => type))
  const resources = objectField(linux, 'resources', at)
  const seccomp = objectField(linux, 'seccomp', at)
  const result: Linux = defined({
    namespaces,
    uidMappings: readMappings(linux, 'uidMappings', { at, namespaces }),
    gidMappings: readMappings(linux, 'gidMappings', { at, namespaces }),
    devices: listField(linux, 'devices', { at, read: readDevice }),
    cgroupsPath: stringField(linux, 'cgroupsPath', at),
    resources: resources === undefined ? undefined : readResources(resources, pointerTo(at, 'resources')),
    rootfsPropagation: readPropagation(linux, at),
    seccomp: seccomp === undefined ? undefined : readSeccomp(seccomp, pointerTo(at, 'seccomp')),
    sysctl: readSysctl(linux, at, owned),
    maskedPaths: readHiddenPaths(linux, 'maskedPaths', { at, owned }),
    readonlyPaths: readHiddenPaths(linux, 'readonlyPaths', { at, owned }),
    mountLabel: stringField(linux, 'mountLabel', at),
    personality: readPersonality(linux, at),
    timeOffsets: readTimeOffsets(linux, at, namespaces),
    netDevices: readNetDevices(linux, at, owned),
    memoryPolicy: readMemoryPolicy(linux, at),
    intelRdt: readIntelRdt(linux, at),
  })
  return result
}

function readDevice(value: Json, at: string): Device {
  const device = asObject(value, at)
  const path = requiredString(device, 'path', { at, missing: 'the device has no path' })
  const name = requiredString(device, 'type', { at, missing: 'the device has no type' })
  const type = (['b', 'c', 'u', 'p'] as const).find((known) => known === name)
  if (type === undefined) throw specError(pointerTo(at, 'type'), `invalid device type ${JSON.stringify(name)}`)
  // a fifo has no numbers; for other devices the kernel keeps 12 and 20 bits
  const number = (key: string, max: number) => {
    const found = integerField(device, key, { at, range: { min: 0, max } })
    if (found === undefined && type !== 'p') throw specError(pointerTo(at, key), `the device has no ${key} number`)
    return type === 'p' ? 0 : (found ?? 0)
  }
  return defined({
    type,
    path,
    major: number('major', 0xfff),
    minor: number('minor', 0xfffff),
    fileMode: integerField(device, 'fileMode', { at, range: UINT32 }),
    uid: integerField(device, 'uid', { at, range: ID }) ?? 0,
    gid: integerField(device, 'gid', { at, range: ID }) ?? 0,
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
  const sysctl = mapField(linux, 'sysctl', { at, read: asString })
  for (const key of Object.keys(sysctl)) {
    const check = checkSysctl(key, owned)
    if ('refused' in check) throw specError(pointerTo(pointerTo(at, 'sysctl'), key), check.refused)
  }
  return sysctl
}

function readHiddenPaths(
  linux: JsonObject,
  key: string,
  { at, owned }: { readonly at: string; readonly owned: ReadonlySet<string> },
): readonly string[] {
  // a relative path causes a warning (warnings.ts)
  const paths = listField(linux, key, { at, read: asString })
  if (paths.length > 0 && !owned.has('mount')) {
    throw specError(pointerTo(at, key), 'unable to restrict sys entries without a private MNT namespace')
  }
  return paths
}

function readPersonality(linux: JsonObject, at: string): Linux['personality'] {
  const personality = objectField(linux, 'personality', at)
  if (personality === undefined) return undefined
  const pointer = pointerTo(at, 'personality')
  const domain = wordField(personality, 'domain', { at: pointer, words: ['LINUX', 'LINUX32'], what: 'personality' })
  if (domain === undefined) throw specError(pointerTo(pointer, 'domain'), 'the personality has no domain')
  // the specification defines no flags yet: a given one is ignored with a warning
  const flags = listField(personality, 'flags', { at: pointer, read: asString })
  return { domain, ...(flags.length === 0 ? {} : { flags }) }
}
