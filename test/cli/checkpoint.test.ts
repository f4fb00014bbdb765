/**
 * runts checkpoint and restore, with CRIU: what is saved goes on where it was. The images are runc's as well, so each
 * of the two restores what the other has saved.
 */
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { allPids, isAlive } from '../support/census.ts'
import { beginCounting, COUNT_STEPS, Counter, contents, leave, leaveBy } from '../support/counter.ts'
import { needs, SLOWNESS } from '../support/needs.ts'
import { type Runts, test } from '../support/runts.ts'
import type { TestSpec } from '../support/spec.ts'

const CYCLES = process.env['FULL'] === '1' ? 50 / SLOWNESS : 5

/** Saves a container, and expects that it is gone then. Answers its last number. */
async function save(runts: Runts, counter: Counter, ...options: string[]): Promise<number> {
  await runts.ok('checkpoint', '--image-path', counter.images, ...options, 'c')
  expect((await runts.ok('list', '-q')).stdout).toBe('')
  return counter.count
}

/** Restores a container in the background, and expects that it counts on from a number. */
async function bringBack(runts: Runts, counter: Counter, from: number, ...options: string[]): Promise<void> {
  leave(runts, 'restore', '-d', '--image-path', counter.images, '-b', counter.bundle, ...options, 'c')
  expect(await counter.goesOn()).toBeLessThan(from + 1000)
  expect(counter.count).toBeGreaterThan(from)
}

function rootOf({ root }: TestSpec): string {
  return root?.path ?? ''
}

describe('runts checkpoint and restore', needs('root', 'busybox', 'criu'), () => {
  test('a shell that counts is gone after the checkpoint, and counts on after the restore', async ({ runts }) => {
    const counter = await beginCounting(runts)
    const { pid } = await runts.state('c')
    const last = await save(runts, counter)
    expect(isAlive(Number(pid))).toBe(false)
    await bringBack(runts, counter, last)
    expect(await runts.state('c')).toMatchObject({ status: 'running', bundle: counter.bundle })
    expect(await runts.ok('exec', 'c', 'echo', 'inside')).toMatchObject({ stdout: 'inside\n' })
    await runts.ok('pause', 'c')
    await runts.ok('resume', 'c')
    await counter.goesOn()
  })

  test('with --leave-running it goes on at once, and the images can still be restored', async ({ runts }) => {
    const counter = new Counter(runts, undefined, COUNT_STEPS)
    leave(runts, 'run', '-d', '-b', counter.bundle, 'c')
    await counter.step()
    await runts.ok('checkpoint', '--leave-running', '--image-path', counter.images, 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
    await counter.step()
    await runts.ok('delete', '-f', 'c')
    leave(runts, 'restore', '-d', '--image-path', counter.images, '-b', counter.bundle, 'c')
    await counter.step()
    expect(contents(join(counter.bundle, 'rootfs/all'))).toBe('1\n2\n2\n')
  })

  test('a paused one stays paused, and runs after the restore', async ({ runts }) => {
    const counter = await beginCounting(runts)
    await runts.ok('pause', 'c')
    await runts.ok('checkpoint', '--leave-running', '--image-path', counter.images, 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'paused' })
    const last = await save(runts, counter)
    await bringBack(runts, counter, last)
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
  })

  test('volumes come from the host again, also one over a symlink and one in another', async ({ runts }) => {
    const volumes = ['one', 'inner', 'linked'].map((name) => join(runts.folder, name))
    for (const folder of volumes) mkdirSync(folder)
    const file = join(runts.folder, 'file')
    writeFileSync(file, 'a file\n')
    const [one = '', inner = '', linked = ''] = volumes
    mkdirSync(join(one, 'inner'))
    const bind = (source: string, destination: string) => ({ source, destination, type: 'bind', options: ['bind'] })
    const counter = await beginCounting(runts, (spec) => {
      spec.mounts.push(
        bind(one, '/vol'),
        bind(inner, '/vol/inner'),
        bind(linked, '/link/x'),
        bind(file, '/etc/of-host'),
      )
      symlinkSync('target', join(rootOf(spec), 'link'))
      mkdirSync(join(rootOf(spec), 'target'))
    })
    const last = await save(runts, counter)
    // the root of the restore is a new one: mount points are made again
    spawnSync('rm', ['-r', ...['vol', 'target/x', 'etc/of-host'].map((path) => join(counter.bundle, 'rootfs', path))])
    await bringBack(runts, counter, last)
    await runts.ok('exec', 'c', 'sh', '-c', 'echo 1 >/vol/new; echo 2 >/vol/inner/new; echo 3 >/target/x/new')
    expect(volumes.map((folder) => readFileSync(join(folder, 'new'), 'utf8'))).toEqual(['1\n', '2\n', '3\n'])
    expect(await runts.ok('exec', 'c', 'cat', '/etc/of-host')).toMatchObject({ stdout: 'a file\n' })
  })

  test('one in a user namespace is restored in one with the same ids', async ({ runts }) => {
    const counter = await beginCounting(runts, (spec) => {
      const maps = [{ containerID: 0, hostID: 100_000, size: 65_536 }]
      Object.assign(spec.linux, { uidMappings: maps, gidMappings: maps })
      spec.linux.namespaces.push({ type: 'user' })
      chmodSync(runts.folder, 0o755)
      spawnSync('chown', ['-R', '100000:100000', rootOf(spec)])
    })
    const last = await save(runts, counter)
    const before = statSync(counter.images)
    await bringBack(runts, counter, last)
    expect(statSync(counter.images)).toMatchObject({ mode: before.mode, gid: before.gid })
    const pid = Number((await runts.state('c'))['pid'])
    expect(readFileSync(`/proc/${pid}/uid_map`, 'utf8')).toMatch(/^\s*0\s+100000\s+65536\s*$/)
    expect(await runts.ok('exec', 'c', 'id', '-u')).toMatchObject({ stdout: '0\n' })
  })

  test('an open TCP connection is saved with --tcp-established only', needs('socket labels'), async ({ runts }) => {
    const script = `mkfifo /in /hold; exec 3<>/in 4<>/hold; nc -l -p 7000 </hold >/got &
      while ! nc 127.0.0.1 7000 </in 2>/dev/null; do :; done &
      i=0; while :; do i=$((i+1)); echo $i >&3; tail -n 1 /got >/count; sleep 0.05; done`
    const counter = new Counter(runts, undefined, script)
    leave(runts, 'run', '-d', '-b', counter.bundle, 'c')
    await counter.goesOn()
    expect(await runts.run('checkpoint', '--image-path', counter.images, 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/cannot checkpoint container "c": .*tcp.*dump\.log/i),
    })
    await counter.goesOn()
    const last = await save(runts, counter, '--tcp-established')
    await bringBack(runts, counter, last, '--tcp-established')
  })

  test('a chain of pre-dumps saves only what has changed since', needs('soft-dirty pages'), async ({ runts }) => {
    const counter = await beginCounting(runts)
    const [first, second, third] = ['1', '2', '3'].map((name) => `${counter.images}${name}`) as [string, string, string]
    await runts.ok('checkpoint', '--pre-dump', '--image-path', first, 'c')
    await counter.goesOn()
    await runts.ok('checkpoint', '--pre-dump', '--image-path', second, '--parent-path', '../bundle0-images1', 'c')
    await counter.goesOn()
    await runts.ok('checkpoint', '--image-path', third, '--parent-path', '../bundle0-images2', 'c')
    expect(readdirSync(third)).toContain('parent')
    const last = counter.count
    leave(runts, 'restore', '-d', '--image-path', third, '-b', counter.bundle, 'c')
    await counter.goesOn()
    expect(counter.count).toBeGreaterThan(last)
  })

  test('a network namespace of another owner is joined again', async ({ runts }) => {
    const name = runts.name.toLowerCase()
    expect(spawnSync('ip', ['netns', 'add', name]).status).toBe(0)
    try {
      const path = `/run/netns/${name}`
      const counter = await beginCounting(runts, (spec) => {
        spec.linux.namespaces = spec.linux.namespaces.map((ns) => (ns.type === 'network' ? { ...ns, path } : ns))
      })
      const last = await save(runts, counter)
      await bringBack(runts, counter, last)
      const pid = String((await runts.state('c'))['pid'])
      expect(spawnSync('ip', ['netns', 'pids', name], { encoding: 'utf8' }).stdout.split('\n')).toContain(pid)
      await runts.ok('delete', '-f', 'c')
    } finally {
      spawnSync('ip', ['netns', 'delete', name])
    }
  })

  test('hooks of the runtime run again, and the pid is in the file', async ({ runts }) => {
    const [told, pidFile] = [join(runts.folder, 'told'), join(runts.folder, 'pid')]
    const counter = await beginCounting(runts, (spec) => {
      spec.hooks = { createRuntime: [{ path: '/bin/sh', args: ['sh', '-c', `cat >>${told}; echo >>${told}`] }] }
    })
    const last = await save(runts, counter)
    await bringBack(runts, counter, last, '--pid-file', pidFile)
    const { pid } = await runts.state('c')
    expect(readFileSync(pidFile, 'utf8')).toBe(String(pid))
    const states = readFileSync(told, 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((line): unknown => JSON.parse(line))
    expect(states).toHaveLength(2)
    expect(states[1]).toMatchObject({ id: 'c', pid, status: 'creating', bundle: counter.bundle })
  })

  test('the annotation org.criu.config gives CRIU further options', async ({ runts }) => {
    const config = join(runts.folder, 'criu.conf')
    writeFileSync(config, 'log-file other.log\n')
    const counter = await beginCounting(runts, (spec) =>
      Object.assign(spec, { annotations: { 'org.criu.config': config } }),
    )
    const last = await save(runts, counter, '--work-path', join(runts.folder, 'work'))
    expect(readdirSync(join(runts.folder, 'work'))).toContain('other.log')
    expect(existsSync(join(counter.images, 'dump.log'))).toBe(false)
    await bringBack(runts, counter, last)
  })

  test('it is restored into another cgroup with --manage-cgroups-mode ignore', async ({ runts }) => {
    const counter = await beginCounting(runts)
    const last = await save(runts, counter, '--manage-cgroups-mode', 'ignore')
    const config = join(counter.bundle, 'config.json')
    writeFileSync(config, readFileSync(config, 'utf8').replace(`/${runts.name}/1`, `/${runts.name}/other`))
    await bringBack(runts, counter, last, '--manage-cgroups-mode', 'ignore')
    const pid = Number((await runts.state('c'))['pid'])
    expect(readFileSync(`/proc/${pid}/cgroup`, 'utf8')).toContain(`/${runts.name}/other`)
    expect(readFileSync(`/proc/${pid}/cgroup`, 'utf8')).not.toContain(`/${runts.name}/1`)
  })

  test(`${CYCLES} cycles leave nothing behind`, { timeout: 600_000 }, async ({ runts }) => {
    const counter = await beginCounting(runts)
    for (let cycle = 0; cycle < CYCLES; cycle++) {
      const last = await save(runts, counter)
      await bringBack(runts, counter, last)
    }
    await runts.ok('delete', '-f', 'c')
    const left = allPids().filter((pid) => contents(`/proc/${pid}/cmdline`).includes(runts.name))
    expect(left).toEqual([])
    expect(contents('/proc/self/mountinfo')).not.toContain(runts.name)
  })
})

describe('the images', needs('root', 'busybox', 'criu', 'the runc shim'), () => {
  const runc = (runts: Runts, ...args: string[]): void => leaveBy('runc', runts, args)

  test('of runts are restored by runc', async ({ runts }) => {
    const counter = await beginCounting(runts)
    const last = await save(runts, counter)
    runc(runts, 'restore', '-d', '--image-path', counter.images, '-b', counter.bundle, 'c')
    await counter.goesOn()
    expect(counter.count).toBeGreaterThan(last)
    runc(runts, 'delete', '-f', 'c')
  })

  test('of runc are restored by runts', async ({ runts }) => {
    const counter = new Counter(runts, undefined, COUNT_STEPS)
    runc(runts, 'run', '-d', '-b', counter.bundle, 'c')
    await counter.step()
    runc(runts, 'checkpoint', '--leave-running', '--image-path', counter.images, 'c')
    await counter.step()
    runc(runts, 'delete', '-f', 'c')
    leave(runts, 'restore', '-d', '--image-path', counter.images, '-b', counter.bundle, 'c')
    await counter.step()
    expect(contents(join(counter.bundle, 'rootfs/all'))).toBe('1\n2\n2\n')
  })

  test('are made of a container that runc runs', async ({ runts }) => {
    const counter = new Counter(runts)
    runc(runts, 'run', '-d', '-b', counter.bundle, 'c')
    await counter.goesOn()
    const last = await save(runts, counter)
    await bringBack(runts, counter, last)
  })
})
