/**
 * The host agent: mounts whose source only the host may open, mapped ids, the clocks of others. Its socket in the
 * network is in net-devices.test.ts.
 */
import { spawn, spawnSync } from 'node:child_process'
import { chownSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { MOUNT_HOW, type Op } from '../../proto/init-plan.ts'
import { until } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { CONTAINER_FLAGS, containerPlan, make, mount, type Parts, Rootfs, Run, TS_INIT, USER_FLAG } from './run.ts'

const { BIND, RECURSIVE, HOST_SOURCE, IDMAP, IDMAP_RECURSIVE } = MOUNT_HOW
const [ENOENT, EINVAL] = [2, 22]
const MAP = '0 100000 65536\n'
const USER = { flags: CONTAINER_FLAGS | USER_FLAG, uidMap: MAP, gidMap: MAP }
const AGENT: Op = { op: 'host_agent' }

function run(command: string, ...args: string[]): string {
  const result = spawnSync(command, args, { encoding: 'utf8' })
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.stderr}`)
  return result.stdout
}

describe('the host agent', needs('root', 'busybox', 'make', 'gcc', 'setpriv'), () => {
  let rootfs: Rootfs
  let disk: string
  beforeAll(() => {
    make(TS_INIT)
    rootfs = new Rootfs()
    run('chmod', '755', rootfs.folder)
    run('chown', '-R', '100000:100000', rootfs.path)
    // of a file system that maps ids
    disk = join(rootfs.folder, 'disk')
    mkdirSync(disk)
    run('mount', '-t', 'tmpfs', 'tmpfs', disk)
  }, 120_000)
  afterAll(() => {
    run('umount', '-R', disk)
    rootfs[Symbol.dispose]()
  })

  /** A directory on the disk with a file of this owner in it. */
  function folder(name: string, uid: number): string {
    const path = join(disk, name)
    mkdirSync(path, { recursive: true })
    writeFileSync(join(path, 'file'), `${name}\n`)
    for (const file of [path, join(path, 'file')]) chownSync(file, uid, uid)
    return path
  }

  const withAgent = (script: string, parts: Partial<Parts> = {}) =>
    containerPlan(rootfs, { host: [AGENT], ...parts, args: ['/bin/sh', '-c', script] })

  async function output(ops: readonly Op[]): Promise<string> {
    using process = new Run(ops)
    await process.ended
    if (process.find('failed')) throw new Error(JSON.stringify(process.records))
    expect(await process.stage0).toBe(0)
    expect(await process.stderr).toBe('')
    return await process.stdout
  }

  async function failure(ops: readonly Op[]) {
    using process = new Run(ops)
    await process.ended
    return { ...process.find('failed'), op: ops[process.find('failed')?.value ?? -1]?.op }
  }

  describe('opens a source', () => {
    test('that the root of a user namespace may not reach', async () => {
      const secret = folder('secret', 0)
      run('chmod', '700', secret)
      const inner = folder('secret/inner', 100000)
      const script = 'cat /tmp/x/file; busybox stat -c %u /tmp/x/file'
      const from = (how: number) => [mount({ source: inner, target: '/tmp/x', how })]
      expect(await output(withAgent(script, { clone: USER, outside: from(BIND | HOST_SOURCE) }))).toBe(
        'secret/inner\n0\n',
      )
      expect(await failure(withAgent(script, { clone: USER, outside: from(BIND) }))).toMatchObject({ errno: 13 })
    })

    test('twice, and one that an earlier mount of the container made', async () => {
      const source = folder('first', 100000)
      const outside = [
        mount({ source, target: '/tmp/a', how: BIND | HOST_SOURCE }),
        mount({ source: 'tmpfs', target: '/mnt', fstype: 'tmpfs' }),
        mount({ source, target: '/mnt/sub', how: BIND | HOST_SOURCE }),
        mount({ source: join(rootfs.path, 'mnt'), target: '/tmp/b', how: BIND | RECURSIVE | HOST_SOURCE }),
      ]
      expect(await output(withAgent('cat /tmp/a/file /tmp/b/sub/file', { clone: USER, outside }))).toBe(
        'first\nfirst\n',
      )
    })

    test('with the attributes that the mount is to have', async () => {
      const source = folder('attributes', 100000)
      const outside = [mount({ source, target: '/tmp/ro', how: BIND | HOST_SOURCE, set: 1n | 8n })]
      const script =
        'busybox awk \'$5 == "/tmp/ro" { print $6 }\' /proc/self/mountinfo; echo x >/tmp/ro/file || echo no'
      using process = new Run(withAgent(script, { clone: USER, outside }))
      expect(await process.stdout).toMatch(/^ro,noexec,relatime\nno\n$/)
    })

    test('or says that it is missing', async () => {
      const outside = [mount({ source: '/no/such/source', target: '/tmp', how: BIND | HOST_SOURCE })]
      expect(await failure(withAgent('id', { outside }))).toMatchObject({
        op: 'mount',
        errno: ENOENT,
        text: 'mount "/no/such/source" on "/tmp": source',
      })
    })
  })

  describe('maps the ids of a mount', () => {
    const script = 'busybox stat -c %u:%g /tmp/m/file'
    const mapped = (source: string, uidMap: string, gidMap: string, how = 0) => [
      mount({ source, target: '/tmp/m', how: BIND | HOST_SOURCE | IDMAP | how, uidMap, gidMap }),
    ]

    test('by maps of its own, in a container without a user namespace', async () => {
      const source = folder('own-maps', 1000)
      expect(await output(withAgent(script, { outside: mapped(source, '1000 2000 1\n', '1000 3000 1\n') }))).toBe(
        '2000:3000\n',
      )
      expect(run('stat', '-c', '%u', join(source, 'file'))).toBe('1000\n')
    })

    test('by those of the container when it has no maps of its own', async () => {
      const source = folder('container-maps', 0)
      const touch = `${script}; echo new >/tmp/m/made; busybox stat -c %u /tmp/m/made`
      expect(await output(withAgent(touch, { clone: USER, outside: mapped(source, '', '') }))).toBe('0:0\n0\n')
      expect(run('stat', '-c', '%u', join(source, 'made'))).toBe('0\n')
    })

    test('differently for each, several times the same', async () => {
      const source = folder('several', 5)
      const maps = ['5 6 1\n', '5 6 1\n', '5 7 1\n', '5 6 1\n']
      const outside = maps.map((map, i) =>
        mount({ source, target: `/tmp/${i}`, how: BIND | HOST_SOURCE | IDMAP, uidMap: map, gidMap: map }),
      )
      const each = 'busybox stat -c %u /tmp/0/file /tmp/1/file /tmp/2/file /tmp/3/file'
      expect(await output(withAgent(each, { outside }))).toBe('6\n6\n7\n6\n')
    })

    test('at the top only, or all the way down', async () => {
      const source = folder('tree', 5)
      const below = join(source, 'below')
      mkdirSync(below)
      run('mount', '-t', 'tmpfs', 'tmpfs', below)
      writeFileSync(join(below, 'file'), 'below\n')
      chownSync(join(below, 'file'), 5, 5)
      const both = 'busybox stat -c %u /tmp/m/file /tmp/m/below/file'
      const outside = (how: number) => mapped(source, '5 6 1\n', '5 6 1\n', RECURSIVE | how)
      expect(await output(withAgent(both, { outside: outside(0) }))).toBe('6\n5\n')
      expect(await output(withAgent(both, { outside: outside(IDMAP_RECURSIVE) }))).toBe('6\n6\n')
    })

    test('of a source that only an earlier mount has', async () => {
      const outside = [
        mount({ source: folder('layer', 5), target: '/mnt', how: BIND }),
        ...mapped(join(rootfs.path, 'mnt'), '5 8 1\n', '5 8 1\n'),
      ]
      expect(await output(withAgent(script, { outside }))).toBe('8:8\n')
    })

    test('or says which file system cannot', async () => {
      expect(
        await failure(withAgent(script, { outside: mapped('/proc/sys', '0 100000 10\n', '0 100000 10\n') })),
      ).toMatchObject({
        op: 'mount',
        errno: EINVAL,
        text: 'mount "/proc/sys" on "/tmp/m": idmap: the file system of the source does not support it',
      })
      expect(await failure(withAgent(script, { outside: mapped(disk, 'nonsense\n', '0 1 1\n') }))).toMatchObject({
        errno: EINVAL,
        text: `mount "${disk}" on "/tmp/m": idmap: make a user namespace of its maps`,
      })
    })
  })

  describe('is gone', () => {
    const agents = (parent: number) =>
      readFileSync(`/proc/${parent}/task/${parent}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)

    test('before the container waits for its runtime; until then it holds nothing of anybody', async () => {
      const source = folder('life', 0)
      const parts: Partial<Parts> = {
        outside: [
          { op: 'net_devices' },
          { op: 'sync', point: 1 },
          mount({ source, target: '/tmp/x', how: BIND | HOST_SOURCE }),
          { op: 'sync', point: 1 },
        ],
      }
      using process_ = new Run(withAgent('cat /tmp/x/file', parts))
      await process_.until('net_socket')
      process_.status.write('c')
      await process_.until('reached')
      const stage0 = agents(process.pid).find((pid) => agents(pid).length > 0)
      if (stage0 === undefined) throw new Error('stage 0 has no child')
      const [agent] = agents(stage0)
      const held = () => readdirSync(`/proc/${agent}/fd`).map((fd) => readlinkSync(`/proc/${agent}/fd/${fd}`))
      // on a busy machine it may not have come to run yet
      await until('the agent to let go of what it has inherited', () => held().length <= 2)
      expect(held()).toEqual([expect.stringMatching(/^socket:/), '/proc'])
      for (const kind of ['mnt', 'net'])
        expect(readlinkSync(`/proc/${agent}/ns/${kind}`)).toBe(readlinkSync(`/proc/self/ns/${kind}`))
      process_.status.write('c')
      expect(await process_.stage0).toBe(0)
      process_.status.write('c')
      expect(await process_.stdout).toBe('life\n')
    })

    test('when the container dies early', async () => {
      using process_ = new Run(
        withAgent('id', {
          outside: [{ op: 'sync', point: 1 }, mount({ source: disk, target: '/tmp/x', how: BIND | HOST_SOURCE })],
        }),
      )
      await process_.until('reached')
      process.kill(process_.pid, 'SIGKILL')
      expect(await process_.stage0).toBe(0)
    })

    test('when the clone fails', async () => {
      using process_ = new Run(withAgent('id', { clone: { ...USER, uidMap: 'nonsense\n' } }))
      expect(await process_.stage0).toBe(1)
      await process_.ended
    })
  })

  describe('and the offsets of a time namespace', () => {
    const joining = (pid: number): Op[] => [
      { op: 'open_ns', path: `/proc/${pid}/ns/user`, type: USER_FLAG },
      { op: 'join' },
    ]
    const withOffsets = (host: readonly Op[]): Op[] => {
      const ops = containerPlan(rootfs, { args: ['/bin/cat', '/proc/self/timens_offsets'], host }).map((op) =>
        op.op === 'device' ? mount({ source: '/dev/null', target: '/dev/null', how: BIND }) : op,
      )
      ops.splice(ops.findIndex(({ op }) => op === 'session') + 1, 0, { op: 'time_offsets', offsets: 'boottime 9 0\n' })
      return ops
    }

    test('it sets where others have power over the user namespace', async () => {
      using holder = new Run(containerPlan(rootfs, { args: ['/bin/sleep', '60'], clone: USER }))
      await holder.ended
      expect(await output(withOffsets([AGENT, ...joining(holder.pid)]))).toMatch(/boottime\s+9\s+0\n$/)
      expect(await failure(withOffsets(joining(holder.pid)))).toMatchObject({ op: 'time_offsets', errno: 13 })
    })

    test('are set without it where root of the namespace may do it, and the runtime may not', async () => {
      const holder = spawn('setpriv', ['--reuid=12345', '--clear-groups', 'unshare', '-U', 'sleep', '600'])
      try {
        const pid = holder.pid ?? -1
        await until('the user namespace', () => readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('sleep'))
        for (const name of ['uid_map', 'gid_map']) writeFileSync(`/proc/${pid}/${name}`, '0 0 200000')
        using run = new Run(withOffsets([AGENT, ...joining(pid)]), undefined, ['setpriv', '--bounding-set=-sys_time'])
        await run.ended
        expect(run.find('failed')).toBeUndefined()
        expect(await run.stdout).toMatch(/boottime\s+9\s+0\n$/)
      } finally {
        holder.kill('SIGKILL')
      }
    })
  })

  test.for<[string, Partial<Parts>, RegExp]>([
    [
      'is asked for a source',
      { host: [], outside: [mount({ target: '/x', how: BIND | HOST_SOURCE })] },
      /needs the host agent/,
    ],
    [
      'is asked to map ids of what it does not open',
      { outside: [mount({ target: '/x', how: BIND | IDMAP })] },
      /by the host agent only/,
    ],
    [
      'is given one map',
      { outside: [mount({ target: '/x', how: BIND | HOST_SOURCE | IDMAP, uidMap: MAP })] },
      /one of two id maps/,
    ],
    [
      'is asked for a socket in the network',
      { host: [], outside: [{ op: 'net_devices' }] },
      /net_devices needs host_agent before it/,
    ],
    ['is asked for two', { outside: [{ op: 'net_devices' }, { op: 'net_devices' }] }, /net_devices may come once only/],
    ['is started twice', { host: [AGENT, AGENT] }, /host_agent may come once only/],
    ['is started after a join', { host: [{ op: 'join' }, AGENT] }, /host_agent must come before any join/],
  ])('refuses a plan in which it %s', async ([, parts, text]) => {
    expect((await failure(withAgent('id', parts))).text).toMatch(text)
  })
})
