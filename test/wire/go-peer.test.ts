/**
 * Both directions against the Go implementation: our client calls the events service of a private containerd, and
 * `ctr shim` calls a Task service of ours.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { EventsService, type StateRequest, TaskExit, TaskService, TaskStatus } from '../../proto/ttrpc-ts/gen/index.ts'
import {
  Code,
  createClient,
  packAny,
  type ServiceHandlers,
  TtrpcClient,
  TtrpcError,
  TtrpcServer,
} from '../../proto/ttrpc-ts/index.ts'
import { needs } from '../support/needs.ts'

const run = promisify(execFile)
const SHIM_SOCKETS = '/run/containerd/s'

describe('with the Go peer', needs('containerd'), () => {
  let dir: string
  let daemon: ChildProcess
  let log = ''

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'ctrd-'))
    // its sockets belong to root unless it is told otherwise, and only root may do that
    const owner = [`  uid = ${process.getuid?.()}`, `  gid = ${process.getgid?.()}`]
    const config = [
      'version = 2',
      `root = "${dir}/root"`,
      `state = "${dir}/state"`,
      'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
      '[grpc]',
      `  address = "${dir}/c.sock"`,
      ...owner,
      '[ttrpc]',
      `  address = "${dir}/c.sock.ttrpc"`,
      ...owner,
    ]
    writeFileSync(join(dir, 'config.toml'), config.join('\n'))
    daemon = spawn('containerd', ['--config', join(dir, 'config.toml')], { stdio: ['ignore', 'ignore', 'pipe'] })
    daemon.stderr?.on('data', (chunk) => {
      log += String(chunk)
    })
    for (let tries = 0; !existsSync(`${dir}/c.sock.ttrpc`); tries++) {
      if (daemon.exitCode !== null || tries > 600) throw new Error(`containerd did not start:\n${log}`)
      await delay(50)
    }
  }, 40_000)

  afterAll(async () => {
    if (daemon.exitCode === null) {
      daemon.kill('SIGTERM')
      await once(daemon, 'exit')
    }
    rmSync(dir, { recursive: true, force: true })
  })

  const event = () => ({
    namespace: 'default',
    topic: '/tasks/exit',
    timestamp: { seconds: BigInt(Math.floor(Date.now() / 1000)), nanos: 5 },
    event: packAny(TaskExit, {
      containerId: 'c1',
      id: 'c1',
      pid: 4321,
      exitStatus: 137,
      exitedAt: { seconds: -62135596800n },
    }),
  })
  const eventsClient = (client: TtrpcClient) => createClient(EventsService, client)

  test('Forward delivers an event to its subscribers', async () => {
    using client = new TtrpcClient({
      path: `${dir}/c.sock.ttrpc`,
      metadata: { 'containerd-namespace-ttrpc': 'default' },
    })
    const subscriber = spawn('ctr', ['--address', `${dir}/c.sock`, 'events'], { stdio: ['ignore', 'pipe', 'inherit'] })
    let seen = ''
    subscriber.stdout.on('data', (chunk) => {
      seen += String(chunk)
    })
    // Nothing tells when the subscription is in force, so the event is repeated until it shows up.
    for (let tries = 0; !seen.includes('4321') && tries < 100; tries++) {
      expect(await eventsClient(client).forward({ envelope: event() }, { timeoutMs: 5000 })).toEqual({})
      await delay(50)
    }
    subscriber.kill()
    expect(seen).toMatch(/default \/tasks\/exit .*"container_id":"c1".*"pid":4321,"exit_status":137/)
  })

  test('Forward with a bad topic fails with InvalidArgument, and the connection goes on', async () => {
    using client = new TtrpcClient({
      path: `${dir}/c.sock.ttrpc`,
      metadata: { 'containerd-namespace-ttrpc': 'default' },
    })
    const bad = { envelope: { ...event(), topic: 'no slash' } }
    await expect(eventsClient(client).forward(bad, { timeoutMs: 5000 })).rejects.toMatchObject({
      name: 'TtrpcError',
      code: Code.INVALID_ARGUMENT,
    })
    expect(await eventsClient(client).forward({ envelope: event() }, { timeoutMs: 5000 })).toEqual({})
  })

  test('fifty calls at once are all answered', async () => {
    using client = new TtrpcClient({
      path: `${dir}/c.sock.ttrpc`,
      metadata: { 'containerd-namespace-ttrpc': 'default' },
    })
    const calls = Array.from({ length: 50 }, () =>
      eventsClient(client).forward({ envelope: event() }, { timeoutMs: 5000 }),
    )
    expect(await Promise.all(calls)).toHaveLength(50)
  })

  test('an unknown service and an unknown method fail with Unimplemented', async () => {
    using client = new TtrpcClient({ path: `${dir}/c.sock.ttrpc` })
    const { forward } = EventsService.methods
    await expect(client.call({ service: 'no.Such', method: forward }, {})).rejects.toMatchObject({
      code: Code.UNIMPLEMENTED,
    })
    const method = { ...forward, name: 'Fly' }
    await expect(client.call({ service: EventsService.typeName, method }, {})).rejects.toMatchObject({
      code: Code.UNIMPLEMENTED,
    })
  })

  test('ctr shim reads our Task service', needs('root'), async () => {
    const id = `ttrpc-ts-${Date.now()}`
    const asked: StateRequest[] = []
    const none = () => {
      throw new TtrpcError(Code.UNIMPLEMENTED, 'not in this test')
    }
    const handlers: Partial<ServiceHandlers<typeof TaskService>> = Object.fromEntries(
      Object.keys(TaskService.methods).map((key) => [key, none]),
    )
    const server = new TtrpcServer().register(TaskService, {
      ...handlers,
      state: (request) => {
        asked.push(request)
        return {
          id,
          bundle: '/b',
          pid: 77,
          status: TaskStatus.RUNNING,
          exitedAt: { seconds: -62135596800n },
          terminal: true,
        }
      },
      start: async () => {
        throw new TtrpcError(Code.FAILED_PRECONDITION, 'cannot start a running process: failed precondition')
      },
    } as ServiceHandlers<typeof TaskService>)
    // Where ctr looks for every shim: a hash of the daemon's address, which is ours alone, the namespace and the id.
    const hash = createHash('sha256').update(`${dir}/c.sock/default/${id}`).digest('hex')
    mkdirSync(SHIM_SOCKETS, { recursive: true, mode: 0o700 })
    await server.listen({ path: join(SHIM_SOCKETS, hash) })
    const ctr = (...args: string[]) =>
      run('ctr', ['--address', `${dir}/c.sock`, 'shim', '--id', id, ...args], { timeout: 20_000 })
    try {
      const { stdout } = await ctr('state')
      expect(JSON.parse(stdout)).toMatchObject({ id, bundle: '/b', pid: 77, terminal: true })
      expect(asked).toEqual([{ id, execId: '' }])
      await expect(ctr('start')).rejects.toMatchObject({
        stderr: expect.stringContaining('cannot start a running process'),
      })
    } finally {
      await server.close()
    }
  })
})
