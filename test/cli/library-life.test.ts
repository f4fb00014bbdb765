/**
 * The runtime as a library: statuses and what they refuse, limits that are kept, giving up, and what is recorded of a
 * container.
 */
import { chmodSync, existsSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, describe, expect } from 'vitest'
import { detectMode, readHierarchies } from '../../runtime/cgroup/hierarchy.ts'
import {
  Container,
  configFilePath,
  configureLogging,
  createPidFile,
  decodeFileJson,
  deviceFromPath,
  hostDevices,
  parseResources,
  processPipes,
  RuntimeError,
  runtimePath,
  StatusCode,
} from '../../runtime/index.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { until } from '../support/command.ts'
import { FdListener, Library, Streams } from '../support/library.ts'
import { needs } from '../support/needs.ts'
import { LIB } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'

const library = new Library()
afterAll(() => library[Symbol.dispose]())

const SLEEP = ['sleep', '100']
const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'it did not fail',
    (e: unknown) => e,
  )

describe('a status', needs('root'), () => {
  test('says why something is refused, as a fact beside the message', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const container = await Container.create(library.options(runts, 'c1', streams, SLEEP))
    const refused = (status: string) => ({ code: 'FailedPrecondition', detail: { source: 'state', status } })
    expect(await failure(container.resume())).toMatchObject(refused('created'))
    await container.start()
    expect(await failure(container.start())).toMatchObject(refused('running'))
    expect(await failure(container.destroy())).toMatchObject(refused('running'))
    await container.pause()
    const process = { ...container.spec.process, args: ['true'] }
    const { stdio } = streams
    expect(await failure(container.exec({ process, stdio, reaper: library.reaper }))).toMatchObject(refused('paused'))
    expect(await failure(container.pause())).toMatchObject(refused('paused'))
    await container.resume()
    await container.signal(9)
    await container.init.wait()
    expect(await failure(container.set(parseResources('{}')))).toMatchObject(refused('stopped'))
    expect(await failure(container.start())).toMatchObject(refused('stopped'))
    await container.destroy()
    expect(Object.keys(StatusCode).map((name) => StatusCode[name as keyof typeof StatusCode])).toEqual([0, 1, 2, 3, 4])
  })

  test('that is wanted already is fine for who is not strict', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const container = await Container.run(library.options(runts, 'c1', streams, SLEEP))
    await container.resume({ strict: false })
    await container.pause()
    await container.pause({ strict: false })
    expect(container.status()).toBe('paused')
    await container.resume({ strict: false })
    expect(container.status()).toBe('running')
    await container.destroy({ force: true })
  })

  test('of a container below a frozen cgroup is still running', needs('cgroup1'), async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const container = await Container.run(library.options(runts, 'c1', streams, SLEEP))
    const parent = join(dirname(container.cgroup.paths['freezer'] ?? ''), 'freezer.state')
    writeFileSync(parent, 'FROZEN')
    try {
      expect(container.status()).toBe('running')
    } finally {
      writeFileSync(parent, 'THAWED')
    }
    await container.destroy({ force: true })
  })
})

/** What can be done with a container, and in which statuses it can. */
const ACTIONS: Readonly<Record<string, readonly [statuses: string, act: (c: Container, s: Streams) => unknown]>> = {
  start: ['created', (container) => container.start()],
  exec: [
    'created running',
    (container, { stdio }) => container.exec({ process: { args: ['true'] }, stdio, reaper: library.reaper }),
  ],
  pause: ['created running', (container) => container.pause()],
  resume: ['paused', (container) => container.resume()],
  set: ['created running paused', (container) => container.set(parseResources('{"pids":{"limit":100}}'))],
  signal: ['created running paused', (container) => container.signal(10)],
  destroy: ['created stopped', (container) => container.destroy()],
  'destroy by force': ['created running paused stopped', (container) => container.destroy({ force: true })],
}

describe('every action in every status', needs('root'), () => {
  const make = async (runts: Runts, streams: Streams, status: string): Promise<Container> => {
    const id = `c${Container.list(runts.root).length}`
    const container = await Container.create(library.options(runts, id, streams, SLEEP))
    if (status !== 'created') await container.start()
    if (status === 'paused') await container.pause()
    if (status === 'stopped') await container.signal(9)
    if (status === 'stopped') await container.init.wait()
    expect(container.status()).toBe(status)
    return container
  }

  for (const owner of ['its maker', 'somebody else']) {
    test.for(['created', 'running', 'paused', 'stopped'])(
      `is done or refused as the table says: %s, by ${owner}`,
      async (status, { runts }) => {
        using streams = new Streams(runts.folder, 'init')
        const seen = async (): Promise<Container> => {
          const container = await make(runts, streams, status)
          return owner === 'its maker' ? container : Container.load(runts.root, container.id)
        }
        const one = await seen()
        for (const [name, [statuses, act]] of Object.entries(ACTIONS)) {
          if (statuses.includes(status)) {
            await act(await seen(), streams)
            continue
          }
          const error = await failure(Promise.resolve().then(() => act(one, streams)))
          const code = name === 'signal' ? 'NotFound' : 'FailedPrecondition'
          expect(error, `${name}: ${error}`).toMatchObject({ code })
          expect(one.status(), name).toBe(status)
        }
        for (const id of Container.list(runts.root)) await Container.load(runts.root, id).destroy({ force: true })
      },
    )
  }
})

describe('limits', needs('root'), () => {
  test('that are set are kept, whoever looks, and others stay', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const options = library.options(runts, 'c1', streams, SLEEP, (spec) => {
      spec.linux.resources = { pids: { limit: 50 }, cpu: { shares: 512 } }
    })
    const container = await Container.run(options)
    const other = Container.load(runts.root, 'c1')
    await container.set(parseResources('{"pids":{"limit":60}}'))
    await other.set(parseResources('{"cpu":{"shares":256}}'))
    const { resources } = Container.load(runts.root, 'c1').spec.linux
    expect(resources).toMatchObject({ pids: { limit: 60n }, cpu: { shares: 256n } })
    expect(other.spec.linux.resources).toEqual(resources)
    const refused = failure(container.set(parseResources('{"pids":{"limit":70},"cpu":{"cpus":"4000"}}')))
    expect(await refused).toBeInstanceOf(RuntimeError)
    expect(Container.load(runts.root, 'c1').spec.linux.resources).toEqual(resources)
    const { pids = '' } = container.cgroup.paths
    if (pids !== '') expect(readFileSync(join(pids, 'pids.max'), 'utf8')).toBe('60\n')
    await container.destroy({ force: true })
  })

  test(
    'of memory that are too low for the set-up are the reason that is told',
    needs('memory controller'),
    async ({ runts }) => {
      using streams = new Streams(runts.folder, 'init')
      const options = library.options(runts, 'c1', streams, SLEEP, (spec) => {
        spec.linux.resources = { memory: { limit: 4096, swap: 4096 } }
        // hooks run inside the limits
        spec.hooks = { createContainer: [{ path: '/bin/true' }] }
      })
      const message = 'container init was OOM-killed (memory limit too low?)'
      expect(await failure(Container.create(options))).toMatchObject({ code: 'ResourceExhausted', message })
      expect(Container.list(runts.root)).toEqual([])
    },
  )

  test('of memory that end a process are counted for who listens', needs('memory controller'), async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const options = library.options(runts, 'c1', streams, SLEEP, (spec) => {
      spec.linux.resources = { memory: { limit: 16 << 20, swap: 16 << 20 } }
    })
    const container = await Container.run(options)
    const counts = container.notifyOom()
    const first = counts.next()
    const process = { args: ['tail', '/dev/zero'] }
    const fat = await container.exec({ process, stdio: streams.stdio, reaper: library.reaper })
    await fat.wait()
    expect(await first).toEqual({ done: false, value: 1 })
    const last = counts.next()
    await container.destroy({ force: true })
    expect(await last).toEqual({ done: true, value: undefined })
    const canceled = container.notifyOom({ signal: AbortSignal.abort() })
    expect((await canceled.next()).done).toBe(true)
  })
})

describe('giving up', needs('root'), () => {
  test('a create leaves nothing, and its error says whether it was time or the caller', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const options = library.options(runts, 'c1', streams, SLEEP, (spec) => {
      spec.hooks = { createRuntime: [{ path: '/bin/sleep', args: ['sleep', '1000'] }] }
    })
    const late = await failure(Container.create({ ...options, signal: AbortSignal.timeout(100) }))
    expect(late).toMatchObject({ code: 'DeadlineExceeded', message: 'cannot create container "c1": it took too long' })
    const stop = new AbortController()
    const creating = failure(Container.create({ ...options, signal: stop.signal }))
    await until('its claim', () => existsSync(join(runts.root, 'c1')))
    stop.abort()
    expect(await creating).toMatchObject({ code: 'Canceled' })
    expect(await failure(Container.create({ ...options, signal: stop.signal }))).toMatchObject({ code: 'Canceled' })
    expect(Container.list(runts.root)).toEqual([])
  })

  test('an exec leaves no process', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const container = await Container.run(library.options(runts, 'c1', streams, SLEEP))
    const exec = { process: { args: SLEEP }, stdio: streams.stdio, reaper: library.reaper }
    expect(await failure(container.exec({ ...exec, signal: AbortSignal.abort() }))).toMatchObject({ code: 'Canceled' })
    const stop = new AbortController()
    const running = failure(container.exec({ ...exec, signal: stop.signal }))
    stop.abort()
    expect(await running).toMatchObject({ code: 'Canceled' })
    expect(container.processes()).toEqual([container.init.pid])
    await container.destroy({ force: true })
  })
})

describe('a process', needs('root'), () => {
  test("has of the container's own what its document leaves out", async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const options = library.options(runts, 'c1', streams, SLEEP, (spec) => {
      Object.assign(spec.process, { noNewPrivileges: true, cwd: '/tmp', user: { uid: 7, gid: 8 } })
      spec.process.env = ['PATH=/bin', 'A=1', 'B=2', 'A=3']
      spec.process.rlimits = [{ type: 'RLIMIT_NOFILE', soft: 100, hard: 200 }]
    })
    const container = await Container.run(options)
    const script = 'grep NoNewPrivs /proc/self/status; pwd; id -u; id -g; ulimit -n'
    const run = async (more: object): Promise<string[]> => {
      using output = new Streams(runts.folder, 'exec')
      const process = { args: ['sh', '-c', script], ...more }
      await (await container.exec({ process, stdio: output.stdio, reaper: library.reaper })).wait()
      return output.text.split('\n')
    }
    expect((await run({})).slice(0, 5)).toEqual(['NoNewPrivs:\t1', '/tmp', '7', '8', '100'])
    // the last of two counts, where it stands
    const environment = (await run({ args: ['cat', '/proc/self/environ'] })).join('').split('\0')
    expect(environment.filter((variable) => /^[AB]=/.test(variable))).toEqual(['B=2', 'A=3'])
    const other = await run({ noNewPrivileges: false, cwd: '/', user: { uid: 0, gid: 0, additionalGids: [] } })
    expect(other.slice(0, 4)).toEqual(['NoNewPrivs:\t0', '/', '0', '0'])
    await container.destroy({ force: true })
  })

  test('in a user namespace can open its pipes again, which are our streams', async ({ runts }) => {
    const map = [{ containerID: 0, hostID: 100_000, size: 65_536 }]
    // a mapped root has to get to its root file system
    chmodSync(runts.folder, 0o755)
    using none = new Streams(runts.folder, 'none')
    const command = ['sh', '-c', 'read line < /dev/stdin; echo got $line > /dev/stdout; echo bad > /dev/stderr']
    const options = library.options(runts, 'c1', none, command, (spec) => {
      spec.linux.namespaces.push({ type: 'user' })
      Object.assign(spec.linux, { uidMappings: map, gidMappings: map })
      spec.process.user = { uid: 1000, gid: 1000 }
    })
    using pipes = processPipes(options.spec)
    const container = await Container.run({ ...options, stdio: pipes.stdio })
    pipes.started()
    pipes.stdin.end('a line\n')
    const said = await Promise.all([text(pipes.stdout), text(pipes.stderr)])
    expect(said).toEqual(['got a line\n', 'bad\n'])
    expect(await container.init.wait()).toMatchObject({ exitCode: 0 })
    await container.destroy()
  })

  test('of another kind is put in place of the one of the document, and checked', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const options = library.options(runts, 'c1', streams, ['kernel', '--quiet'])
    const container = await Container.run({
      ...options,
      transformProcess: ({ process }, bundle) => ({
        ...process,
        args: ['echo', ...process.args, bundle === options.bundle ? 'ours' : 'not ours'],
      }),
    })
    await container.init.wait()
    expect(streams.text).toBe('kernel --quiet ours\n')
    expect(Container.load(runts.root, 'c1').spec.process.args[0]).toBe('echo')
    await container.destroy()
    const empty = Container.create({ ...options, transformProcess: ({ process }) => ({ ...process, args: [] }) })
    expect(await failure(empty)).toMatchObject({ code: 'InvalidArgument', detail: { pointer: '/args' } })
  })

  test('has its terminal sent to a console socket, and its size from its document', async ({ runts }) => {
    using none = new Streams(runts.folder, 'none')
    await using listener = await FdListener.open(join(runts.folder, 'console.sock'))
    const options = library.options(runts, 'c1', none, SLEEP, (spec) => {
      Object.assign(spec.process, { terminal: true, consoleSize: { width: 91, height: 17 } })
    })
    const socket = { consoleSocket: listener.path }
    expect(await failure(Container.create({ ...options, ...socket }))).toMatchObject({ code: 'InvalidArgument' })
    const container = await Container.create({ ...options, stdio: { kind: 'terminal' }, ...socket })
    using received = await listener.receive()
    expect(received.fd.fd).toBeGreaterThan(2)
    expect(container.init.console).toBeUndefined()
    expect(container.info().consoleSocket).toBe(listener.path)
    await container.destroy({ force: true })
  })
})

describe('what is recorded', needs('root'), () => {
  test('of a container is the same for everybody, and says who watches it', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const options = library.options(runts, 'c1', streams, SLEEP, (spec) => {
      spec.annotations = { 'org.example.key': 'a value' }
    })
    const pidFile = join(runts.folder, 'c1.pid')
    const container = await Container.create({ ...options, pidFile, gates: { seccomp: false }, logger: silentLogger })
    expect(readFileSync(pidFile, 'utf8')).toBe(String(container.init.pid))
    const { bundle } = options
    const annotations = { 'org.example.key': 'a value' }
    expect(container.info()).toMatchObject({ containerId: 'c1', runtimeRoot: runts.root, bundlePath: bundle, pidFile })
    expect(container.info()).toMatchObject({
      annotations,
      featuresOff: ['seccomp'],
      cgroupDirs: container.cgroup.paths,
    })
    expect(Container.load(runts.root, 'c1').info()).toEqual(container.info())
    expect(container.ociState()).toMatchObject({ monitorPid: globalThis.process.pid })
    const state = decodeFileJson(runtimePath(runts.root, 'c1', 'state.json'))
    expect(state).toMatchObject({
      external_descriptors: ['/dev/null', join(runts.folder, 'init.out'), expect.anything()],
    })
    expect(() => runtimePath(runts.root, 'c1', '..', 'c2')).toThrow('invalid name')
    expect(decodeFileJson(configFilePath(runts.root, 'c1'))).toMatchObject({ ociVersion: '1.0.2' })
    await container.destroy()
  })

  test('of a container that somebody else made, and left, names nobody who watches', async ({ runts }) => {
    runts.leave('create', '-b', runts.bundle(SLEEP), 'c1')
    expect(Container.load(runts.root, 'c1').ociState()).not.toHaveProperty('monitorPid')
    await runts.ok('delete', 'c1')
  })

  test('of its start goes to one log, with a level of its own for the container side', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const path = join(runts.folder, 'log')
    {
      using log = configureLogging('test', { path, format: 'json', containerLevel: 'debug' }, 'c1')
      const { logger, containerLogger } = log
      const options = { ...library.options(runts, 'c1', streams, ['true']), logger, containerLogger }
      const container = await Container.run(options)
      await container.init.wait()
      await container.destroy()
    }
    const lines = readFileSync(path, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line): unknown => JSON.parse(line))
    expect(lines.length).toBeGreaterThan(0)
    for (const line of lines) expect(line).toMatchObject({ level: 'debug', cmd: 'test', cid: 'c1' })
    expect(lines[0]).toMatchObject({ time: expect.stringMatching(/Z$/), msg: expect.any(String) })
  })
})

test('the helper is a program, or nothing is made', needs('root'), async ({ runts }) => {
  using streams = new Streams(runts.folder, 'init')
  const options = library.options(runts, 'c1', streams, ['true'])
  const initPath = join(runts.folder, 'helper')
  expect(await failure(Container.create({ ...options, initPath }))).toMatchObject({ code: 'NotFound' })
  writeFileSync(initPath, readFileSync(join(LIB, 'ts-init')), { mode: 0o644 })
  expect(await failure(Container.create({ ...options, initPath }))).toMatchObject({ code: 'PermissionDenied' })
  expect(Container.list(runts.root)).toEqual([])
})

test('devices of the host are entries of a config', needs('root'), () => {
  expect(deviceFromPath('/dev/null')).toMatchObject({ type: 'c', path: '/dev/null', major: 1, minor: 3 })
  expect(hostDevices()).toContainEqual(deviceFromPath('/dev/zero'))
  expect(hostDevices().some(({ path }) => path.startsWith('/dev/pts/'))).toBe(false)
  expect(() => deviceFromPath('/dev')).toThrow('not a device node')
  expect(() => deviceFromPath('/dev/no-such')).toThrow('ENOENT')
})

test('a pid file appears whole, and leaves nothing beside it', ({ runts }) => {
  const path = join(runts.folder, 'pid')
  createPidFile(path, 42)
  createPidFile(path, 43)
  expect(readFileSync(path, 'utf8')).toBe('43')
  expect(readdirSync(runts.folder).filter((name) => name.includes('pid'))).toEqual(['pid'])
  expect(() => createPidFile('/no/such/folder/pid', 1)).toThrow(
    'cannot write the pid file "/no/such/folder/pid": ENOENT',
  )
})

test('a JSON file keeps every digit', ({ runts }) => {
  const path = join(runts.folder, 'numbers.json')
  writeFileSync(path, '{"limit": 18446744073709551615, "small": 7}')
  expect(decodeFileJson(path)).toEqual({ limit: 18_446_744_073_709_551_615n, small: 7 })
  expect(() => decodeFileJson(`${path}.none`)).toThrow('ENOENT')
})

test(
  'the command that waits for a container can be moved to a cgroup of its own',
  needs('cgroup1'),
  async ({ runts }) => {
    const monitor = `/${runts.name}/monitor`
    const bundle = runts.bundle(['sh', '-c', 'echo up; exec sleep 100'])
    const running = runts.start(['--monitor-cgroup', monitor, 'run', '-b', bundle, 'c1'])
    await until('the container', async () => (await runts.run('state', 'c1')).code === 0)
    const state = await runts.state('c1')
    const cgroups = (pid: unknown): string => readFileSync(`/proc/${pid}/cgroup`, 'utf8')
    expect(cgroups(state['monitorPid'])).toMatch(new RegExp(`^\\d+:freezer:${monitor}$`, 'm'))
    expect(cgroups(state['pid'])).toMatch(new RegExp(`^\\d+:freezer:/${runts.name}/1$`, 'm'))
    expect(Container.load(runts.root, 'c1').info().monitorCgroup).toBe(monitor)
    await runts.ok('kill', 'c1', 'KILL')
    expect((await running.finished).code).toBe(137)
    for (const { mountpoint } of readHierarchies(detectMode())) rmdirSync(mountpoint + monitor)
    const inside = runts.run('--monitor-cgroup', `/${runts.name}/2/x`, 'create', '-b', runts.bundle(SLEEP), 'c2')
    expect(await inside).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("it is the container's own or inside"),
    })
  },
)
