/**
 * A whole plan from start to end, as root on this machine: the container that ts-init makes, seen from inside.
 * Also the conversation of ts-init with the runtime on the status socket.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import type { Op } from '../../proto/init-plan.ts'
import { sealedHelper } from '../../runtime/init/helper.ts'
import { encodePlan } from '../../runtime/plan/encode.ts'
import { fcntl } from '../../runtime/sys/libc.ts'
import { until } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { CONTAINER_FLAGS, callOf, containerPlan, mount, type Parts, Rootfs, Run, TS_INIT, USER_FLAG } from './run.ts'
import { failure, output, rootfs, sh, types, useRootfs } from './shared-rootfs.ts'

/** Whether a process waits in open(2), openat(2) on x86_64 or on arm64. */
const isOpening = (call: string): boolean => /^(2|257|56) /.test(call)

describe('ts-init', needs('root', 'busybox', 'make', 'gcc'), () => {
  useRootfs()

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
      await run.start(fifo)
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

    test('takes HOME from the first MiB of a passwd file, and from no line that this cuts', async () => {
      using own = new Rootfs()
      const line = 'user:x:1000:1000::/home/user:/bin/sh'
      for (const [at, home] of [
        [0, '/home/user'],
        [2 ** 20 - line.length, '/home/user'],
        [2 ** 20 - line.length + 1, '/'],
        [2 ** 20 - 10, '/'],
      ] as const) {
        const filler = at === 0 ? '' : `${'#'.repeat(at - 1)}\n`
        for (const end of ['', '\n', '\nroot:x:0:0::/root:/bin/sh\n']) {
          writeFileSync(join(own.path, 'etc/passwd'), `${filler}${line}${end}`)
          using run = new Run(containerPlan(own, { args: ['/bin/sh', '-c', 'echo $HOME'], uid: 1000 }))
          expect({ at, end, home: await run.stdout }).toEqual({ at, end, home: `${home}\n` })
        }
      }
    })

    test('writes sysctls of its namespaces', async () => {
      const inside: Op[] = [{ op: 'sysctl', path: 'net/ipv4/ip_forward', value: '1' }]
      expect(await sh('cat /proc/sys/net/ipv4/ip_forward', { inside })).toBe('1\n')
    })

    test('is not started by an open of the fifo, nor by a read of a part', async () => {
      using own = new Rootfs()
      const fifo = own.fifo()
      const late: Op[] = [{ op: 'ready' }, { op: 'await_start' }]
      using run = new Run(containerPlan(own, { args: ['id'], host: [{ op: 'open_fifo', path: fifo }], late }))
      await run.until('ready')
      const writesOneByte = /^(1|64) 0x\w+ 0x\w+ 0x1 /
      await until('ts-init to wait at the fifo', () => writesOneByte.test(callOf(run.pid)))
      const waiting = callOf(run.pid)
      const fd = openSync(fifo, 'r')
      expect(readSync(fd, Buffer.alloc(100))).toBe(100)
      closeSync(fd)
      // a writer that these calls had woken would be runnable by now
      await until('ts-init to wait in the same call', () => callOf(run.pid) === waiting)
      expect(readFileSync(`/proc/${run.pid}/comm`, 'utf8')).toBe('ts-init\n')
      await run.start(fifo)
      expect(await run.stdout).toBe('uid=0(root) gid=0\n')
    })

    test('says through the fifo what its start met', async () => {
      using own = new Rootfs()
      const fifo = own.fifo()
      writeFileSync(join(own.path, 'bin/broken'), '#!/nowhere\n', { mode: 0o755 })
      const late: Op[] = [{ op: 'ready' }, { op: 'await_start' }]
      using run = new Run(containerPlan(own, { args: ['/bin/broken'], host: [{ op: 'open_fifo', path: fifo }], late }))
      await run.until('ready')
      await run.start(fifo)
      expect(run.find('failed')).toMatchObject({ errno: 2, text: 'exec /bin/broken: no such file or directory' })
      expect(await run.stderr).toBe('')
      expect(await run.exit()).toEqual({ code: 255, signal: 0 })
    })

    test('needs no right to the fifo as its user', async () => {
      using own = new Rootfs()
      const fifo = own.fifo()
      spawnSync('chmod', ['0600', fifo])
      const late: Op[] = [{ op: 'ready' }, { op: 'await_start' }]
      using run = new Run(
        containerPlan(own, { args: ['id'], uid: 1000, host: [{ op: 'open_fifo', path: fifo }], late }),
      )
      await run.until('ready')
      await run.start(fifo)
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
      const parts: Parts = {
        args: ['/bin/busybox', 'id'],
        host: [{ op: 'open_fifo', path: fifo }],
        late: [{ op: 'ready' }, { op: 'await_start' }],
        ...more,
      }
      using run = new Run(containerPlan(own, parts).filter((op) => proc || op.op !== 'mount' || op.target !== '/proc'))
      await run.until('ready')
      await run.ended
      const procfs = readFileSync('/proc/self/mountinfo', 'utf8').match(/^(\d+) .* \/proc .* - proc /m)?.[1]
      expect(procfs).toBeDefined()
      const mounts = readdirSync(`/proc/${run.pid}/fdinfo`).map(
        (fd) => readFileSync(`/proc/${run.pid}/fdinfo/${fd}`, 'utf8').match(/^mnt_id:\s*(\d+)$/m)?.[1],
      )
      expect(mounts).toHaveLength(5) // its streams, the fifo, and what tells that it is in its cgroup
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
      await run.start(fifo)
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
        const pid = writer.pid ?? -1
        await until('the writer to wait for a reader', () => isOpening(callOf(pid)))
        using run = new Run(containerPlan(own, { args: ['/bin/sh', '-c', 'echo $HOME'] }))
        expect(await run.stdout).toBe('/\n')
        // a reader would have woken it, and the shell would have ended
        expect(isOpening(callOf(pid))).toBe(true)
        expect(said).toBe('ready\n')
        closeSync(openSync(passwd, 'r'))
        await ended
        expect(said).toBe('ready\nopened\n')
      } finally {
        writer.kill('SIGKILL')
      }
    })

    test('keeps the fifo from the program and ends cleanly when the runtime is gone', async () => {
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
      await run.start(fifo)
      expect(await run.stdout).toBe('uid=0(root) gid=0\n')
      expect(await run.exit()).toEqual({ code: 0, signal: 0 })
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
