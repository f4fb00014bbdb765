/**
 * `events`: its lines are those of runc for the very same container, its network counters are the kernel's, and it ends
 * with the container, with its reader, or by Ctrl-C.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { afterAll, describe, expect } from 'vitest'
import { Container } from '../../runtime/index.ts'
import { until } from '../support/command.ts'
import { Library, Streams } from '../support/library.ts'
import { isCgroup2, needs, SLOWNESS } from '../support/needs.ts'
import { OCI_RUNTIME } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'

const SLEEP = ['sleep', '1000'] as const
const MIB = 1024 * 1024
/** Needs more memory than it may have: v1 reclaims its page cache, v2 makes it wait above memory.high. */
const HUNGRY = isCgroup2()
  ? ['sh', '-c', 'while :; do head -c 33554432 /dev/zero | tail -c 33554432 >/dev/null; done']
  : ['sh', '-c', 'while :; do head -c 67108864 /dev/zero >/file; done']
const LITTLE = isCgroup2() ? { unified: { 'memory.high': String(8 * MIB) } } : { memory: { limit: 16 * MIB } }
/** runc 1.1 knows neither pressure nor the huge pages of v2. */
const RUNC_IS_OLD = / 1\.[01]\./.test(spawnSync('runc', ['--version'], { encoding: 'utf8' }).stdout ?? '')

const library = new Library()
afterAll(() => library[Symbol.dispose]())

const linesOf = (text: string): { type: string; id: string; data?: Record<string, unknown> }[] =>
  text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))

/** The text of an event without what runc before 1.5 writes although it is empty, and without the network. */
function comparable(line: string): string {
  const drop = (key: string, value: unknown): unknown => {
    if (key === 'network_interfaces') return null
    // an average falls with time, also that of a frozen container
    if (/^avg\d+$/.test(key)) return 0
    if (RUNC_IS_OLD && (key === 'psi' || key === 'hugetlb')) return undefined
    const parts = ['throttling', 'usage', 'swap', 'kernel', 'kernelTCP', 'some', 'full', 'psi']
    if (!parts.includes(key) || typeof value !== 'object' || value === null) return value
    return Object.values(value).every((part) => part === 0 || part === undefined) ? undefined : value
  }
  return JSON.stringify(JSON.parse(line, drop))
}

/** The counters of one interface as the kernel tells them to a process. */
function loopbackOf(pid: number): { bytes: number; packets: number } {
  const numbers = /^\s*lo:\s*(\d+)\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/net/dev`, 'utf8'))
  return { bytes: Number(numbers?.[1]), packets: Number(numbers?.[2]) }
}

function running(runts: Runts, command: readonly string[] = SLEEP, limits: object = {}): void {
  const bundle = runts.bundle(command, (spec) => {
    spec.linux.cgroupsPath = `/${runts.name}/c`
    Object.assign(spec.linux.resources ?? {}, limits)
  })
  runts.leave('run', '-d', '-b', bundle, 'c')
}

describe('runts events --stats', needs('root', 'busybox', 'our shim'), () => {
  test('prints of a container what runc prints of it', needs('the runc shim'), async ({ runts }) => {
    const bundle = runts.bundle([
      'sh',
      '-c',
      'for i in 1 2 3; do head -c 100000 /dev/zero >/file; done; exec sleep 1000',
    ])
    const runc = (...args: string[]) => {
      const stdio = args[0] === 'run' ? ('ignore' as const) : ('pipe' as const)
      return spawnSync('runc', ['--root', runts.root, ...args], { encoding: 'utf8', stdio })
    }
    expect(runc('run', '-d', '-b', bundle, 'c').status).toBe(0)
    expect(runc('pause', 'c').status).toBe(0)
    let [before, ours, after] = ['', '', '']
    // of a frozen container the counters still change where the kernel takes memory back
    await until('a moment in which the counters do not change', async () => {
      before = comparable(runc('events', '--stats', 'c').stdout)
      ours = (await runts.ok('events', '--stats', 'c')).stdout
      after = comparable(runc('events', '--stats', 'c').stdout)
      return before === after
    })
    expect(comparable(ours)).toBe(before)
    expect(ours.split('\n')).toHaveLength(2)
  })

  test('has the counters of each interface of the container', needs('iproute2'), async ({ runts }) => {
    running(runts)
    const pid = Number((await runts.state('c'))['pid'])
    const inside = (...command: string[]) => spawnSync('nsenter', ['-t', String(pid), '-n', ...command])
    expect(inside('ip', 'link', 'set', 'lo', 'up').status).toBe(0)
    expect(inside('busybox', 'ping', '-c', '1', '127.0.0.1').status).toBe(0)
    const [event] = linesOf((await runts.ok('events', '--stats', 'c')).stdout)
    const { bytes, packets } = loopbackOf(pid)
    expect(packets).toBeGreaterThan(1)
    expect(event?.data?.['network_interfaces']).toEqual([
      {
        ...{ Name: 'lo', RxBytes: bytes, RxPackets: packets, RxErrors: 0, RxDropped: 0 },
        ...{ TxBytes: bytes, TxPackets: packets, TxErrors: 0, TxDropped: 0 },
      },
    ])
  })

  test('has no interfaces of a container on the network of the host', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP, ({ linux }) => {
      linux.namespaces = linux.namespaces.filter(({ type }) => type !== 'network')
    })
    runts.leave('run', '-d', '-b', bundle, 'c')
    const [event] = linesOf((await runts.ok('events', '--stats', 'c')).stdout)
    expect(event?.data).toMatchObject({ network_interfaces: null, intel_rdt: {} })
  })

  test('refuses a container that does not run, in the words of runc', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(['true']), 'c')
    await runts.untilStatus('c', 'stopped')
    for (const options of [['--stats'], []]) {
      expect(await runts.run('events', ...options, 'c')).toMatchObject({
        code: 1,
        stdout: '',
        stderr: 'runts: error: container with id c is not running\n',
      })
    }
    expect(await runts.run('events', 'nobody')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('does not exist'),
    })
  })

  test.for([
    ['0s', 'duration interval must be greater than 0'],
    ['-1s', 'duration interval must be greater than 0'],
    ['fast', 'invalid --interval "fast"'],
  ])('refuses the interval %s', async ([interval = '', words = ''], { runts }) => {
    running(runts)
    expect(await runts.run('events', '--interval', interval, 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(words),
    })
  })
})

describe('runts events', needs('root', 'busybox', 'our shim'), () => {
  test('prints the counters in each interval, and ends with the container', async ({ runts }) => {
    running(runts)
    const command = runts.start(['events', '--interval', '100ms', 'c'])
    await until('three lines', () => linesOf(command.stdout.replace(/[^\n]*$/, '')).length >= 3)
    await runts.ok('kill', 'c', 'KILL')
    const { code, stdout, stderr } = await command.finished
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const lines = linesOf(stdout)
    expect(lines.every(({ type, id, data }) => type === 'stats' && id === 'c' && data?.['cpu'] !== undefined)).toBe(
      true,
    )
  })

  test('ends too when the container is deleted by force, or is paused and deleted', async ({ runts }) => {
    for (const paused of [false, true]) {
      running(runts)
      const command = runts.start(['events', '--interval', '100ms', 'c'])
      await command.untilOutput('stats')
      if (paused) await runts.ok('pause', 'c')
      await runts.ok('delete', '-f', 'c')
      expect(await command.finished).toMatchObject({ code: 0, stderr: '' })
    }
  })

  test('an interval that is longer than any timer does not run wild', async ({ runts }) => {
    running(runts)
    const command = runts.start(['events', '--interval', '10000h', 'c'])
    await until('the watch', () => hasWatch(command.pid))
    await runts.ok('kill', 'c', 'KILL')
    expect(await command.finished).toMatchObject({ code: 0, stdout: '', stderr: '' })
  })

  test('tells of a process that was killed because memory ran out', needs('memory controller'), async ({ runts }) => {
    running(runts, SLEEP, { memory: { limit: 16 * MIB, swap: 16 * MIB } })
    const command = runts.start(['events', '--interval', '1h', 'c'])
    await until('the watch', () => hasWatch(command.pid))
    await runts.run('exec', 'c', 'tail', '/dev/zero')
    await command.untilOutput('oom')
    await runts.ok('kill', 'c', 'KILL')
    const { stdout } = await command.finished
    expect(new Set(stdout.split('\n'))).toEqual(new Set(['{"type":"oom","id":"c"}', '']))
  })

  test(
    'tells of that before it ends where the container ended by it',
    needs('memory controller'),
    async ({ runts }) => {
      const wait = 'while [ ! -e /go ]; do sleep 0.05; done; exec tail /dev/zero'
      running(runts, ['sh', '-c', wait], { memory: { limit: 16 * MIB, swap: 16 * MIB } })
      const command = runts.start(['events', '--interval', '1h', 'c'])
      await until('the watch', () => hasWatch(command.pid))
      await runts.ok('exec', 'c', 'touch', '/go')
      expect(await command.finished).toMatchObject({ code: 0, stdout: '{"type":"oom","id":"c"}\n', stderr: '' })
    },
  )

  test('is quiet when its reader has seen enough', async ({ runts }) => {
    running(runts)
    const words = ['events', '--interval', '20ms', 'c'].join(' ')
    const script = `'${OCI_RUNTIME}' --root '${runts.root}' ${words} | head -n 2 >/dev/null; echo "\${PIPESTATUS[*]}"`
    const { stdout, stderr } = spawnSync('bash', ['-c', script], { encoding: 'utf8', timeout: 60_000 * SLOWNESS })
    expect({ stdout, stderr }).toEqual({ stdout: '0 0\n', stderr: '' })
  })

  test('Ctrl-C ends it without a word, and the container goes on', async ({ runts }) => {
    running(runts)
    const command = runts.start(['events', '--interval', '100ms', 'c'])
    await command.untilOutput('stats')
    command.kill('SIGINT')
    const { signal, stdout, stderr } = await command.finished
    expect({ signal, stderr }).toEqual({ signal: 'SIGINT', stderr: '' })
    expect(stdout.endsWith('\n')).toBe(true)
    expect((await runts.state('c'))['status']).toBe('running')
  })

  test('tells of memory pressure when asked to', needs('memory controller'), async ({ runts }) => {
    running(runts, HUNGRY, LITTLE)
    const command = runts.start(['events', '--interval', '1h', '--memory-pressure', 'low', 'c'])
    await command.untilOutput('memory-pressure')
    await runts.ok('kill', 'c', 'KILL')
    const { stdout, stderr } = await command.finished
    expect(stderr).toBe('')
    expect(stdout.split('\n')[0]).toBe('{"type":"memory-pressure","id":"c","data":{"level":"low"}}')
    expect(await runts.run('events', '--memory-pressure', 'high', 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('must be low, medium or critical'),
    })
  })
})

/** Whether a program watches for OOM kills: by an eventfd on v1, by inotify on v2. */
function hasWatch(pid: number): boolean {
  const ls = spawnSync('ls', ['-l', `/proc/${pid}/fd`], { encoding: 'utf8' }).stdout
  return isCgroup2() ? ls.includes('anon_inode:inotify') : ls.split('anon_inode:[eventfd]').length > 3
}

describe('a container as an object', needs('root', 'memory controller'), () => {
  test('notifies of memory pressure until nobody asks, and until its end', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const container = await Container.run(
      library.options(runts, 'c1', streams, HUNGRY, (spec) => {
        spec.linux.resources = LITTLE
      }),
    )
    for await (const level of container.notifyMemoryPressure('low')) {
      expect(level).toBe('low')
      break
    }
    const stop = new AbortController()
    const aborted = container.notifyMemoryPressure('critical', { signal: stop.signal }).next()
    stop.abort()
    expect((await aborted).done).toBe(true)
    const rest = (async () => {
      for await (const _ of container.notifyMemoryPressure('medium'));
    })()
    await container.destroy({ force: true })
    await rest
  })

  test('counts what its cgroups and its interfaces say, and no interface after its end', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const container = await Container.run(library.options(runts, 'c1', streams, ['sleep', '100']))
    const { cgroup, network } = await container.stats()
    expect(cgroup.pids.current).toBe(1n)
    expect(network.map(({ name }) => name)).toContain('lo')
    await container.signal(9)
    await container.init.wait()
    expect((await container.stats()).network).toEqual([])
    await container.destroy()
  })
})
