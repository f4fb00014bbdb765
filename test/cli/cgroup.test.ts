/**
 * The cgroup class against the kernel's own files: v1 with the v2 tree beside it on a hybrid host, v2 on a pure one.
 * A hybrid host runs this file a second time inside a private view (its own mount and cgroup namespace) in which the
 * v2 tree is all there is. Every cgroup is below one uniquely named parent, and the last check is that nothing of it
 * is left.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { Cgroup, detectMode, readHierarchies } from '../../runtime/cgroup/cgroup.ts'
import { RuntimeError } from '../../runtime/errors.ts'
import type { LinuxResources } from '../../runtime/spec/types.ts'
import { type Command, startCommand, until } from '../support/command.ts'
import { isCgroup2, needs, SLOWNESS } from '../support/needs.ts'
import { PAYLOAD } from '../support/places.ts'

const NONE: LinuxResources = { devices: [], hugepageLimits: [], rdma: {}, unified: {} }
const PARENT = `cgroup-test-${process.pid}-${Date.now().toString(36)}`
const MIB = 1n << 20n
const SIGKILL = 9
const SIGUSR1 = 10
const root = needs('root')
const onlyV1 = needs('root', 'cgroup1')
const onlyV2 = needs('root', 'cgroup2')

/** A limit needs its controller; the private view has none, hosts have them all. */
const withLimits = needs('root', 'memory controller')
const live: Cgroup[] = []
const commands: Command[] = []
let count = 0

function create(resources: Partial<LinuxResources> = {}, path = `/${PARENT}/c${++count}`): Cgroup {
  const cgroup = Cgroup.create({ path, id: 'id', resources: { ...NONE, ...resources } })
  live.push(cgroup)
  return cgroup
}

/** Starts a program inside; resolves once it is in every hierarchy. */
async function enter(cgroup: Cgroup, script: string): Promise<Command> {
  const join = cgroup.join()
  if (join.kind === 'none' || join.kind === 'placed') throw new Error('there is no way in')
  const dir = join.kind === 'dir' ? join.path : join.dir
  const files = [...(join.kind === 'tasks' ? join.paths : []), ...(dir === undefined ? [] : [`${dir}/cgroup.procs`])]
  const line = 'for f in "$@"; do echo $$ >"$f" || exit 99; done; echo inside; '
  const command = startCommand('sh', ['-c', line + script, 'sh', ...files])
  commands.push(command)
  await command.untilOutput('inside')
  return command
}

function file(cgroup: Cgroup, controller: string, name: string): string {
  return readFileSync(`${cgroup.paths[isCgroup2() ? '' : controller]}/${name}`, 'utf8').trim()
}

function failure(action: () => unknown): RuntimeError {
  try {
    action()
  } catch (error) {
    if (error instanceof RuntimeError) return error
    throw error
  }
  throw new Error('it did not fail')
}

function mountpoints(): string[] {
  return readHierarchies(detectMode()).map(({ mountpoint }) => mountpoint)
}

function leftovers(): string[] {
  return mountpoints().flatMap((mountpoint) => {
    const parent = join(mountpoint, PARENT)
    if (!existsSync(parent)) return []
    return readdirSync(parent, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(parent, entry.name))
  })
}

const openFds = () => readdirSync('/proc/self/fd').length

afterEach(async () => {
  for (const cgroup of live) await cgroup.killAll(SIGKILL)
  for (const command of commands.splice(0)) {
    command.kill('SIGKILL')
    await command.finished
  }
  for (const cgroup of live.splice(0)) await cgroup.remove()
  expect(leftovers()).toEqual([])
})

afterAll(() => {
  if (process.getuid?.() !== 0) return
  for (const mountpoint of mountpoints()) {
    const parent = join(mountpoint, PARENT)
    if (existsSync(parent)) rmdirSync(parent)
  }
})

describe('create', () => {
  test('makes a directory in every hierarchy that processes can join', root, async () => {
    const cgroup = create()
    const dirs = mountpoints().map((mountpoint) => join(mountpoint, PARENT, `c${count}`))
    expect(new Set(Object.values(cgroup.paths))).toEqual(new Set(dirs))
    expect(cgroup.name).toBe(`/${PARENT}/c${count}`)
    expect(cgroup.procs()).toEqual([])
    const { pid } = await enter(cgroup, 'exec sleep 100')
    expect(cgroup.procs()).toEqual([pid])
    for (const line of readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n')) {
      if (!isCgroup2() || line.startsWith('0::')) expect(line).toMatch(new RegExp(`/${PARENT}/c${count}$`))
    }
  })

  test('sets the limits of the command line', withLimits, () => {
    const cgroup = create({
      memory: { limit: 64n * MIB, swap: 128n * MIB },
      cpu: { shares: 512n, quota: 20000n, period: 50000n },
      pids: { limit: 33n },
    })
    expect(file(cgroup, 'pids', 'pids.max')).toBe('33')
    if (isCgroup2()) {
      expect(file(cgroup, 'memory', 'memory.max')).toBe(String(64n * MIB))
      expect(file(cgroup, 'memory', 'memory.swap.max')).toBe(String(64n * MIB))
      expect(file(cgroup, 'cpu', 'cpu.weight')).toBe('59')
      expect(file(cgroup, 'cpu', 'cpu.max')).toBe('20000 50000')
      return
    }
    expect(file(cgroup, 'memory', 'memory.limit_in_bytes')).toBe(String(64n * MIB))
    expect(file(cgroup, 'memory', 'memory.memsw.limit_in_bytes')).toBe(String(128n * MIB))
    expect(file(cgroup, 'cpu', 'cpu.shares')).toBe('512')
    expect(file(cgroup, 'cpu', 'cpu.cfs_quota_us')).toBe('20000')
    expect(file(cgroup, 'cpu', 'cpu.cfs_period_us')).toBe('50000')
    expect(file(cgroup, 'cpuset', 'cpuset.cpus')).not.toBe('')
  })

  test('a refused limit is named and leaves nothing behind', withLimits, () => {
    const fds = openFds()
    const error = failure(() => create({ memory: { limit: 64n * MIB }, cpu: { quota: 1n } }))
    expect(error.code).toBe('InvalidArgument')
    const what = isCgroup2() ? 'cpu quota and period "1 100000"' : 'cpu quota 1'
    expect(error.message).toBe(`cannot set ${what} on cgroup "/${PARENT}/c${count}": EINVAL: invalid argument`)
    expect(leftovers()).toEqual([])
    expect(openFds()).toBe(fds)
  })

  test('a clamped cpu-shares value is refused', onlyV1, () => {
    expect(() => create({ cpu: { shares: 1n << 40n } })).toThrow(/the maximum allowed cpu-shares is 262144$/)
  })

  test('refuses a cgroup with processes and one that is frozen', root, async () => {
    const first = create()
    await enter(first, 'exec sleep 100')
    expect(failure(() => create({}, first.name)).message).toContain("container's cgroup is not empty")
    await first.killAll(SIGKILL)
    await until('the process to be gone', () => first.procs().length === 0)
    await first.freeze()
    expect(failure(() => create({}, first.name)).message).toContain("container's cgroup unexpectedly frozen")
    await first.thaw()
    expect(create({}, first.name).paths).toEqual(first.paths)
  })

  test('takes over an empty leftover and keeps it when it fails', withLimits, () => {
    const first = create({ pids: { limit: 5n } })
    expect(() => create({ cpu: { quota: 1n } }, first.name)).toThrow('EINVAL')
    expect(existsSync(Object.values(first.paths)[0] ?? '')).toBe(true)
    create({ pids: { limit: -1n } }, first.name)
    expect(file(first, 'pids', 'pids.max')).toBe('max')
  })

  test('a path cannot rise above the mount point', root, () => {
    expect(create({}, `/../..//${PARENT}/./x/../up`).name).toBe(`/${PARENT}/up`)
  })
})

describe('device rules', () => {
  /** Whether a process inside may open a node for reading. */
  async function mayRead(cgroup: Cgroup, node: string): Promise<boolean> {
    const command = await enter(cgroup, `exec 3<${node} && echo yes; echo no`)
    const { stdout } = await command.finished
    return stdout.includes('yes')
  }
  // A node that no container is given by default.
  const KMSG = { allow: true, type: 'c', major: 1, minor: 11, access: 'rw' } as const
  const DENY_ALL = { allow: false, access: 'rwm' } as const

  test('hold, change and stay as they are when an update names none', root, async () => {
    const node = '/dev/kmsg'
    const cgroup = create({ devices: [DENY_ALL] })
    expect(await mayRead(cgroup, node)).toBe(false)
    expect(await mayRead(cgroup, '/dev/null')).toBe(true)
    cgroup.set({ ...NONE, devices: [DENY_ALL, KMSG] })
    expect(await mayRead(cgroup, node)).toBe(true)
    cgroup.set(NONE)
    expect(await mayRead(cgroup, node)).toBe(true)
    cgroup.set({ ...NONE, devices: [DENY_ALL] })
    expect(await mayRead(cgroup, node)).toBe(false)
    cgroup.set({ ...NONE, devices: [{ allow: true, access: 'rwm' }] })
    expect(await mayRead(cgroup, node)).toBe(true)
    const open = create({ devices: [{ allow: true, access: 'rwm' }] })
    expect(await mayRead(open, node)).toBe(true)
  })

  test('the kernel lists what was asked for', onlyV1, () => {
    const cgroup = create({ devices: [DENY_ALL, KMSG] })
    const lines = file(cgroup, 'devices', 'devices.list').split('\n')
    expect(lines).toContain('c 1:11 rw')
    expect(lines).toContain('c 136:* rwm')
    expect(lines).not.toContain('a *:* rwm')
  })

  test('a failed update of another limit gives the old rules back', withLimits, async () => {
    const cgroup = create({ devices: [DENY_ALL] })
    expect(() => cgroup.set({ ...NONE, devices: [DENY_ALL, KMSG], cpu: { quota: 1n } })).toThrow('EINVAL')
    if (!isCgroup2()) expect(file(cgroup, 'devices', 'devices.list')).not.toContain('1:11')
  })
})

describe('set', () => {
  test('changes limits in the order that the kernel needs', withLimits, () => {
    const cgroup = create({ memory: { limit: 16n * MIB, swap: 32n * MIB }, cpu: { quota: 20000n, period: 50000n } })
    cgroup.set({ ...NONE, memory: { limit: 64n * MIB, swap: 128n * MIB }, cpu: { quota: 300000n, period: 1000000n } })
    cgroup.set({ ...NONE, memory: { limit: 8n * MIB, swap: 8n * MIB }, cpu: { quota: 2000n, period: 4000n } })
    const limit = isCgroup2() ? 'memory.max' : 'memory.limit_in_bytes'
    expect(file(cgroup, 'memory', limit)).toBe(String(8n * MIB))
    cgroup.set({ ...NONE, memory: { limit: -1n }, cpu: { quota: -1n } })
    expect(file(cgroup, 'memory', limit)).toBe(isCgroup2() ? 'max' : '9223372036854771712')
  })

  test('one refused limit gives all the old ones back', withLimits, () => {
    const cgroup = create({ memory: { limit: 16n * MIB }, pids: { limit: 20n } })
    const resources = { ...NONE, memory: { limit: 32n * MIB }, pids: { limit: 40n }, cpu: { shares: 900n, quota: 1n } }
    expect(() => cgroup.set(resources)).toThrow('EINVAL')
    expect(file(cgroup, 'memory', isCgroup2() ? 'memory.max' : 'memory.limit_in_bytes')).toBe(String(16n * MIB))
    expect(file(cgroup, 'pids', 'pids.max')).toBe('20')
    expect(file(cgroup, 'cpu', isCgroup2() ? 'cpu.weight' : 'cpu.shares')).toBe(isCgroup2() ? '100' : '1024')
  })

  test('unified writes any file of v2 and refuses what is not there', onlyV2, () => {
    const cgroup = create({ unified: { 'cgroup.max.depth': '7' } })
    expect(file(cgroup, '', 'cgroup.max.depth')).toBe('7')
    expect(() => create({ unified: { 'memory.nonsense': '1' } })).toThrow(
      /"memory.nonsense" to "1" on cgroup .* this kernel lacks/,
    )
  })
})

describe('freeze and kill', () => {
  test('a frozen process does nothing until the thaw', root, async () => {
    const cgroup = create()
    const command = await enter(cgroup, 'trap "echo signalled" USR1; echo trapped; while :; do sleep 0.01; done')
    const isPending = (): boolean => {
      const set = /^ShdPnd:\s*(\w+)/m.exec(readFileSync(`/proc/${command.pid}/status`, 'latin1'))?.[1]
      return (BigInt(`0x${set}`) & (1n << BigInt(SIGUSR1 - 1))) !== 0n
    }
    await command.untilOutput('trapped')
    expect(cgroup.isFrozen()).toBe(false)
    await cgroup.freeze()
    expect(cgroup.isFrozen()).toBe(true)
    await cgroup.killAll(SIGUSR1)
    // a process that runs takes a signal out of this set before it does anything else
    expect(isPending()).toBe(true)
    expect(cgroup.isFrozen()).toBe(true)
    expect(command.stdout).not.toContain('signalled')
    await cgroup.thaw()
    expect(cgroup.isFrozen()).toBe(false)
    await until('the signal to be taken', () => !isPending())
    // sleep dies of it, the shell does not
    await command.untilOutput('signalled')
  })

  test('killAll with SIGKILL ends a busy process tree, sub-cgroups included', root, async () => {
    const cgroup = create()
    const command = await enter(cgroup, 'for i in 1 2 3 4 5; do (while :; do (:); done) & done; echo busy; wait')
    await command.untilOutput('busy')
    for (const dir of new Set(Object.values(cgroup.paths))) mkdirSync(join(dir, 'sub'))
    // one that stays: its own children come and go (and 0 would be ourselves)
    const victim = Number.parseInt(readFileSync(`/proc/${command.pid}/task/${command.pid}/children`, 'utf8'), 10)
    const main = cgroup.paths['devices'] ?? cgroup.paths[''] ?? ''
    writeFileSync(join(main, 'sub', 'cgroup.procs'), String(victim))
    expect(cgroup.procs()).toContain(victim)
    await cgroup.killAll(SIGKILL)
    await until('nobody left', () => cgroup.procs().length === 0)
    expect((await command.finished).signal).toBe('SIGKILL')
  })

  test('killAll with SIGKILL ends frozen processes and thaws v1', root, async () => {
    const cgroup = create()
    const command = await enter(cgroup, 'exec sleep 100')
    await cgroup.freeze()
    await cgroup.killAll(SIGKILL)
    expect((await command.finished).signal).toBe('SIGKILL')
  })

  test('without cgroup.kill the processes are frozen, killed and thawed', onlyV1, async () => {
    const { '': _, ...paths } = create().paths
    const cgroup = Cgroup.load(paths)
    const command = await enter(cgroup, 'for i in 1 2 3; do (while :; do (:); done) & done; wait')
    await cgroup.killAll(SIGKILL)
    expect((await command.finished).signal).toBe('SIGKILL')
    await until('nobody left', () => cgroup.procs().length === 0)
    expect(cgroup.isFrozen()).toBe(false)
  })

  test('without cgroup.kill all of thousands are killed, even if somebody thaws them meanwhile', onlyV1, async () => {
    const { '': _, ...paths } = create().paths
    const cgroup = Cgroup.load(paths)
    const command = await enter(cgroup, `exec ${PAYLOAD} crowd 3000`)
    await command.untilOutput('ready')
    const killed = cgroup.killAll(SIGKILL)
    await until('the freezer', () => cgroup.isFrozen())
    await cgroup.thaw()
    await killed
    expect((await command.finished).signal).toBe('SIGKILL')
    await until('nobody left', () => cgroup.procs().length === 0)
    expect(cgroup.isFrozen()).toBe(false)
  })
})

describe('remove', () => {
  test('takes sub-cgroups with it and may be repeated', root, async () => {
    const cgroup = create()
    for (const dir of new Set(Object.values(cgroup.paths))) mkdirSync(join(dir, 'a/b'), { recursive: true })
    await cgroup.remove()
    expect(Object.values(cgroup.paths).filter((path) => existsSync(path))).toEqual([])
    expect(existsSync(dirname(Object.values(cgroup.paths)[0] ?? ''))).toBe(true)
    await cgroup.remove()
    expect(cgroup.procs()).toEqual([])
    expect(failure(() => cgroup.set({ ...NONE, pids: { limit: 1n } })).code).toBe('NotFound')
    expect(cgroup.oomKillCount()).toBe(0)
    await cgroup.killAll(SIGKILL)
  })

  test('waits for a dying process and reports one that stays', root, async () => {
    const cgroup = create()
    const command = await enter(cgroup, 'sleep 0.2')
    await cgroup.remove()
    expect((await command.finished).code).toBe(0)
    const busy = create()
    const { pid } = await enter(busy, 'exec sleep 100')
    await expect(busy.remove()).rejects.toThrow(`cannot remove cgroup "${busy.name}": EBUSY`)
    expect(busy.procs().length + Number(existsSync(`/proc/${pid}`))).toBeGreaterThan(0)
  })
})

describe('counters', () => {
  test('say what the processes use', withLimits, async () => {
    const cgroup = create({ pids: { limit: 50n }, memory: { limit: 64n * MIB } })
    await enter(cgroup, 'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; echo done; exec sleep 100').then((command) =>
      command.untilOutput('done'),
    )
    const stats = cgroup.stats()
    expect(stats.pids).toEqual({ current: 1n, limit: 50n })
    if (stats.version === 1) {
      expect(stats.cpu.usage.total).toBeGreaterThan(0n)
      expect(stats.memory.usage.usage).toBeGreaterThan(0n)
      expect(stats.memory.usage.limit).toBe(64n * MIB)
      expect(stats.cpu.usage.perCpu.length).toBeGreaterThan(0)
    } else {
      expect(stats.cpu.usageUsec).toBeGreaterThan(0n)
      expect(stats.memory.usage).toBeGreaterThan(0n)
      expect(stats.memory.usageLimit).toBe(64n * MIB)
      expect(stats.memory.psi?.some).toBeDefined()
    }
  })

  test('an OOM kill is counted and reported once, from a process that is not the first', withLimits, async () => {
    const fds = openFds()
    const cgroup = create({ memory: { limit: 16n * MIB, swap: 16n * MIB } })
    const counts: number[] = []
    const watch = cgroup.watchOom((kills) => counts.push(kills))
    expect(cgroup.oomKillCount()).toBe(0)
    const command = await enter(
      cgroup,
      'tail /dev/zero; echo first; read line; tail /dev/zero; echo second; exec sleep 100',
    )
    await until(
      'the first report',
      () => counts.length > 0,
      () => command.describe(),
      10_000 * SLOWNESS,
    )
    expect(counts).toEqual([1])
    watch[Symbol.dispose]()
    watch[Symbol.dispose]()
    await until('the descriptors closed', () => openFds() <= fds + 3)
  })

  test('a burst of OOM kills is never reported more often than it happened', withLimits, async () => {
    const cgroup = create({ memory: { limit: 16n * MIB, swap: 16n * MIB } })
    const counts: number[] = []
    using _watch = cgroup.watchOom((kills) => counts.push(kills))
    const command = await enter(cgroup, 'for i in 1 2 3 4; do tail /dev/zero; done; echo over; exec sleep 100')
    await command.untilOutput('over')
    await until(
      'the last report',
      () => counts.at(-1) === cgroup.oomKillCount(),
      () => `${counts}`,
    )
    expect(counts.at(-1)).toBe(4)
    expect(counts).toEqual([...new Set(counts)].sort((a, b) => a - b))
  })

  test('removing a watched cgroup reports nothing and keeps no descriptor', withLimits, async () => {
    const fds = openFds()
    const cgroup = create()
    const counts: number[] = []
    const { promise: ended, resolve: onEnd } = Promise.withResolvers<void>()
    using _watch = cgroup.watchOom((kills) => counts.push(kills), onEnd)
    // v2 shows the end by the last process, v1 by the removal
    const command = await enter(cgroup, 'exit')
    await command.finished
    await cgroup.remove()
    await ended
    expect(counts).toEqual([])
    if (!isCgroup2()) await until('the descriptors closed', () => openFds() <= fds)
  })
})

test('a saved state is loaded, a path outside is not', root, () => {
  const cgroup = create()
  expect(Cgroup.load({ ...cgroup.paths }).join()).toEqual(cgroup.join())
  for (const path of [
    '/etc',
    '/sys/fs/cgroup',
    '/sys/fs/cgroup/',
    '/sys/fs/cgroup/../x',
    '/sys/fs/cgroup/a//b',
    '/sys/fs/cgroup/memory',
    '',
  ]) {
    expect(() => Cgroup.load({ memory: path }), path).toThrow(/is not a clean path of a cgroup/)
  }
})

test('a hybrid host passes the same tests in a private view of its v2 tree', {
  ...onlyV1,
  timeout: 120_000 * SLOWNESS,
}, async ({ skip }) => {
  if (detectMode() !== 'hybrid') skip('a hybrid host')
  const home = `/sys/fs/cgroup/unified/${PARENT}-view`
  mkdirSync(home)
  try {
    const vitest = join(import.meta.dirname, '../../node_modules/vitest/vitest.mjs')
    const config = join(import.meta.dirname, '../vitest.config.ts')
    // The cgroup namespace makes `home` the root of what the mount shows, so that no other cgroup is in reach.
    const script = `echo $$ >${home}/cgroup.procs && exec unshare -m -C --propagation private sh -c 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"' sh "$@"`
    const args = [process.execPath, vitest, 'run', '--config', config, '--reporter=verbose', 'test/cli/cgroup.test.ts']
    const env = { COUNTS_FILE: '', REQUIRE: '', NO_COLOR: '1', FORCE_COLOR: '' }
    const command = startCommand('sh', ['-c', script, 'sh', ...args], { env, cwd: join(import.meta.dirname, '../..') })
    const { code, stdout, stderr } = await command.finished
    expect({ code, output: code === 0 ? '' : stdout + stderr }).toEqual({ code: 0, output: '' })
    expect(stdout).toMatch(/✓.*a frozen process does nothing until the thaw/)
    expect(stdout).toMatch(/✓.*hold, change and stay as they are/)
  } finally {
    await Cgroup.load({ '': home }).remove()
  }
})
