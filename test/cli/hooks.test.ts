/** Hooks of all six kinds through the command line: when they run, what they are told, and what becomes of the container when one fails. */
import { existsSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { needs } from '../support/needs.ts'
import { type Runts, test } from '../support/runts.ts'
import type { TestSpec } from '../support/spec.ts'

const KINDS = ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'] as const
type Kind = (typeof KINDS)[number]

interface Hook {
  path: string
  args?: string[]
  env?: string[]
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
    expect(stderr).toBe('runts: error running poststart hook #0: exit status 9, stdout: out, stderr: err\n')
    expect(code).toBe(1)
    expect((await runts.run('state', 'c1')).stderr).toContain('does not exist')
    expect(existsSync(join(runts.root, 'c1'))).toBe(false)
    expect(log(runts).map(({ kind, state }) => [kind, state['status']])).toEqual([['poststop', 'stopped']])
  })

  test('a poststart hook that fails is what the start tells, also where it has deleted the container itself', async ({
    runts,
  }) => {
    const remove = `${join(import.meta.dirname, '../../build/bin/runts')} --root ${runts.root} delete -f c1`
    const hooks = { poststart: [shell(`${remove}; echo gone; exit 9`)], poststop: [told(runts, 'poststop')] }
    runts.leave('create', '--bundle', runts.bundle(['sleep', '100'], withHooks(hooks)), 'c1')
    const { stderr } = await runts.run('start', 'c1')
    expect(stderr).toBe('runts: error running poststart hook #0: exit status 9, stdout: gone, stderr: \n')
    expect(log(runts).map(({ kind }) => kind)).toEqual(['poststop'])
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
