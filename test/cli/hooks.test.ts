/**
 * Hooks of all six kinds through the command line: when they run, what they are told, and what becomes of the
 * container when one fails.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { startCommand, until } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { OCI_RUNTIME } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'
import type { TestSpec } from '../support/spec.ts'

const KINDS = ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'] as const
type Kind = (typeof KINDS)[number]

interface Hook {
  path: string
  args?: string[]
  env?: string[] | null
  timeout?: number
}

function withHooks(hooks: Partial<Record<Kind, Hook[]>>): (spec: TestSpec) => void {
  return (spec) => void Object.assign(spec, { hooks })
}

function shell(script: string): Hook {
  return { path: '/bin/sh', args: ['sh', '-c', script], env: ['PATH=/bin:/usr/bin'] }
}

/** A hook on the host that appends its state, on one line, to a file of the test. */
function told(runts: Runts, kind: Kind): Hook {
  return shell(`echo "${kind} $(tr -d '\\n')" >> ${join(runts.folder, 'log')}`)
}

/** What a process has open. */
function linksOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`)
    } catch {
      // closed meanwhile
      return ''
    }
  })
}

function log(runts: Runts): { kind: string; state: Record<string, unknown> }[] {
  const path = join(runts.folder, 'log')
  if (!existsSync(path)) return []
  return readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => ({ kind: line.slice(0, line.indexOf(' ')), state: JSON.parse(line.slice(line.indexOf(' ') + 1)) }))
}

describe('hooks', needs('root'), () => {
  test('those of the host run in order and are told the state of the container', async ({ runts }) => {
    const hooks = Object.fromEntries(
      (['poststop', 'poststart', 'createRuntime', 'prestart'] as const).map((kind) => [kind, [told(runts, kind)]]),
    )
    const bundle = runts.bundle(['sleep', '100'], (spec) => {
      withHooks(hooks)(spec)
      Object.assign(spec, { annotations: { a: 'b' } })
    })
    runts.leave('create', '--bundle', bundle, 'c1')
    const { pid } = await runts.state('c1')
    const told1 = (kind: string, status: string) => ({
      kind,
      state: {
        ociVersion: '1.0.2',
        id: 'c1',
        status,
        ...(status === 'stopped' ? {} : { pid }),
        bundle,
        annotations: { a: 'b' },
      },
    })
    const created = [told1('prestart', 'creating'), told1('createRuntime', 'creating')]
    expect(log(runts)).toEqual(created)
    await runts.ok('start', 'c1')
    expect(log(runts)).toEqual([...created, told1('poststart', 'running')])
    await runts.ok('delete', '-f', 'c1')
    expect(log(runts)).toEqual([...created, told1('poststart', 'running'), told1('poststop', 'stopped')])
  })

  test('a createRuntime hook finds the container in its cgroup, with its mounts made and its root not yet entered', async ({
    runts,
  }) => {
    const report = join(runts.folder, 'report')
    const script = [
      `pid=$(sed 's/.*"pid":\\([0-9]*\\).*/\\1/')`,
      `cat /proc/$pid/cgroup > ${report}.cgroup`,
      `readlink /proc/$pid/root > ${report}.root`,
      `cat /proc/$pid/mounts > ${report}.mounts`,
    ].join('; ')
    const bundle = runts.bundle(['true'], withHooks({ createRuntime: [shell(script)] }))
    await runts.ok('run', '--bundle', bundle, 'c1')
    const read = (name: string): string => readFileSync(`${report}.${name}`, 'utf8')
    expect(read('cgroup')).toContain(`/${runts.name}/1`)
    expect(read('root')).toBe('/\n')
    expect(read('mounts')).toContain(`${bundle}/rootfs/dev/shm`)
  })

  test('those of the container run in its namespaces, the last with the environment of the program', async ({
    runts,
  }) => {
    const bundle = runts.bundle(['cat', '/hooks'], (spec) => {
      spec.process.env = ['PATH=/bin', 'GREETING=hello']
      withHooks({
        createContainer: [shell(`cat > rootfs-state; echo "create $(readlink /proc/self/ns/pid)" >> hooks`)],
        startContainer: [{ path: '/bin/sh', args: ['sh', '-c', 'echo "start $GREETING $HOME $0" >> /hooks', 'zero'] }],
      })(spec)
    })
    const { stdout } = await runts.ok('run', '--bundle', bundle, 'c1')
    const lines = stdout.trim().split('\n')
    expect(lines[0]).toMatch(/^create pid:\[\d+\]$/)
    expect(lines[0]).not.toContain(readlinkSync('/proc/self/ns/pid'))
    expect(lines[1]).toBe('start hello /root zero')
    expect(lines).toHaveLength(2)
  })

  /** A hook that notes its environment, in the runtime's own words: exactly what it was given. */
  const noting = (path: string, name: string, env?: string[] | null): Hook => {
    const script = `{ printf '%s: ' "${name}"; tr '\\0' ' ' </proc/$$/environ; echo; } >>${path}`
    return { path: '/bin/sh', args: ['sh', '-c', script], ...(env === undefined ? {} : { env }) }
  }
  const WAYS = { absent: undefined, null: null, none: [], one: ['A=b'] } as const
  const OUTER = {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    PWD: '/',
    OUTER: 'with blanks = and more',
    NODE_OPTIONS: '--nope',
    NODE_V8_COVERAGE: '/nowhere',
    NODE_PATH: '/x',
    OPENSSL_CONF: '/x',
    OPENSSL_MODULES: '/y',
    UV_THREADPOOL_SIZE: '1',
  }

  test("those of the host inherit the runtime's environment where they have none, as with runc", async ({ runts }) => {
    const kinds = ['prestart', 'createRuntime', 'poststart', 'poststop'] as const
    const notes = join(runts.folder, 'notes')
    const hooks = Object.fromEntries(
      kinds.map((kind) => [
        kind,
        Object.entries(WAYS).map(([way, env]) => noting(notes, `${kind} ${way}`, env && [...env])),
      ]),
    )
    const bundle = runts.bundle(['true'], withHooks(hooks))
    const outer = Object.entries(OUTER).map(([name, value]) => `${name}=${value}`)
    const run = async (root: string, program: string, ...args: string[]): Promise<string[]> => {
      const words = ['-i', '-C', '/', ...outer, program, '--root', join(runts.folder, root), ...args]
      const finished = await startCommand('env', words).finished
      expect(finished, finished.stderr).toMatchObject({ code: 0 })
      return readFileSync(notes, 'utf8').trimEnd().split('\n')
    }
    const told = (await run('root', OCI_RUNTIME, 'run', '-b', bundle, 'c1')).map((line) => line.split(': ', 2))
    const sorted = (text: string): string[] =>
      text
        .trim()
        .split(/ (?=[A-Z_0-9]+=)/)
        .sort()
    expect(told.map(([name]) => name)).toEqual(
      kinds.flatMap((kind) => Object.keys(WAYS).map((way) => `${kind} ${way}`)),
    )
    for (const [name = '', environment = ''] of told) {
      const expected = /absent|null/.test(name) ? outer.sort() : [name.endsWith(' one') ? 'A=b' : '']
      expect(sorted(environment), name).toEqual(expected)
    }
  })

  test('a poststop hook without an environment inherits that of the command that deletes', async ({ runts }) => {
    const notes = join(runts.folder, 'notes')
    runts.leave('create', '-b', runts.bundle(['true'], withHooks({ poststop: [noting(notes, 'poststop')] })), 'c1')
    const finished = await runts.start(['delete', '-f', 'c1'], { env: { ONLY_THEN: 'yes' } }).finished
    expect(finished).toMatchObject({ code: 0 })
    expect(readFileSync(notes, 'utf8')).toMatch(/ ONLY_THEN=yes /)
  })

  test('one of startContainer has the environment of the program where it has none, and none where it has an empty one', async ({
    runts,
  }) => {
    const bundle = runts.bundle(['cat', '/notes'], (spec) => {
      spec.process.env = ['PATH=/bin', 'HOME=/', 'OF=the program']
      const lists = Object.entries(WAYS).map(([way, env]) => noting('/notes', way, env && [...env]))
      withHooks({ startContainer: lists })(spec)
    })
    const inherited = 'PATH=/bin HOME=/ OF=the program'
    const { stdout } = await runts.ok('run', '-b', bundle, 'c1')
    expect(stdout).toBe(`absent: ${inherited} \nnull: ${inherited} \nnone: \none: A=b \n`)
  })

  for (const kind of ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart'] as const) {
    test(`a ${kind} hook that fails ends the run with its index and its output, and leaves nothing`, async ({
      runts,
    }) => {
      const bundle = runts.bundle(
        ['sleep', '100'],
        withHooks({
          [kind]: [shell('true'), shell('echo out; echo err >&2; exit 9'), shell(`touch ${runts.folder}/third`)],
          poststop: [told(runts, 'poststop')],
        }),
      )
      const { code, stderr } = await runts.run('run', '--bundle', bundle, 'c1')
      expect(stderr).toBe(`runts: error: error running ${kind} hook #1: exit status 9, stdout: out, stderr: err\n`)
      expect(code).toBe(1)
      expect((await runts.run('state', 'c1')).stderr).toContain('does not exist')
      expect(existsSync(join(runts.folder, 'third'))).toBe(false)
      expect(log(runts).map(({ kind: name, state }) => [name, state['status']])).toEqual([['poststop', 'stopped']])
    })
  }

  test('a poststart hook that fails ends the start with its output, and destroys the container as in a run', async ({
    runts,
  }) => {
    const hooks = { poststart: [shell('echo out; echo err >&2; exit 9')], poststop: [told(runts, 'poststop')] }
    runts.leave('create', '--bundle', runts.bundle(['sleep', '100'], withHooks(hooks)), 'c1')
    const { code, stderr } = await runts.run('start', 'c1')
    expect(stderr).toBe('runts: error: error running poststart hook #0: exit status 9, stdout: out, stderr: err\n')
    expect(code).toBe(1)
    expect((await runts.run('state', 'c1')).stderr).toContain('does not exist')
    expect(existsSync(join(runts.root, 'c1'))).toBe(false)
    expect(log(runts).map(({ kind, state }) => [kind, state['status']])).toEqual([['poststop', 'stopped']])
  })

  test('of startContainer outlives a start that was killed, and the next start waits for the program', async ({
    runts,
  }) => {
    const bundle = runts.bundle(
      ['sleep', '100'],
      withHooks({
        startContainer: [
          {
            path: '/bin/sh',
            args: ['sh', '-c', 'touch /begun; until [ -e /go ]; do sleep 0.05; done'],
            env: ['PATH=/bin'],
          },
        ],
      }),
    )
    runts.leave('create', '--bundle', bundle, 'c1')
    const killed = runts.start(['start', 'c1'])
    await until('the hook', () => existsSync(join(bundle, 'rootfs/begun')))
    killed.kill('SIGKILL')
    await killed.finished
    const next = runts.start(['start', 'c1'])
    // a start that comes after the program began would rightly say that the container runs
    const fifo = join(runts.root, 'c1/exec.fifo')
    await until('the next start to wait', () => linksOf(next.pid).includes(fifo))
    writeFileSync(join(bundle, 'rootfs/go'), '')
    expect(await next.finished).toMatchObject({ code: 0, stdout: '', stderr: '' })
    expect(await runts.state('c1')).toMatchObject({ status: 'running' })
    expect(existsSync(fifo)).toBe(false)
  })

  test('a poststart hook that fails is what the start tells, also where it has deleted the container itself', async ({
    runts,
  }) => {
    const remove = `${join(import.meta.dirname, '../../build/bin/runts')} --root ${runts.root} delete -f c1`
    const hooks = { poststart: [shell(`${remove}; echo gone; exit 9`)], poststop: [told(runts, 'poststop')] }
    runts.leave('create', '--bundle', runts.bundle(['sleep', '100'], withHooks(hooks)), 'c1')
    const { stderr } = await runts.run('start', 'c1')
    expect(stderr).toBe('runts: error: error running poststart hook #0: exit status 9, stdout: gone, stderr: \n')
    expect(log(runts).map(({ kind }) => kind)).toEqual(['poststop'])
  })

  test('one that fails is what the user hears of, and not of what then cannot be removed', async ({ runts }) => {
    const busy = join(runts.root, 'c1/busy')
    const script = `mkdir ${busy} && mount -t tmpfs ${runts.name} ${busy} && exit 9`
    const ways: [Kind, ...string[]][] = [
      ['createRuntime', 'create'],
      ['createRuntime', 'run'],
      ['poststart', 'run'],
    ]
    for (const [kind, command] of ways) {
      const bundle = runts.bundle(['sleep', '100'], withHooks({ [kind]: [shell(script)] }))
      const { code, stderr } = await runts.run(command ?? '', '-b', bundle, 'c1')
      expect(spawnSync('umount', [busy]).status).toBe(0)
      expect({ kind, command, code }).toEqual({ kind, command, code: 1 })
      expect(stderr).toContain(`\nrunts: error: error running ${kind} hook #0: exit status 9,`)
      expect(stderr).toMatch(/^time=.* level=warning msg="cannot .*EBUSY/)
      await runts.ok('delete', '-f', 'c1')
    }
  })

  test('a poststop hook that fails does not keep the container', async ({ runts }) => {
    const bundle = runts.bundle(['true'], withHooks({ poststop: [shell('exit 1'), told(runts, 'poststop')] }))
    const logFile = join(runts.folder, 'runts.log')
    await runts.ok('--log', logFile, 'run', '--bundle', bundle, 'c1')
    expect(readFileSync(logFile, 'utf8')).toContain('error running poststop hook #0: exit status 1')
    expect(log(runts)).toHaveLength(1)
  })

  test('a createRuntime hook that hangs is killed at its timeout', async ({ runts }) => {
    const bundle = runts.bundle(['true'], withHooks({ createRuntime: [{ ...shell('sleep 100'), timeout: 1 }] }))
    const { code, stderr } = await runts.run('run', '--bundle', bundle, 'c1')
    expect(stderr).toContain('error running createRuntime hook #0: timed out after 1 s')
    expect(code).toBe(1)
  })

  test('poststart hooks may use the container', async ({ runts }) => {
    const command = `${join(import.meta.dirname, '../../build/bin/runts')} --root ${runts.root}`
    const script = `${command} exec c1 touch /from-hook`
    const bundle = runts.bundle(['sleep', '100'], withHooks({ poststart: [shell(script)] }))
    runts.leave('run', '-d', '--bundle', bundle, 'c1')
    expect(existsSync(join(bundle, 'rootfs/from-hook'))).toBe(true)
  })
})
