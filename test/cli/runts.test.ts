/**
 * runts create and run: the life of a container, its exits and errors, seen from outside as a user of runc would see
 * them.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { describe, expect } from 'vitest'
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

  test('takes an id as long as a file name may be', async ({ runts }) => {
    const id = 'c'.repeat(255)
    expect(await runts.run('run', '-b', runts.bundle(['echo', 'up']), id)).toMatchObject({ code: 0, stdout: 'up\n' })
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
      stderr: 'runts: error: exec: "/no/such": stat /no/such: no such file or directory\n',
    })
    expect(await runts.run('create', '-b', runts.bundle(['nosuch']), 'c')).toMatchObject({
      code: 1,
      stderr: 'runts: error: exec: "nosuch": executable file not found in $PATH\n',
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
      stderr: expect.stringMatching(/config\.json": ENOENT: no such file or directory\n$/),
    })
  })
})
