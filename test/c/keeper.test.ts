/** The keeper with workers that the test drives: what outlives a worker, what wakes one, and what is refused. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { FIRST_CONNECTION_KEY, KEEPER_LIMITS, REQUESTS, STATUS_FLAGS, WAKE_REASONS } from '../../proto/keeper.ts'
import { encodeRequest } from '../../runtime/keeper/messages.ts'
import { connectUnix, peerCredentials } from '../../runtime/sys/socket.ts'
import { expectRefusal, socketPath } from '../cli/launcher-layout.ts'
import { until } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { type KeeperHost, test, type Worker } from './keeper-host.ts'

const POLLIN = 1
const [ENOENT, E2BIG, EINVAL, EMFILE, ENOSYS, EMSGSIZE] = [2, 7, 22, 24, 38, 90]
const [SIGHUP, SIGTERM, SIGUSR1] = [1, 15, 10]
const bit = (signal: number): number => 2 ** signal

async function begin(host: KeeperHost): Promise<Worker> {
  expect(host.start()).toMatchObject({ status: 0, stderr: '' })
  const worker = await host.worker()
  await worker.takesOver()
  return worker
}

/** A fifo. What reads a line of it waits until the test opens the gate. */
function makeGate(host: KeeperHost, name = 'gate'): { path: string; open(): void } & Disposable {
  const path = join(host.layout.root, name)
  spawnSync('mkfifo', [path])
  const fd = openSync(path, 'r+')
  return { path, open: () => void writeSync(fd, 'open\n'), [Symbol.dispose]: () => closeSync(fd) }
}

const filesOf = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length

describe('a keeper', needs('gcc', 'root'), () => {
  test('keeps descriptors and the state file for the next worker', async ({ host }) => {
    const worker = await begin(host)
    worker.do({ do: 'keep', key: 7, events: 0, path: '/dev/zero' })
    worker.do({ do: 'keep', key: 8, events: 0, path: '/dev/zero' })
    worker.do({ do: 'keep', key: 8, events: POLLIN, path: '/dev/null' })
    worker.do({ do: 'keep', key: 9, events: 0, path: '/dev/null' })
    worker.do({ do: 'drop', key: 9 })
    worker.do({ do: 'save', text: 'what I know' })
    await worker.dies()
    const next = await host.worker()
    expect(await next.hears('notice')).toMatchObject({ notice: 'kept', key: 7, events: 0, file: '/dev/zero' })
    expect(await next.hears('notice')).toMatchObject({ notice: 'kept', key: 8, events: POLLIN, file: '/dev/null' })
    expect(await next.takesOver()).toMatchObject({ reasons: WAKE_REASONS.DEATH, workers: 2, deaths: 1 })
    next.do({ do: 'restore' })
    expect(await next.hears('magic')).toEqual({ magic: 'TSKS', keeper: host.pid, saved: 'what I know' })
  })

  test('hands two hundred descriptors over', async ({ host }) => {
    const worker = await begin(host)
    for (let key = 0; key < 200; key++) worker.do({ do: 'keep', key, events: 0, path: '/dev/zero' })
    await worker.dies()
    const next = await host.worker()
    await next.takesOver()
    const keys = next.told.flatMap((told) => (told['notice'] === 'kept' ? [told['key']] : []))
    expect(keys).toEqual(Array.from({ length: 200 }, (_, key) => key))
  })

  test('carries out what a worker asked for just before it was killed', async ({ host }) => {
    const worker = await begin(host)
    for (let key = 0; key < 20; key++) worker.do({ do: 'keep', key, events: 0, path: '/dev/zero' })
    worker.do({ do: 'drop', key: 3 })
    await worker.dies()
    const next = await host.worker()
    await next.takesOver()
    expect(next.told.filter((told) => told['notice'] === 'kept')).toHaveLength(19)
  })

  test('tells a process of an earlier worker, and its exit until that is acknowledged', async ({ host }) => {
    using gate = makeGate(host)
    const { path, open } = gate
    const worker = await begin(host)
    worker.do({ do: 'spawn', argv: ['/bin/sh', '-c', `read x <${path}; exit 3`] })
    const { spawned: pid } = await worker.hears('spawned')
    await worker.dies()
    const second = await host.worker()
    const { tag, number } = await second.hears('notice', 'process')
    expect(second.told[0]).toMatchObject({ pid, ended: 0 })
    await second.takesOver()
    const before = Date.now() * 1e6
    open()
    const exit = await second.hears('ended', 1)
    expect(exit).toMatchObject({ pid, tag, number, status: 3 << 8 })
    expect(Number(exit['time'])).toBeGreaterThan(before - 5e6)
    expect(Number(exit['time'])).toBeLessThan(Date.now() * 1e6 + 5e6)
    await second.dies()
    const third = await host.worker()
    expect(await third.hears('notice', 'process')).toMatchObject({ ...exit, ended: 1 })
    await third.takesOver()
    third.do({ do: 'acknowledge', number: Number(number) })
    await third.dies()
    const fourth = await host.worker()
    await fourth.takesOver()
    expect(fourth.told.filter((told) => told['notice'] === 'process')).toEqual([])
  })

  test('reaps orphans, and tells their exits as those of nobody', async ({ host }) => {
    const worker = await begin(host)
    worker.do({
      do: 'spawn',
      argv: ['/bin/sh', '-c', '(read x </proc/self/nothing; kill -9 $(exec sh -c "echo \\$PPID")) &'],
    })
    const { spawned: pid } = await worker.hears('spawned')
    await until('both exits are told', () => worker.told.filter((told) => told['ended'] === 1).length === 2)
    const exits = worker.told.filter((told) => told['ended'] === 1)
    expect(exits.find((exit) => exit['pid'] === pid)).toMatchObject({ status: 0, tag: expect.any(Number) })
    expect(exits.find((exit) => exit['pid'] !== pid)).toMatchObject({ status: 9, tag: 0 })
  })

  test('starts a program by its descriptor, in a folder, in a group of its own, with default signals', async ({
    host,
  }) => {
    const worker = await begin(host)
    const out = join(host.layout.root, 'out')
    // grep takes the shell's place, since a shell blocks signals for a moment while it starts a program
    const script = `exec >${out}; pwd; echo $X; cut -d' ' -f5 /proc/$$/stat; ls /proc/$$/fd; ulimit -n; exec grep -E 'Sig(Blk|Ign)' /proc/self/status`
    worker.do({
      do: 'spawn',
      program: '/bin/sh',
      argv: ['sh', '-c', script],
      env: ['X=y', 'PATH=/usr/bin:/bin'],
      cwd: '/usr',
    })
    const { spawned: pid } = await worker.hears('spawned')
    expect(await worker.hears('ended', 1)).toMatchObject({ pid, status: 0 })
    const limit = /open files +(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]
    expect(readFileSync(out, 'utf8').split('\n')).toEqual([
      '/usr',
      'y',
      String(pid),
      '0',
      '1',
      '2',
      limit,
      expect.stringMatching(/^SigBlk:\s+0+$/),
      expect.stringMatching(/^SigIgn:\s+0+$/),
      '',
    ])
  })

  test('starts a program with a megabyte of environment', async ({ host }) => {
    const worker = await begin(host)
    const env = Array.from({ length: 16 }, (_, i) => `X${i}=${'x'.repeat(65536)}`)
    worker.do({ do: 'spawn', argv: ['/bin/sh', '-c', 'test -n "$X15"'], env })
    await worker.hears('spawned')
    expect(await worker.hears('ended', 1)).toMatchObject({ status: 0 })
  })

  test.for([
    [['/no/such'], undefined, 'ENOENT'],
    [['/etc/passwd'], undefined, 'EACCES'],
    [['/bin/true'], '/no/such', 'ENOENT'],
  ] as const)('says why %s cannot be started in %s', async ([argv, cwd, why], { host }) => {
    const worker = await begin(host)
    worker.do({ do: 'spawn', argv: [...argv], ...(cwd === undefined ? {} : { cwd }) })
    expect(String((await worker.hears('failed'))['failed'])).toContain(why)
  })

  test('keeps a connection, with what its client has sent, across workers', async ({ host }) => {
    const worker = await begin(host)
    const client = await host.connect()
    const { key } = await worker.hears('file', 'socket')
    expect(Number(key)).toBeGreaterThanOrEqual(FIRST_CONNECTION_KEY)
    client.write('a request')
    await worker.dies()
    const next = await host.worker()
    expect(await next.hears('file', 'socket')).toMatchObject({ key, events: POLLIN })
    next.do({ do: 'receive', key: Number(key) })
    expect(await next.hears('received')).toEqual({ received: 'a request' })
    next.do({ do: 'answer', key: Number(key), text: 'an answer' })
    expect(String((await once(client, 'data'))[0])).toBe('an answer')
    const closed = once(client, 'close')
    next.do({ do: 'drop', key: Number(key) })
    await next.dies()
    await closed
  })

  test('is what its clients and ps see', async ({ host }) => {
    const worker = await begin(host)
    using connection = connectUnix(socketPath(host.layout))
    const { pid } = host
    expect(peerCredentials(connection.fd).pid).toBe(pid)
    const title = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
    expect(title).toBe(`containerd-shim-ts-v2 -namespace default -id c1 -address ${host.layout.address}\0`)
    expect(readFileSync(`/proc/${pid}/comm`, 'utf8')).toBe('containerd-shim\n')
    const score = Number(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8'))
    worker.do({ do: 'facts' })
    expect(await worker.hears('parent')).toEqual({
      parent: pid,
      group: worker.pid,
      blocked: '0000000000000000',
      score: Math.min(1000, score + 1),
      log: join(host.layout.bundle, 'log'),
    })
  })

  test('costs less than 200 KiB', async ({ host }) => {
    const worker = await begin(host)
    await worker.parks()
    const rollup = readFileSync(`/proc/${host.pid}/smaps_rollup`, 'utf8')
    expect(Number(/^Pss_Anon:\s+(\d+)/m.exec(rollup)?.[1])).toBeLessThan(200)
  })

  test('cannot be started without a worker, and says why', async ({ host }) => {
    rmSync(join(host.layout.lib, 'node'))
    expectRefusal(host.start(), 'cannot run')
    host.layout.nothingIsLeft()
  })

  test('ends when its worker says so', async ({ host }) => {
    const worker = await begin(host)
    worker.do({ do: 'status', flags: STATUS_FLAGS.READY | STATUS_FLAGS.QUIT })
    await until('the keeper ends', () => !host.lives)
  })

  test('ends with its worker when it is killed', async ({ host }) => {
    const worker = await begin(host)
    process.kill(host.pid, 'SIGKILL')
    await until('the worker ends', () => worker.closed)
  })
})

describe('a keeper whose worker has parked', needs('gcc', 'root'), () => {
  test('gets a new one for a request, and not for a connection without one', async ({ host }) => {
    const worker = await begin(host)
    await worker.parks()
    const silent = await host.connect()
    const client = await host.connect()
    client.write('hello')
    const next = await host.worker()
    expect(await next.takesOver()).toMatchObject({ reasons: WAKE_REASONS.EVENT, workers: 2, deaths: 0 })
    expect(next.told.filter((told) => told['file'] === 'socket')).toHaveLength(2)
    silent.destroy()
  })

  test('gets a new one for an event of a marked descriptor, and not of another', async ({ host }) => {
    using marked = makeGate(host, 'marked')
    using other = makeGate(host, 'other')
    const worker = await begin(host)
    worker.do({ do: 'keep', key: 1, events: 0, path: marked.path })
    worker.do({ do: 'keep', key: 2, events: POLLIN, path: other.path })
    worker.do({ do: 'watch', key: 1, events: POLLIN })
    worker.do({ do: 'watch', key: 2, events: 0 })
    await worker.parks()
    other.open()
    marked.open()
    const next = await host.worker()
    expect(await next.takesOver()).toMatchObject({ reasons: WAKE_REASONS.EVENT, workers: 2 })
  })

  test('gets a new one at the time that was asked for', async ({ host }) => {
    const worker = await begin(host)
    const before = performance.now()
    await worker.parks(300)
    const next = await host.worker()
    expect(await next.takesOver()).toMatchObject({ reasons: WAKE_REASONS.TIME })
    expect(performance.now() - before).toBeGreaterThan(299)
  })

  test('gets a new one for an exit', async ({ host }) => {
    using gate = makeGate(host)
    const { path, open } = gate
    const worker = await begin(host)
    worker.do({ do: 'spawn', argv: ['/bin/sh', '-c', `read x <${path}`] })
    const { spawned: pid } = await worker.hears('spawned')
    await worker.parks()
    open()
    const next = await host.worker()
    expect(await next.hears('ended', 1)).toMatchObject({ pid, status: 0 })
    expect(await next.takesOver()).toMatchObject({ reasons: WAKE_REASONS.EXIT })
  })

  test.for([SIGHUP, SIGTERM, SIGUSR1])(
    'gets a new one for signal %i, which is told until it is acknowledged',
    async (signal, { host }) => {
      const worker = await begin(host)
      await worker.parks()
      process.kill(host.pid, signal)
      const second = await host.worker()
      expect(await second.takesOver()).toMatchObject({ reasons: WAKE_REASONS.SIGNAL, signals: bit(signal) })
      await second.parks()
      const third = await host.worker()
      expect(await third.takesOver()).toMatchObject({ reasons: WAKE_REASONS.SIGNAL, signals: bit(signal) })
      third.do({ do: 'status', flags: STATUS_FLAGS.READY, signals: bit(signal) })
      // its answer shows that the keeper has read what came before
      third.do({ do: 'spawn', argv: ['/bin/true'] })
      await third.hears('spawned')
      process.kill(host.pid, SIGTERM)
      expect(await third.hears('notice', 'go')).toMatchObject({ signals: bit(SIGTERM), workers: 3 })
    },
  )
})

describe('a keeper whose workers die', needs('gcc', 'root'), () => {
  test('before they are ready: starts them ever later, and gives up when no process is left', async ({ host }) => {
    host.start()
    const times: number[] = []
    for (let count = 0; count < 5; count++) {
      const worker = await host.worker()
      times.push(performance.now())
      await worker.dies()
    }
    const waits = times.slice(1).map((time, i) => time - (times[i] ?? 0))
    expect(waits[0]).toBeLessThan(3000)
    expect(Math.max(...waits)).toBeGreaterThan(3000)
    await until('the keeper ends', () => !host.lives)
    expect(existsSync(socketPath(host.layout))).toBe(false)
    expect(host.log()).toMatch(
      /level=warning msg="worker \d+ ended with wait status 0x9, before it was ready: .*" id=c1/,
    )
  })

  test('and do not park: has one line of the log for each', async ({ host }) => {
    const worker = await begin(host)
    await worker.dies()
    await (await host.worker()).takesOver()
    const lines = host
      .log()
      .split('\n')
      .filter((line) => line.includes('worker'))
    expect(lines).toEqual([
      `level=warning msg="worker ${worker.pid} ended with wait status 0x9: the next one takes over" id=c1`,
    ])
  })
})

describe('a keeper refuses', needs('gcc', 'root'), () => {
  const u32 = (...values: number[]): string =>
    Buffer.concat(values.map((value) => Buffer.from(Uint32Array.of(value).buffer))).toString('hex')
  const spawn = (change: object): string =>
    encodeRequest('spawn', { flags: 0, tag: 5n, argc: 1, envc: 0, textBytes: 4, ...change }).toString('hex')
  const { keep, drop, acknowledge, status } = REQUESTS

  test.for([
    ['an empty code', '01', 0, EINVAL],
    ['an unknown code', u32(99), 0, ENOSYS],
    ['code 0', u32(0), 0, ENOSYS],
    ['a code of 32 bits', u32(0xffffffff), 0, ENOSYS],
    ['a keep that is cut', u32(keep.code, 1), 1, EINVAL],
    ['a keep that is too long', u32(keep.code, 1, 0, 0), 1, EINVAL],
    ['a keep of two descriptors', u32(keep.code, 1, 0), 2, EINVAL],
    ['other events of an unknown key', u32(keep.code, 1, 0), 0, ENOENT],
    ['events that poll does not have', u32(keep.code, 1, 0x10000), 1, EINVAL],
    ['a drop with a descriptor', u32(drop.code, 1), 1, EINVAL],
    ['an acknowledgement of no exit', u32(acknowledge.code, 0, 77, 0), 0, ENOENT],
    ['a status that is cut', u32(status.code, 1), 0, EINVAL],
    ['a message that is too long', '05'.repeat(KEEPER_LIMITS.MESSAGE_MAX_BYTES + 1), 0, EMSGSIZE],
    ['more descriptors than a message can have', u32(keep.code, 1, 0), 30, EMFILE],
    ['a spawn without texts', spawn({}), 0, EINVAL],
    ['a spawn whose texts are no memory file', spawn({}), 1, EINVAL],
    ['a spawn whose program is missing', spawn({ flags: 1 }), 1, EINVAL],
    ['a spawn with too many streams', spawn({}), 18, EINVAL],
    ['a spawn with unknown flags', spawn({ flags: 64 }), 1, EINVAL],
    ['a spawn without a tag', spawn({ tag: 0n }), 1, EINVAL],
    ['a spawn of no texts', spawn({ textBytes: 0 }), 1, EINVAL],
    ['a spawn of too many texts', spawn({ argc: 0xffffffff, envc: 2 }), 1, E2BIG],
    ['a spawn whose counts wrap', spawn({ argc: 1, envc: 0xffffffff }), 1, E2BIG],
    ['a spawn with too long texts', spawn({ textBytes: 0x7fffffff }), 1, E2BIG],
  ] as const)('%s, and goes on', async ([, hex, fds, error], { host }) => {
    const worker = await begin(host)
    const before = filesOf(host.pid)
    worker.do({ do: 'raw', hex, fds })
    expect(await worker.hears('notice', 'answer')).toMatchObject({ pid: 0, error })
    worker.do({ do: 'spawn', argv: ['/bin/true'] })
    await worker.hears('ended', 1)
    expect(filesOf(host.pid)).toBe(before)
  })
})
