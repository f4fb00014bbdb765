/**
 * The files that a container sees, as ts-init puts them together: mounts, the root that they are below, and device
 * nodes.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, lutimesSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Op } from '../../proto/init-plan.ts'
import { needs } from '../support/needs.ts'
import { CONTAINER_FLAGS, containerPlan, credentials, mount, type Parts, Rootfs, Run, USER_FLAG } from './run.ts'
import { failure, rootfs, sh, useRootfs } from './shared-rootfs.ts'

const ENOENT = 2
const EPERM = 1
const EEXIST = 17
const EINVAL = 22
describe('ts-init', needs('root', 'busybox', 'make', 'gcc'), () => {
  useRootfs()

  describe('mounts', () => {
    test('bind with the attributes that were asked for, creating files and directories', async () => {
      const file = join(rootfs.folder, 'source-file')
      const folder = join(rootfs.folder, 'source-folder')
      writeFileSync(file, 'content\n')
      mkdirSync(folder, { recursive: true })
      const outside = [
        mount({ source: file, target: '/made/by/mount/file', how: 1, set: 1n }),
        mount({ source: folder, target: '/made/folder', how: 3, set: 8n | 1n }),
      ]
      const script =
        'cat /made/by/mount/file; (echo x > /made/by/mount/file) 2>/dev/null || echo read-only; busybox grep /made/folder /proc/self/mountinfo | busybox cut -d" " -f6'
      const text = await sh(script, { outside })
      expect(text).toMatch(/^content\nread-only\nro,noexec(,relatime)?\n$/)
    })

    test('resolve symlinks of the image inside the root, and make what dangles', async () => {
      const decoy = join(rootfs.folder, 'decoy')
      mkdirSync(decoy, { recursive: true })
      symlinkSync(decoy, join(rootfs.path, 'absolute'))
      symlinkSync('../../../../../../gone/away', join(rootfs.path, 'relative'))
      const outside = ['/absolute/x', '/relative/y'].map((target) =>
        mount({ source: 'tmpfs', target, fstype: 'tmpfs', options: ['mode=700'] }),
      )
      const text = await sh('busybox awk \'$9 == "tmpfs" { print $5 }\' /proc/self/mountinfo | busybox sort', {
        outside,
      })
      expect(text).toBe(`/dev\n/gone/away/y\n${decoy}/x\n`)
      expect(existsSync(join(decoy, 'x'))).toBe(false)
      expect(existsSync('/gone')).toBe(false)
    })

    test('give a tmpfs the mode of the directory that it covers and, with copy up, its content', async () => {
      using own = new Rootfs()
      mkdirSync(join(own.path, 'data/sub'), { recursive: true })
      writeFileSync(join(own.path, 'data/sub/file'), 'old\n', { mode: 0o644 })
      symlinkSync('sub/file', join(own.path, 'data/link'))
      chownSync(join(own.path, 'data/sub/file'), 5, 6)
      spawnSync('chmod', ['1751', join(own.path, 'data')])
      spawnSync('mkfifo', ['-m', '666', join(own.path, 'data/fifo')])
      spawnSync('mknod', ['-m', '662', join(own.path, 'data/node'), 'c', '1', '3'])
      const names = ['sub/file', 'sub', 'link', 'fifo', 'node']
      for (const name of names) lutimesSync(join(own.path, 'data', name), 1_000_000_000, 1_000_000_000)
      const outside = [mount({ source: 'tmpfs', target: '/data', fstype: 'tmpfs', how: 8 | 16 })]
      const script = `busybox stat -c %n:%a:%u:%g:%Y ${names.join(' ')}; busybox stat -c %a:%u:%g .; cat link; echo new >link`
      using run = new Run(containerPlan(own, { args: ['/bin/sh', '-c', `cd /data; ${script}`], outside }))
      const seen = 'sub/file:644:5:6|sub:755:0:0|link:777:0:0|fifo:666:0:0|node:662:0:0'
      expect(await run.stdout).toBe(`${seen.split('|').join(':1000000000\n')}:1000000000\n1751:0:0\nold\n`)
      expect(readFileSync(join(own.path, 'data/sub/file'), 'utf8')).toBe('old\n')
    })

    test('take each option as one, and report what the kernel says of it', async () => {
      const bad = await failure({
        args: ['/bin/id'],
        outside: [
          mount({ source: 'tmpfs', target: '/tmp', fstype: 'tmpfs', options: ['mode=700', 'size=x', 'nr_inodes=3'] }),
        ],
      })
      expect(bad).toMatchObject({ op: 'mount', errno: EINVAL })
      expect(bad.text).toMatch(/^mount "tmpfs" on "\/tmp": option size=x: tmpfs: .*size/)
    })

    test('fail with the operation, the errno and the paths when a source is missing', async () => {
      const bad = await failure({
        args: ['/bin/id'],
        outside: [mount({ source: '/no/such/source', target: '/tmp', how: 1 })],
      })
      expect(bad).toMatchObject({ op: 'mount', errno: ENOENT, text: 'mount "/no/such/source" on "/tmp": source' })
    })

    test('are made of the usual file systems', async () => {
      const outside = [
        mount({ source: 'sysfs', target: '/sys', fstype: 'sysfs', how: 4, set: 15n }),
        mount({ source: 'mqueue', target: '/dev/mqueue', fstype: 'mqueue', how: 32, set: 14n }),
        mount({
          source: 'shm',
          target: '/dev/shm',
          fstype: 'tmpfs',
          options: ['mode=1777', 'size=65536k'],
          set: 14n,
          propagation: [0x40000],
        }),
      ]
      const script = 'busybox awk \'$5 != "/" { print $5, $6, $9 }\' /proc/self/mountinfo'
      expect(await sh(script, { outside })).toBe(
        '/proc rw,relatime proc\n/dev rw,nosuid,relatime tmpfs\n/dev/pts rw,nosuid,noexec,relatime devpts\n/sys ro,nosuid,nodev,noexec,relatime sysfs\n/dev/mqueue rw,nosuid,nodev,noexec,relatime mqueue\n/dev/shm rw,nosuid,nodev,noexec,relatime shm\n',
      )
    })

    test('that are optional may fail, with a warning', async () => {
      const outside = [mount({ source: 'x', target: '/tmp/nothing', fstype: 'nosuchfs', how: 32 })]
      using run = new Run(containerPlan(rootfs, { args: ['/bin/id'], outside }))
      await run.ended
      expect(run.find('failed')).toBeUndefined()
      expect(run.find('log')?.text).toMatch(/file system "nosuchfs".*no such device.*left out/)
    })

    test.for(['proc', 'sysfs'])('of %s refuse a symlink as their target', async (fstype) => {
      using own = new Rootfs()
      symlinkSync('/tmp', join(own.path, 'link'))
      using run = new Run(
        containerPlan(own, {
          args: ['/bin/id'],
          outside: [mount({ source: fstype, target: '/link', fstype, how: 4 })],
        }),
      )
      await run.ended
      expect(run.find('failed')?.text).toMatch(/must be mounted on ordinary directory/)
    })

    test('refuse a symlink that leads inside /proc, and the root itself', async () => {
      using own = new Rootfs()
      symlinkSync('/proc/self', join(own.path, 'sneaky'))
      symlinkSync('/', join(own.path, 'top'))
      for (const [target, errno, text] of [
        ['/sneaky/attr', EPERM, /a symlink leads inside \/proc/],
        ['/top', 16, /on the top of rootfs/],
      ] as const) {
        using run = new Run(
          containerPlan(own, { args: ['/bin/id'], outside: [mount({ source: 'tmpfs', target, fstype: 'tmpfs' })] }),
        )
        await run.ended
        expect(run.find('failed')).toMatchObject({ errno, text: expect.stringMatching(text) })
      }
    })

    test('mask files and directories, protect paths, and ignore what is not there', async () => {
      const inside: Op[] = ['/proc/cpuinfo', '/proc/keys', '/etc', '/tmp', '/no/such'].map((path) => ({
        op: 'mask_path',
        path,
      }))
      inside.push(
        { op: 'readonly_path', path: '/proc/sys' },
        { op: 'readonly_path', path: '/nothing' },
        { op: 'readonly_mount', path: '/' },
      )
      const script = [
        'busybox wc -c < /proc/cpuinfo; echo $(ls /etc /tmp); busybox stat -Lc %t:%T /proc/keys',
        '(echo 1 > /proc/sys/net/ipv4/ip_forward) 2>/dev/null || echo protected',
        '(echo 1 > /bin/x) 2>/dev/null || echo read-only; (echo 1 > /etc/x) 2>/dev/null || echo empty',
      ].join('; ')
      expect(await sh(script, { inside })).toBe('0\n/etc: /tmp:\n1:3\nprotected\nread-only\nempty\n')
    })
  })

  describe('the root', () => {
    const withMode = (plan: Op[], mode: number) => plan.map((op) => (op.op === 'pivot' ? { ...op, mode } : op))

    test.for<[string, Partial<Parts>]>([
      ['', {}],
      [
        ' in a user namespace',
        { clone: { flags: CONTAINER_FLAGS | USER_FLAG, uidMap: '0 100000 65536\n', gidMap: '0 100000 65536\n' } },
      ],
    ])('can be moved where it cannot be pivoted; no full procfs or sysfs of the host is left%s', async ([, more]) => {
      using own = new Rootfs()
      spawnSync('chmod', ['755', own.folder])
      spawnSync('chown', ['-R', '100000:100000', own.path])
      const script = 'busybox grep -c -E " - (proc|sysfs) " /proc/self/mountinfo; ls /'
      using run = new Run(withMode(containerPlan(own, { args: ['/bin/sh', '-c', script], ...more }), 1))
      await run.ended
      expect(run.find('failed')).toBeUndefined()
      expect(await run.stdout).toMatch(/^1\n/)
      expect(await run.stdout).toContain('srv')
    })

    test('that is moved leaves the mounts of a host that shares "/" alone', async () => {
      using own = new Rootfs()
      const volume = join(own.folder, 'volume')
      mkdirSync(volume)
      // stands for the host; the root is a mount of its own, as it is under containerd, so that "/" stays shared
      const script = `mount --bind ${own.path} ${own.path} && mount -t tmpfs tmpfs ${volume} && mkdir ${volume}/proc &&
        mount -t proc proc ${volume}/proc && mount -t proc proc ${volume}/proc && mount --make-rshared / && echo up && exec sleep 60`
      const host = spawn('unshare', ['-m', 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'inherit'] })
      try {
        await once(host.stdout, 'data')
        // what another test has mounted is in this copy too, and leaves it when that test removes the folder
        const isOurs = (point = '') => ['/', '/proc', '/sys'].includes(point) || point.startsWith(own.folder)
        const mounts = () =>
          readFileSync(`/proc/${host.pid}/mountinfo`, 'utf8')
            .replaceAll(/ (shared|master):\d+/g, '')
            .split('\n')
            .filter((line) => isOurs(line.split(' ')[4]))
        const before = mounts()
        expect(before.filter((line) => line.includes(`${volume}/proc `))).toHaveLength(2)
        const plan = containerPlan(own, {
          args: ['/bin/sh', '-c', 'busybox grep -c -E " - (proc|sysfs) " /proc/self/mountinfo; ls /'],
        }).map((op) => (op.op === 'propagation' ? { ...op, flags: 0x100000 } : op))
        using run = new Run(withMode(plan, 1), undefined, ['nsenter', `--mount=/proc/${host.pid}/ns/mnt`])
        await run.ended
        expect(run.find('failed')).toBeUndefined()
        expect(await run.stdout).toMatch(/^1\n/)
        expect(mounts()).toEqual(before)
      } finally {
        host.kill('SIGKILL')
      }
    })

    test('that is moved does not let a nested user namespace mount a whole procfs', async () => {
      const script = 'busybox unshare -Urmpf busybox mount -t proc proc /tmp && echo mounted'
      const mounting = (inside: Op[]) => {
        const plan = containerPlan(rootfs, { args: ['/bin/sh', '-c', script], inside })
        return withMode(
          plan.map((op) => (op.op === 'credentials' ? credentials(0, (1n << 41n) - 1n) : op)),
          1,
        )
      }
      using whole = new Run(mounting([]))
      expect(await whole.stdout).toBe('mounted\n')
      // the kernel wants a procfs with nothing hidden in it to be there already
      using masked = new Run(mounting([{ op: 'mask_path', path: '/proc/keys' }]))
      expect(await masked.stderr).toMatch(/not permitted|permission denied/i)
      expect(await masked.stdout).toBe('')
    })

    test('can be a plain chroot without a mount namespace', async () => {
      const keep = new Set(['clone', 'session', 'rootfs', 'pivot', 'umask', 'chdir', 'credentials', 'program', 'exec'])
      const plan = withMode(containerPlan(rootfs, { args: ['/bin/ls', '/'], clone: { flags: 0n } }), 2)
      using run = new Run(
        plan.filter(({ op }) => keep.has(op)).map((op) => (op.op === 'rootfs' ? { ...op, how: 0 } : op)),
      )
      await run.ended
      expect(run.find('failed')).toBeUndefined()
      expect(await run.stdout).toContain('srv')
    })
  })

  describe('devices', () => {
    test('are made with mode and owner, and verified when they are there', async () => {
      const device = (minor: number): Op => ({
        op: 'device',
        path: '/dev/zero',
        mode: 0o20622,
        major: 1,
        minor,
        uid: 3,
        gid: 4,
      })
      expect(await sh('busybox stat -c %a:%u:%g:%t:%T /dev/zero', { outside: [device(5), device(5)] })).toBe(
        '622:3:4:1:5\n',
      )
      expect(await failure({ args: ['/bin/id'], outside: [device(5), device(7)] })).toMatchObject({
        op: 'device',
        errno: EEXIST,
      })
    })

    test('and symlinks stay inside when /dev of the image is a symlink', async () => {
      using own = new Rootfs()
      const decoy = join(own.folder, 'decoy')
      mkdirSync(decoy)
      writeFileSync(join(decoy, 'ptmx'), 'mine')
      symlinkSync(decoy, join(own.path, 'devices'))
      const outside: Op[] = [
        { op: 'symlink', target: 'pts/ptmx', path: '/devices/ptmx', replace: 1 },
        { op: 'device', path: '/devices/null', mode: 0o20666, major: 1, minor: 3, uid: 0, gid: 0 },
      ]
      using run = new Run(containerPlan(own, { args: ['/bin/id'], outside }))
      await run.ended
      expect(run.find('failed')).toBeUndefined()
      expect(readFileSync(join(decoy, 'ptmx'), 'utf8')).toBe('mine')
      expect(existsSync(join(decoy, 'null'))).toBe(false)
    })

    test('masking refuses a /dev/null that is none', async () => {
      const inside: Op[] = [{ op: 'mask_path', path: '/proc/cpuinfo' }]
      const outside = [mount({ source: '/dev/zero', target: '/dev/null', how: 1 })]
      using run = new Run(
        containerPlan(rootfs, { args: ['/bin/id'], inside, outside }).filter(({ op }) => op !== 'reopen_null'),
      )
      await run.ended
      expect(run.find('failed')?.text).toBe('mask "/proc/cpuinfo": no proper /dev/null')
    })
  })
})
