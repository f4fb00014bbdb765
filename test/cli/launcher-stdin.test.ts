/**
 * What `start` reads from stdin: bootstrap parameters, or options with the cgroup of the shim. No bytes may break its
 * reader.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Any, BootstrapParams, LegacyCreateOptions } from 'ttrpc-ts/containerd'
import { describe, expect } from 'vitest'
import { needs } from '../support/needs.ts'
import { expectRefusal, hash, options, socketPath, test } from './launcher-layout.ts'

const FUZZ_SOURCE = join(import.meta.dirname, 'launcher-fuzz.c')
const C_SOURCES = join(import.meta.dirname, '../../c/launcher')

async function removeGroup(path: string): Promise<void> {
  for (let tries = 0; tries < 100 && existsSync(path); tries++) {
    try {
      rmdirSync(path)
    } catch {
      await delay(50) // the killed process may stay a zombie of the group for a while
    }
  }
}

describe('start reads from stdin', needs('gcc'), () => {
  test('bootstrap parameters in place of missing flags', async ({ layout }) => {
    const result = layout.run(['-id', 'c1', 'start'], {
      input: BootstrapParams.encode({
        instanceId: 'c1',
        namespace: 'default',
        logLevel: -4,
        containerdGrpcAddress: layout.address,
        containerdTtrpcAddress: '/the/ttrpc',
        socketDir: layout.sockets,
      }),
      env: { TTRPC_ADDRESS: '' },
    })
    expect(result).toMatchObject({ status: 0, text: `unix://${socketPath(layout)}`, stderr: '' })
    expect((await layout.facts())('arg')).toEqual(expect.arrayContaining(['/the/ttrpc', layout.address, '-debug']))
  })

  test('bootstrap parameters that are told by a later field when the id is another', ({ layout }) => {
    expect(layout.start({ params: { instanceId: 'other', containerdVersion: '2.3.4' } })).toMatchObject({
      status: 0,
      text: `unix://${socketPath(layout)}`,
    })
  })

  test('an Any whose two fields could be bootstrap parameters', needs('root'), ({ layout }) => {
    const input = Any.encode({ typeUrl: 'runtimeoptions.v1.Options', value: Buffer.from('not the namespace') })
    const result = layout.start({ input })
    const path = join('/run/containerd/s', hash(layout.address, 'c1'))
    rmSync(path, { force: true })
    expect(result).toMatchObject({ status: 0, text: `unix://${path}`, stderr: '' })
  })

  test('the cgroup of the shim, in all three ways, and fails when it does not exist', needs('root'), ({ layout }) => {
    const value = LegacyCreateOptions.encode({ shimCgroup: 'does/not/exist' })
    const legacy = Any.create({ typeUrl: 'type.googleapis.com/containerd.linux.runc.CreateOptions', value })
    for (const given of [
      { input: Any.encode(options('does/not/exist')) },
      { input: Any.encode(legacy) },
      { params: { extensions: [{ value: options('does/not/exist') }] } },
    ]) {
      expectRefusal(
        layout.start(given),
        'cannot move the shim into the cgroup "does/not/exist": No such file or directory',
      )
      layout.nothingIsLeft()
      expect(existsSync(join('/run/containerd/s', hash(layout.address, 'c1')))).toBe(false)
    }
  })

  test('a cgroup of the shim that leads elsewhere, and refuses it', ({ layout }) => {
    for (const group of ['../x', '/a/../../x', 'a/..']) {
      expectRefusal(layout.start({ params: { extensions: [{ value: options(group) }] } }), 'leads out of the hierarchy')
    }
    layout.nothingIsLeft()
  })

  test(
    'the cgroup of the shim, and moves Node there in each hierarchy that has it',
    needs('root'),
    async ({ layout }) => {
      const name = `launcher-test-${hash(layout.address, 'g').slice(0, 12)}`
      const roots = readFileSync('/proc/self/mountinfo', 'utf8')
        .split('\n')
        .filter((line) => / - cgroup2? /.test(line) && !/ - cgroup \S+ (\S+,)?cpuset/.test(line))
        .map((line) => line.split(' ')[4]!)
        .slice(-3)
      for (const folder of roots) mkdirSync(join(folder, name))
      try {
        const result = layout.start({ params: { extensions: [{ value: options(`/${name}`) }] } })
        expect(result).toMatchObject({ status: 0, stderr: '' })
        const joined = (await layout.facts())('cgroup').filter((line) => line.endsWith(`:/${name}`))
        expect(joined).toHaveLength(roots.length)
      } finally {
        await layout.end()
        for (const folder of roots) await removeGroup(join(folder, name))
      }
    },
  )

  test('the cgroup of the shim where a hierarchy is mounted on an odd name', needs('root'), async ({ layout }) => {
    const name = `launcher-test-${hash(layout.address, 'o').slice(0, 12)}`
    const hierarchy = /^\S+ \S+ \S+ \/ (\S+) .* - cgroup2? /m.exec(readFileSync('/proc/self/mountinfo', 'utf8'))![1]!
    const script = 'mkdir "$0" && mount --bind "$1" "$0" && umount -R -l /sys/fs/cgroup && shift && exec "$@"'
    const odd = join(layout.root, 'a\fb\vc d')
    mkdirSync(join(hierarchy, name))
    try {
      const through = ['unshare', '-m', '--propagation', 'private', 'sh', '-c', script, odd, hierarchy]
      const result = layout.start({ through, params: { extensions: [{ value: options(`/${name}`) }] } })
      expect(result).toMatchObject({ status: 0, stderr: '' })
      expect((await layout.facts())('cgroup').filter((line) => line.endsWith(`:/${name}`))).toHaveLength(1)
    } finally {
      await layout.end()
      await removeGroup(join(hierarchy, name))
    }
  })

  test('SCHED_CORE from the environment: a cookie, or a clear refusal where the kernel has none', ({ layout }) => {
    const result = layout.start({ env: { SCHED_CORE: '1' } })
    if (result.status === 0) return
    expectRefusal(result, 'cannot create a core scheduling cookie (SCHED_CORE=1)')
    layout.nothingIsLeft()
  })
})

describe('the reader of stdin', needs('gcc'), () => {
  test('never reads past its bytes, whatever they are', ({ layout }) => {
    const program = join(layout.root, 'fuzz')
    const sanitizers = ['-g', '-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all']
    const built = spawnSync(
      'gcc',
      [
        '-std=gnu17',
        '-D_GNU_SOURCE',
        '-Wall',
        '-Wextra',
        '-Werror',
        ...sanitizers,
        '-I',
        C_SOURCES,
        '-o',
        program,
        FUZZ_SOURCE,
        join(C_SOURCES, 'wire.c'),
      ],
      { encoding: 'utf8' },
    )
    expect(built.stderr).toBe('')
    const done = spawnSync(program, ['200000'], { encoding: 'utf8' })
    expect(done).toMatchObject({ status: 0, stderr: '' })
    const [understood = 0, withGroup = 0] = done.stdout.split(' ').map(Number)
    expect(understood).toBeGreaterThan(10_000)
    expect(withGroup).toBeGreaterThan(1000)
  })
})
