/** `mounts` of config.json: each entry checked by itself, without the other entries or the host. */
import { specError } from '../errors.ts'
import {
  asObject,
  asString,
  defined,
  listField,
  pointerTo,
  requiredString,
  stringField,
  unsupported,
} from './fields.ts'
import type { Json } from './json.ts'
import { type MountOptions, parseMountOptions } from './mount-options.ts'
import { readMap } from './namespaces.ts'
import type { Mount } from './types.ts'

/** Reads one mount. @throws InvalidArgument, Unimplemented */
export function readMount(value: Json, at: string): Mount {
  const mount = asObject(value, at)
  const destination = requiredString(mount, 'destination', { at, missing: 'the mount has no destination' })
  const type = stringField(mount, 'type', at)
  const source = stringField(mount, 'source', at)
  const options = listField(mount, 'options', { at, read: asString })
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
  const result = defined({
    destination,
    type,
    source,
    options,
    uidMappings: readMap(mount, 'uidMappings', at),
    gidMappings: readMap(mount, 'gidMappings', at),
  })
  requireMappable(result, { bind, idmap: parsed.idmap, at })
  return result
}

/** Checks the maps of an id-mapped mount: it must be a bind, and have maps for both users and groups or for neither. */
function requireMappable(
  mount: Mount,
  { bind, idmap, at }: Pick<MountOptions, 'idmap'> & { readonly bind: boolean; readonly at: string },
): void {
  const { uidMappings, gidMappings, options } = mount
  if (idmap === 'no' && uidMappings.length === 0 && gidMappings.length === 0) return
  if (!bind) {
    const index = options.findIndex((word) => word === 'idmap' || word === 'ridmap')
    const field = uidMappings.length > 0 ? 'uidMappings' : 'gidMappings'
    const pointer = index >= 0 ? `${at}/options/${index}` : pointerTo(at, field)
    throw specError(pointer, 'id-mapped mounts are only supported for bind-mounts')
  }
  if ((uidMappings.length === 0) !== (gidMappings.length === 0)) {
    const missing = uidMappings.length === 0 ? 'uidMappings' : 'gidMappings'
    throw specError(pointerTo(at, missing), 'id-mapped mounts must have both uid and gid mappings specified')
  }
}
