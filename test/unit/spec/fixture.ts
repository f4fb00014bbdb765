/**
 * A config.json as containerd makes it for `ctr run` of a plain image: the base that tests change in one place each.
 */
import { expect } from 'vitest'
import { RuntimeError } from '../../../runtime/errors.ts'
import { parseSpec } from '../../../runtime/spec/load.ts'

const CAPABILITIES = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
]

/** A document that tests write anything into anywhere: as untyped as the text that it becomes. */
export type Document = ReturnType<typeof JSON.parse>

/** A fresh copy of the base document. */
export function defaultSpec(): Document {
  return {
    ociVersion: '1.0.2-dev',
    process: {
      user: { uid: 0, gid: 0, additionalGids: [0, 10] },
      args: ['sh', '-c', 'echo hello'],
      env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      cwd: '/',
      capabilities: { bounding: [...CAPABILITIES], effective: [...CAPABILITIES], permitted: [...CAPABILITIES] },
      rlimits: [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 }],
      noNewPrivileges: true,
    },
    root: { path: 'rootfs' },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
      {
        destination: '/dev',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
      },
      {
        destination: '/dev/pts',
        type: 'devpts',
        source: 'devpts',
        options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
      },
      {
        destination: '/dev/shm',
        type: 'tmpfs',
        source: 'shm',
        options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k'],
      },
      { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
      {
        destination: '/run',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
      },
    ],
    linux: {
      resources: { devices: [{ allow: false, access: 'rwm' }] },
      cgroupsPath: '/default/box',
      namespaces: [{ type: 'pid' }, { type: 'ipc' }, { type: 'uts' }, { type: 'mount' }, { type: 'network' }],
      maskedPaths: [
        '/proc/acpi',
        '/proc/asound',
        '/proc/kcore',
        '/proc/keys',
        '/proc/latency_stats',
        '/proc/timer_list',
        '/proc/timer_stats',
        '/proc/sched_debug',
        '/sys/firmware',
        '/proc/scsi',
      ],
      readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
    },
  }
}

/** The text of the base document after a change. */
export function specText(change: (spec: Document) => void = () => {}): string {
  const spec = defaultSpec()
  change(spec)
  return JSON.stringify(spec)
}

/** The refusal of a document. */
export function refusal(text: string, parse: (text: string, where: string) => unknown = parseSpec): RuntimeError {
  try {
    parse(text, 'test')
  } catch (error) {
    if (error instanceof RuntimeError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

/** A row of a table of refusals: what is wrong, where, words of the message, and how the base document comes to it. */
export type RefusedCase = [what: string, pointer: string, message: string, change: (spec: Document) => void]

/** Checks one such row. */
export function expectRefusal([, pointer, message, change]: RefusedCase): void {
  const error = refusal(specText(change))
  expect(error).toMatchObject({ code: 'InvalidArgument', detail: { source: 'spec', pointer } })
  expect(error.message).toContain(message)
  expect(error.message).toContain(`(at ${pointer})`)
  expect(error.message).not.toContain('\n')
}

/** Namespaces and mappings of a container with a user namespace of its own. */
export function addUserNamespace(spec: Document): void {
  spec.linux.namespaces.push({ type: 'user' })
  spec.linux.uidMappings = [{ containerID: 0, hostID: 100000, size: 65536 }]
  spec.linux.gidMappings = [{ containerID: 0, hostID: 200000, size: 65536 }]
}

/** Takes the namespaces of a type out of a document. */
export const without =
  (type: string) =>
  (spec: Document): void => {
    spec.linux.namespaces = spec.linux.namespaces.filter((namespace: Document) => namespace.type !== type)
  }
