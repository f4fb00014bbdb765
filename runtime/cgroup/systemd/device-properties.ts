/**
 * Device rules as properties of a unit. Pure. systemd enforces them on v1 by the devices hierarchy and on v2 by a
 * program of its own, beside this runtime's. Invariant: they never deny what the policy allows. Where systemd cannot
 * express an exception, the properties allow more, and the runtime's own rules decide.
 */
import type { DbusProperty } from '../../sys/dbus-value.ts'
import { accessText, type DevicePolicy, patternOf } from '../devices.ts'

/** systemd takes a device by its number, without a node on the host, since this version. */
const BY_NUMBER = 240

/** The first property takes back what was allowed before; "auto" with an empty list allows every device. */
export function deviceProperties({ allowByDefault, exceptions }: DevicePolicy, version: number): DbusProperty[] {
  const clear: DbusProperty = { name: 'DeviceAllow', signature: 'a(ss)', data: [] }
  const policy = (data: string): DbusProperty => ({ name: 'DevicePolicy', signature: 's', data })
  if (allowByDefault) return [clear, policy('auto')]
  const list: string[][] = []
  for (const [key, bits] of exceptions) {
    const specifier = specifierOf(key, version)
    // an older systemd cannot name it: then systemd allows every device
    if (specifier === undefined) return [clear, policy('auto')]
    list.push([specifier, accessText(bits)])
  }
  return [clear, policy('strict'), { name: 'DeviceAllow', signature: 'a(ss)', data: list }]
}

/** A device, or a group of devices, in the words of systemd; undefined where it has none. */
function specifierOf(key: string, version: number): string | undefined {
  const { type, major, minor } = patternOf(key)
  const group = type === 'c' ? 'char' : 'block'
  if (major === '*') return minor === '*' ? `${group}-*` : undefined
  if (version < BY_NUMBER) return undefined
  return minor === '*' ? `${group}-${major}` : `/dev/${group}/${major}:${minor}`
}
