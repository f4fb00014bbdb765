/**
 * What a spec asks for and does not get, where the specification wants a warning instead of an error. The warnings are
 * derived from a spec by callers that have a log, so that a Spec stays plain data. Pure.
 */
import { capabilityNumber } from './capabilities.ts'
import type { Capabilities, OciProcess, Spec } from './types.ts'

/** The warnings of a spec; `lastCapability` is the number of the highest capability that the kernel knows. */
export function specWarnings(spec: Spec, lastCapability: number): readonly string[] {
  const warnings = [...processWarnings(spec.process, lastCapability)]
  const { maskedPaths, readonlyPaths, devices } = spec.linux
  const destinations = spec.mounts.map(({ destination }) => destination)
  warnings.push(
    ...relativeWarnings('mount destination', destinations, '/mounts'),
    ...relativeWarnings(
      'device',
      devices.map(({ path }) => path),
      '/linux/devices',
    ),
    ...relativeWarnings('masked path', maskedPaths, '/linux/maskedPaths'),
    ...relativeWarnings('read-only path', readonlyPaths, '/linux/readonlyPaths'),
  )
  const flags = spec.linux.personality?.flags ?? []
  if (flags.length > 0)
    warnings.push(`personality flags are ignored: ${flags.join(', ')} (at /linux/personality/flags)`)
  return warnings
}

function relativeWarnings(what: string, paths: readonly string[], at: string): readonly string[] {
  return paths.flatMap((path, index) => {
    if (path.startsWith('/')) return []
    const taken = path === '' ? 'left out' : 'taken from /'
    return [`${what} ${JSON.stringify(path)} is not absolute: ${taken} (at ${at}/${index})`]
  })
}

/** The warnings of one process. */
export function processWarnings({ capabilities }: OciProcess, lastCapability: number): readonly string[] {
  if (capabilities === undefined) return []
  const unknown = new Set<string>()
  for (const set of Object.values(capabilities)) {
    for (const name of set) if ((capabilityNumber(name) ?? 64) > lastCapability) unknown.add(name)
  }
  const warnings: string[] = []
  const names = [...unknown].map((name) => (/^\w+$/.test(name) ? name : JSON.stringify(name)))
  if (names.length > 0) warnings.push(`ignoring unknown or unavailable capabilities: ${names.join(', ')}`)
  const vain = vainAmbient(capabilities).filter((name) => !unknown.has(name))
  if (vain.length > 0) {
    warnings.push(`ignoring ambient capabilities that are not both permitted and inheritable: ${vain.join(', ')}`)
  }
  return warnings
}

/** The ambient capabilities that the kernel would refuse, since it requires them to be permitted and inheritable. */
function vainAmbient({ ambient, permitted, inheritable }: Capabilities): readonly string[] {
  return ambient.filter((name) => !permitted.includes(name) || !inheritable.includes(name))
}
