/**
 * What a test needs of the machine. A test that cannot run here is skipped, and the report names the missing thing.
 * With REQUIRE=all a skip is a failure, so that CI cannot lose tests by losing a package.
 */
import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, readFileSync, statfsSync } from 'node:fs'
import { availableParallelism, release } from 'node:os'
import { basename, delimiter, join } from 'node:path'
import { CONTAINERD_RELEASE, CRICTL, DOCKER_BIN, KUBELET, NERDCTL, OCI_RUNTIME, releaseBin } from './places.ts'

declare module 'vitest' {
  interface TaskMeta {
    /** Why the test was skipped: the thing that this machine lacks. Reporters print it. */
    missing?: string
  }
}

/** Whether the OCI command line under test is runc. */
const IS_RUNC = basename(OCI_RUNTIME) === 'runc'
const CGROUP2_SUPER_MAGIC = 0x63677270

/** Whether a program exists that may be run: a name on the PATH, or a path. */
function onPath(program: string): boolean {
  return (program.includes('/') ? [''] : (process.env['PATH'] ?? '').split(delimiter)).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** True where /sys/fs/cgroup is the one v2 hierarchy (hybrid hosts count as v1). */
export function isCgroup2(): boolean {
  try {
    return statfsSync('/sys/fs/cgroup').type === CGROUP2_SUPER_MAGIC
  } catch {
    return false
  }
}

function hasRelease(release: string): boolean {
  return ['containerd', 'ctr'].every((program) => onPath(join(releaseBin(release), program)))
}

function contents(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

function v2Controllers(): string {
  return isCgroup2() ? readFileSync('/sys/fs/cgroup/cgroup.controllers', 'utf8') : ''
}

function hasSysResource(): boolean {
  return (BigInt(`0x${/CapEff:\s*(\w+)/.exec(contents('/proc/self/status'))?.[1] ?? 0}`) & (1n << 24n)) !== 0n
}

function isKernel(major: number, minor: number): boolean {
  const [has = 0, hasMinor = 0] = release().split('.').map(Number)
  return has > major || (has === major && hasMinor >= minor)
}

function checksCriu(...more: string[]): boolean {
  return onPath('criu') && spawnSync('criu', ['check', ...more], { timeout: 60_000 }).status === 0
}

const CHECKS = {
  root: () => process.getuid?.() === 0,
  cgroup1: () => !isCgroup2() && existsSync('/sys/fs/cgroup/memory/tasks'),
  cgroup2: isCgroup2,
  'memory controller': () => existsSync('/sys/fs/cgroup/memory/tasks') || v2Controllers().includes('memory'),
  containerd: () => hasRelease(CONTAINERD_RELEASE),
  'other releases of containerd': () => hasRelease('1.7') && hasRelease('2'),
  busybox: () => existsSync('/bin/busybox') || existsSync('/usr/bin/busybox'),
  docker: () => ['dockerd', 'docker'].every((program) => onPath(join(DOCKER_BIN, program))),
  'the runc shim': () => onPath('containerd-shim-runc-v2') && onPath('runc'),
  'the built shim': () => existsSync(join(import.meta.dirname, '../../build/lib/containerd-shim-ts/shim.cjs')),
  'our shim': () => !(process.env['RUNTIME'] ?? '').includes('runc'),
  git: () => onPath('git'),
  prlimit: () => onPath('prlimit'),
  uidmap: () => onPath('newuidmap') && onPath('newgidmap'),
  iproute2: () => onPath('ip'),
  'loop devices': () => existsSync('/dev/loop-control') && onPath('mkfs.ext4'),
  'fuse-overlayfs': () => existsSync('/dev/fuse') && onPath('mount.fuse3') && onPath('fuse-overlayfs'),
  'CNI plugins': () => onPath('/usr/lib/cni/bridge'),
  'the OCI runtime': () => (OCI_RUNTIME.includes('/') ? existsSync(OCI_RUNTIME) : onPath(OCI_RUNTIME)),
  libsystemd: () =>
    ['x86_64', 'aarch64'].some((machine) => existsSync(`/usr/lib/${machine}-linux-gnu/libsystemd.so.0`)),
  systemd: () => existsSync('/run/systemd/system'),
  'the user tester': () => /^tester:/m.test(contents('/etc/passwd')),
  'no systemd': () => !existsSync('/run/systemd/system'),
  apparmor: () => contents('/sys/module/apparmor/parameters/enabled').startsWith('Y') && onPath('apparmor_parser'),
  selinux: () => existsSync('/sys/fs/selinux/enforce'),
  CAP_SYS_RESOURCE: hasSysResource,
  'no CAP_SYS_RESOURCE': () => !hasSysResource(),
  gcc: () => onPath('gcc'),
  ip: () => onPath('ip'),
  setpriv: () => onPath('setpriv'),
  make: () => onPath('make'),
  strace: () => onPath('strace'),
  'qemu-system-x86_64': () => onPath('qemu-system-x86_64'),
  'two processors': () => availableParallelism() > 1,
  '/dev/fuse': () => existsSync('/dev/fuse'),
  'tini-static': () => onPath('tini-static'),
  nerdctl: () => onPath(NERDCTL),
  crictl: () => onPath(CRICTL),
  kubelet: () => onPath(KUBELET),
  iptables: () => onPath('iptables'),
  procps: () => onPath('ps'),
  // Intel RDT: the hardware, and the file system mounted
  resctrl: () => existsSync('/sys/fs/resctrl/schemata'),
  'no resctrl': () => !existsSync('/sys/fs/resctrl/schemata'),
  bash: () => onPath('bash'),
  zsh: () => onPath('zsh'),
  fish: () => onPath('fish'),
  'Linux 6.5': () => isKernel(6, 5),
  // one that this kernel suits: `criu check` says so
  criu: () => checksCriu(),
  // CRIU reads the option SO_PASSSEC of every socket, which a kernel without security modules lacks
  'socket labels': () => /apparmor|selinux|smack/.test(contents('/sys/kernel/security/lsm')),
  // a kernel that tells CRIU which memory has changed
  'soft-dirty pages': () => checksCriu('--feature', 'mem_dirty_track'),
  // a processor that is not emulated: times have a meaning
  'a real processor': () => process.env['TESTVM'] !== '1',
  '/dev/kvm': () => existsSync('/dev/kvm'),
  '/dev/net/tun': () => existsSync('/dev/net/tun'),
} as const satisfies Record<string, () => boolean>

/** A thing of the machine that a test may need. */
export type Need = keyof typeof CHECKS

// No machine can have all of these: a host has one version of cgroups, and a run tests one runtime.
// The guest's processor is emulated, and few virtual machines have a /dev/kvm.
const ALTERNATIVES: readonly Need[] = [
  'cgroup1',
  'cgroup2',
  'our shim',
  'systemd',
  'the user tester',
  'no systemd',
  'apparmor',
  'selinux',
  'CAP_SYS_RESOURCE',
  'no CAP_SYS_RESOURCE',
  'a real processor',
  '/dev/kvm',
  'criu',
  'soft-dirty pages',
  'socket labels',
  'resctrl',
  'no resctrl',
]

/** The first of the needs that this machine does not meet. Throws instead of answering when REQUIRE=all. */
export function missing(...list: readonly Need[]): Need | undefined {
  const lacking = list.find((need) => !CHECKS[need]())
  if (lacking !== undefined && process.env['REQUIRE'] === 'all' && !ALTERNATIVES.includes(lacking)) {
    throw new Error(`REQUIRE=all: this machine lacks ${lacking}`)
  }
  return lacking
}

/** Vitest options of a test or describe that needs things of the machine: `test('…', needs('root'), …)`. */
export function needs(...list: readonly Need[]): { skip: boolean; meta: { missing?: string } } {
  const lacking = missing(...list)
  if (lacking === undefined) return { skip: false, meta: {} }
  const which = lacking === 'containerd' && CONTAINERD_RELEASE !== '' ? ` ${CONTAINERD_RELEASE}` : ''
  return { skip: true, meta: { missing: `${lacking}${which}` } }
}

/** Vitest options of a test that runc fails: with RUNTIME=runc it is skipped, and the report gives the reason. */
export function notRunc(reason: string, ...list: readonly Need[]): { skip: boolean; meta: { missing?: string } } {
  return IS_RUNC ? { skip: true, meta: { missing: `runc: ${reason}` } } : needs(...list)
}

/** How much longer things may take here: the guest of the test machine has an emulated processor. */
export const SLOWNESS = process.env['TESTVM'] === '1' ? 10 : 1
