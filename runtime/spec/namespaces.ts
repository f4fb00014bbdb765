/**
 * `namespaces` of config.json, the id maps of the user namespace and the clock offsets of the time namespace.
 * Invariant: maps and offsets are accepted only with a namespace that can take them.
 */
import { specError } from '../errors.ts'
import { NAMESPACES } from '../sys/linux.ts'
import {
  asObject,
  bigintField,
  defined,
  ID,
  INT64,
  integerField,
  listField,
  objectField,
  pointerTo,
  requiredString,
  stringField,
  UINT32,
} from './fields.ts'
import type { Json, JsonObject } from './json.ts'
import type { IdMapping, Linux, Namespace, NamespaceType, TimeOffset } from './types.ts'

/** The kinds of namespaces in the specification. */
export const NAMESPACE_TYPES: readonly NamespaceType[] = NAMESPACES.map(({ type }) => type).sort()

/** The kernel refuses a map with more lines (user_namespaces(7)). */
const MAX_MAPPINGS = 340
/** Clocks that a time namespace can shift. */
const CLOCKS = ['monotonic', 'boottime'] as const

/**
 * Reads the list of namespaces, each type at most once.
 * @throws InvalidArgument
 */
export function readNamespaces(linux: JsonObject, at: string): readonly Namespace[] {
  const seen = new Set<string>()
  return listField(linux, 'namespaces', {
    at,
    read: (value, itemAt) => {
      const item = asObject(value, itemAt)
      const name = requiredString(item, 'type', { at: itemAt, missing: 'the namespace has no type' })
      const type = NAMESPACE_TYPES.find((known) => known === name)
      if (type === undefined)
        throw specError(pointerTo(itemAt, 'type'), `namespace ${JSON.stringify(name)} does not exist`)
      if (seen.has(type)) throw specError(itemAt, `malformed spec file: duplicated ns "${type}"`)
      seen.add(type)
      const path = stringField(item, 'path', itemAt)
      if (path !== undefined && !path.startsWith('/')) {
        throw specError(pointerTo(itemAt, 'path'), `namespace path ${JSON.stringify(path)} is not absolute`)
      }
      return defined({ type, path })
    },
  })
}

/**
 * Reads the maps of the container's user namespace; those of a joined one are compared with it later.
 * @throws InvalidArgument
 */
export function readMappings(
  linux: JsonObject,
  key: 'uidMappings' | 'gidMappings',
  { at, namespaces }: { readonly at: string; readonly namespaces: readonly Namespace[] },
): readonly IdMapping[] {
  const pointer = pointerTo(at, key)
  const mappings = readMap(linux, key, at)
  const user = namespaces.find(({ type }) => type === 'user')
  if (mappings.length > 0 && user === undefined) {
    throw specError(pointer, "USER namespace mappings specified, but USER namespace isn't enabled in the config")
  }
  if (user === undefined || user.path !== undefined) return mappings
  if (mappings.length === 0) throw specError(pointer, `a new user namespace needs ${key}`)
  if (!mappings.some(({ containerID }) => containerID === 0)) {
    throw specError(pointer, 'container id 0 is not mapped, and the container cannot be set up without it')
  }
  return mappings
}

/** Reads one id map, of a namespace or of a mount. @throws InvalidArgument */
export function readMap(object: JsonObject, key: string, at: string): readonly IdMapping[] {
  const pointer = pointerTo(at, key)
  const mappings = listField(object, key, { at, read: readMapping })
  if (mappings.length > MAX_MAPPINGS) {
    throw specError(pointer, `${mappings.length} mappings are more than the ${MAX_MAPPINGS} that the kernel takes`)
  }
  refuseOverlap(mappings, pointer)
  return mappings
}

function readMapping(value: Json, at: string): IdMapping {
  const mapping = asObject(value, at)
  const containerID = integerField(mapping, 'containerID', { at, range: ID }) ?? 0
  const hostID = integerField(mapping, 'hostID', { at, range: ID }) ?? 0
  const size = integerField(mapping, 'size', { at, range: { min: 1, max: UINT32.max } })
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

/** Reads the offsets of a new time namespace. @throws InvalidArgument */
export function readTimeOffsets(linux: JsonObject, at: string, namespaces: readonly Namespace[]): Linux['timeOffsets'] {
  const offsets = objectField(linux, 'timeOffsets', at)
  if (offsets === undefined || Object.keys(offsets).length === 0) return undefined
  const pointer = pointerTo(at, 'timeOffsets')
  const time = namespaces.find(({ type }) => type === 'time')
  if (time === undefined) {
    throw specError(pointer, 'time namespace offsets specified, but time namespace is not enabled in the config')
  }
  if (time.path !== undefined) {
    throw specError(pointer, 'time namespace enabled, but both namespace path and time offsets specified')
  }
  const unknown = Object.keys(offsets).find((clock) => !CLOCKS.some((known) => known === clock))
  if (unknown !== undefined) throw specError(pointerTo(pointer, unknown), `unknown clock ${JSON.stringify(unknown)}`)
  const read = (clock: (typeof CLOCKS)[number]): TimeOffset | undefined => {
    const offset = objectField(offsets, clock, pointer)
    const clockAt = pointerTo(pointer, clock)
    if (offset === undefined) return undefined
    return {
      secs: bigintField(offset, 'secs', { at: clockAt, range: INT64 }) ?? 0n,
      nanosecs: integerField(offset, 'nanosecs', { at: clockAt, range: { min: 0, max: 999_999_999 } }) ?? 0,
    }
  }
  return defined({ monotonic: read('monotonic'), boottime: read('boottime') })
}
