/**
 * The system calls that really happen, by strace. While a container is made, the image can shape some paths.
 * Such a path is resolved by openat2 inside the root, or is a single name below an fd. It is never a path of the host.
 * Once the container's own mounts are there, nothing in /proc is opened by its path.
 * No other process may trace the helper while it holds an fd that leads to the host.
 */
import { chmodSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { startCommand } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { BIN } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'

/** System calls that resolve a path given as text (the names that the kernel has for them on x86_64 and arm64). */
const BY_PATH =
  'open,openat,openat2,creat,stat,lstat,newfstatat,statx,access,faccessat,faccessat2,readlink,readlinkat,mkdir,mkdirat,mknod,mknodat,' +
  'symlink,symlinkat,link,linkat,unlink,unlinkat,rename,renameat,renameat2,chmod,fchmodat,chown,lchown,fchownat,truncate,mount,umount2,' +
  'move_mount,open_tree,mount_setattr,pivot_root,chroot,chdir,execve,fsopen,fsmount'

interface Call {
  readonly name: string
  readonly text: string
}

/** What the process that became the container called, of these calls, in order; `runts run` makes it. */
async function callsOfRun(runts: Runts, bundle: string, trace: string): Promise<Call[]> {
  const folder = join(runts.folder, 'strace')
  mkdirSync(folder)
  const strace = ['-ff', '-qq', '-s', '300', '-e', `trace=${trace}`, '-o', join(folder, 'trace')]
  const pidFile = join(runts.folder, 'pid')
  const command = [join(BIN, 'runts'), '--root', runts.root, 'run', '--pid-file', pidFile, '-b', bundle, 'c']
  const { code, stderr } = await startCommand('strace', [...strace, ...command]).finished
  expect(code, stderr).toBe(0)
  return readFileSync(join(folder, `trace.${readFileSync(pidFile, 'utf8')}`), 'utf8')
    .split('\n')
    .flatMap((text) => {
      const name = /^(\w+)\(/.exec(text)?.[1]
      return name === undefined ? [] : [{ name, text }]
    })
}

describe('ts-init', needs('our shim', 'root', 'busybox', 'strace'), () => {
  test('opens nothing by path inside the root but by openat2 or by one name below an fd', async ({ runts }) => {
    const volume = join(runts.folder, 'volume')
    mkdirSync(volume)
    const bundle = runts.bundle(['true'], (spec) => {
      spec.hostname = 'rich'
      spec.process.cwd = '/made/for/this'
      spec.mounts.push(
        { destination: '/volume', type: 'bind', source: volume, options: ['rbind', 'ro'] },
        { destination: '/volume-file', type: 'bind', source: '/etc/hostname', options: ['bind', 'ro'] },
        { destination: '/etc', type: 'tmpfs', source: 'tmpfs', options: ['tmpcopyup', 'ro'] },
        { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid'] },
      )
      spec.linux.maskedPaths = ['/proc/kcore', '/proc/scsi', '/sys/firmware', '/etc/passwd']
      spec.linux.readonlyPaths = ['/proc/sys', '/proc/irq', '/home']
      spec.linux.sysctl = { 'net.ipv4.ip_forward': '1' }
      spec.root = { ...spec.root, path: 'rootfs', readonly: true }
      Object.assign(spec.linux, {
        devices: [{ path: '/dev/deep/er/fuse', type: 'c', major: 10, minor: 229, fileMode: 0o666, uid: 0, gid: 0 }],
      })
    })
    const calls = await callsOfRun(runts, bundle, BY_PATH)
    const rootfs = calls.findIndex(({ text }) => text.startsWith('openat(') && text.includes(join(bundle, 'rootfs')))
    const pivot = calls.findIndex(({ name }) => name === 'pivot_root')
    expect(rootfs).toBeGreaterThan(-1)
    expect(pivot).toBeGreaterThan(rootfs + 50)

    // from the moment that the root is known until it is "/": the host's paths are still in reach, so this is where
    // it matters
    const outside = calls.slice(rootfs + 1, pivot)
    const careless = outside.filter(({ name, text }) => {
      if (name === 'openat2') return !/RESOLVE_(IN_ROOT|BENEATH)/.test(text)
      // mounting is by fds alone: an empty path, or (the source of a bind, which the spec gives as a path of the
      // host) open_tree
      if (['mount_setattr', 'move_mount', 'fsopen', 'fsmount'].includes(name)) return text.includes('AT_FDCWD')
      if (name === 'open_tree') return !/^open_tree\((\d+, "",|AT_FDCWD, "(\/etc\/hostname|[^"]*\/volume)")/.test(text)
      if (name === 'mount') return true
      // the root itself, held for the pivot: nobody's name is in it
      if (text.startsWith('openat(AT_FDCWD, "/", ')) return false
      // all that is left names one component below an fd
      const [, path] = /^\w+\(\d+, "((?:[^"\\]|\\.)*)"/.exec(text) ?? []
      const below = path ?? /^symlinkat\("[^"]*", \d+, "([^"]*)"/.exec(text)?.[1]
      return below === undefined || below.includes('/')
    })
    expect(careless.map(({ text }) => text)).toEqual([])

    // behind the pivot "/" is the container's, but procfs must not be believed: files of it are reached through held
    // fds
    const exec = calls.findIndex(
      ({ name, text }, index) => index > pivot && name === 'execve' && !text.includes('/proc/self/fd'),
    )
    const inside = calls.slice(pivot + 1, exec)
    const opened = inside.filter(({ name }) => name.startsWith('open') && name !== 'open_tree' && name !== 'openat2')
    for (const { text } of opened)
      expect(text).toMatch(/^openat\(\d+, "[^/"]+"|^openat\(AT_FDCWD, "\/", O_[A-Z_|]*O_PATH/)
    for (const { text } of inside.filter(({ name }) => name === 'openat2'))
      expect(text).toMatch(/RESOLVE_(IN_ROOT|BENEATH)/)
  })

  test('of root never becomes dumpable in a new user namespace, which who has its owner’s id has power over', async ({
    runts,
  }) => {
    const host = [{ containerID: 0, hostID: 100_000, size: 65_536 }]
    const bundle = runts.bundle(['true'], (spec) => {
      for (const type of ['user', 'time']) spec.linux.namespaces.push({ type })
      Object.assign(spec.linux, {
        uidMappings: host,
        gidMappings: host,
        timeOffsets: { monotonic: { secs: 1, nanosecs: 0 } },
        seccomp: { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['acct'], action: 'SCMP_ACT_ERRNO' }] },
      })
    })
    for (const folder of [runts.folder, bundle]) chmodSync(folder, 0o711)
    const dumpable = (await callsOfRun(runts, bundle, 'prctl'))
      .map(({ text }) => /PR_SET_DUMPABLE, (\w+)/.exec(text)?.[1])
      .filter((value) => value !== undefined)
    expect(new Set(dumpable)).toEqual(new Set(['SUID_DUMP_DISABLE']))
  })
})
