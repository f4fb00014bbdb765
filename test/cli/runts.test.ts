/** runts on the command line: one container's life, its exits and errors, seen from outside as a user of runc would see them. */
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join, relative } from 'node:path'
import { describe, expect } from 'vitest'
import { isAlive } from '../support/census.ts'
import { needs } from '../support/needs.ts'
import { BIN } from '../support/places.ts'
import { test } from '../support/runts.ts'

const SLEEP = ['sleep', '1000']

describe('runts run', needs('root', 'busybox'), () => {
  test('gives the output and the exit status of the program, and removes the container', async ({ runts }) => {
    const bundle = runts.bundle(['sh', '-c', 'echo out; echo err >&2; exit 42'])
    expect(await runts.run('run', '-b', bundle, 'c')).toMatchObject({ code: 42, stdout: 'out\n', stderr: 'err\n' })
    expect(await runts.run('state', 'c')).toMatchObject({ code: 1, stderr: expect.stringContaining('does not exist') })
  })

  test('gives 128 and the signal for a program that was killed', async ({ runts }) => {
    const bundle = runts.bundle(['payload', 'crash'])
    const { code } = await runts.run('run', '-b', bundle, 'c')
    expect(code).toBeGreaterThan(128)
  })

  test('passes its stdin on', async ({ runts }) => {
    const bundle = runts.bundle(['cat'])
    const { finished } = runts.start(['run', '-b', bundle, 'c'], { input: 'one\ntwo\n' })
    expect(await finished).toMatchObject({ code: 0, stdout: 'one\ntwo\n' })
  })

  test('forwards a signal to the container', async ({ runts }) => {
    const bundle = runts.bundle(['sh', '-c', 'trap "echo caught; exit 7" TERM; echo up; while :; do sleep 0.05; done'])
    const command = runts.start(['run', '-b', bundle, 'c'])
    await command.untilOutput('up')
    command.kill('SIGTERM')
    expect(await command.finished).toMatchObject({ code: 7, stdout: 'up\ncaught\n' })
  })

  test('-d returns at once and leaves the container running', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
  })

  test('--keep leaves a stopped container', async ({ runts }) => {
    await runts.ok('run', '--keep', '-b', runts.bundle(['true']), 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'stopped', pid: 0 })
    await runts.ok('delete', 'c')
  })
})

describe('runts create', needs('root', 'busybox'), () => {
  test('leaves a container that waits for start, and start runs it', async ({ runts }) => {
    const bundle = runts.bundle(['sh', '-c', 'echo started > /tmp/mark; exec sleep 1000'])
    const pidFile = join(runts.folder, 'pid')
    runts.leave('create', '-b', bundle, '--pid-file', pidFile, 'c')
    const state = await runts.state('c')
    expect(state).toMatchObject({ ociVersion: '1.0.2', id: 'c', status: 'created', bundle })
    expect(readFileSync(pidFile, 'utf8')).toBe(String(state['pid']))
    expect(existsSync(join(bundle, 'rootfs/tmp/mark'))).toBe(false)
    await runts.ok('start', 'c')
    await runts.untilStatus('c', 'running')
    expect(await runts.run('start', 'c')).toMatchObject({ code: 1, stderr: expect.stringContaining('running') })
  })

  test('gives the init no descriptor but the three', async ({ runts }) => {
    const { stdout } = await runts.run('run', '-b', runts.bundle(['payload', 'fds']), 'c')
    expect(stdout.match(/^\d+/gm)).toEqual(['0', '1', '2'])
  })

  test('uses the real place of a root that is given by a symlink', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP)
    symlinkSync('rootfs', join(bundle, 'link'))
    const config = join(bundle, 'config.json')
    const spec = JSON.parse(readFileSync(config, 'utf8'))
    writeFileSync(config, JSON.stringify({ ...spec, root: { path: 'link' } }))
    runts.leave('create', '-b', bundle, 'c')
    expect(await runts.state('c')).toMatchObject({ rootfs: join(realpathSync(bundle), 'rootfs') })
  })

  test('finds its fifo below a root that is given relative to the working directory', async ({ runts }) => {
    const bundle = runts.bundle(['true'])
    const root = relative(process.cwd(), join(runts.folder, 'near'))
    const { status } = spawnSync(join(BIN, 'runts'), ['--root', root, 'run', '-b', bundle, 'c'], { stdio: 'ignore' })
    expect(status).toBe(0)
  })

  test('refuses an id that is in use, and leaves its owner alone', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    expect(await runts.run('create', '-b', runts.bundle(SLEEP), 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('container with given ID already exists'),
    })
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
  })

  test('refuses ids that are no names', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP)
    for (const id of ['../c', 'a/b', '.', '..', '']) {
      expect(await runts.run('create', '-b', bundle, id), id).toMatchObject({ code: 1 })
    }
  })

  test('names a program that is not there', async ({ runts }) => {
    expect(await runts.run('create', '-b', runts.bundle(['/no/such']), 'c')).toMatchObject({
      code: 1,
      stderr: 'runts: exec: "/no/such": stat /no/such: no such file or directory\n',
    })
    expect(await runts.run('create', '-b', runts.bundle(['nosuch']), 'c')).toMatchObject({
      code: 1,
      stderr: 'runts: exec: "nosuch": executable file not found in $PATH\n',
    })
  })

  test('wants a console socket for a terminal', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP, (spec) => {
      spec.process.terminal = true
    })
    expect(await runts.run('create', '-b', bundle, 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('cannot allocate tty if runts will detach without setting console socket'),
    })
  })

  test('says what is missing in the bundle', async ({ runts }) => {
    expect(await runts.run('create', '-b', runts.folder, 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/config\.json": ENOENT\n$/),
    })
  })
})

describe('runts exec', needs('root', 'busybox'), () => {
  test('runs a command in the container with its own output and exit status', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const { stdout, code } = await runts.run(
      'exec',
      '-e',
      'A=b c',
      '--cwd',
      '/tmp',
      '--user',
      '1000:7',
      'c',
      'sh',
      '-c',
      'echo $A; pwd; id -u; id -g; exit 9',
    )
    expect({ stdout, code }).toEqual({ stdout: 'b c\n/tmp\n1000\n7\n', code: 9 })
  })

  test('stays in the root of a container without a mount namespace', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP, (spec) => {
      spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'mount')
      spec.mounts = []
      spec.linux.maskedPaths = []
      spec.linux.readonlyPaths = []
    })
    writeFileSync(join(bundle, 'rootfs/mark'), 'of the container\n')
    runts.leave('run', '-d', '-b', bundle, 'c')
    expect(await runts.run('exec', 'c', 'cat', '/mark')).toMatchObject({ code: 0, stdout: 'of the container\n' })
  })

  test('gets the null device of the container, and fails where that is none', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    runts.leave('exec', 'c', 'sh', '-c', 'stat -Lc %d /proc/self/fd/0 > /tmp/number')
    const bundle = String((await runts.state('c'))['bundle'])
    const number = Number(readFileSync(join(bundle, 'rootfs/tmp/number'), 'utf8'))
    expect(number).toBeGreaterThan(0)
    expect(number).not.toBe(statSync('/dev/null').dev)
    await runts.ok('exec', 'c', 'rm', '/dev/null')
    const fd = openSync('/dev/null', 'r')
    const { status, stderr } = spawnSync(join(BIN, 'runts'), ['--root', runts.root, 'exec', 'c', 'true'], {
      stdio: [fd, 'pipe', 'pipe'],
      encoding: 'utf8',
    })
    closeSync(fd)
    expect(status).toBe(255)
    expect(stderr).toContain("open the container's /dev/null for fd 0")
  })

  test('ends with 255 and names a command that is not there', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    expect(await runts.run('exec', 'c', 'nosuch')).toMatchObject({
      code: 255,
      stderr: 'runts: exec: "nosuch": executable file not found in $PATH\n',
    })
  })

  test('refuses a user that is no number, a stopped container and one that is not there', async ({ runts }) => {
    await runts.ok('run', '--keep', '-b', runts.bundle(['true']), 'stopped')
    expect(await runts.run('exec', '--user', '0abc', 'stopped', 'id')).toMatchObject({
      code: 255,
      stderr: expect.stringContaining('"0abc"'),
    })
    expect(await runts.run('exec', 'stopped', 'id')).toMatchObject({
      code: 255,
      stderr: expect.stringContaining('cannot exec in a stopped container'),
    })
    expect(await runts.run('exec', 'ghost', 'id')).toMatchObject({
      code: 255,
      stderr: expect.stringContaining('"ghost" does not exist'),
    })
  })
})

describe('runts kill, pause and delete', needs('root', 'busybox'), () => {
  test('kill sends the signal that was named, and then says that nothing runs', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    await runts.ok('kill', 'c', 'KILL')
    await runts.untilStatus('c', 'stopped')
    expect(await runts.run('kill', 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('container not running'),
    })
    expect(await runts.run('kill', 'c', 'NOPE')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('unknown signal "NOPE"'),
    })
  })

  test('pause freezes and resume thaws', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    await runts.ok('pause', 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'paused' })
    expect(await runts.run('exec', 'c', 'true')).toMatchObject({ code: 255, stderr: expect.stringContaining('paused') })
    await runts.ok('resume', 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
  })

  test('delete refuses a running container and takes it with --force', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const { pid } = await runts.state('c')
    expect(await runts.run('delete', 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('not stopped: running'),
    })
    await runts.ok('delete', '--force', 'c')
    expect(isAlive(Number(pid))).toBe(false)
  })

  test('delete takes a created container', async ({ runts }) => {
    runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
    await runts.ok('delete', 'c')
  })

  test('delete of one that is not there fails, and succeeds with --force', async ({ runts }) => {
    expect(await runts.run('delete', 'ghost')).toMatchObject({ code: 1 })
    await runts.ok('delete', '--force', 'ghost')
  })

  test('delete ends what outlived an init in the host pid namespace', async ({ runts }) => {
    const bundle = runts.bundle(['sh', '-c', 'sleep 1000 & exit 0'], (spec) => {
      spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'pid')
      spec.mounts = spec.mounts.filter(({ destination }) => destination !== '/proc')
      spec.linux.maskedPaths = []
      spec.linux.readonlyPaths = []
    })
    runts.leave('run', '-d', '-b', bundle, 'c')
    await runts.untilStatus('c', 'stopped')
    await runts.ok('delete', 'c')
  })
})

describe('runts on the command line', needs('root', 'busybox'), () => {
  test('list shows a table, ids or JSON', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const table = (await runts.ok('list')).stdout.split('\n')
    expect(table[0]).toMatch(/^ID +PID +STATUS +BUNDLE +CREATED +OWNER$/)
    expect(table[1]).toMatch(/^c +\d+ +running /)
    expect((await runts.ok('list', '-q')).stdout).toBe('c\n')
    expect(JSON.parse((await runts.ok('list', '-f', 'json')).stdout)).toMatchObject([{ id: 'c', status: 'running' }])
  })

  test('plan prints the numbered operations of a bundle', async ({ runts }) => {
    const { stdout } = await runts.ok('plan', runts.bundle(SLEEP))
    expect(stdout).toMatch(/^ *0 /)
    for (const op of ['clone', 'mount', 'pivot', 'credentials', 'await_start', 'exec']) expect(stdout).toContain(op)
  })

  test('features is the document of the specification', async ({ runts }) => {
    const features = JSON.parse((await runts.ok('features')).stdout)
    expect(features).toMatchObject({ ociVersionMin: '1.0.0', linux: { seccomp: { enabled: true } } })
  })

  test('one clear line says what is wrong with a command line', async ({ runts }) => {
    const wrong: [string[], RegExp][] = [
      [['frobnicate'], /unknown command "frobnicate"/],
      [['run'], /run: missing argument <id>/],
      [['list', 'x'], /list: unexpected argument "x"/],
      [['list', '--format', 'yaml'], /invalid --format "yaml"/],
      [['state', '--color', 'c'], /state: unknown option '--color'/],
      [['--log-format', 'xml', 'list'], /unknown log format "xml"/],
      [['--systemd-cgroup', 'list'], /systemd cgroup driver is not supported/],
      [['--wrong', 'list'], /'--wrong'/],
    ]
    for (const [args, message] of wrong) {
      const { code, stderr, stdout } = await runts.run(...args)
      expect({ code, lines: stderr.trimEnd().split('\n').length, stdout }, args.join(' ')).toEqual({
        code: 1,
        lines: 1,
        stdout: '',
      })
      expect(stderr).toMatch(message)
    }
  })

  test('--help explains every command', async ({ runts }) => {
    const { stdout } = await runts.ok('--help')
    const names = [...stdout.matchAll(/^ {2}(\w+) /gm)].flatMap(([, name]) => name ?? [])
    expect(names).toContain('exec')
    for (const name of names) expect((await runts.ok(name, '--help')).stdout).toContain(`usage: runts ${name}`)
  })

  test('--log keeps the error, as text and as JSON', async ({ runts }) => {
    const log = join(runts.folder, 'log')
    await runts.run('--log', log, 'state', 'ghost')
    expect(readFileSync(log, 'utf8')).toMatch(/level=error msg="container \\"ghost\\" does not exist"/)
    writeFileSync(log, '')
    await runts.run('--log', log, '--log-format', 'json', 'state', 'ghost')
    expect(JSON.parse(readFileSync(log, 'utf8'))).toMatchObject({
      level: 'error',
      msg: 'container "ghost" does not exist',
    })
  })
})
