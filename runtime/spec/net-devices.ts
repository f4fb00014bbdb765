/**
 * `linux.netDevices`: network devices of the host that move into the container. Their names follow the kernel's rules.
 */
import { specError } from '../errors.ts'
import { asObject, defined, mapField, pointerTo, stringField } from './fields.ts'
import type { JsonObject } from './json.ts'
import type { Linux } from './types.ts'

/** IFNAMSIZ without the NUL. */
const NAME_MAX_BYTES = 15
const BLANK_OR_SEPARATOR = /[/:\s]/

/** Reads the devices. @throws InvalidArgument */
export function readNetDevices(linux: JsonObject, at: string, owned: ReadonlySet<string>): Linux['netDevices'] {
  const pointer = pointerTo(at, 'netDevices')
  const devices = mapField(linux, 'netDevices', {
    at,
    read: (value, deviceAt) => {
      const name = stringField(asObject(value, deviceAt), 'name', deviceAt)
      if (name !== undefined) requireName(name, pointerTo(deviceAt, 'name'))
      return defined({ name })
    },
  })
  const names = Object.keys(devices)
  if (names.length > 0 && !owned.has('network')) {
    throw specError(pointer, 'unable to move network devices without a NET namespace')
  }
  const taken = new Set<string>()
  for (const old of names) {
    requireName(old, pointerTo(pointer, old))
    const name = devices[old]?.name ?? old
    // the kernel completes a template such as "eth%d"
    if (!name.includes('%') && taken.has(name)) {
      throw specError(pointerTo(pointer, old), `two network devices would be named ${JSON.stringify(name)}`)
    }
    taken.add(name)
  }
  return devices
}

function requireName(name: string, at: string): void {
  const quoted = JSON.stringify(name)
  const bytes = new TextEncoder().encode(name).length
  if (bytes === 0 || bytes > NAME_MAX_BYTES) {
    throw specError(at, `invalid network device name ${quoted}: it must have 1 to ${NAME_MAX_BYTES} bytes`)
  }
  if (name === '.' || name === '..' || BLANK_OR_SEPARATOR.test(name)) {
    throw specError(at, `invalid network device name ${quoted}`)
  }
}
