/**
 * Annotations of the form `org.systemd.property.NAME`: further properties for the unit of a container, in the text form
 * of GVariant. Pure. A time may be given in seconds, with a name that ends in "Sec": D-Bus knows it only in
 * microseconds, as "USec".
 */
import { messageOf, specError } from '../../errors.ts'
import type { DbusProperty, DbusValue } from '../../sys/dbus-value.ts'
import { parseVariant } from './variant.ts'

const PREFIX = 'org.systemd.property.'
const MICROSECONDS = 1_000_000
const NAME = /^[A-Za-z]{3,}$/

/** The properties that the annotations ask for. @throws InvalidArgument with the pointer of the annotation */
export function annotatedProperties(annotations: Readonly<Record<string, string>>): DbusProperty[] {
  const properties: DbusProperty[] = []
  for (const [key, text] of Object.entries(annotations)) {
    if (!key.startsWith(PREFIX)) continue
    const name = key.slice(PREFIX.length)
    const pointer = `/annotations/${key}`
    if (!NAME.test(name))
      throw specError(pointer, `"${name}" is no name of a systemd property: it must be three letters or more`)
    try {
      properties.push(inMicroseconds(name, parseVariant(text)))
    } catch (error) {
      throw specError(pointer, `cannot read the systemd property ${name}: ${messageOf(error)}`)
    }
  }
  return properties
}

function inMicroseconds(name: string, value: DbusValue): DbusProperty {
  if (!/[a-z]Sec$/.test(name)) return { name, ...value }
  const { data } = value
  if (typeof data !== 'bigint' && typeof data !== 'number') throw new Error('a time is a number of seconds')
  if (data < 0) throw new Error('a time is not negative')
  const microseconds = typeof data === 'bigint' ? data * BigInt(MICROSECONDS) : BigInt(Math.round(data * MICROSECONDS))
  return { name: name.replace(/Sec$/, 'USec'), signature: 't', data: microseconds }
}
