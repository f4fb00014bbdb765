/**
 * Intel RDT from create to delete, on a folder that stands for the resctrl file system, and on the real one where the
 * machine has it.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect } from 'vitest'
import { Container, RuntimeError } from '../../runtime/index.ts'
import { Library, Streams } from '../support/library.ts'
import { needs } from '../support/needs.ts'
import { ResctrlTree } from '../support/resctrl.ts'
import { type Runts, test } from '../support/runts.ts'

const library = new Library()
afterAll(() => library[Symbol.dispose]())

/** A container with these settings, on the folder. */
function run(runts: Runts, streams: Streams, tree: ResctrlTree, intelRdt: object, args = ['sleep', '100']) {
  const options = library.options(runts, 'c1', streams, args, (spec) => Object.assign(spec.linux, { intelRdt }))
  return Container.run({ ...options, resctrl: tree.root })
}

describe('a container with Intel RDT', needs('root', 'busybox', 'our shim'), () => {
  test('puts its processes into its class and its counting group, and leaves nothing', async ({ runts }) => {
    using tree = new ResctrlTree()
    tree.group('gold')
    using streams = new Streams(runts.folder, 'init')
    await using _container = await run(runts, streams, tree, {
      closID: 'gold',
      enableMonitoring: true,
      memBwSchema: 'MB:0=20',
    })
    const files = ['gold/tasks', 'gold/mon_groups/c1/tasks']
    // "0" stands for the process that writes
    expect(files.map((name) => tree.read(name))).toEqual(['0', '0'])
    expect(tree.read('gold/schemata')).toBe('MB:0=20\n')
    const state = JSON.parse(readFileSync(join(runts.root, 'c1/state.json'), 'utf8'))
    expect(state).toMatchObject({
      intel_rdt_path: join(tree.root, 'gold'),
      intel_rdt_mon_path: join(tree.root, 'gold/mon_groups/c1'),
    })
    for (const name of files) tree.write(name, '')
    expect(await runts.ok('exec', 'c1', 'true')).toMatchObject({ stdout: '' })
    expect(files.map((name) => tree.read(name))).toEqual(['0', '0'])
    await runts.ok('delete', '-f', 'c1')
    expect([tree.groups(), tree.groups('gold/mon_groups')]).toEqual([['gold'], []])
  })

  test('shows its shares and counters in events, in the form of runc', async ({ runts }) => {
    using tree = new ResctrlTree()
    tree.group('gold')
    using streams = new Streams(runts.folder, 'init')
    await using container = await run(runts, streams, tree, { closID: 'gold' })
    const { stdout } = await runts.ok('events', '--stats', 'c1')
    expect(stdout).toContain(
      '"intel_rdt":{"l3_cache_info":{"cbm_mask":"fffff","min_cbm_bits":1,"num_closids":16},"l3_cache_schema_root":"L3:0=fffff;1=fffff","l3_cache_schema":"L3:0=fffff;1=fffff","mem_bw_info":{"bandwidth_gran":10,"delay_linear":1,"min_bandwidth":10,"num_closids":8},"mem_bw_schema_root":"MB:0=100;1=100","mem_bw_schema":"MB:0=100;1=100","schemata":["MB:0=100;1=100","    L3:0=fffff;1=fffff"],"mbm_stats":[{"mbm_total_bytes":700,"mbm_local_bytes":300},{"mbm_total_bytes":700,"mbm_local_bytes":300}],"cmt_stats":[{"llc_occupancy":4096},{"llc_occupancy":4096}]},"network_interfaces"',
    )
    expect((await container.stats()).intelRdt?.memBwSchema).toBe('MB:0=100;1=100')
    await container.destroy({ force: true })
  })

  test('gets new shares by update, which other commands know', async ({ runts }) => {
    using tree = new ResctrlTree()
    using streams = new Streams(runts.folder, 'init')
    await using container = await run(runts, streams, tree, { l3CacheSchema: 'L3:0=f', schemata: ['L2:0=1'] })
    await runts.ok('update', '--l3-cache-schema', 'L3:0=ff', 'c1')
    expect(tree.read('c1/schemata')).toBe('L3:0=ff\nL2:0=1\n')
    await runts.ok('update', '--mem-bw-schema', 'MB:0=50', 'c1')
    expect(tree.read('c1/schemata')).toBe('L3:0=ff\nMB:0=50\nL2:0=1\n')
    expect(Container.load(runts.root, 'c1').spec.linux.intelRdt).toMatchObject({
      l3CacheSchema: 'L3:0=ff',
      memBwSchema: 'MB:0=50',
    })
    // the class has its old shares when another limit is refused
    expect(await runts.run('update', '--mem-bw-schema', 'MB:0=60', '--cpuset-cpus', 'none', 'c1')).toMatchObject({
      code: 1,
    })
    expect(tree.read('c1/schemata')).toBe('L3:0=ff\nMB:0=50\nL2:0=1\n')
    await runts.ok('delete', '-f', 'c1')
    expect(tree.groups()).toEqual([])
    await container.release()
  })

  test('is refused in the words of runc where it has none to update', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    await using container = await Container.run(library.options(runts, 'c1', streams, ['sleep', '100']))
    await expect(
      container.set({ devices: [], hugepageLimits: [], rdma: {}, unified: {} }, { memBwSchema: 'MB:0=5' }),
    ).rejects.toThrow(
      /memory bandwidth schema is not enabled|updating a non-existent Intel RDT configuration is not supported/,
    )
    await container.destroy({ force: true })
  })

  test('that cannot be made leaves no group, and no cgroup', async ({ runts }) => {
    using tree = new ResctrlTree()
    using streams = new Streams(runts.folder, 'init')
    for (const [settings, args, words] of [
      [{ closID: 'gold' }, ['sleep', '1'], 'it must exist already'],
      [{ l3CacheSchema: 'L3:0=f', enableMonitoring: true }, ['no-such-program'], 'executable file not found'],
    ] as const) {
      await expect(run(runts, streams, tree, settings, [...args])).rejects.toThrow(words)
      expect(tree.groups()).toEqual([])
      expect(Container.list(runts.root)).toEqual([])
    }
  })

  test('whose state was lost is removed with its group', async ({ runts }) => {
    using tree = new ResctrlTree()
    using streams = new Streams(runts.folder, 'init')
    await using container = await run(runts, streams, tree, { l3CacheSchema: 'L3:0=f' })
    await runts.ok('kill', 'c1', 'KILL')
    await container.init.wait()
    const path = join(runts.root, 'c1/state.json')
    writeFileSync(path, '{')
    await runts.ok('delete', '--force', 'c1')
    expect([existsSync(path), ...tree.groups()]).toEqual([false])
  })
})

test(
  'a host without Intel RDT refuses a container that asks for it, in one line',
  needs('no resctrl'),
  async ({ runts }) => {
    const bundle = runts.bundle(['true'], (spec) =>
      Object.assign(spec.linux, { intelRdt: { l3CacheSchema: 'L3:0=f' } }),
    )
    expect(await runts.run('run', '-b', bundle, 'c1')).toMatchObject({
      code: 1,
      stdout: '',
      stderr: 'runts: error: intelRdt is specified in config, but Intel RDT is not enabled (at /linux/intelRdt)\n',
    })
    using streams = new Streams(runts.folder, 'init')
    const options = library.options(runts, 'c2', streams, ['true'], (spec) =>
      Object.assign(spec.linux, { intelRdt: {} }),
    )
    const error = await Container.create(options).catch((failure: unknown) => failure)
    expect(error instanceof RuntimeError && error).toMatchObject({
      code: 'FailedPrecondition',
      detail: { source: 'spec', pointer: '/linux/intelRdt' },
    })
  },
)

test(
  'on a machine that has it, the kernel lists the processes in the class',
  needs('root', 'busybox', 'resctrl'),
  async ({ runts }) => {
    const bundle = runts.bundle(['sleep', '100'], (spec) =>
      Object.assign(spec.linux, { intelRdt: { enableMonitoring: true } }),
    )
    const id = runts.name
    runts.leave('run', '-d', '-b', bundle, id)
    const pid = String((await runts.state(id))['pid'])
    for (const file of ['tasks', `mon_groups/${id}/tasks`]) {
      expect(readFileSync(join('/sys/fs/resctrl', id, file), 'utf8').split('\n')).toContain(pid)
    }
    await runts.ok('delete', '-f', id)
    expect(existsSync(join('/sys/fs/resctrl', id))).toBe(false)
  },
)
