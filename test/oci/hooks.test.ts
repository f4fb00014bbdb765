/** The six kinds of hooks: when and where they run, what they are given, and what their failure does. */
import { chmodSync, copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { notRunc } from '../support/needs.ts'
import { inModes, MODES, type OciHost, RUNTIME_NAME } from '../support/oci.ts'
import { BUSYBOX } from '../support/places.ts'
import type { TestHook } from '../support/spec.ts'

const HOST_HOOKS = ['prestart', 'createRuntime', 'poststart', 'poststop']
const ALL_HOOKS = ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop']

/** A hook that runs a shell script. */
function script(text: string, more: Partial<TestHook> = {}): TestHook {
  return { path: '/bin/sh', args: ['sh', '-c', text], env: ['PATH=/bin:/usr/bin'], ...more }
}

/** How an error names a hook; runc 1.1 leaves out the kind. */
const named = (name: string, index: number): string =>
  RUNTIME_NAME === 'runc' ? `error running hook #${index}` : `error running ${name} hook #${index}`

/** A file that hooks of any user can write to. */
function journal(runts: OciHost): string {
  const path = join(runts.folder, 'journal')
  writeFileSync(path, '')
  chmodSync(path, 0o666)
  return path
}

inModes(MODES, 'hooks', (test) => {
  test(
    'run in their order, each with the state document of its moment',
    notRunc('1.1 does not wait for startContainer before poststart'),
    async ({ runts }) => {
      const log = journal(runts)
      const bundle = runts.bundle(['true'], (spec) => {
        spec.hooks = Object.fromEntries(
          ALL_HOOKS.map((name) => [name, [script(`echo "${name} $(tr -d '\\n')" >> /journal`)]]),
        )
        for (const name of [...HOST_HOOKS, 'createContainer']) {
          // what runs in the mount namespace of the host, or before the root is changed, knows the host's path
          spec.hooks[name] = [script(`echo "${name} $(tr -d '\\n')" >> ${log}`)]
        }
        spec.mounts.push({ destination: '/journal', source: log, type: 'bind', options: ['bind'] })
        spec.annotations = { 'org.example.key': 'a value' }
      })
      await runts.ok('run', '-b', bundle, 'c')
      const entries = readFileSync(log, 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => [line.slice(0, line.indexOf(' ')), JSON.parse(line.slice(line.indexOf(' ')))] as const)
      expect(entries.map(([name]) => name)).toEqual(ALL_HOOKS)
      const statuses: Record<string, unknown> = Object.fromEntries(entries.map(([name, state]) => [name, state.status]))
      expect(statuses).toMatchObject({ createRuntime: 'creating', createContainer: 'creating', poststop: 'stopped' })
      for (const [name, state] of entries) {
        expect(state, name).toMatchObject({ id: 'c', bundle, annotations: { 'org.example.key': 'a value' } })
        expect(typeof state.ociVersion, name).toBe('string')
      }
    },
  )

  test('get exactly their arguments and environment', async ({ runts }) => {
    const log = journal(runts)
    const bundle = runts.bundle(['true'], (spec) => {
      spec.hooks = {
        createRuntime: [
          {
            path: '/bin/sh',
            args: ['other name', '-c', `echo "$0 $1"; env | sort`, 'zero', 'one two'],
            env: ['A=b c'],
          },
          script(`tr '\\0' '|' < /proc/$$/environ >> ${log}; echo "$0 $1" >> ${log}`, {
            args: ['sh', '-c', `tr '\\0' '|' < /proc/$$/environ >> ${log}; echo "/$0/$1" >> ${log}`, 'zero', 'one two'],
            env: ['A=b c', 'B='],
          }),
        ],
      }
    })
    await runts.ok('run', '-b', bundle, 'c')
    expect(readFileSync(log, 'utf8')).toBe('A=b c|B=|/zero/one two\n')
  })

  test('of startContainer run in the container, with its environment where they have none', async ({ runts }) => {
    const out = await runts.inside('cat /tmp/said', (spec) => {
      spec.process.env.push('FROM=process')
      const { env: _none, ...hook } = script('echo "$FROM $HOME $(hostname)" > /tmp/said')
      spec.hostname = 'inside'
      spec.hooks = { startContainer: [hook] }
    })
    expect(out).toBe('process /root inside\n')
  })

  test("of createContainer run before the root is changed, in the container's namespaces", async ({ runts }) => {
    const bundle = runts.bundle(['cat', '/tmp/said', '/tmp/copied'], (spec) => {
      // its working folder is the root of the container; what it leaves there the program finds
      spec.hooks = { createContainer: [script('readlink /proc/self/ns/mnt > tmp/said; echo library > tmp/copied')] }
    })
    const { stdout } = await runts.ok('run', '-b', bundle, 'c')
    expect(stdout).toMatch(/^mnt:\[\d+\]\nlibrary\n$/)
  })

  test("may prepare each other's work: one copies a program, another one runs it, the container uses the result", async ({
    runts,
  }) => {
    const bundle = runts.bundle(['cat', '/tmp/result'], (spec) => {
      spec.hooks = {
        createContainer: [script(`cp ${join(runts.folder, 'tool')} tmp/tool`)],
        startContainer: [{ path: '/tmp/tool', args: ['sh', '-c', 'echo made > /tmp/result'] }],
      }
    })
    copyFileSync(BUSYBOX, join(runts.folder, 'tool'))
    chmodSync(join(runts.folder, 'tool'), 0o755)
    expect((await runts.ok('run', '-b', bundle, 'c')).stdout).toBe('made\n')
  })
})

inModes(MODES, 'a hook that fails', (test) => {
  for (const name of ['prestart', 'createRuntime', 'createContainer']) {
    test(`of ${name} fails create, names itself, and leaves nothing`, async ({ runts }) => {
      const bundle = runts.bundle(['true'], (spec) => {
        spec.hooks = { [name]: [script('true'), script('echo to out; echo to err >&2; exit 3')] }
      })
      const { code, stderr } = await runts.run('create', '-b', bundle, 'c')
      expect(code).toBe(1)
      expect(stderr).toMatch(new RegExp(`${named(name, 1)}:.*exit status 3`))
      expect(await runts.run('state', 'c')).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('does not exist'),
      })
    })
  }

  test('of startContainer keeps the program from running', async ({ runts }) => {
    const bundle = runts.bundle(['echo', 'ran'], (spec) => {
      spec.hooks = { startContainer: [script('exit 3')] }
    })
    const { code, stdout, stderr } = await runts.run('run', '-b', bundle, 'c')
    expect({ failed: code !== 0, stdout }).toEqual({ failed: true, stdout: '' })
    expect(stderr).toContain(named('startContainer', 0))
  })

  test('of poststart ends the container', async ({ runts }) => {
    const bundle = runts.bundle(['sleep', '1000'], (spec) => {
      spec.hooks = { poststart: [script('exit 3')] }
    })
    const { code, stderr } = await runts.run('run', '-b', bundle, 'c')
    expect(code).toBe(1)
    expect(stderr).toContain(named('poststart', 0))
  })

  test(
    'of poststop is a warning, and the next one runs',
    notRunc('stops at the first, as runc 1.5 still does'),
    async ({ runts }) => {
      const log = journal(runts)
      const bundle = runts.bundle(['true'], (spec) => {
        spec.hooks = { poststop: [script('exit 3'), script(`echo second >> ${log}`)] }
      })
      const { code, stderr } = await runts.run('run', '-b', bundle, 'c')
      expect(code).toBe(0)
      expect(stderr).toMatch(/warn.*error running poststop hook #0/i)
      expect(readFileSync(log, 'utf8')).toBe('second\n')
    },
  )

  test('by taking too long is killed', async ({ runts }) => {
    const bundle = runts.bundle(['true'], (spec) => {
      spec.hooks = { createRuntime: [{ path: '/bin/sleep', args: ['sleep', '1000'], timeout: 1 }] }
    })
    const { code, stderr } = await runts.run('create', '-b', bundle, 'c')
    expect(code).toBe(1)
    expect(stderr).toMatch(new RegExp(`${named('createRuntime', 0)}:.*(timeout|timed out|1s|1 s)`))
  })

  test(
    'by taking too long is killed with its children',
    notRunc('waits for whoever holds its output'),
    async ({ runts }) => {
      const bundle = runts.bundle(['true'], (spec) => {
        spec.hooks = { createRuntime: [script('sleep 30; true', { timeout: 1 })] }
      })
      expect((await runts.run('create', '-b', bundle, 'c')).stderr).toContain(named('createRuntime', 0))
    },
  )

  test('by not being there is named', async ({ runts }) => {
    const bundle = runts.bundle(['true'], (spec) => {
      spec.hooks = { createRuntime: [{ path: '/no/such/hook' }] }
    })
    expect(runts.refusal(await runts.run('create', '-b', bundle, 'c'))).toMatch(/hook #0:.*\/no\/such\/hook/)
    expect(existsSync(join(runts.root, 'c'))).toBe(false)
  })
})
