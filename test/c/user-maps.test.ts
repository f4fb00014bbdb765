/**
 * A user namespace whose maps another process writes, as a user without privileges gets one; and time namespaces in it.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CREDENTIALS, type Op } from '../../proto/init-plan.ts'
import { processStat } from '../../runtime/sys/pids.ts'
import { needs } from '../support/needs.ts'
import { CONTAINER_FLAGS, containerPlan, make, Rootfs, Run, TS_INIT, USER_FLAG } from './run.ts'

const ID_MAPS = 2
const NOBODY = 65534
const EINVAL = 22
/** A command that runs the one behind it as a user without any privilege. */
const AS_NOBODY = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--bounding-set=-all', '--']

describe('a user namespace', needs('root', 'busybox', 'make', 'gcc', 'setpriv'), () => {
  let rootfs: Rootfs
  beforeAll(() => {
    make(TS_INIT)
    rootfs = new Rootfs()
    spawnSync('chmod', ['755', rootfs.folder])
    spawnSync('chown', ['-R', `${NOBODY}:${NOBODY}`, rootfs.path])
  }, 120_000)
  afterAll(() => rootfs[Symbol.dispose]())

  function plan(script: string): Op[] {
    const clone = { flags: CONTAINER_FLAGS | USER_FLAG, runtimeMaps: 1 }
    return containerPlan(rootfs, { args: ['/bin/sh', '-c', script], clone }).map((op) =>
      op.op === 'credentials' ? { ...op, flags: CREDENTIALS.SET_CAPS } : op,
    )
  }

  /** Writes the maps as that same user, who may map himself only, and only after he has given up setgroups(2). */
  function mapSelf(pid: number): void {
    const script = `echo deny >/proc/${pid}/setgroups && echo 0 ${NOBODY} 1 >/proc/${pid}/uid_map && echo 0 ${NOBODY} 1 >/proc/${pid}/gid_map`
    const [command = '', ...args] = [...AS_NOBODY, 'sh', '-c', script]
    const result = spawnSync(command, args, { encoding: 'utf8' })
    expect(result.stderr).toBe('')
    expect(result.status).toBe(0)
  }

  async function output(ops: readonly Op[]): Promise<string> {
    using run = new Run(ops, undefined, AS_NOBODY)
    await run.until('reached')
    mapSelf(run.pid)
    run.status.write('c')
    await run.ended
    if (run.find('failed')) throw new Error(JSON.stringify(run.records))
    return await run.stdout
  }

  test('of a user without privileges is mapped by that user', async () => {
    const script =
      'busybox id -u; cat /proc/self/uid_map /proc/self/setgroups; busybox hostname; busybox stat -c %u /bin'
    expect(await output(plan(script))).toMatch(new RegExp(`^0\\n\\s+0\\s+${NOBODY}\\s+1\\ndeny\\ninside\\n0\\n$`))
  })

  test('of such a user is his to map while the child waits for that, and out of his reach before anything else', async () => {
    const ops = plan('id')
    ops.splice(ops.findIndex(({ op }) => op === 'session') + 1, 0, { op: 'sync', point: 1 })
    using run = new Run(ops, undefined, AS_NOBODY)
    const owner = () => spawnSync('stat', ['-c', '%u', `/proc/${run.pid}/uid_map`], { encoding: 'utf8' }).stdout
    await run.until('reached')
    expect(run.records.map(({ type, value }) => [type, value])).toEqual([
      ['child', run.pid],
      ['reached', ID_MAPS],
    ])
    expect(owner()).toBe(`${NOBODY}\n`)
    mapSelf(run.pid)
    run.status.write('c')
    while (run.records.length < 3) await once(run.status, 'data')
    expect(run.records.at(-1)).toEqual({ type: 'reached', value: 1 })
    expect(owner()).toBe('0\n')
  })

  test('of such a user may be killed first when memory is short', async () => {
    const ops: Op[] = [{ op: 'oom_score_adj', value: 500 }, ...plan('cat /proc/self/oom_score_adj')]
    expect(await output(ops)).toBe('500\n')
  })

  test('of such a user may label what it makes: it is the kernel that judges the label', async () => {
    const label = 'no_u:no_r:no_t:s0'
    for (const op of [{ op: 'keyring', name: '_ses.test', label } as const, { op: 'selinux', label } as const]) {
      const ops = plan('id')
      ops.splice(
        ops.findIndex(({ op: name }) => name === 'rootfs'),
        0,
        op,
      )
      using run = new Run(ops, undefined, AS_NOBODY)
      await run.until('reached')
      mapSelf(run.pid)
      run.status.write('c')
      await run.ended
      expect(run.find('failed')).toMatchObject({ errno: EINVAL, text: expect.stringMatching(/^apply selinux label/) })
    }
  })

  test('that the runtime does not map is given up quietly', async () => {
    using run = new Run(plan('id'), undefined, AS_NOBODY)
    await run.until('reached')
    run.status.end()
    await run.ended
    expect(run.records).toHaveLength(2)
    expect(await run.stderr).toBe('')
  })

  test('of root is mapped by the runtime too, while the child stays out of reach', async () => {
    using run = new Run(plan('busybox id -u'))
    await run.until('reached')
    expect(spawnSync('stat', ['-c', '%u', `/proc/${run.pid}/uid_map`], { encoding: 'utf8' }).stdout).toBe('0\n')
    expect(readFileSync(`/proc/${run.pid}/uid_map`, 'utf8')).toBe('')
    for (const name of ['uid_map', 'gid_map']) {
      const result = spawnSync('sh', ['-c', `echo 0 ${NOBODY} 1 >/proc/${run.pid}/${name}`], { encoding: 'utf8' })
      expect(result.stderr).toBe('')
    }
    run.status.write('c')
    expect(await run.stdout).toBe('0\n')
  })

  test('has a time namespace of its own, with offsets', async () => {
    const ops = plan('busybox cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets')
    const at = ops.findIndex(({ op }) => op === 'session') + 1
    ops.splice(at, 0, { op: 'time_offsets', offsets: 'boottime 1000000 0\nmonotonic 5 7\n' })
    const text = await output(ops)
    expect(Number(text.split('\n')[0])).toBeGreaterThan(1_000_000)
    expect(text).toMatch(/monotonic\s+5\s+7\nboottime\s+1000000\s+0\n$/)
  })
})

describe('the user namespace of another', needs('root', 'busybox', 'make', 'gcc', 'setpriv'), () => {
  beforeAll(() => {
    make(TS_INIT)
  }, 120_000)

  /** The groups of a process in a user namespace in which setgroups(2) is forbidden, of a runtime that has some. */
  async function groups(host: (pid: number) => readonly Op[]): Promise<string> {
    const holder = spawn('unshare', ['--user', '--map-root-user', 'sleep', '600'])
    try {
      const pid = holder.pid ?? -1
      while (!readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('sleep')) await delay(5)
      expect(readFileSync(`/proc/${pid}/setgroups`, 'utf8')).toBe('deny\n')
      const ops: Op[] = [
        ...host(pid),
        { op: 'clone', flags: 0n, uidMap: '', gidMap: '', runtimeMaps: 0 },
        { op: 'session', becomeRoot: 1 },
        { op: 'program', args: ['grep', '^Groups', '/proc/self/status'], env: ['HOME=/'], uid: 0 },
        { op: 'exec', fds: 0 },
      ]
      using run = new Run(ops, undefined, ['setpriv', '--groups=4,27', '--'])
      await run.ended
      if (run.find('failed')) throw new Error(JSON.stringify(run.records))
      return await run.stdout
    } finally {
      holder.kill('SIGKILL')
    }
  }

  test('is entered without the groups of the runtime, which could not be dropped in there', async () => {
    const open = (pid: number): Op => ({ op: 'open_ns', path: `/proc/${pid}/ns/user`, type: USER_FLAG })
    expect(await groups((pid) => [open(pid), { op: 'join' }])).toMatch(/^Groups:\s*$/)
    const startTime = (pid: number) => processStat(pid)?.startTime ?? 0n
    const join = (pid: number): Op => ({ op: 'join_process', pid, startTime: startTime(pid), flags: USER_FLAG })
    expect(await groups((pid) => [join(pid)])).toMatch(/^Groups:\s*$/)
  })
})

describe('a time namespace', needs('root', 'busybox', 'make', 'gcc'), () => {
  let rootfs: Rootfs
  beforeAll(() => {
    make(TS_INIT)
    rootfs = new Rootfs()
    spawnSync('chmod', ['755', rootfs.folder])
    spawnSync('chown', ['-R', '100000:100000', rootfs.path])
  }, 120_000)
  afterAll(() => rootfs[Symbol.dispose]())

  const MAP = '0 100000 65536\n'
  const script = 'busybox cut -d. -f1 /proc/uptime; busybox readlink /proc/self/ns/time; echo $$'
  function plan(offsets: string, clone: Partial<Extract<Op, { op: 'clone' }>> = {}): Op[] {
    const ops = containerPlan(rootfs, { args: ['/bin/sh', '-c', script], clone })
    ops.splice(ops.findIndex(({ op }) => op === 'session') + 1, 0, { op: 'time_offsets', offsets })
    return ops
  }

  test.for([
    ['', {}],
    [' in a user namespace', { flags: CONTAINER_FLAGS | USER_FLAG, uidMap: MAP, gidMap: MAP }],
  ] as const)('is entered by the container process itself%s', async ([, clone]) => {
    using run = new Run(plan('boottime 2000000 0\n', clone))
    await run.ended
    expect(run.find('failed')).toBeUndefined()
    const [uptime, link, pid] = (await run.stdout).split('\n')
    expect(Number(uptime)).toBeGreaterThan(2_000_000)
    expect(link).toMatch(/^time:\[\d+\]$/)
    expect(link).not.toBe(spawnSync('readlink', ['/proc/self/ns/time'], { encoding: 'utf8' }).stdout.trim())
    expect(pid).toBe('1')
  })

  test('needs no offsets', async () => {
    using run = new Run(plan(''))
    await run.ended
    expect(run.find('failed')).toBeUndefined()
    expect((await run.stdout).split('\n')[1]).not.toBe(
      spawnSync('readlink', ['/proc/self/ns/time'], { encoding: 'utf8' }).stdout.trim(),
    )
  })

  test('with a clock that does not exist fails', async () => {
    const ops = plan('realtime 1 0\n')
    using run = new Run(ops)
    await run.ended
    expect(run.find('failed')).toMatchObject({ text: 'set the offsets of the time namespace', errno: 22 })
    expect(ops[run.find('failed')?.value ?? 0]?.op).toBe('time_offsets')
  })
})
