/**
 * What a service manager gives to runts and expects of it: open sockets (LISTEN_FDS), further descriptors, a word
 * when it is ready.
 */
import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { bindDatagram, receiveDatagram } from '../../runtime/sys/datagram.ts'
import { until } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { BIN } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'

/** Runs runts with further descriptors from 3 on: one per name of a file in the test's folder, null for a gap. */
function runWith(
  runts: Runts,
  files: readonly (string | null)[],
  args: readonly string[],
  before = '',
): { code: number | null; stdout: string; stderr: string } {
  const fds = files.map((name) => (name === null ? ('ignore' as const) : openSync(join(runts.folder, name), 'a+')))
  const script = `${before} exec "$@"`
  const command = [join(BIN, 'runts'), '--root', runts.root, ...args]
  const closed = files.flatMap((name, i) => (name === null ? [`exec ${i + 3}>&-;`] : [])).join(' ')
  const { status, stdout, stderr } = spawnSync('bash', ['-c', `${closed} ${script}`, 'bash', ...command], {
    stdio: ['ignore', 'pipe', 'pipe', ...fds],
    encoding: 'utf8',
  })
  for (const fd of fds) if (fd !== 'ignore') closeSync(fd)
  return { code: status, stdout, stderr }
}

/** The descriptors that `payload fds` lists, and what they refer to, without the three standard ones. */
function passed(stdout: string): string[] {
  return [...stdout.matchAll(/^(?:[3-9]|\d\d) .*\/(\S+)$/gm)].flatMap(([, name]) => name ?? [])
}

const FDS = ['payload', 'fds']
const SLEEP = ['sleep', '1000']

describe('runts create, run and exec with descriptors', needs('root', 'busybox'), () => {
  test('--preserve-fds passes that many, and no more', async ({ runts }) => {
    const bundle = runts.bundle(FDS)
    const { code, stdout, stderr } = runWith(runts, ['a', 'b', 'c'], ['run', '--preserve-fds', '2', '-b', bundle, 'c'])
    expect({ code, stderr, fds: passed(stdout) }).toEqual({ code: 0, stderr: '', fds: ['a', 'b'] })
  })

  test('--preserve-fds of exec does the same', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const { code, stdout, stderr } = runWith(runts, ['a', 'b', 'c'], ['exec', '--preserve-fds=2', 'c', ...FDS])
    expect({ code, stderr, fds: passed(stdout) }).toEqual({ code: 0, stderr: '', fds: ['a', 'b'] })
  })

  test('refuses to preserve what its caller has not opened, and creates nothing', async ({ runts }) => {
    const bundle = runts.bundle(FDS)
    const { code, stderr } = runWith(runts, ['a', null], ['run', '--preserve-fds', '2', '-b', bundle, 'c'])
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(
        /^runts: error: cannot pass on fd 4 \(--preserve-fds 2\): it (is|was) not open.*\n$/,
      ),
    })
    expect(await runts.run('state', 'c')).toMatchObject({ code: 1 })
  })

  test('LISTEN_FDS for this process go to the program, which is told so, before the preserved ones', async ({
    runts,
  }) => {
    const script = 'echo $LISTEN_FDS $LISTEN_PID; payload fds'
    const bundle = runts.bundle(['sh', '-c', script])
    const args = ['run', '--preserve-fds', '1', '-b', bundle, 'c']
    const { code, stdout } = runWith(runts, ['sock', 'more', 'rest'], args, 'export LISTEN_FDS=1 LISTEN_PID=$$;')
    expect({ code, first: stdout.split('\n')[0], fds: passed(stdout) }).toEqual({
      code: 0,
      first: '1 1',
      fds: ['sock', 'more'],
    })
  })

  test('LISTEN_FDS that were meant for another process are left alone', async ({ runts }) => {
    const bundle = runts.bundle(['sh', '-c', 'echo "<$LISTEN_FDS>"; payload fds'])
    const { stdout } = runWith(runts, ['sock'], ['run', '-b', bundle, 'c'], 'export LISTEN_FDS=1 LISTEN_PID=1;')
    expect({ first: stdout.split('\n')[0], fds: passed(stdout) }).toEqual({ first: '<>', fds: [] })
  })
})

describe('runts with NOTIFY_SOCKET', needs('root', 'busybox'), () => {
  /** What the service manager of a test was told, in order. */
  async function told(manager: number, count: number): Promise<string[]> {
    const messages: string[] = []
    await until(`${count} notifications`, () => {
      const message = receiveDatagram(manager, 4096)
      if (message !== undefined) messages.push(message.toString())
      return messages.length === count
    })
    return messages
  }

  test('start returns when the program is ready, and tells the manager so with the pid to watch', async ({ runts }) => {
    const address = join(runts.folder, 'manager')
    using manager = bindDatagram(address)
    const bundle = runts.bundle(['payload', 'notify', 'STATUS=about to', 'READY=1\nSTATUS=here'])
    const env = { NOTIFY_SOCKET: address }
    const options = { stdio: 'ignore' as const, env: { ...process.env, ...env } }
    const created = spawnSync(join(BIN, 'runts'), ['--root', runts.root, 'create', '-b', bundle, 'c'], options)
    expect(created.status).toBe(0)
    const starting = runts.start(['start', 'c'], { env })
    const pid = (await runts.state('c'))['pid']
    expect(await told(manager.fd, 2)).toEqual([`READY=1\nMAINPID=${pid}\n`, 'BARRIER=1'])
    expect(await starting.finished).toMatchObject({ code: 0, stderr: '' })
  })

  test('start returns when the program has ended without being ready', async ({ runts }) => {
    const address = join(runts.folder, 'manager')
    using _manager = bindDatagram(address)
    const env = { ...process.env, NOTIFY_SOCKET: address }
    const bundle = runts.bundle(['true'])
    spawnSync(join(BIN, 'runts'), ['--root', runts.root, 'create', '-b', bundle, 'c'], { stdio: 'ignore', env })
    expect(await runts.start(['start', 'c'], { env: { NOTIFY_SOCKET: address } }).finished).toMatchObject({ code: 0 })
    await runts.untilStatus('c', 'stopped')
  })

  test('run in the foreground names itself as what the manager is to watch', async ({ runts }) => {
    const address = join(runts.folder, 'manager')
    using manager = bindDatagram(address)
    const command = runts.start(['run', '-b', runts.bundle(['payload', 'notify', 'READY=1']), 'c'], {
      env: { NOTIFY_SOCKET: address },
    })
    expect(await told(manager.fd, 2)).toEqual([`READY=1\nMAINPID=${command.pid}\n`, 'BARRIER=1'])
    await runts.ok('kill', 'c', 'KILL')
    expect(await command.finished).toMatchObject({ code: 137, stderr: '' })
  })

  test('a program does not see the variable of another process where nobody asked for a notification', async ({
    runts,
  }) => {
    const { stdout } = await runts.ok('run', '-b', runts.bundle(['sh', '-c', 'echo "<$NOTIFY_SOCKET>"']), 'c')
    expect(stdout).toBe('<>\n')
  })
})

describe('runts with gates and levels', needs('root', 'busybox'), () => {
  test('--features-off and the environment switch parts of the isolation off, with a warning', async ({ runts }) => {
    const bundle = runts.bundle(['grep', '^Cap[BE]', '/proc/self/status'])
    const off = await runts.ok('--features-off', 'capabilities', 'run', '-b', bundle, 'c')
    expect(off.stderr).toMatch(/^time=\S+ level=warning msg=/)
    const { stdout } = await runts.start(['run', '-b', bundle, 'c'], { env: { RUNTS_FEATURES_OFF: 'capabilities' } })
      .finished
    expect(stdout).toBe(off.stdout)
    const on = await runts.ok('run', '-b', bundle, 'c')
    expect(on.stderr).toBe('')
    expect(on.stdout).not.toBe(off.stdout)
  })

  test("the level of the container's side is set apart from that of the runtime", async ({ runts }) => {
    const bundle = runts.bundle(['true'])
    const log = join(runts.folder, 'log')
    const lines = async (...options: string[]): Promise<string> => {
      writeFileSync(log, '')
      await runts.ok('--log', log, ...options, 'run', '-b', bundle, 'c')
      return readFileSync(log, 'utf8')
    }
    const all = await lines('--debug')
    expect(all).toContain('level=debug msg="runts" command=run id=c')
    expect(all).toContain('level=debug msg="init: executes its program"')
    expect(await lines('--debug', '--container-log-level', 'warn')).not.toContain('init:')
    expect(await lines('--container-log-level', 'debug')).toMatch(/^time=\S+ level=debug msg="init: process made"/)
    expect(await lines()).toBe('')
  })
})
