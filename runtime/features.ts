/**
 * What this runtime supports, as the OCI features document (runtime-spec 1.3, features.md and features-linux.md). Lists come from the
 * tables that the validator and the plan builder use, so the document cannot promise what they refuse.
 */
import { CAPABILITIES } from './spec/capabilities.ts'
import { SPEC_VERSION } from './spec/example.ts'
import { MOUNT_OPTION_WORDS } from './spec/mount-options.ts'
import { SECCOMP_ACTIONS, SECCOMP_ARCHITECTURES, SECCOMP_FLAGS, SECCOMP_OPERATORS } from './spec/seccomp.ts'

/** The features document. */
export function features(): Record<string, unknown> {
  const flags = [...SECCOMP_FLAGS.keys()]
  return {
    ociVersionMin: '1.0.0',
    ociVersionMax: SPEC_VERSION,
    hooks: [],
    mountOptions: [...MOUNT_OPTION_WORDS].sort(),
    linux: {
      namespaces: ['cgroup', 'ipc', 'mount', 'network', 'pid', 'user', 'uts'],
      capabilities: [...CAPABILITIES],
      cgroup: { v1: true, v2: true, systemd: false, systemdUser: false, rdma: true },
      seccomp: {
        enabled: true,
        actions: [...SECCOMP_ACTIONS],
        operators: [...SECCOMP_OPERATORS],
        archs: [...SECCOMP_ARCHITECTURES.keys()],
        knownFlags: flags,
        supportedFlags: flags,
      },
      apparmor: { enabled: true },
      selinux: { enabled: true },
      intelRdt: { enabled: false },
      memoryPolicy: {},
      mountExtensions: { idmap: { enabled: false } },
      netDevices: { enabled: false },
    },
    annotations: {},
    potentiallyUnsafeConfigAnnotations: [],
  }
}
