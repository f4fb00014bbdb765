/**
 * config.json to Spec: parses with exact numbers, checks every field, and refuses what is wrong or not supported by its
 * JSON pointer. Fields that the specification does not define are ignored, so that documents with extensions work.
 * Invariant: buildCreatePlan can turn every resulting Spec into a plan, except for what depends on the host.
 */
import { join } from 'node:path'
import { RuntimeError, specError } from '../errors.ts'
import { readRegularFile } from '../sys/regular-file.ts'
import {
  asObject,
  asString,
  booleanField,
  defined,
  listField,
  mapField,
  objectField,
  refuseField,
  requiredString,
  stringField,
} from './fields.ts'
import { readHooks } from './hooks.ts'
import { type Json, type JsonObject, parseJson } from './json.ts'
import { readLinux } from './linux.ts'
import { readMount } from './mounts.ts'
import { readProcess } from './process.ts'
import { resolveOnHost } from './resolve.ts'
import { readResources } from './resources.ts'
import type { LinuxResources, OciProcess, Root, Spec } from './types.ts'

export { parseJson } from './json.ts'

const MAX_CONFIG_BYTES = 16 * 1024 * 1024

/**
 * Reads a JSON file with exact numbers: an integer that a double cannot hold is a bigint.
 * @throws NotFound, PermissionDenied, InvalidArgument
 */
export function decodeFileJson(path: string): Json {
  return parseJson(readText(path, `"${path}"`), `"${path}"`)
}

function readText(path: string, what: string): string {
  const bytes = readRegularFile(path, MAX_CONFIG_BYTES, what)
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new RuntimeError('InvalidArgument', `cannot parse ${what}: it is not UTF-8`, { cause })
  }
}

/**
 * Reads and checks the config.json of a bundle, also against the namespaces of this host that it joins.
 * @throws NotFound, InvalidArgument, Unimplemented
 */
export function loadSpec(bundle: string): Spec {
  return resolveOnHost(readSpecOf(bundle))
}

/**
 * Like loadSpec, without looking at the host: what a container joined at create may be gone when it ends.
 * @throws NotFound, InvalidArgument, Unimplemented
 */
export function readSpecOf(bundle: string): Spec {
  const path = join(bundle, 'config.json')
  const where = `the container's configuration "${path}"`
  return parseSpec(readText(path, where), where)
}

/** Checks the text of a config.json; `where` names it in messages. @throws InvalidArgument, Unimplemented */
export function parseSpec(text: string, where: string): Spec {
  return readSpec(parseJson(text, where))
}

/** Checks the text of a process document, as given to exec. @throws InvalidArgument, Unimplemented */
export function parseProcess(text: string, where = 'the process'): OciProcess {
  return readProcess(parseJson(text, where), '')
}

/** Checks the text of a resources document, as given to update. @throws InvalidArgument, Unimplemented */
export function parseResources(text: string): LinuxResources {
  return readResources(parseJson(text, 'the resources'), '')
}

function readSpec(value: Json): Spec {
  const spec = asObject(value, '')
  const ociVersion = readVersion(spec)
  for (const section of ['solaris', 'windows', 'vm', 'zos', 'freebsd']) refuseField(spec, section, '')
  const hooks = readHooks(spec)
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
    mounts: listField(spec, 'mounts', { at: '', read: readMount }),
    hooks,
    annotations: mapField(spec, 'annotations', { at: '', read: asString }),
    linux,
  })
}

function readVersion(spec: JsonObject): string {
  const version = requiredString(spec, 'ociVersion', { at: '', missing: 'ociVersion must not be empty' })
  const major = /^(\d+)\.\d+\.\d+(?:[-+].*)?$/.exec(version)?.[1]
  if (major === undefined)
    throw specError('/ociVersion', `ociVersion ${JSON.stringify(version)} is not a semantic version`)
  if (major !== '1') throw specError('/ociVersion', `ociVersion "${version}" is not supported, only 1.x is`)
  return version
}

function readRoot(spec: JsonObject): Root {
  const root = objectField(spec, 'root', '')
  if (root === undefined) throw specError('/root', 'root must be specified')
  return {
    path: requiredString(root, 'path', { at: '/root', missing: 'the path of the root file system must not be empty' }),
    readonly: booleanField(root, 'readonly', '/root') ?? false,
  }
}
