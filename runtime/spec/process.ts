/**
 * `process` of config.json, checked field by field; an exec has the same document. Invariant: the result can be carried
 * out as far as the document alone shows. Whether ids are mapped or capabilities can be granted is checked elsewhere.
 */
import { specError } from '../errors.ts'
import {
  asInteger,
  asObject,
  asString,
  bigintField,
  booleanField,
  defined,
  ID,
  integerField,
  listField,
  objectField,
  pointerTo,
  refuseField,
  requiredString,
  stringField,
  UINT32,
  UINT64,
} from './fields.ts'
import type { Json, JsonObject } from './json.ts'
import { RLIMITS } from './rlimits.ts'
import { readAffinity, readIoPriority, readScheduler } from './scheduling.ts'
import type { Capabilities, OciProcess, Rlimit, User } from './types.ts'

/** Reads a process. @throws InvalidArgument */
export function readProcess(value: Json, at: string): OciProcess {
  const process = asObject(value, at)
  refuseField(process, 'commandLine', at)
  const args = listField(process, 'args', { at, read: asString })
  if (args.length === 0) throw specError(pointerTo(at, 'args'), 'args must not be empty')
  if (args[0] === '') throw specError(`${at}/args/0`, 'exec: "": executable file not found in $PATH')
  const rlimits = listField(process, 'rlimits', { at, read: readRlimit })
  refuseDuplicates(rlimits, pointerTo(at, 'rlimits'))
  return defined({
    terminal: booleanField(process, 'terminal', at) ?? false,
    consoleSize: readConsoleSize(process, at),
    user: readUser(objectField(process, 'user', at) ?? {}, pointerTo(at, 'user')),
    args,
    env: listField(process, 'env', { at, read: readVariable }),
    cwd: readCwd(process, at),
    capabilities: readCapabilities(objectField(process, 'capabilities', at), pointerTo(at, 'capabilities')),
    rlimits,
    noNewPrivileges: booleanField(process, 'noNewPrivileges', at) ?? false,
    apparmorProfile: stringField(process, 'apparmorProfile', at),
    selinuxLabel: stringField(process, 'selinuxLabel', at),
    oomScoreAdj: integerField(process, 'oomScoreAdj', { at, range: { min: -1000, max: 1000 } }),
    scheduler: readScheduler(process, at),
    ioPriority: readIoPriority(process, at),
    execCPUAffinity: readAffinity(process, at),
  })
}

function readConsoleSize(process: JsonObject, at: string): OciProcess['consoleSize'] {
  const size = objectField(process, 'consoleSize', at)
  if (size === undefined) return undefined
  const pointer = pointerTo(at, 'consoleSize')
  // the kernel keeps both in 16 bits (struct winsize)
  const range = { min: 0, max: 0xffff }
  return {
    height: integerField(size, 'height', { at: pointer, range }) ?? 0,
    width: integerField(size, 'width', { at: pointer, range }) ?? 0,
  }
}

function readUser(user: JsonObject, at: string): User {
  return defined({
    uid: integerField(user, 'uid', { at, range: ID }) ?? 0,
    gid: integerField(user, 'gid', { at, range: ID }) ?? 0,
    umask: integerField(user, 'umask', { at, range: UINT32 }),
    additionalGids: listField(user, 'additionalGids', { at, read: (gid, gidAt) => asInteger(gid, gidAt, ID) }),
  })
}

/** Reads an environment variable. @throws InvalidArgument unless it is NAME=value */
export function readVariable(value: Json, at: string): string {
  const variable = asString(value, at)
  const equals = variable.indexOf('=')
  if (equals < 0) throw specError(at, `invalid environment variable: ${JSON.stringify(variable)} has no "="`)
  if (equals === 0) throw specError(at, `invalid environment variable: ${JSON.stringify(variable)} has no name`)
  return variable
}

function readCwd(process: JsonObject, at: string): string {
  const cwd = requiredString(process, 'cwd', { at, missing: 'Cwd property must not be empty' })
  if (!cwd.startsWith('/')) throw specError(pointerTo(at, 'cwd'), 'Cwd must be an absolute path')
  return cwd
}

function readCapabilities(sets: JsonObject | undefined, at: string): Capabilities | undefined {
  if (sets === undefined) return undefined
  // any name is accepted, since a newer kernel may know it; unknown ones are ignored with a warning (warnings.ts)
  const read = (set: string) => listField(sets, set, { at, read: asString })
  return {
    bounding: read('bounding'),
    effective: read('effective'),
    inheritable: read('inheritable'),
    permitted: read('permitted'),
    ambient: read('ambient'),
  }
}

function readRlimit(value: Json, at: string): Rlimit {
  const rlimit = asObject(value, at)
  const type = requiredString(rlimit, 'type', { at, missing: 'the rlimit has no type' })
  if (!RLIMITS.has(type)) throw specError(pointerTo(at, 'type'), `unknown rlimit ${JSON.stringify(type)}`)
  const soft = bigintField(rlimit, 'soft', { at, range: UINT64 }) ?? 0n
  const hard = bigintField(rlimit, 'hard', { at, range: UINT64 }) ?? 0n
  if (soft > hard)
    throw specError(pointerTo(at, 'soft'), `${type}: the soft limit ${soft} is above the hard limit ${hard}`)
  return { type, soft, hard }
}

function refuseDuplicates(rlimits: readonly Rlimit[], at: string): void {
  const seen = new Set<string>()
  for (const [index, { type }] of rlimits.entries()) {
    if (seen.has(type)) throw specError(`${at}/${index}/type`, `duplicate rlimit "${type}"`)
    seen.add(type)
  }
}
