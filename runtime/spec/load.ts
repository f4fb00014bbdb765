/**
 * config.json to Spec: parse with exact numbers, check every field, and refuse by JSON pointer what is wrong or not supported. Fields
 * that the specification does not define are ignored, so that documents of tools with extensions work. Invariant: a Spec that comes out
 * is one that buildCreatePlan can turn into a plan, but for what depends on the host.
 */
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { RuntimeError, specError } from '../errors.ts'
import { errnoName, errnoOf, syscallError } from '../sys/errno.ts'
import {
  asObject,
  asString,
  booleanField,
  defined,
  listField,
  mapField,
  objectField,
  pointerTo,
  refuseField,
  requiredString,
  stringField,
  unsupported,
} from './fields.ts'
import { type Json, type JsonObject, parseJson } from './json.ts'
import { readLinux } from './linux.ts'
import { parseMountOptions } from './mount-options.ts'
import { readProcess } from './process.ts'
import { readResources } from './resources.ts'
import type { LinuxResources, Mount, OciProcess, Root, Spec } from './types.ts'

export { parseJson } from './json.ts'

const HOOKS = ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop']
const MAX_CONFIG_BYTES = 16 * 1024 * 1024

/** Reads and checks the config.json of a bundle. @throws NotFound, InvalidArgument, Unimplemented */
export function loadSpec(bundle: string): Spec {
  const path = join(bundle, 'config.json')
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw syscallError(`cannot read the container's configuration "${path}"`, 'open', errnoOf(error), path)
  }
  const where = `the container's configuration "${path}"`
  if (bytes.length > MAX_CONFIG_BYTES) {
    throw new RuntimeError('InvalidArgument', `cannot read ${where}: it is larger than ${MAX_CONFIG_BYTES} bytes`)
  }
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new RuntimeError('InvalidArgument', `cannot parse ${where}: it is not UTF-8`, { cause })
  }
  return parseSpec(text, where)
}

/** Checks the text of a config.json; `where` names it in messages. @throws InvalidArgument, Unimplemented */
export function parseSpec(text: string, where: string): Spec {
  const spec = readSpec(parseJson(text, where))
  refuseHostNetworkSysctl(spec)
  return spec
}

/** Checks the text of a process document, as given to exec. @throws InvalidArgument, Unimplemented */
export function parseProcess(text: string): OciProcess {
  return readProcess(parseJson(text, 'the process'), '')
}

/** Checks the text of a resources document, as given to update. @throws InvalidArgument, Unimplemented */
export function parseResources(text: string): LinuxResources {
  return readResources(parseJson(text, 'the resources'), '')
}

function readSpec(value: Json): Spec {
  const spec = asObject(value, '')
  const ociVersion = readVersion(spec)
  for (const section of ['solaris', 'windows', 'vm', 'zos', 'freebsd']) refuseField(spec, section, '')
  refuseHooks(spec)
  const root = readRoot(spec)
  if (spec['process'] === undefined || spec['process'] === null) {
    throw specError('/process', 'process property must not be empty')
  }
  const process = readProcess(spec['process'], '/process')
  const linux = readLinux(objectField(spec, 'linux', '') ?? {}, '/linux')
  const has = (type: string) => linux.namespaces.some((namespace) => namespace.type === type)
  const hostname = stringField(spec, 'hostname', '')
  if (hostname !== undefined && !has('uts')) {
    throw specError('/hostname', 'unable to set hostname without a private UTS namespace')
  }
  const domainname = stringField(spec, 'domainname', '')
  if (domainname !== undefined && !has('uts')) {
    throw specError('/domainname', 'unable to set domainname without a private UTS namespace')
  }
  return defined({
    ociVersion,
    root,
    process,
    hostname,
    domainname,
    mounts: listField(spec, 'mounts', '', readMount),
    hooks: { prestart: [], createRuntime: [], createContainer: [], startContainer: [], poststart: [], poststop: [] },
    annotations: mapField(spec, 'annotations', '', asString),
    linux,
  })
}

function readVersion(spec: JsonObject): string {
  const version = requiredString(spec, 'ociVersion', '', 'ociVersion must not be empty')
  const major = /^(\d+)\.\d+\.\d+(?:[-+].*)?$/.exec(version)?.[1]
  if (major === undefined)
    throw specError('/ociVersion', `ociVersion ${JSON.stringify(version)} is not a semantic version`)
  if (major !== '1') throw specError('/ociVersion', `ociVersion "${version}" is not supported, only 1.x is`)
  return version
}

function refuseHooks(spec: JsonObject): void {
  const hooks = objectField(spec, 'hooks', '')
  if (hooks === undefined) return
  for (const name of HOOKS) {
    if (listField(hooks, name, '/hooks', () => name).length > 0) throw unsupported(`/hooks/${name}`, `hook "${name}"`)
  }
}

function readRoot(spec: JsonObject): Root {
  const root = objectField(spec, 'root', '')
  if (root === undefined) throw specError('/root', 'root must be specified')
  return {
    path: requiredString(root, 'path', '/root', 'the path of the root file system must not be empty'),
    readonly: booleanField(root, 'readonly', '/root') ?? false,
  }
}

function readMount(value: Json, at: string): Mount {
  const mount = asObject(value, at)
  const destination = requiredString(mount, 'destination', at, 'the mount has no destination')
  refuseField(mount, 'uidMappings', at)
  refuseField(mount, 'gidMappings', at)
  const type = stringField(mount, 'type', at)
  const source = stringField(mount, 'source', at)
  const options = listField(mount, 'options', at, asString)
  const parsed = parseMountOptions(options)
  const refused = parsed.unsupported[0]
  if (refused !== undefined) throw unsupported(`${at}/options/${refused.index}`, `mount option "${refused.word}"`)
  const bind = parsed.bind !== 'no' || type === 'bind'
  if (bind && source === undefined) {
    throw specError(pointerTo(at, 'source'), `the bind mount on "${destination}" has no source`)
  }
  if (bind && parsed.data.length > 0) {
    const index = options.indexOf(parsed.data[0] ?? '')
    const message = `bind mounts cannot have any filesystem-specific options applied: "${parsed.data.join(',')}"`
    throw specError(`${at}/options/${index}`, message)
  }
  if (!bind && type === undefined) throw specError(pointerTo(at, 'type'), `the mount on "${destination}" has no type`)
  if (parsed.copyUp && (bind || type !== 'tmpfs')) {
    throw specError(`${at}/options/${options.indexOf('tmpcopyup')}`, 'mount option "tmpcopyup" is for tmpfs only')
  }
  return defined({ destination, type, source, options, uidMappings: [], gidMappings: [] })
}

/** A joined network namespace may be the host's own one, whose parameters are not the container's to set. */
function refuseHostNetworkSysctl(spec: Spec): void {
  const { namespaces, sysctl } = spec.linux
  const path = namespaces.find(({ type }) => type === 'network')?.path
  const key = path === undefined ? undefined : Object.keys(sysctl).find((name) => /^net[./]/.test(name))
  if (path === undefined || key === undefined) return
  try {
    const theirs = statSync(path)
    const ours = statSync('/proc/self/ns/net')
    if (theirs.dev !== ours.dev || theirs.ino !== ours.ino) return
  } catch (error) {
    throw specError('/linux/namespaces', `cannot look at namespace path "${path}": ${errnoName(errnoOf(error))}`)
  }
  throw specError(pointerTo('/linux/sysctl', key), `sysctl "${key}" is not allowed in host network namespace`)
}
