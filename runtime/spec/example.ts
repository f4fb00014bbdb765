/**
 * A config.json to start from: a shell in a root file system "rootfs" with the usual namespaces, the mounts that
 * programs expect, and few capabilities. It is plain JSON for users to edit, with the same content as runc's except for
 * the host name.
 */

/** The version of the OCI runtime specification that this runtime follows. */
export const SPEC_VERSION = '1.3.0'

/** Options of the example. */
export interface ExampleOptions {
  /** for this user instead of root: with a user namespace, in the host's network */
  readonly rootless?: { readonly uid: number; readonly gid: number }
  /** the host has only cgroup v2, so the container gets a cgroup namespace */
  readonly cgroup2: boolean
}

const CAPABILITIES = ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_NET_BIND_SERVICE']
const SAFE = ['nosuid', 'noexec', 'nodev']

interface ExampleMount {
  readonly destination: string
  readonly type: string
  readonly source: string
  readonly options?: readonly string[]
}

function mounts(rootless: boolean): ExampleMount[] {
  const pts = ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620']
  return [
    { destination: '/proc', type: 'proc', source: 'proc' },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    // without further ids group 5 (tty), which owns terminals, is not mapped
    { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: rootless ? pts : [...pts, 'gid=5'] },
    { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: [...SAFE, 'mode=1777', 'size=65536k'] },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: SAFE },
    // only a new network namespace allows a new sysfs
    rootless
      ? { destination: '/sys', type: 'none', source: '/sys', options: ['rbind', ...SAFE, 'ro'] }
      : { destination: '/sys', type: 'sysfs', source: 'sysfs', options: [...SAFE, 'ro'] },
    { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: [...SAFE, 'relatime', 'ro'] },
  ]
}

/** The example, as an object for JSON.stringify. */
export function exampleSpec({ rootless, cgroup2 }: ExampleOptions): Record<string, unknown> {
  const namespaces = ['pid', ...(rootless ? [] : ['network']), 'ipc', 'uts', 'mount', ...(rootless ? ['user'] : [])]
  const mapping = (hostID: number) => [{ containerID: 0, hostID, size: 1 }]
  return {
    ociVersion: SPEC_VERSION,
    process: {
      terminal: true,
      user: { uid: 0, gid: 0 },
      args: ['sh'],
      env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'TERM=xterm'],
      cwd: '/',
      capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
      rlimits: [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 }],
      noNewPrivileges: true,
    },
    root: { path: 'rootfs', readonly: true },
    hostname: 'runts',
    mounts: mounts(rootless !== undefined),
    linux: {
      ...(rootless
        ? { uidMappings: mapping(rootless.uid), gidMappings: mapping(rootless.gid) }
        : { resources: { devices: [{ allow: false, access: 'rwm' }] } }),
      namespaces: [...namespaces, ...(cgroup2 ? ['cgroup'] : [])].map((type) => ({ type })),
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
