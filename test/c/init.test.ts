/** ts-init as root on this machine: real namespaces, mounts and processes, seen from the status socket and from inside. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chownSync,
  closeSync,
  existsSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Op } from '../../proto/init-plan.ts'
import { sealedHelper } from '../../runtime/init/helper.ts'
import { encodePlan } from '../../runtime/plan/encode.ts'
import { fcntl } from '../../runtime/sys/libc.ts'
import { receiveFd, socketPair } from '../../runtime/sys/socket.ts'
import { needs } from '../support/needs.ts'
import {
  CONTAINER_FLAGS,
  containerPlan,
  credentials,
  make,
  mount,
  type Parts,
  Rootfs,
  Run,
  TS_INIT,
  USER_FLAG,
} from './run.ts'

const ENOENT = 2
const EPERM = 1
const ESRCH = 3
const EACCES = 13
const EEXIST = 17
const EINVAL = 22
const types = (run: Run) => run.records.map(({ type }) => type)

describe('ts-init', needs('root', 'busybox', 'make', 'gcc'), () => {
  let rootfs: Rootfs
  beforeAll(() => {
    make(TS_INIT)
    rootfs = new Rootfs()
  }, 120_000)
  afterAll(() => rootfs[Symbol.dispose]())

  /** Runs a container to its end and returns what it printed. */
  async function output(parts: Parts): Promise<string> {
    using run = new Run(containerPlan(rootfs, parts))
    await run.ended
    if (run.find('failed')) throw new Error(JSON.stringify(run.records))
    const text = await run.stdout
    expect(await run.stderr).toBe('')
    return text
  }

  const sh = (script: string, parts: Partial<Parts> = {}) => output({ ...parts, args: ['/bin/sh', '-c', script] })

  /** Runs a container that cannot be set up and returns the failure. */
  async function failure(parts: Parts) {
    using run = new Run(containerPlan(rootfs, parts))
    await run.ended
    return { ...run.find('failed'), op: containerPlan(rootfs, parts)[run.find('failed')?.value ?? -1]?.op }
  }

  describe('a container', () => {
    test('reports child, ready and executing in this order and waits at the fifo in between', async () => {
      using own = new Rootfs()
      const fifo = own.fifo()
      const parts: Parts = {
        args: ['/bin/busybox', 'id'],
        host: [{ op: 'open_fifo', path: fifo }],
        late: [{ op: 'ready' }, { op: 'await_start' }],
      }
      using run = new Run(containerPlan(own, parts))
      await run.until('ready')
      expect(await run.stage0).toBe(0)
      expect(types(run)).toEqual(['child', 'ready'])
      expect(readFileSync(`/proc/${run.pid}/comm`, 'utf8')).toBe('ts-init\n')
      const fd = openSync(fifo, 'r')
      const byte = Buffer.alloc(2)
      expect(readSync(fd, byte)).toBe(1)
      expect(byte.toString('latin1', 0, 1)).toBe('0')
      closeSync(fd)
      await run.ended
      expect(types(run)).toEqual(['child', 'ready', 'executing'])
      expect(await run.stdout).toBe('uid=0(root) gid=0\n')
      expect(await run.exit()).toEqual({ code: 0, signal: 0 })
    })

    test('has its own pid, host name, network with loopback up, working directory and HOME', async () => {
      const script = 'echo $$ $(busybox hostname) $PWD $HOME; busybox ip link | busybox grep -c "lo: <LOOPBACK,UP"'
      expect(await sh(script)).toBe('1 inside /srv/here /root\n1\n')
    })

    test('sees no fd but its stdio and no mount of the host', async () => {
      expect(await sh('busybox ls /proc/self/fd')).toBe('0\n1\n2\n3\n') // 3 is ls itself
      expect(await sh('busybox ls /proc/1/fd; true')).toBe('0\n1\n2\n')
      expect(await sh("busybox awk '{ print $5 }' /proc/self/mountinfo")).toBe('/\n/proc\n/dev\n/dev/pts\n')
    })

    test('starts with default signal dispositions, none blocked, and its umask', async () => {
      const text = await output({
        args: ['busybox', 'grep', '-E', '^(SigBlk|SigIgn|SigCgt|Umask)', '/proc/self/status'],
      })
      expect(text).toBe(
        'Umask:\t0022\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n',
      )
    })

    test('opens its own /dev/null where stdin was the host one', async () => {
      const [own, host] = [
        await sh('busybox stat -Lc %d /proc/self/fd/0'),
        spawnSync('stat', ['-c', '%d', '/dev/null']).stdout,
      ]
      expect(own).not.toBe(host.toString())
    })

    test('runs as its user without capabilities, with HOME of the passwd file', async () => {
      const text = await sh('busybox id; echo $HOME; busybox grep -E "^(Cap|NoNew|Groups)" /proc/self/status', {
        uid: 1000,
      })
      const none = '0000000000000000'
      expect(text).toBe(
        `uid=1000(user) gid=1000\n/home/user\nGroups:\t \nCapInh:\t${none}\nCapPrm:\t${none}\nCapEff:\t${none}\nCapBnd:\t${none}\nCapAmb:\t${none}\nNoNewPrivs:\t1\n`,
      )
    })

    test('fills an empty HOME and keeps one that is given', async () => {
      expect(await sh('echo $HOME', { env: ['PATH=/bin', 'HOME='] })).toBe('/root\n')
      expect(await sh('echo $HOME', { env: ['PATH=/bin', 'HOME=/x'] })).toBe('/x\n')
      expect(await sh('echo $HOME', { env: ['PATH=/bin'], uid: 77 })).toBe('/\n')
    })

    test('writes sysctls of its namespaces', async () => {
      const inside: Op[] = [{ op: 'sysctl', path: 'net/ipv4/ip_forward', value: '1' }]
      expect(await sh('cat /proc/sys/net/ipv4/ip_forward', { inside })).toBe('1\n')
    })

    test('opens the fifo with the rights of its user, which may only write to it', async () => {
      using own = new Rootfs()
      const fifo = own.fifo()
      spawnSync('chmod', ['0622', fifo])
      const late: Op[] = [{ op: 'ready' }, { op: 'await_start' }]
      using run = new Run(
        containerPlan(own, { args: ['id'], uid: 1000, host: [{ op: 'open_fifo', path: fifo }], late }),
      )
      await run.until('ready')
      const fd = openSync(fifo, 'r')
      expect(readSync(fd, Buffer.alloc(1))).toBe(1)
      closeSync(fd)
      expect(await run.stdout).toBe('uid=1000(user) gid=1000\n')
    })

    const clone = { flags: CONTAINER_FLAGS | USER_FLAG, uidMap: '0 100000 65536\n', gidMap: '0 100000 65536\n' }
    test.for<[string, boolean, Partial<Parts>]>([
      ['', true, {}],
      [' in a user namespace', true, { clone }],
      [', also when it has no procfs', false, {}],
      [', also when it has no procfs in a user namespace', false, { clone }],
    ])('holds nothing of the host procfs while it waits for its start%s', async ([, proc, more]) => {
      using own = new Rootfs()
      spawnSync('chmod', ['755', own.folder])
      spawnSync('chown', ['-R', '100000:100000', own.path])
      const fifo = own.fifo()
      spawnSync('chmod', ['0622', fifo])
      const parts: Parts = {
        args: ['/bin/busybox', 'id'],
        host: [{ op: 'open_fifo', path: fifo }],
        late: [{ op: 'ready' }, { op: 'await_start' }],
        ...more,
      }
      using run = new Run(containerPlan(own, parts).filter((op) => proc || op.op !== 'mount' || op.target !== '/proc'))
      await run.until('ready')
      const procfs = readFileSync('/proc/self/mountinfo', 'utf8').match(/^(\d+) .* \/proc .* - proc /m)?.[1]
      expect(procfs).toBeDefined()
      const mounts = readdirSync(`/proc/${run.pid}/fdinfo`).map(
        (fd) => readFileSync(`/proc/${run.pid}/fdinfo/${fd}`, 'utf8').match(/^mnt_id:\s*(\d+)$/m)?.[1],
      )
      expect(mounts.length).toBeGreaterThan(4)
      expect(mounts).not.toContain(procfs)
    })

    test('starts without a procfs of its own', async () => {
      using own = new Rootfs()
      const fifo = own.fifo()
      const parts: Parts = {
        args: ['/bin/busybox', 'id'],
        host: [{ op: 'open_fifo', path: fifo }],
        late: [{ op: 'ready' }, { op: 'await_start' }],
      }
      using run = new Run(containerPlan(own, parts).filter((op) => op.op !== 'mount' || op.target !== '/proc'))
      await run.until('ready')
      const fd = openSync(fifo, 'r')
      expect(readSync(fd, Buffer.alloc(1))).toBe(1)
      closeSync(fd)
      expect(await run.stdout).toBe('uid=0(root) gid=0\n')
    })

    test('starts in the root directory, not in that of the runtime', async () => {
      const keep = new Set(['clone', 'session', 'credentials', 'program', 'exec'])
      const plan = containerPlan(rootfs, { args: ['/bin/pwd'], clone: { flags: 0n } })
      using run = new Run(plan.filter(({ op }) => keep.has(op)))
      expect(await run.stdout).toBe('/\n')
    })

    test('does not open a passwd file that is no regular one', async () => {
      using own = new Rootfs()
      const passwd = join(own.path, 'etc/passwd')
      rmSync(passwd)
      spawnSync('mkfifo', [passwd])
      // waits for a reader, any at all
      const writer = spawn('sh', ['-c', 'echo ready; exec 3>"$0"; echo opened', passwd])
      try {
        let said = ''
        writer.stdout.setEncoding('utf8').on('data', (text: string) => (said += text))
        await once(writer.stdout, 'data')
        const ended = once(writer, 'close')
        const waiting = () => /^State:\tS/m.test(readFileSync(`/proc/${writer.pid}/status`, 'utf8'))
        while (!waiting()) await delay(5)
        using run = new Run(containerPlan(own, { args: ['/bin/sh', '-c', 'echo $HOME'] }))
        expect(await run.stdout).toBe('/\n')
        await delay(50)
        expect(said).toBe('ready\n')
        closeSync(openSync(passwd, 'r'))
        await ended
        expect(said).toBe('ready\nopened\n')
      } finally {
        writer.kill('SIGKILL')
      }
    })

    test('keeps the status socket from the program and ends cleanly when the runtime is gone', async () => {
      using own = new Rootfs()
      const fifo = own.fifo()
      const parts: Parts = {
        args: ['/bin/busybox', 'id'],
        host: [{ op: 'open_fifo', path: fifo }],
        late: [{ op: 'ready' }, { op: 'await_start' }],
      }
      using run = new Run(containerPlan(own, parts))
      await run.until('ready')
      run.status.destroy()
      const fd = openSync(fifo, 'r')
      expect(readSync(fd, Buffer.alloc(1))).toBe(1)
      closeSync(fd)
      expect(await run.stdout).toBe('uid=0(root) gid=0\n')
      expect(await run.exit()).toEqual({ code: 0, signal: 0 })
    })
  })

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

    test('split options at commas, but not in quotes, and report what the kernel says', async () => {
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
        // "master" and the numbers of peer groups are not the mounts themselves
        const mounts = () => readFileSync(`/proc/${host.pid}/mountinfo`, 'utf8').replaceAll(/ (shared|master):\d+/g, '')
        const before = mounts()
        expect(before.split('\n').filter((line) => line.includes(`${volume}/proc `))).toHaveLength(2)
        const plan = containerPlan(own, {
          args: ['/bin/sh', '-c', 'busybox grep -c -E " - (proc|sysfs) " /proc/self/mountinfo; ls /'],
        }).map((op) => (op.op === 'root_propagation' ? { ...op, flags: 0x100000 } : op))
        using run = new Run(withMode(plan, 1), undefined, ['nsenter', `--mount=/proc/${host.pid}/ns/mnt`])
        await run.ended
        expect(run.find('failed')).toBeUndefined()
        expect(await run.stdout).toMatch(/^1\n/)
        expect(mounts()).toBe(before)
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
        plan.filter(({ op }) => keep.has(op)).map((op) => (op.op === 'rootfs' ? { ...op, bind: 0 } : op)),
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

  describe('the program', () => {
    test.for([
      [['/no/such'], ENOENT, 'exec: "/no/such": stat /no/such: no such file or directory'],
      [['nosuch'], ENOENT, 'exec: "nosuch": executable file not found in $PATH'],
      [['/etc'], 21, 'exec: "/etc": is a directory'],
      [['/etc/passwd'], EACCES, 'exec: "/etc/passwd": permission denied'],
    ] as const)('that cannot be executed is named: %s', async ([args, errno, text]) => {
      expect(await failure({ args })).toMatchObject({ op: 'program', errno, text })
    })

    test('is looked up in PATH, or in the default path', async () => {
      expect(await output({ args: ['id'] })).toBe('uid=0(root) gid=0\n')
      expect(await output({ args: ['id'], env: [] })).toBe('uid=0(root) gid=0\n')
      expect(await failure({ args: ['id'], env: ['PATH=bin:'] })).toMatchObject({ errno: ENOENT })
    })

    test('whose interpreter is missing fails at execve with one sentence', async () => {
      using own = new Rootfs()
      writeFileSync(join(own.path, 'run.sh'), '#!/no/shell\n', { mode: 0o755 })
      using run = new Run(containerPlan(own, { args: ['/run.sh'] }))
      await run.ended
      expect(types(run)).toEqual(['child', 'executing', 'failed'])
      expect(run.find('failed')).toMatchObject({ errno: ENOENT, text: 'exec /run.sh: no such file or directory' })
      expect(await run.exit()).toEqual({ code: 255, signal: 0 })
    })

    test('cannot be reached through an fd of the helper', async () => {
      for (const fd of [3, 5, 6, 7, 8, 9]) {
        using run = new Run(containerPlan(rootfs, { args: [`/proc/self/fd/${fd}/bin/busybox`] }))
        await run.ended
        expect(run.find('failed')).toBeDefined()
      }
    })

    test('cannot start in a directory of the host', async () => {
      for (let fd = 3; fd < 12; fd++) {
        const plan = containerPlan(rootfs, { args: ['/bin/id'] }).map((op) =>
          op.op === 'chdir' ? { ...op, path: `/proc/self/fd/${fd}` } : op,
        )
        using run = new Run(plan)
        await run.ended
        expect(run.find('failed')?.text).toMatch(/chdir to cwd \("\/proc\/self\/fd\/\d+"\) set in config\.json failed/)
      }
    })

    test('is filtered by seccomp when the filter comes last', async () => {
      // allow all but uname(2), number 63 on x86_64, which gives EACCES
      const word = (code: number, jt: number, jf: number, k: number) => {
        const bytes = Buffer.alloc(8)
        bytes.writeUInt16LE(code, 0)
        bytes.writeUInt8(jt, 2)
        bytes.writeUInt8(jf, 3)
        bytes.writeUInt32LE(k, 4)
        return bytes
      }
      const filter = Buffer.concat([
        word(0x20, 0, 0, 0),
        word(0x15, 0, 1, 63),
        word(0x06, 0, 0, 0x0005000d),
        word(0x06, 0, 0, 0x7fff0000),
      ])
      const late: Op[] = [{ op: 'seccomp', flags: 0, filter }]
      expect(await sh('busybox uname')).toBe('Linux\n')
      expect(await sh('busybox uname', { late })).toBe('\n')
    })
  })

  describe('privileges', () => {
    test('keep exactly the capabilities that were given', async () => {
      const plan = containerPlan(rootfs, {
        args: ['/bin/sh', '-c', 'busybox grep -E "^Cap(Prm|Eff|Bnd|Amb)" /proc/self/status'],
        uid: 1000,
      }).map((op) =>
        op.op === 'credentials' ? { ...credentials(1000, 0x21n), inheritable: 0x20n, ambient: 0x20n } : op,
      )
      using run = new Run(plan)
      const text = await run.stdout
      // a shell of another uid keeps what is ambient over execve, no more
      expect(text).toBe(
        'CapPrm:\t0000000000000020\nCapEff:\t0000000000000020\nCapBnd:\t0000000000000021\nCapAmb:\t0000000000000020\n',
      )
    })

    test('that do not exist here are a warning', async () => {
      const plan = containerPlan(rootfs, { args: ['/bin/id'] }).map((op) =>
        op.op === 'credentials' ? credentials(0, 1n << 62n) : op,
      )
      using run = new Run(plan)
      await run.ended
      expect(run.find('failed')).toBeUndefined()
      expect(run.find('log')?.text).toBe('capabilities 0x4000000000000000 cannot be granted')
    })
  })

  describe('a user namespace', () => {
    const clone = { flags: CONTAINER_FLAGS | USER_FLAG, uidMap: '0 100000 65536\n', gidMap: '0 100000 65536\n' }

    test('is mapped before anything runs in it', async () => {
      using own = new Rootfs()
      spawnSync('chown', ['-R', '100000:100000', own.path])
      spawnSync('chmod', ['755', own.folder])
      const script =
        'busybox id; cat /proc/self/uid_map; busybox stat -c %u /bin/busybox; echo ok > /dev/null && echo null'
      using run = new Run(containerPlan(own, { args: ['/bin/sh', '-c', script], clone }))
      await run.ended
      expect(run.find('failed')).toBeUndefined()
      expect(await run.stdout).toMatch(/^uid=0\(root\) gid=0\n\s+0\s+100000\s+65536\n0\nnull\n$/)
    })

    test('refuses a uid that it does not map', async () => {
      using own = new Rootfs()
      spawnSync('chown', ['-R', '100000:100000', own.path])
      spawnSync('chmod', ['755', own.folder])
      using run = new Run(
        containerPlan(own, { args: ['/bin/id'], uid: 70000, clone: { ...clone, gidMap: '0 100000 80000\n' } }),
      )
      await run.ended
      expect(run.find('failed')).toMatchObject({
        errno: EINVAL,
        text: 'cannot setuid to unmapped uid 70000 in user namespace',
      })
    })

    test('with maps that the kernel refuses fails once, at the clone', async () => {
      using run = new Run(containerPlan(rootfs, { args: ['/bin/id'], clone: { ...clone, uidMap: 'nonsense\n' } }))
      await run.ended
      expect(run.records.filter(({ type }) => type === 'failed')).toEqual([
        { type: 'failed', value: 0, errno: EINVAL, text: "write the container's uid_map" },
      ])
      expect(await run.stage0).toBe(1)
    })
  })

  describe('a terminal', () => {
    test('is allocated in the root, sent on the console socket and bound on /dev/console', async () => {
      const { ours, theirs } = socketPair()
      const inside: Op[] = [{ op: 'terminal', width: 100, height: 30, uid: 0, console: 1 }]
      const script = 'busybox tty; busybox stty size; echo hello > /dev/console; busybox stat -c %t /dev/console'
      const plan = containerPlan(rootfs, { args: ['/bin/sh', '-c', script], inside }).filter(
        ({ op }) => op !== 'stdio_owner',
      )
      using run = new Run(plan, theirs.fd)
      theirs.close()
      await run.ended
      expect(run.find('failed')).toBeUndefined()
      expect(types(run)).toEqual(['child', 'console', 'executing'])
      const master = receiveFd(ours.fd)
      ours.close()
      if (master === undefined) throw new Error('no master')
      await run.exit()
      const bytes = Buffer.alloc(4096)
      let text = ''
      try {
        for (let size = 1; size > 0; ) {
          size = readSync(master.fd, bytes)
          text += bytes.toString('utf8', 0, size)
        }
      } catch {
        // EIO: the last slave is closed
      }
      master.close()
      expect(text).toBe('/dev/pts/0\r\n30 100\r\nhello\r\n88\r\n')
    })
  })

  describe('joining', () => {
    const startTime = (pid: number) =>
      BigInt(
        readFileSync(`/proc/${pid}/stat`, 'utf8')
          .replace(/^.*\) /s, '')
          .split(' ')[19] ?? '0',
      )
    const execPlan = (pid: number, start: bigint, flags: bigint, args: readonly string[]): Op[] => [
      { op: 'join_process', pid, startTime: start, flags },
      { op: 'clone', flags: 0n, uidMap: '', gidMap: '', runtimeMaps: 0 },
      { op: 'session', becomeRoot: (flags & USER_FLAG) === 0n ? 0 : 1 },
      { op: 'chdir', path: '/tmp', tolerant: 1 },
      credentials(0),
      { op: 'program', args, env: ['PATH=/bin'], uid: 0 },
      { op: 'exec', fds: 0 },
    ]
    const script =
      "echo $(busybox hostname) $PWD $(busybox awk '/^NSpid/ { print NF }' /proc/self/status); echo /proc/self/fd/*; busybox ls -d /proc/1"

    test.for([
      ['', {}],
      [
        ' with a user namespace',
        { flags: CONTAINER_FLAGS | USER_FLAG, uidMap: '0 100000 65536\n', gidMap: '0 100000 65536\n' },
      ],
    ] as const)('a process by its pid runs a program in its container%s', async ([, clone]) => {
      using own = new Rootfs()
      spawnSync('chmod', ['755', own.folder])
      spawnSync('chown', ['-R', '100000:100000', own.path])
      using run = new Run(containerPlan(own, { args: ['/bin/sleep', '60'], clone }))
      await run.ended
      const flags = 'flags' in clone ? clone.flags : CONTAINER_FLAGS
      using exec = new Run(execPlan(run.pid, startTime(run.pid), flags, ['/bin/sh', '-c', script]))
      await exec.ended
      expect(exec.find('failed')).toBeUndefined()
      expect(await exec.stdout).toBe(
        'inside /tmp 2\n/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3\n/proc/1\n',
      )
      expect(await exec.exit()).toEqual({ code: 0, signal: 0 })
    })

    test('refuses a pid whose start time is another', async () => {
      using run = new Run(containerPlan(rootfs, { args: ['/bin/sleep', '60'] }))
      await run.ended
      using exec = new Run(execPlan(run.pid, startTime(run.pid) + 1n, CONTAINER_FLAGS, ['/bin/id']))
      await exec.ended
      expect(exec.records).toEqual([
        { type: 'failed', value: 0, errno: ESRCH, text: `join the namespaces of process ${run.pid}` },
      ])
    })

    test('namespaces by path, the user namespace in between', async () => {
      using own = new Rootfs()
      spawnSync('chmod', ['755', own.folder])
      spawnSync('chown', ['-R', '100000:100000', own.path])
      const clone = { flags: CONTAINER_FLAGS | USER_FLAG, uidMap: '0 100000 65536\n', gidMap: '0 100000 65536\n' }
      using run = new Run(containerPlan(own, { args: ['/bin/sleep', '60'], clone }))
      await run.ended
      const open = (name: string, type: bigint): Op => ({ op: 'open_ns', path: `/proc/${run.pid}/ns/${name}`, type })
      const plan: Op[] = [
        open('mnt', 0x20000n),
        open('user', USER_FLAG),
        open('net', 0x40000000n),
        open('uts', 0x4000000n),
        open('pid', 0x20000000n),
        { op: 'join' },
      ]
      using exec = new Run([...plan, ...execPlan(1, 0n, USER_FLAG, ['/bin/sh', '-c', script]).slice(1)])
      await exec.ended
      expect(exec.find('failed')).toBeUndefined()
      expect(await exec.stdout).toMatch(/^inside \/tmp 2\n/)
    })

    test('refuses a namespace of another type', async () => {
      using exec = new Run([
        { op: 'open_ns', path: '/proc/self/ns/net', type: 0x4000000n },
        { op: 'join' },
        ...execPlan(1, 0n, 0n, ['/bin/id']).slice(1),
      ])
      await exec.ended
      expect(exec.find('failed')).toMatchObject({ errno: EINVAL, text: 'join namespace "/proc/self/ns/net"' })
    })
  })

  describe('cgroups', () => {
    test('of version 1 are joined by their tasks files', needs('cgroup1'), async () => {
      const folder = `/sys/fs/cgroup/pids/ts-init-test-${rootfs.folder.slice(-6)}`
      mkdirSync(folder)
      const host: Op[] = [{ op: 'cgroup_tasks', path: `${folder}/tasks` }]
      {
        using run = new Run(containerPlan(rootfs, { args: ['/bin/sleep', '60'], host, late: [{ op: 'wait_cgroup' }] }))
        await run.ended
        expect(run.find('failed')).toBeUndefined()
        expect(readFileSync(`${folder}/cgroup.procs`, 'utf8')).toBe(`${run.pid}\n`)
        process.kill(run.pid, 'SIGKILL')
        await run.exit()
      }
      spawnSync('rmdir', [folder])
    })

    test('of version 2 are entered from a joined user namespace too', async () => {
      const top = existsSync('/sys/fs/cgroup/unified') ? '/sys/fs/cgroup/unified' : '/sys/fs/cgroup'
      if (!existsSync(`${top}/cgroup.procs`)) return
      using own = new Rootfs()
      spawnSync('chmod', ['755', own.folder])
      spawnSync('chown', ['-R', '100000:100000', own.path])
      const folder = `${top}/ts-init-test-${own.folder.slice(-6)}`
      mkdirSync(folder)
      {
        const clone = { flags: CONTAINER_FLAGS | USER_FLAG, uidMap: '0 100000 65536\n', gidMap: '0 100000 65536\n' }
        using holder = new Run(containerPlan(own, { args: ['/bin/sleep', '60'], clone }))
        await holder.ended
        const plan: Op[] = [
          { op: 'cgroup_dir', path: folder },
          { op: 'open_ns', path: `/proc/${holder.pid}/ns/user`, type: USER_FLAG },
          { op: 'open_ns', path: `/proc/${holder.pid}/ns/mnt`, type: 0x20000n },
          { op: 'join' },
          { op: 'clone', flags: 0n, uidMap: '', gidMap: '', runtimeMaps: 0 },
          { op: 'session', becomeRoot: 1 },
          { op: 'wait_cgroup' },
          { op: 'program', args: ['/bin/sleep', '60'], env: [], uid: 0 },
          { op: 'exec', fds: 0 },
        ]
        using run = new Run(plan)
        await run.ended
        expect(run.find('failed')).toBeUndefined()
        expect(readFileSync(`${folder}/cgroup.procs`, 'utf8')).toBe(`${run.pid}\n`)
        process.kill(run.pid, 'SIGKILL')
        await run.exit()
      }
      spawnSync('rmdir', [folder])
    })

    test('of version 2 are entered by the clone', async () => {
      const top = existsSync('/sys/fs/cgroup/unified') ? '/sys/fs/cgroup/unified' : '/sys/fs/cgroup'
      if (!existsSync(`${top}/cgroup.procs`)) return
      const folder = `${top}/ts-init-test-${rootfs.folder.slice(-6)}`
      mkdirSync(folder)
      const host: Op[] = [{ op: 'cgroup_dir', path: folder }]
      {
        using run = new Run(containerPlan(rootfs, { args: ['/bin/sleep', '60'], host, late: [{ op: 'wait_cgroup' }] }))
        await run.ended
        expect(run.find('failed')).toBeUndefined()
        expect(readFileSync(`${folder}/cgroup.procs`, 'utf8')).toBe(`${run.pid}\n`)
        process.kill(run.pid, 'SIGKILL')
        await run.exit()
      }
      spawnSync('rmdir', [folder])
    })

    test('that are missing fail before the clone', async () => {
      const bad = await failure({
        args: ['/bin/id'],
        host: [{ op: 'cgroup_dir', path: '/sys/fs/cgroup/none' }],
        late: [{ op: 'wait_cgroup' }],
      })
      expect(bad).toMatchObject({ op: 'cgroup_dir', errno: ENOENT, text: 'open cgroup "/sys/fs/cgroup/none"' })
    })
  })

  test('is copied to a file that nobody can change, not even its mode', () => {
    vi.stubEnv('SHIM_TS_LIB', join(import.meta.dirname, '../../build/lib/containerd-shim-ts'))
    const [F_GET_SEALS, F_SEAL_EXEC] = [1034, 32]
    const fd = Number(sealedHelper().replace('/proc/self/fd/', ''))
    const seals = fcntl(fd, F_GET_SEALS, 0)
    expect(seals & 15).toBe(15)
    expect(seals & F_SEAL_EXEC).toBe(F_SEAL_EXEC)
  })

  describe('the conversation', () => {
    test('stops at a sync point until it is answered', async () => {
      using run = new Run(containerPlan(rootfs, { args: ['/bin/id'], outside: [{ op: 'sync', point: 1 }] }))
      await run.until('reached')
      expect(run.find('reached')?.value).toBe(1)
      run.status.write('c')
      expect(await run.stdout).toBe('uid=0(root) gid=0\n')
    })

    test('ends quietly when the runtime hangs up at a sync point', async () => {
      using run = new Run(containerPlan(rootfs, { args: ['/bin/id'], outside: [{ op: 'sync', point: 1 }] }))
      await run.until('reached')
      run.status.end()
      await run.ended
      expect(types(run)).toEqual(['child', 'reached'])
      expect(await run.stderr).toBe('')
    })

    test('refuses a plan of another schema before it does anything', async () => {
      const bytes = Buffer.from(encodePlan(containerPlan(rootfs, { args: ['/bin/id'] })))
      bytes.writeUInt32LE(1, 4)
      using run = new Run(bytes)
      await run.ended
      expect(run.records).toEqual([
        {
          type: 'failed',
          value: 0xffffffff,
          errno: 93,
          text: 'use the plan: the plan is of another version than this helper',
        },
      ])
      expect(await run.stage0).toBe(1)
    })

    test('escapes control characters of the plan in what it reports', async () => {
      const bad = await failure({
        args: ['/bin/id'],
        outside: [mount({ source: '/no\nlevel=error msg=forged', target: '/tmp', how: 1 })],
      })
      expect(bad.text).toContain('/no\\x0alevel=error')
    })

    test('goes to stderr in one line when nobody listens', async () => {
      const result = spawnSync(join(import.meta.dirname, '../../c', TS_INIT), [], {
        stdio: ['ignore', 'pipe', 'pipe'],
        encoding: 'utf8',
      })
      expect(result.stderr).toMatch(/^cannot set up the container: fd 3 is not open: bad file descriptor\n$/)
    })
  })
})
