/**
 * Attacks on what the runtime keeps and says: its folders and state files, the pids in them, its log and its
 * messages.
 */
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { isAlive } from '../support/census.ts'
import { startCommand, until } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { ATTACK, BIN } from '../support/places.ts'
import { test } from '../support/runts.ts'

const SLEEP = ['sleep', '1000']

const modeOf = (path: string): string => (lstatSync(path).mode & 0o7777).toString(8)

describe('the state of a container', needs('our shim', 'root', 'busybox', 'gcc'), () => {
  test('is for root alone, whatever the umask, and the bundle stays as closed as it was (CVE-2021-41103, CVE-2024-25621)', async ({
    runts,
  }) => {
    const bundle = runts.bundle(SLEEP)
    const before = [bundle, join(bundle, 'config.json'), join(bundle, 'rootfs')].map(modeOf)
    const careless = startCommand(ATTACK, ['dirty', join(BIN, 'runts'), '--root', runts.root, 'run', '-b', bundle, 'c'])
    await until('the container to be there', () => existsSync(join(runts.root, 'c/state.json')))
    await runts.untilStatus('c', 'running')
    const folder = join(runts.root, 'c')
    expect(modeOf(runts.root)).toBe('700')
    expect(modeOf(folder)).toBe('700')
    for (const name of readdirSync(folder)) {
      const path = join(folder, name)
      expect({ name, mode: modeOf(path), uid: statSync(path).uid }).toEqual({
        name,
        mode: expect.stringMatching(/^([0-6]00|0)$/),
        uid: 0,
      })
    }
    runts.leave('create', '-b', runts.bundle(SLEEP), 'd')
    expect(modeOf(join(runts.root, 'd/exec.fifo'))).toBe('600')
    expect([bundle, join(bundle, 'config.json'), join(bundle, 'rootfs')].map(modeOf)).toEqual(before)
    await runts.ok('kill', 'c', 'KILL')
    await careless.finished
  })

  test('lets nobody else start or end a created container', async ({ runts }) => {
    chmodSync(runts.folder, 0o755)
    runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
    const fifo = join(runts.root, 'c/exec.fifo')
    // as an older release, or an administrator, has left them
    for (const path of [runts.root, join(runts.root, 'c')]) chmodSync(path, 0o711)
    for (const attempt of [`echo 0 >"$0"`, 'cat "$0"']) {
      const stranger = [
        '--reuid',
        '65534',
        '--regid',
        '65534',
        '--clear-groups',
        'timeout',
        '5',
        'sh',
        '-c',
        attempt,
        fifo,
      ]
      const { code, stderr } = await startCommand('setpriv', stranger).finished
      expect(code).not.toBe(0)
      expect(stderr).toContain('Permission denied')
    }
    expect(await runts.state('c')).toMatchObject({ status: 'created' })
    await runts.ok('start', 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
  })

  test('is told to nobody else, and no command says that the container is not there', async ({ runts }) => {
    chmodSync(runts.folder, 0o755)
    runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
    const as = ['--reuid', '65534', '--regid', '65534', '--clear-groups', join(BIN, 'runts'), '--root', runts.root]
    for (const command of [
      'list',
      'list -q',
      'state c',
      'start c',
      'kill c KILL',
      'exec c true',
      'ps c',
      'pause c',
      'delete c',
      'delete -f c',
    ]) {
      const { code, stdout, stderr } = await startCommand('setpriv', [...as, ...command.split(' ')]).finished
      expect(code, command).not.toBe(0)
      expect(stdout, command).toBe('')
      expect(stderr, command).toMatch(/^runts: error: cannot [^\n]*: EACCES: permission denied\n$/)
      expect(stderr, command).toContain(runts.root)
    }
    expect(await runts.state('c')).toMatchObject({ status: 'created' })
  })

  test('has a start succeed only when init has taken it', async ({ runts }) => {
    writeFileSync(join(runts.bundle(['/bin/broken']), 'rootfs/bin/broken'), '#!/nowhere\n', { mode: 0o755 })
    runts.leave('create', '-b', join(runts.folder, 'bundle0'), 'broken')
    expect(await runts.run('start', 'broken')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('exec /bin/broken: no such file or directory'),
    })
    expect(await runts.state('broken')).toMatchObject({ status: 'stopped' })

    runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
    // a byte of another process is not the answer of init
    const other = openSync(join(runts.root, 'c/exec.fifo'), constants.O_RDWR)
    expect(readSync(other, Buffer.alloc(65536))).toBeGreaterThan(0)
    closeSync(other)
    await runts.untilStatus('c', 'running')
    expect(await runts.run('start', 'c')).toMatchObject({ code: 1, stdout: '' })
  })

  test('has a created container hold no file of the host but its fifo', async ({ runts }) => {
    runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
    const { pid } = await runts.state('c')
    const links = readdirSync(`/proc/${pid}/fd`)
      .filter((fd) => Number(fd) > 2)
      .map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
    expect(links.filter((link) => !link.startsWith('socket:'))).toEqual([join(runts.root, 'c/exec.fifo')])
    expect(links.length).toBeLessThanOrEqual(2)
  })

  test('is not read through a symlink, nor from a file that is none or too large', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const state = join(runts.root, 'c/state.json')
    const real = join(runts.folder, 'state.json')
    renameSync(state, real)
    symlinkSync(real, state)
    expect(await runts.run('state', 'c')).toMatchObject({ code: 1, stderr: expect.stringContaining('it is a symlink') })
    expect(await runts.run('kill', 'c', 'KILL')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('it is a symlink'),
    })
    renameSync(real, state)

    mkdirSync(join(runts.folder, 'planted'))
    writeFileSync(join(runts.folder, 'planted/state.json'), readFileSync(state))
    writeFileSync(join(runts.folder, 'planted/config.json'), readFileSync(join(runts.root, 'c/config.json')))
    symlinkSync(join(runts.folder, 'planted'), join(runts.root, 'planted'))
    expect(await runts.run('exec', 'planted', 'true')).toMatchObject({
      code: 255,
      stderr: expect.stringContaining('is not a directory'),
    })
    expect((await runts.ok('list', '-q')).stdout).toBe('c\n')
    expect(await runts.run('delete', '-f', 'planted')).toMatchObject({ code: 1 })
    expect(readdirSync(join(runts.folder, 'planted')).sort()).toEqual(['config.json', 'state.json'])

    mkdirSync(join(runts.root, 'large'))
    writeFileSync(join(runts.root, 'large/state.json'), '')
    truncateSync(join(runts.root, 'large/state.json'), 2 ** 26 + 1)
    expect(await runts.run('state', 'large')).toMatchObject({ code: 1, stderr: expect.stringContaining('too large') })
    for (const name of ['large', 'planted']) rmSync(join(runts.root, name), { recursive: true })
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
  })

  test('cannot make the runtime signal a process that is not its own', async ({ runts }) => {
    const bystander = startCommand('sleep', ['1000'])
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const file = join(runts.root, 'c/state.json')
    const text = readFileSync(file, 'utf8')
    const { init_process_pid: pid } = JSON.parse(text)
    writeFileSync(file, text.replace(`"init_process_pid":${pid}`, `"init_process_pid":${bystander.pid}`))
    expect(await runts.run('kill', 'c', 'KILL')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('container not running'),
    })
    expect(await runts.run('exec', 'c', 'true')).toMatchObject({
      code: 255,
      stderr: expect.stringContaining('stopped container'),
    })
    expect(isAlive(bystander.pid)).toBe(true)
    writeFileSync(file, text)
    await runts.ok('delete', '-f', 'c')
    bystander.kill('SIGKILL')
    await bystander.finished
  })

  test('names no folder but its own, whatever the id', async ({ runts }) => {
    const outside = join(runts.folder, 'outside')
    mkdirSync(outside)
    writeFileSync(join(outside, 'state.json'), '{}')
    mkdirSync(runts.root, { recursive: true })
    for (const id of ['../outside', '..', '.', '/', 'a/../../outside', 'c\0/../../outside'.replace('\0', '\u0001')]) {
      expect((await runts.run('delete', '-f', id)).code, id).toBe(1)
    }
    expect(existsSync(join(outside, 'state.json'))).toBe(true)
  })
})

describe('a message', needs('our shim', 'root', 'busybox'), () => {
  test('forges no line of the log and steers no terminal, whatever names and paths contain', async ({ runts }) => {
    const evil = 'x\ntime="now" level=info msg="all is well"\r\x1b[2J\x9b31m'
    const [plain, json] = [join(runts.folder, 'log'), join(runts.folder, 'log.json')]
    const attempts = [
      ['create', '-b', runts.bundle([`/${evil}`]), 'c'],
      [
        'create',
        '-b',
        runts.bundle(['true'], (spec) => spec.mounts.push({ destination: `/${evil}`, type: evil, source: evil })),
        'c',
      ],
      ['create', '-b', runts.bundle(['true'], (spec) => spec.linux.namespaces.push({ type: evil })), 'c'],
      ['create', '-b', runts.bundle(['true'], (spec) => Object.assign(spec.linux, { sysctl: { [evil]: '1' } })), 'c'],
      ['create', '-b', join(runts.folder, evil), 'c'],
      ['state', evil],
      ['delete', `--${evil}`, 'c'],
      [evil],
    ]
    const control = /[\x00-\x09\x0b-\x1f\x7f-\x9f]/
    for (const [index, args] of attempts.entries()) {
      const { code, stderr } = await runts.run('--log', plain, ...args)
      expect({ index, code, lines: stderr.split('\n').length }).toEqual({ index, code: 1, lines: 2 })
      expect(stderr, `${index}`).not.toMatch(control)
      await runts.run('--log', json, '--log-format', 'json', ...args)
    }
    const lines = readFileSync(plain, 'utf8').trimEnd().split('\n')
    for (const line of lines) expect(line).toMatch(/^time="\d{4}-[^"]*" level=\w+ msg=/)
    expect(readFileSync(plain, 'utf8')).not.toMatch(control)
    for (const line of readFileSync(json, 'utf8').trimEnd().split('\n'))
      expect(JSON.parse(line)).toMatchObject({ level: 'error' })
  })
})
