/**
 * The feature gates: parts of the isolation that root can switch off, to find out which of them breaks a program. A
 * gate changes the document before anything is planned from it, so no other part of the runtime knows about gates.
 * Each gate that is off is logged as a warning.
 */
import { readFileSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { type Logger, silentLogger } from '../logger.ts'
import { CAPABILITIES } from '../spec/capabilities.ts'
import { type Capabilities, NO_RESOURCES, type OciProcess, type Spec } from '../spec/types.ts'
import type { FeatureGates } from './options.ts'

/** What each gate means when it is off. */
const MEANING: Readonly<Record<keyof FeatureGates, string>> = {
  seccomp: 'every system call is allowed',
  capabilities: "processes keep the runtime's capabilities",
  apparmor: 'no profile is applied',
  cgroupDevices: 'every device is allowed',
}

/** The gates that are off. @throws PermissionDenied unless root: the container is weaker than its document says */
function gatesOff(gates: Partial<FeatureGates> | undefined, logger: Logger): ReadonlySet<string> {
  const off = Object.entries(MEANING).filter(([name]) => gates?.[name as keyof FeatureGates] === false)
  if (off.length > 0 && process.geteuid?.() !== 0) {
    const names = off.map(([name]) => name).join(', ')
    throw new RuntimeError('PermissionDenied', `cannot switch off "${names}": only root can switch features off`)
  }
  for (const [name, meaning] of off) logger.warn({ feature: name }, `feature is switched off: ${meaning}`)
  return new Set(off.map(([name]) => name))
}

/** Names the gates that are off, for the container's state. */
export function namesOff(gates: Partial<FeatureGates> | undefined): readonly string[] {
  return Object.keys(MEANING).filter((name) => gates?.[name as keyof FeatureGates] === false)
}

/** A container's document without the parts that are switched off. @throws PermissionDenied unless root */
export function gateSpec(spec: Spec, gates: Partial<FeatureGates> | undefined, logger: Logger): Spec {
  if (gates === undefined) return spec
  const off = gatesOff(gates, logger)
  if (off.size === 0) return spec
  const { seccomp, resources, ...linux } = spec.linux
  const open = off.has('cgroupDevices')
    ? { ...(resources ?? NO_RESOURCES), devices: [{ allow: true, type: 'a', access: 'rwm' } as const] }
    : resources
  return {
    ...spec,
    process: withoutGated(spec.process, off),
    linux: {
      ...linux,
      ...(seccomp === undefined || off.has('seccomp') ? {} : { seccomp }),
      ...(open === undefined ? {} : { resources: open }),
    },
  }
}

/** As gateSpec, for a further process: its own document and the container's. @throws PermissionDenied unless root */
export function gateExec(
  documents: { readonly spec: Spec; readonly process: OciProcess },
  gates: Partial<FeatureGates> | undefined,
  logger: Logger,
): { readonly spec: Spec; readonly process: OciProcess } {
  if (gates === undefined) return documents
  const off = gatesOff(gates, logger)
  if (off.size === 0) return documents
  // gatesOff has logged the warnings already
  const spec = gateSpec(documents.spec, { ...gates, cgroupDevices: true }, silentLogger)
  return { spec, process: withoutGated(documents.process, off) }
}

function withoutGated({ apparmorProfile, ...rest }: OciProcess, off: ReadonlySet<string>): OciProcess {
  return {
    ...rest,
    ...(apparmorProfile === undefined || off.has('apparmor') ? {} : { apparmorProfile }),
    ...(off.has('capabilities') ? { capabilities: ownCapabilities() } : {}),
  }
}

/** The capabilities of this process. */
function ownCapabilities(): Capabilities {
  const status = readFileSync('/proc/self/status', 'latin1')
  const set = (field: string): string[] => {
    const bits = BigInt(`0x${new RegExp(`^${field}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1] ?? '0'}`)
    return CAPABILITIES.filter((_, number) => ((bits >> BigInt(number)) & 1n) === 1n)
  }
  return {
    bounding: set('CapBnd'),
    effective: set('CapEff'),
    permitted: set('CapPrm'),
    inheritable: set('CapInh'),
    ambient: set('CapAmb'),
  }
}
