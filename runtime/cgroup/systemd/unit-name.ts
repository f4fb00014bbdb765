/**
 * The name of a container's unit, and where systemd puts the cgroup of a unit. Pure. Invariant: what comes out is a
 * name that systemd accepts, and a path that cannot lead out of the hierarchy.
 */
import { RuntimeError, specError } from '../../errors.ts'

/** What tells this runtime's units from those of others, where the spec gives no name. */
const OWN_PREFIX = 'runts'
const POINTER = '/linux/cgroupsPath'
/** systemd's UNIT_NAME_MAX, without the terminating NUL. */
const MAX_NAME = 255
const VALID_NAME = /^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\@-]*)?\.(scope|slice)$/

/** A unit, and the slice that holds it. */
export interface UnitPlace {
  readonly slice: string
  readonly name: string
}

/**
 * The unit that a spec asks for: "slice:prefix:name" is prefix-name.scope in that slice, and a name that ends in
 * ".slice" is a slice of its own. By default it is a scope named after the id.
 * @throws InvalidArgument
 */
export function unitPlace(path: string | undefined, id: string, user: boolean): UnitPlace {
  const wholly = user ? 'user.slice' : 'system.slice'
  if (path === undefined || path === '') return checked({ slice: wholly, name: `${OWN_PREFIX}-${escapeId(id)}.scope` })
  const parts = path.split(':')
  const [slice = '', prefix = '', name = ''] = parts
  if (parts.length !== 3 || name === '') {
    const message = `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "${path}" instead`
    throw specError(POINTER, message)
  }
  return checked({
    slice: slice === '' ? wholly : slice,
    name: name.endsWith('.slice') ? name : `${prefix}-${name}.scope`,
  })
}

/** An id may have characters that the name of a unit may not: systemd writes those as \xNN. */
function escapeId(id: string): string {
  return id.replace(/[^A-Za-z0-9:_.-]/g, (other) => `\\x${other.charCodeAt(0).toString(16).padStart(2, '0')}`)
}

function checked(place: UnitPlace): UnitPlace {
  const { slice, name } = place
  if (name.length > MAX_NAME || !VALID_NAME.test(name)) {
    const why =
      name.length > MAX_NAME ? `it is longer than ${MAX_NAME} characters` : 'it has characters that none may have'
    throw specError(POINTER, `cannot use "${name}" as the name of a systemd unit: ${why}`)
  }
  expandSlice(slice)
  if (name.endsWith('.slice')) expandSlice(name)
  return place
}

/**
 * The path of a slice: "a-b-c.slice" lies in "a-b.slice", which lies in "a.slice". Without a leading "/"; "" for the
 * root slice, "-.slice".
 * @throws InvalidArgument
 */
export function expandSlice(slice: string): string {
  const stem = slice.slice(0, -'.slice'.length)
  const bad = !slice.endsWith('.slice') || stem === '' || /[^A-Za-z0-9:_.\\-]/.test(stem)
  if (!bad && stem === '-') return ''
  const words = stem.split('-')
  if (bad || words.includes('')) throw specError(POINTER, `invalid slice name: "${slice}"`)
  return words.map((_, i) => cgroupName(`${words.slice(0, i + 1).join('-')}.slice`)).join('/')
}

/** The path of a unit's cgroup below the one of its manager, with a leading "/". */
export function unitPath({ slice, name }: UnitPlace): string {
  // a slice of its own lies where its name says, and not in another slice
  const parts = name.endsWith('.slice') ? [expandSlice(name)] : [expandSlice(slice), cgroupName(name)]
  return `/${parts.filter(Boolean).join('/')}`
}

/** The directory of a unit: systemd puts "_" before names that the kernel could use for files of its own. */
function cgroupName(name: string): string {
  return /^[_.]|^cgroup\.|^(cpu|cpuset|io|memory|pids|hugetlb|misc|rdma|blkio|cpuacct|devices)\.[^.]*$/.test(name)
    ? `_${name}`
    : name
}

/** The path of the unit that the machine's manager makes for a container; undefined where the spec names no unit. */
export function pathOfUnit({
  path,
  id,
}: {
  readonly path: string | undefined
  readonly id: string
}): string | undefined {
  try {
    return unitPath(unitPlace(path, id, false))
  } catch (error) {
    if (error instanceof RuntimeError) return undefined
    throw error
  }
}
