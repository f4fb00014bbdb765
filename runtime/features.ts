/**
 * What this runtime supports, as the OCI features document (runtime-spec 1.3, features.md and features-linux.md). Its
 * lists come from the tables that the validator and the plan builder use, so it cannot promise what they refuse. Only
 * `supportedFlags`, the version of libseccomp and whether CRIU is installed depend on the host.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { LIB_FILES } from '../proto/launch.ts'
import { namesOff } from './container/gates.ts'
import type { FeatureGates } from './container/options.ts'
import { CAPABILITIES } from './spec/capabilities.ts'
import { SPEC_VERSION } from './spec/example.ts'
import { MOUNT_OPTION_WORDS } from './spec/mount-options.ts'
import { NAMESPACE_TYPES } from './spec/namespaces.ts'
import { MEMORY_FLAGS, MEMORY_MODES } from './spec/scheduling.ts'
import { SECCOMP_ACTIONS, SECCOMP_ARCHITECTURES, SECCOMP_FLAGS, SECCOMP_OPERATORS } from './spec/seccomp.ts'
import { HOOK_NAMES } from './spec/types.ts'
import { findCriu } from './sys/criu-path.ts'
import { seccompVersion } from './sys/libseccomp.ts'
import { SECCOMP_FILTER_FLAG_NEW_LISTENER } from './sys/linux.ts'
import { libDir } from './sys/paths.ts'
import { knowsFilterFlags } from './sys/seccomp.ts'

/** The features document; an annotation lists the gates that are off. */
export function features(gates: Partial<FeatureGates> = {}): Record<string, unknown> {
  const flags = [...SECCOMP_FLAGS.keys()]
  return {
    ociVersionMin: '1.0.0',
    ociVersionMax: SPEC_VERSION,
    hooks: [...HOOK_NAMES],
    mountOptions: [...MOUNT_OPTION_WORDS].sort(),
    linux: {
      namespaces: [...NAMESPACE_TYPES].sort(),
      capabilities: [...CAPABILITIES],
      cgroup: { v1: true, v2: true, systemd: true, systemdUser: true, rdma: true },
      seccomp: {
        enabled: true,
        actions: [...SECCOMP_ACTIONS],
        operators: [...SECCOMP_OPERATORS],
        archs: [...SECCOMP_ARCHITECTURES.keys()],
        knownFlags: flags,
        supportedFlags: flags.filter(isSupported),
      },
      apparmor: { enabled: true },
      selinux: { enabled: true },
      intelRdt: { enabled: true, schemata: true, monitoring: true },
      memoryPolicy: { modes: Object.keys(MEMORY_MODES).sort(), flags: Object.keys(MEMORY_FLAGS).sort() },
      mountExtensions: { idmap: { enabled: true } },
      netDevices: { enabled: true },
    },
    annotations: annotations(namesOff(gates)),
    // options for CRIU, which runs as root
    potentiallyUnsafeConfigAnnotations: ['org.criu.config'],
  }
}

/**
 * Whether the kernel knows a flag. A flag without a bit is not the kernel's, and one about answers is valid only with a
 * listener.
 */
function isSupported(name: string): boolean {
  const bits = SECCOMP_FLAGS.get(name) ?? 0
  return bits === 0 || knowsFilterFlags(bits | (name.endsWith('_RECV') ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0))
}

function annotations(off: readonly string[]): Record<string, string> {
  const version = readVersion()
  const seccomp = readSeccompVersion()
  return {
    'runts.checkpoint.enabled': String(findCriu() !== undefined),
    ...(off.length === 0 ? {} : { 'runts.features.off': off.join(',') }),
    ...(version === undefined ? {} : { 'runts.version': version }),
    // the key that runtimes use for the version of libseccomp
    ...(seccomp === undefined ? {} : { 'io.github.seccomp.libseccomp.version': seccomp }),
  }
}

/** The version of an installed runtime, from a file beside it; undefined when it runs from its sources. */
function readVersion(): string | undefined {
  try {
    return readFileSync(join(libDir(), LIB_FILES.VERSION), 'utf8').trim()
  } catch {
    return undefined
  }
}

function readSeccompVersion(): string | undefined {
  try {
    return seccompVersion()
  } catch {
    // not installed: without the annotation, the document says that profiles cannot be used
    return undefined
  }
}
