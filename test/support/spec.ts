/**
 * A whole config.json for `ctr run --config` and for bundles: containerd's default, made small enough to change by
 * hand.
 */
import { chmodSync, existsSync, linkSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { busyboxRoot } from './image.ts'
import { BARE, BUSYBOX, PAYLOAD, PROBE } from './places.ts'

/** A range of ids of a user namespace. */
export interface TestMapping {
  containerID: number
  hostID: number
  size: number
}

/** One mount of a spec. */
export interface TestMount {
  destination: string
  type?: string
  source?: string
  options?: string[]
  uidMappings?: TestMapping[]
  gidMappings?: TestMapping[]
}

/** One hook of a spec. */
export interface TestHook {
  path: string
  args?: string[]
  env?: string[]
  timeout?: number
}

/** The process of a spec. */
export interface TestProcess {
  terminal?: boolean
  consoleSize?: { height: number; width: number }
  user: { uid: number; gid: number; additionalGids?: number[]; umask?: number }
  args: string[]
  env: string[]
  cwd: string
  rlimits?: { type: string; soft: number; hard: number }[]
  oomScoreAdj?: number
  capabilities?: Record<string, string[]>
  noNewPrivileges: boolean
  apparmorProfile?: string
  selinuxLabel?: string
  scheduler?: Record<string, unknown>
  ioPriority?: { class: string; priority: number }
  execCPUAffinity?: { initial?: string; final?: string }
}

/** The parts of a spec that tests change. */
export interface TestSpec {
  ociVersion: string
  hostname?: string
  domainname?: string
  root?: { path: string; readonly?: boolean }
  process: TestProcess
  mounts: TestMount[]
  hooks?: Record<string, TestHook[]>
  annotations?: Record<string, string>
  linux: {
    namespaces: { type: string; path?: string }[]
    uidMappings?: TestMapping[]
    gidMappings?: TestMapping[]
    maskedPaths?: string[]
    readonlyPaths?: string[]
    devices?: Record<string, unknown>[]
    sysctl?: Record<string, string>
    cgroupsPath?: string
    resources?: Record<string, unknown>
    rootfsPropagation?: string
    seccomp?: Record<string, unknown>
    personality?: Record<string, unknown>
    timeOffsets?: Record<string, { secs?: number; nanosecs?: number }>
    netDevices?: Record<string, { name?: string }>
    memoryPolicy?: Record<string, unknown>
  }
}

/** Changes a spec in place. */
export type SpecChange = (spec: TestSpec) => void

const CAPABILITIES = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_KILL',
]

function defaultSpec(command: readonly string[], root: string): TestSpec {
  return {
    ociVersion: '1.0.2',
    root: { path: root },
    process: {
      user: { uid: 0, gid: 0 },
      args: [...command],
      env: ['PATH=/bin:/usr/bin'],
      cwd: '/',
      capabilities: { bounding: [...CAPABILITIES], effective: [...CAPABILITIES], permitted: [...CAPABILITIES] },
      noNewPrivileges: true,
    },
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
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
    ],
    linux: {
      namespaces: ['pid', 'ipc', 'uts', 'mount', 'network'].map((type) => ({ type })),
      maskedPaths: ['/proc/kcore', '/proc/keys'],
      readonlyPaths: ['/proc/sys'],
      resources: { devices: [{ allow: false, access: 'rwm' }] },
    },
  }
}

/** The files of a root with busybox. Made once, since this takes a start of busybox. */
let entries: ReturnType<typeof busyboxRoot> | undefined

/** A root folder of busybox and the payload program below `folder`; made once. */
export function rootfsFolder(folder: string): string {
  const root = join(folder, 'rootfs')
  if (existsSync(root)) return root
  entries ??= busyboxRoot(BUSYBOX, { payload: PAYLOAD, probe: PROBE, bare: BARE })
  for (const entry of entries) {
    const path = join(root, entry.path)
    if (entry.kind === 'folder') {
      mkdirSync(path, { recursive: true })
      // not mkdir's mode, which the umask would cut
      chmodSync(path, entry.mode)
      continue
    }
    mkdirSync(dirname(path), { recursive: true })
    // a hard link is made twenty times faster than a symbolic one, and there are hundreds
    if (entry.kind === 'link') linkSync(join(dirname(path), entry.target), path)
    else writeFileSync(path, entry.data, { mode: entry.mode })
  }
  return root
}

/** Writes a changed spec below `folder` and answers its path. By default its root is below the folder too. */
export function writeSpec(
  folder: string,
  command: readonly string[],
  change: SpecChange = () => undefined,
  root = rootfsFolder(folder),
): string {
  const spec = defaultSpec(command, root)
  change(spec)
  const path = join(folder, 'config.json')
  writeFileSync(path, JSON.stringify(spec))
  return path
}
