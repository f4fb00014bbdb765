/** runts as a command line: what it prints about containers and about itself, its log, and how it refuses. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { needs } from '../support/needs.ts'
import { test } from '../support/runts.ts'

const SLEEP = ['sleep', '1000']

describe('runts on the command line', needs('root', 'busybox'), () => {
  test('list shows a table, ids or JSON', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const table = (await runts.ok('list')).stdout.split('\n')
    expect(table[0]).toMatch(/^ID +PID +STATUS +BUNDLE +CREATED +OWNER$/)
    expect(table[1]).toMatch(/^c +\d+ +running /)
    expect((await runts.ok('list', '-q')).stdout).toBe('c\n')
    expect(JSON.parse((await runts.ok('list', '-f', 'json')).stdout)).toMatchObject([{ id: 'c', status: 'running' }])
  })

  test('list names what it cannot read and shows the rest', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const broken = join(runts.root, 'broken')
    mkdirSync(broken)
    writeFileSync(join(broken, 'state.json'), '{')
    const { stdout, stderr } = await runts.ok('list')
    expect(stdout.match(/^\S+/gm)).toEqual(['ID', 'c'])
    expect(stderr).toMatch(/^runts: error: load container broken: /)
    rmSync(broken, { recursive: true })
  })

  test('list wants a root that was named to be there', async ({ runts }) => {
    expect(await runts.run('list')).toMatchObject({ code: 1, stderr: expect.stringContaining('no such directory') })
  })

  test('state says whose the container is and what its config notes', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP, (spec) => Object.assign(spec, { annotations: { 'org.example.note': 'n' } }))
    runts.leave('create', '-b', bundle, 'c')
    const state = await runts.state('c')
    expect(state).toMatchObject({ owner: 'root', annotations: { 'org.example.note': 'n' }, bundle })
    expect(state['created']).toMatch(/^\d{4}-\d\d-\d\dT/)
  })

  test("ps shows the rows of the container's processes, as the host's ps prints them, or their pids", async ({
    runts,
  }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const pid = Number((await runts.state('c'))['pid'])
    const rows = (await runts.ok('ps', 'c')).stdout.trimEnd().split('\n')
    expect(rows).toHaveLength(2)
    expect(rows[0]).toMatch(/^UID +PID /)
    expect(rows[1]).toMatch(new RegExp(`^root +${pid} .* sleep 1000$`))
    expect((await runts.ok('ps', 'c', '-eo', 'pid,args')).stdout).toMatch(
      new RegExp(`^ +PID COMMAND\n *${pid} sleep 1000\n$`),
    )
    expect(JSON.parse((await runts.ok('ps', '-f', 'json', 'c')).stdout)).toEqual([pid])
    expect(await runts.run('ps', 'c', '-eo', 'args')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('no column PID'),
    })
    await runts.ok('kill', 'c', 'KILL')
    await runts.untilStatus('c', 'stopped')
    expect((await runts.ok('ps', 'c')).stdout.split('\n')).toHaveLength(2)
    expect((await runts.ok('ps', '--format', 'json', 'c')).stdout).toBe('[]\n')
  })

  test('spec writes a config that runs, and never overwrites one', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP)
    const path = join(bundle, 'config.json')
    expect(await runts.run('spec', '-b', bundle)).toMatchObject({ code: 1, stderr: expect.stringContaining('exists') })
    rmSync(path)
    await runts.ok('spec', '--bundle', bundle)
    const spec = JSON.parse(readFileSync(path, 'utf8'))
    expect(spec).toMatchObject({ process: { terminal: true, args: ['sh'] }, root: { path: 'rootfs', readonly: true } })
    spec.process.terminal = false
    spec.process.args = ['cat', '/proc/sys/kernel/hostname']
    spec.linux.cgroupsPath = `/${runts.name}/spec`
    writeFileSync(path, JSON.stringify(spec))
    expect((await runts.ok('run', '-b', bundle, 'c')).stdout).toBe('runts\n')
  })

  test('spec --rootless maps the caller to root of a user namespace', async ({ runts }) => {
    await runts.start(['spec', '--rootless'], { cwd: runts.folder }).finished
    const { linux, mounts } = JSON.parse(readFileSync(join(runts.folder, 'config.json'), 'utf8'))
    expect(linux.uidMappings).toEqual([{ containerID: 0, hostID: process.getuid?.(), size: 1 }])
    expect(linux.namespaces).toContainEqual({ type: 'user' })
    expect(linux.namespaces).not.toContainEqual({ type: 'network' })
    expect(mounts).toContainEqual(expect.objectContaining({ destination: '/sys', source: '/sys' }))
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
      [['checkpoint', '--manage-cgroups-mode', 'all', 'c'], /invalid --manage-cgroups-mode "all": must be soft, full,/],
      [['checkpoint', '--empty-ns', 'pid', 'c'], /checkpoint: invalid --empty-ns "pid": must be network/],
      [['checkpoint', '--page-server', 'host', 'c'], /invalid --page-server "host": must be ADDRESS:PORT/],
      [['checkpoint', '--status-fd', '999', 'c'], /invalid --status-fd 999: EBADF/],
      [['run'], /run: missing argument <ID>/],
      [['list', 'x'], /list: unexpected argument "x"/],
      [['list', '--format', 'yaml'], /invalid --format "yaml"/],
      [['state', '--color', 'c'], /state: unknown option '--color'/],
      [['--log-format', 'xml', 'list'], /invalid --log-format "xml"/],
      [['--rootless', 'maybe', 'list'], /invalid --rootless "maybe": must be true, false or auto/],
      [['--features-off', 'seccomp,color', 'list'], /invalid --features-off "color": must be seccomp, /],
      [['--log-level', 'loud', 'list'], /invalid --log-level "loud"/],
      [['--debug=perhaps', 'list'], /'--debug' is a switch: "perhaps"/],
      [['--root'], /'--root' needs a value: DIR/],
      [['--log', '/no/such/folder/log', 'list'], /cannot open the log "\/no\/such\/folder\/log": ENOENT/],
      [['run', '--preserve-fds', '-1', 'c'], /run: invalid --preserve-fds "-1"/],
      [['run', '---keep', 'c'], /unknown option '---keep'/],
      [['kill', 'c', 'RTMAX+1'], /unknown signal "RTMAX\+1"/],
      [['completion', 'tcsh'], /no script for "tcsh"/],
      [['--wrong', 'list'], /'--wrong'/],
      [['exec', '--wrong', 'c', 'true'], /exec: unknown option '--wrong'/],
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
    for (const args of [[], ['-h'], ['help'], ['h']]) expect((await runts.ok(...args)).stdout).toBe(stdout)
    expect((await runts.ok('h', 'exec')).stdout).toMatch(/^usage: runts exec /)
    const names = [...stdout.matchAll(/^ {2}([a-z]+) {2,}\S/gm)].flatMap(([, name]) => name ?? [])
    expect(names).toContain('exec')
    for (const name of names) expect((await runts.ok(name, '--help')).stdout).toContain(`usage: runts ${name}`)
  })

  test("options are those of Go's flag package: one dash or two, a value after = or as the next word", async ({
    runts,
  }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    for (const args of [
      ['list', '-quiet'],
      ['list', '--q'],
      ['list', '-q=true'],
      ['list', '--quiet', '-f=json'],
      ['list', '-format', 'json', '-q'],
      ['-debug=false', 'list', '-q'],
    ]) {
      expect((await runts.ok(...args)).stdout, args.join(' ')).toBe('c\n')
    }
    expect((await runts.ok('list', '-q=0')).stdout).toMatch(/^ID /)
    await runts.ok('delete', 'c', '--force')
  })

  test('--version has the lines that tools look for', async ({ runts }) => {
    const { stdout } = await runts.ok('--version')
    expect(stdout).toMatch(
      /^runts version \d+\.\d+\.\d+\n(commit: [0-9a-f]+\n)?spec: 1\.3\.0\nlibseccomp: \d+\.\d+\.\d+\n$/,
    )
    expect((await runts.ok('-v')).stdout).toBe(stdout)
  })

  test('the log has the error of a command that nobody knows too, and what was there before', async ({ runts }) => {
    const log = join(runts.folder, 'log')
    writeFileSync(log, 'before\n')
    expect((await runts.run('--log', log, 'frobnicate')).stderr).toMatch(/^runts: error: unknown command "frobnicate"/)
    expect(readFileSync(log, 'utf8')).toMatch(
      /^before\ntime="\S+" level=error msg="unknown command .*No help topic for 'frobnicate'/,
    )
    await runts.run('--log', log, '--wrong')
    expect(readFileSync(log, 'utf8')).toContain('level=error msg="unknown option \'--wrong\'"')
  })

  test('without a log file an error is said once, as JSON where that is asked for', async ({ runts }) => {
    expect((await runts.run('--debug', 'state', 'ghost')).stderr.match(/does not exist/g)).toHaveLength(1)
    const { stderr } = await runts.run('--log-format=json', 'state', 'ghost')
    expect(JSON.parse(stderr)).toMatchObject({ level: 'error', msg: expect.stringContaining('"ghost"') })
  })

  test('--log keeps the error, as text and as JSON', async ({ runts }) => {
    const log = join(runts.folder, 'log')
    await runts.run('--log', log, 'state', 'ghost')
    expect(readFileSync(log, 'utf8')).toMatch(/level=error msg="container does not exist: \\"ghost\\""/)
    writeFileSync(log, '')
    await runts.run('--log', log, '--log-format', 'json', 'state', 'ghost')
    expect(JSON.parse(readFileSync(log, 'utf8'))).toMatchObject({
      level: 'error',
      msg: 'container does not exist: "ghost"',
    })
  })
})
