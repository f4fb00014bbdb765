/**
 * Unix sockets whose paths are longer than an address of the kernel (108 bytes), or count from a folder with such a
 * path.
 */
import { mkdirSync, mkdtempSync, readlinkSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, expect } from 'vitest'
import { bindDatagram, receiveDatagram } from '../../runtime/sys/datagram.ts'
import { startCommand, until } from '../support/command.ts'
import { FdReceiver } from '../support/console-socket.ts'
import { needs } from '../support/needs.ts'
import { BIN, OCI_RUNTIME, PROBE } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'
import type { SpecChange } from '../support/spec.ts'

const SLEEP = ['sleep', '1000']
const withTerminal: SpecChange = (spec) => {
  spec.process.terminal = true
}

/** A folder with a long path, and a short way to it, by which a test listens. */
function longFolder(runts: Runts): { long: string; short: string } {
  const long = join(runts.folder, 'l'.repeat(100), 'm'.repeat(100))
  const short = join(runts.folder, 's')
  mkdirSync(long, { recursive: true })
  symlinkSync(long, short)
  return { long, short }
}

/** A bundle with a long path. */
function longBundle(runts: Runts, command: readonly string[], change?: SpecChange) {
  const { long, short } = longFolder(runts)
  const relativeRoot: SpecChange = (spec) => {
    spec.root = { path: 'rootfs' }
    change?.(spec)
  }
  renameSync(runts.bundle(command, relativeRoot), join(long, 'b'))
  return { long, short, bundle: join(long, 'b'), shortBundle: join(short, 'b') }
}

/** Runs a command that leaves a container, in a folder; the container must not hold a pipe of ours. */
async function leaveIn(cwd: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const script = 'cd "$0" && exec 3>&2 </dev/null >/dev/null 2>"$ERRORS" && "$@" 3>&- || { cat "$ERRORS" >&3; exit 1; }'
  const errors = join(mkdtempSync(join(tmpdir(), 'runts-errors-')), 'errors')
  const finished = await startCommand('sh', ['-c', script, cwd, ...args], { env: { ...env, ERRORS: errors } }).finished
  rmSync(dirname(errors), { recursive: true })
  expect(finished, finished.stderr).toMatchObject({ code: 0 })
}

describe('a socket in a folder with a long path', needs('root', 'busybox'), () => {
  test('receives the terminal, given as a relative path, which counts from the bundle, or as an absolute one', async ({
    runts,
  }) => {
    const { short, bundle, shortBundle } = longBundle(runts, SLEEP, withTerminal)
    using socket = new FdReceiver(join(shortBundle, 'c.sock'))
    const base = [OCI_RUNTIME, '--root', runts.root, 'create']
    const ways: [cwd: string, ...args: string[]][] = [
      [bundle, '--console-socket', 'c.sock'],
      [bundle, '--console-socket', './c.sock'],
      [runts.folder, '-b', bundle, '--console-socket', 'c.sock'],
      [short, '-b', 'b', '--console-socket', '../b/c.sock'],
      ['/', '-b', bundle, '--console-socket', join(bundle, 'c.sock')],
    ]
    for (const [cwd, ...args] of ways) {
      await leaveIn(cwd, [...base, ...args, 'c'])
      using master = socket.take()
      expect(readlinkSync(`/proc/self/fd/${master.fd}`), args.join(' ')).toMatch(/^\/dev\/(pts\/)?(ptmx|\d+)$/)
      await runts.ok('delete', '-f', 'c')
    }
  })

  test('receives the terminal and the pidfd of an exec; a relative path counts from the working folder', async ({
    runts,
  }) => {
    const { long, short } = longFolder(runts)
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    using terminals = new FdReceiver(join(short, 't.sock'))
    using processes = new FdReceiver(join(short, 'p.sock'))
    for (const prefix of ['', `${long}/`]) {
      const asked = ['--console-socket', `${prefix}t.sock`, '--pidfd-socket', `${prefix}p.sock`]
      await leaveIn(long, [OCI_RUNTIME, '--root', runts.root, 'exec', '-d', '-t', ...asked, 'c', ...SLEEP])
      using _terminal = terminals.take()
      using process = processes.take()
      expect(readlinkSync(`/proc/self/fd/${process.fd}`)).toMatch(/pidfd/)
    }
  })

  test('receives the pidfd of a container, whatever the length of its name', async ({ runts }) => {
    const { bundle, shortBundle } = longBundle(runts, SLEEP)
    for (const name of ['s.sock', `${'n'.repeat(150)}.sock`]) {
      const peer = startCommand('sh', ['-c', 'cd "$0" && exec "$@"', shortBundle, PROBE, 'pidfd', 'bound'])
      await peer.untilOutput('listening')
      renameSync(join(bundle, 'bound'), join(bundle, name))
      await leaveIn('/', [OCI_RUNTIME, '--root', runts.root, 'run', '-d', '-b', bundle, '--pidfd-socket', name, 'c'])
      const { pid } = await runts.state('c')
      expect((await peer.finished).stdout).toContain(`pid ${pid}`)
      await runts.ok('delete', '-f', 'c')
    }
  })

  test('is a seccomp agent, by an absolute path or by one that counts from the bundle', async ({ runts }) => {
    const { long, bundle, shortBundle } = longBundle(runts, SLEEP)
    const agent = startCommand(PROBE, ['agent', join(shortBundle, 'a'), '25'])
    await agent.untilOutput('listening')
    for (const listenerPath of ['a', join(bundle, 'a')]) {
      const other = runts.bundle(['sh', '-c', 'mkdir /d; exec sleep 1000'], (spec) => {
        const syscalls = [{ names: ['mkdir'], action: 'SCMP_ACT_NOTIFY' }]
        spec.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', listenerPath, syscalls }
      })
      renameSync(join(other, 'config.json'), join(bundle, 'config.json'))
      await leaveIn(long, [OCI_RUNTIME, '--root', runts.root, 'run', '-d', '-b', bundle, 'c'])
      expect((await runts.ok('exec', 'c', 'echo', 'there')).stdout).toBe('there\n')
      await runts.ok('delete', '-f', 'c')
    }
    agent.kill('SIGKILL')
    expect((await agent.finished).stdout.match(/"status":"creating"/g)).toHaveLength(2)
  })

  test("is a service manager's; an abstract one has a name of up to 107 bytes; and the state root is long too", async ({
    runts,
  }) => {
    const { long, short } = longFolder(runts)
    const abstract = `@${runts.name}`.padEnd(108, 'x')
    const root = join(long, 'root')
    const managers: [address: string, short: string][] = [
      [join(long, 'manager'), join(short, 'manager')],
      [abstract, abstract],
    ]
    const bundle = runts.bundle(['payload', 'notify', 'READY=1'])
    for (const [address, near] of managers) {
      using manager = bindDatagram(near)
      await leaveIn('/', [join(BIN, 'runts'), '--root', root, 'create', '-b', bundle, 'c'], { NOTIFY_SOCKET: address })
      const starting = startCommand(join(BIN, 'runts'), ['--root', root, 'start', 'c'], {
        env: { NOTIFY_SOCKET: address },
      })
      let told: Buffer | undefined
      await until('the notification', () => {
        told = receiveDatagram(manager.fd, 4096)
        return told !== undefined
      })
      expect(told?.toString()).toMatch(/^READY=1\nMAINPID=\d+\n$/)
      await until('the barrier', () => receiveDatagram(manager.fd, 4096) !== undefined)
      expect(await starting.finished).toMatchObject({ code: 0, stderr: '' })
      const removed = await startCommand(join(BIN, 'runts'), ['--root', root, 'delete', '-f', 'c']).finished
      expect(removed).toMatchObject({ code: 0 })
    }
  })

  test('on which nobody listens is told of by its path', async ({ runts }) => {
    const { bundle } = longBundle(runts, SLEEP, withTerminal)
    const path = join(bundle, 'none')
    expect(await runts.run('create', '-b', bundle, '--console-socket', 'none', 'c')).toMatchObject({
      code: 1,
      stderr: `runts: error: cannot connect to "${path}": ENOENT: no such file or directory\n`,
    })
  })
})
