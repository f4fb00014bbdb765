/** `linux.intelRdt` of config.json: the class of service of the processes, and its part of cache and memory. */
import { specError } from '../errors.ts'
import { asString, booleanField, defined, listField, objectField, pointerTo, stringField } from './fields.ts'
import type { JsonObject } from './json.ts'
import type { IntelRdt } from './types.ts'

/** Reads the settings of Intel RDT. @throws InvalidArgument */
export function readIntelRdt(linux: JsonObject, at: string): IntelRdt | undefined {
  const rdt = objectField(linux, 'intelRdt', at)
  if (rdt === undefined) return undefined
  const pointer = pointerTo(at, 'intelRdt')
  const closID = stringField(rdt, 'closID', pointer)
  // it becomes the name of a folder; "/" alone is the default class
  if (closID !== undefined && closID !== '/' && (/^\.\.?$/.test(closID) || closID.includes('/'))) {
    throw specError(pointerTo(pointer, 'closID'), `invalid intelRdt.ClosID ${JSON.stringify(closID)}`)
  }
  // before 1.3 the specification had a switch for each kind of monitoring; the kernel has one group for both
  const monitored = ['enableMonitoring', 'enableCMT', 'enableMBM'].some(
    (key) => booleanField(rdt, key, pointer) === true,
  )
  return defined({
    closID,
    schemata: listField(rdt, 'schemata', { at: pointer, read: asString }),
    l3CacheSchema: stringField(rdt, 'l3CacheSchema', pointer),
    memBwSchema: stringField(rdt, 'memBwSchema', pointer),
    enableMonitoring: monitored,
  })
}
