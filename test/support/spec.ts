/** A whole config.json for `ctr run --config` and for bundles: what containerd's default is, made small enough to change by hand. */
import { chmodSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { busyboxRoot } from './image.ts'
import { BUSYBOX, PAYLOAD } from './places.ts'

/** The parts of a spec that tests change; anything else may be assigned too. */
export interface TestSpec {
  ociVersion: string
  hostname?: string
  root?: { path: string; readonly?: boolean }
  process: {
    terminal?: boolean
    user: { uid: number; gid: number; additionalGids?: number[]; umask?: number }
    args: string[]
    env: string[]
    cwd: string
    rlimits?: { type: string; soft: number; hard: number }[]
    oomScoreAdj?: number
    capabilities: Record<string, string[]>
    noNewPrivileges: boolean
  }
  mounts: { destination: string; type: string; source: string; options?: string[] }[]
  linux: {
    namespaces: { type: string; path?: string }[]
    maskedPaths?: string[]
    readonlyPaths?: string[]
    sysctl?: Record<string, string>
    cgroupsPath?: string
    resources?: Record<string, unknown>
    rootfsPropagation?: string
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

/** A root folder of busybox and the payload program below `folder`; made once. */
export function rootfsFolder(folder: string): string {
  const root = join(folder, 'rootfs')
  if (existsSync(root)) return root
  for (const entry of busyboxRoot(BUSYBOX, { payload: PAYLOAD })) {
    const path = join(root, entry.path)
    if (entry.kind === 'folder') {
      mkdirSync(path, { recursive: true })
      // not mkdir's mode, which the umask would cut
      chmodSync(path, entry.mode)
      continue
    }
    mkdirSync(dirname(path), { recursive: true })
    if (entry.kind === 'link') symlinkSync(entry.target, path)
    else writeFileSync(path, entry.data, { mode: entry.mode })
  }
  return root
}

/** Writes a changed spec below `folder` and answers its path. */
export function writeSpec(folder: string, command: readonly string[], change: SpecChange = () => undefined): string {
  const spec = defaultSpec(command, rootfsFolder(folder))
  change(spec)
  const path = join(folder, 'config.json')
  writeFileSync(path, JSON.stringify(spec))
  return path
}
