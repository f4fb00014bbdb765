/**
 * Containers whose state on disk is damaged can be removed with all that is theirs.
 * Containers whose state is as large as it can be work as any other.
 */
import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { Container } from '../../runtime/index.ts'
import { cgroupsOf, isAlive } from '../support/census.ts'
import { startCommand } from '../support/command.ts'
import { Library, Streams } from '../support/library.ts'
import { needs } from '../support/needs.ts'
import { type Runts, test } from '../support/runts.ts'
import type { SpecChange } from '../support/spec.ts'

const SLEEP = ['sleep', '1000']
const MIB = 1024 * 1024

/** As many annotations of a thousand bytes. */
const annotations = (count: number): Record<string, string> =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`org.example.${i}`, 'x'.repeat(1000)]))

/** A hook that notes that it has run. */
function withPoststop(runts: Runts): SpecChange {
  return (spec) => {
    const script = `echo poststop >>${join(runts.folder, 'notes')}`
    spec.hooks = { poststop: [{ path: '/bin/sh', args: ['sh', '-c', script] }] }
  }
}

/** How often the hook has run since the last look. */
function takeNotes(runts: Runts): number {
  const path = join(runts.folder, 'notes')
  if (!existsSync(path)) return 0
  const count = readFileSync(path, 'utf8').trim().split('\n').length
  rmSync(path)
  return count
}

const cgroups = (runts: Runts): string[] => cgroupsOf(runts.name).filter((path) => !path.endsWith(runts.name))

/** The container is gone with all that was its own. */
async function expectRemoved(runts: Runts, id: string, pid: unknown, how: string): Promise<void> {
  const { code, stderr } = await runts.run('delete', '--force', id)
  expect({ how, code, stderr: stderr.replace(/^time=.*\n/gm, '') }).toEqual({ how, code: 0, stderr: '' })
  const folder = existsSync(join(runts.root, id))
  expect({ how, alive: isAlive(Number(pid)), folder, cgroups: cgroups(runts) }).toEqual({
    how,
    alive: false,
    folder: false,
    cgroups: [],
  })
}

describe('a configuration', needs('root', 'busybox'), () => {
  const withAnnotations = (runts: Runts, count: number): string =>
    runts.bundle(SLEEP, (spec) => {
      spec.annotations = annotations(count)
    })

  test('with 5000 annotations of 1000 bytes makes a container as any other', async ({ runts }) => {
    const bundle = withAnnotations(runts, 5000)
    runts.leave('run', '-d', '-b', bundle, 'c')
    const state = await runts.state('c')
    expect(state).toMatchObject({ status: 'running', bundle })
    expect(Object.keys(Object(state['annotations']))).toHaveLength(5000)
    expect((await runts.ok('list')).stdout).toMatch(/^c .* running /m)
    expect((await runts.ok('exec', 'c', 'echo', 'there')).stdout).toBe('there\n')
    const limits = join(runts.folder, 'limits')
    writeFileSync(limits, '{"pids":{"limit":50}}')
    await runts.ok('update', '-r', limits, 'c')
    await runts.ok('kill', 'c', 'KILL')
    await runts.untilStatus('c', 'stopped')
    await runts.ok('delete', 'c')
  })

  test('of almost 16 MiB, which is the most that is read, makes one that is found again', async ({ runts }) => {
    const bundle = withAnnotations(runts, 16_300)
    expect(statSync(join(bundle, 'config.json')).size).toBeGreaterThan(15.8 * MIB)
    runts.leave('run', '-d', '-b', bundle, 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
    await runts.ok('delete', '-f', 'c')
  })

  test('that is larger than what can be kept is refused before anything is made', async ({ runts }) => {
    using library = new Library()
    using streams = new Streams(runts.folder, 'c')
    const options = library.options(runts, 'c', streams, SLEEP)
    const spec = { ...options.spec, annotations: { large: 'x'.repeat(64 * MIB) } }
    const creating = Container.create({ ...options, spec })
    await expect(creating).rejects.toMatchObject({
      code: 'InvalidArgument',
      message: expect.stringMatching(
        /^cannot create container "c": its configuration is too large to be kept: \d+ bytes, \d+ are/,
      ),
    })
    expect(existsSync(runts.root)).toBe(false)
    expect(cgroups(runts)).toEqual([])
  })
})

/** What may have become of a state file. */
const DAMAGES: Readonly<Record<string, (path: string) => void>> = {
  'is empty': (path) => writeFileSync(path, ''),
  'is cut at its beginning': (path) => truncateSync(path, 20),
  'is cut in its middle': (path) => truncateSync(path, readFileSync(path).length >> 1),
  'lacks its last byte': (path) => truncateSync(path, readFileSync(path).length - 1),
  'is garbage': (path) => writeFileSync(path, Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919) & 0xff))),
  'is a list': (path) => writeFileSync(path, '[]'),
  'is null': (path) => writeFileSync(path, 'null'),
  'is a million brackets': (path) => writeFileSync(path, '['.repeat(1_000_000)),
  'is a gigabyte of zeros': (path) => truncateSync(path, 1024 * MIB),
  'is of another version': (path) => rewrite(path, (state) => Object.assign(state, { version: 99 })),
  'has fields of other types': (path) =>
    rewrite(path, (state) =>
      Object.assign(state, {
        init_process_pid: '7',
        init_process_start: 1.5,
        cgroup_paths: 7,
        bundle: [],
        created: {},
      }),
    ),
  'has numbers that are no process': (path) =>
    rewrite(path, (state) => Object.assign(state, { init_process_pid: 2 ** 40, init_process_start: -1 })),
  'has a start of fractions': (path) => rewrite(path, (state) => Object.assign(state, { init_process_start: 1.5 })),
  'names cgroups that are none': (path) =>
    rewrite(path, (state) =>
      Object.assign(state, { cgroup_paths: { devices: '/etc', pids: '/sys/fs/cgroup/pids', memory: '../x' } }),
    ),
  'names no cgroup': (path) => rewrite(path, (state) => delete state['cgroup_paths']),
  'is missing': (path) => rmSync(path),
  'is a folder': (path) => {
    rmSync(path)
    mkdirSync(join(path, 'sub'), { recursive: true })
  },
  'is a fifo': (path) => {
    rmSync(path)
    expect(spawnSync('mkfifo', [path]).status).toBe(0)
  },
  'is a link': (path) => {
    rmSync(path)
    symlinkSync('/etc/hostname', path)
  },
}

function rewrite(path: string, change: (state: Record<string, unknown>) => void): void {
  const state: Record<string, unknown> = JSON.parse(readFileSync(path, 'utf8'))
  change(state)
  writeFileSync(path, JSON.stringify(state))
}

describe('a container whose state', needs('root', 'busybox'), () => {
  for (const [how, damage] of Object.entries(DAMAGES)) {
    test(`${how} is removed by delete --force with all that is its own, and every other command says so`, async ({
      runts,
    }) => {
      runts.leave('run', '-d', '-b', runts.bundle(SLEEP, withPoststop(runts)), 'c')
      const { pid } = await runts.state('c')
      const state = join(runts.root, 'c/state.json')
      damage(state)
      const advice = '`delete --force c` removes '
      for (const args of [['state'], ['kill'], ['pause'], ['exec', 'c', 'true'], ['delete']]) {
        const { code, stdout, stderr } = await runts.run(...(args.length === 1 ? [...args, 'c'] : args))
        expect({ args, failed: code !== 0, stdout, lines: stderr.split('\n').length }).toEqual({
          args,
          failed: true,
          stdout: '',
          lines: 2,
        })
        expect(stderr, args.join(' ')).toContain(advice)
      }
      const { code, stdout, stderr } = await runts.run('list')
      expect({ code, rows: stdout.trim().split('\n').length }).toEqual({ code: 0, rows: 1 })
      expect(stderr).toMatch(/^runts: error: load container c: .*`delete --force c` removes .*\n$/)
      expect((await runts.ok('list', '-q')).stdout).toBe('c\n')
      expect(isAlive(Number(pid))).toBe(true)
      await expectRemoved(runts, 'c', pid, how)
      expect(takeNotes(runts)).toBe(1)
      // the id is free
      await runts.ok('run', '-b', runts.bundle(['true']), 'c')
    })
  }

  test.for(Object.entries(DAMAGES))(
    '%s is removed also where it was made by an earlier version, which kept no record',
    async ([how, damage], { runts }) => {
      runts.leave('run', '-d', '-b', runts.bundle(SLEEP, withPoststop(runts)), 'c')
      const { pid } = await runts.state('c')
      rmSync(join(runts.root, 'c/made'))
      damage(join(runts.root, 'c/state.json'))
      await expectRemoved(runts, 'c', pid, how)
      expect(takeNotes(runts)).toBe(1)
    },
  )

  const files = ['state.json', 'config.json', 'made']
  const sets = files.flatMap((one) => [[one], ...files.filter((two) => two > one).map((two) => [one, two])])
  test.for(sets.map((names) => names.join(' and ')))(
    'is damaged in %s is removed, by what the rest tells',
    async (names, { runts }) => {
      for (const damage of ['', '{"version":']) {
        runts.leave('run', '-d', '-b', runts.bundle(SLEEP, withPoststop(runts)), 'c')
        const { pid } = await runts.state('c')
        for (const name of names.split(' and ')) writeFileSync(join(runts.root, 'c', name), damage)
        await expectRemoved(runts, 'c', pid, JSON.stringify(damage))
        expect({ damage, notes: takeNotes(runts) }).toEqual({ damage, notes: 1 })
      }
    },
  )

  test.for([
    ['created'],
    ['paused', ['start', 'c'], ['pause', 'c']],
    ['stopped', ['start', 'c'], ['kill', 'c', 'KILL']],
  ] as [string, ...string[][]][])('is garbage is removed when it is %s', async ([status, ...commands], { runts }) => {
    runts.leave('create', '-b', runts.bundle(SLEEP, withPoststop(runts)), 'c')
    for (const command of commands) await runts.ok(...command)
    await runts.untilStatus('c', status)
    const { pid } = await runts.state('c')
    writeFileSync(join(runts.root, 'c/state.json'), 'garbage')
    await expectRemoved(runts, 'c', pid, status)
    expect(takeNotes(runts)).toBe(1)
  })

  test('is garbage takes its processes along that are in the pid namespace of the host, in cgroups below its own too', async ({
    runts,
  }) => {
    const bundle = runts.bundle(['sh', '-c', 'sleep 1001 & sleep 1002 & exec sleep 1003'], (spec) => {
      spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'pid')
    })
    runts.leave('run', '-d', '-b', bundle, 'c')
    const pids: number[] = JSON.parse((await runts.ok('ps', '-f', 'json', 'c')).stdout)
    expect(pids).toHaveLength(3)
    writeFileSync(join(runts.root, 'c/state.json'), 'garbage')
    await expectRemoved(runts, 'c', pids[0], 'shared pids')
    expect(pids.filter(isAlive)).toEqual([])
  })

  test('is garbage harms nobody else: neither the process nor the cgroup that it names, nor what has its id elsewhere', async ({
    runts,
  }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'other')
    const other = JSON.parse(readFileSync(join(runts.root, 'other/state.json'), 'utf8'))
    const bystander = startCommand('sleep', ['1000'])
    mkdirSync(join(runts.root, 'c'))
    for (const text of [
      'garbage',
      JSON.stringify({ version: 99, init_process_pid: bystander.pid, init_process_start: 1 }),
    ]) {
      writeFileSync(join(runts.root, 'c/state.json'), text)
      await runts.ok('delete', '--force', 'c')
      expect(existsSync(join(runts.root, 'c'))).toBe(false)
      mkdirSync(join(runts.root, 'c'))
    }
    rmdirSync(join(runts.root, 'c'))
    expect(isAlive(bystander.pid)).toBe(true)
    expect(await runts.state('other')).toMatchObject({ status: 'running', pid: other.init_process_pid })
    bystander.kill('SIGKILL')
    await bystander.finished
  })
})
