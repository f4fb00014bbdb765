/**
 * One layout, two runtimes: runc looks at our containers, signals and deletes them, and we do the same with runc's.
 * The other runtime is the real one of this machine.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { isAlive } from '../support/census.ts'
import { needs } from '../support/needs.ts'
import { type Runts, test } from '../support/runts.ts'

const SLEEP = ['sleep', '1000']

/** Runs runc on the same root. */
function runc(runts: Runts, ...args: string[]): { code: number | null; stdout: string; stderr: string } {
  // a container keeps the streams that its runtime had, and with them a pipe of ours open
  const leaves = args[0] === 'run' || args[0] === 'create'
  const stdio = leaves ? ('ignore' as const) : ('pipe' as const)
  const { status, stdout, stderr } = spawnSync('runc', ['--root', runts.root, ...args], { encoding: 'utf8', stdio })
  return { code: status, stdout, stderr }
}

/** A container that runc runs. */
function byRunc(runts: Runts, change?: Parameters<Runts['bundle']>[1]): string {
  const bundle = runts.bundle(SLEEP, change)
  expect(runc(runts, 'run', '-d', '-b', bundle, 'c')).toMatchObject({ code: 0 })
  return bundle
}

describe('runts with a container of runc', needs('root', 'busybox', 'the runc shim'), () => {
  test('shows its state with the bundle, the annotations and the pid', async ({ runts }) => {
    const bundle = byRunc(runts, (spec) => Object.assign(spec, { annotations: { colour: 'red=dark' } }))
    expect(await runts.state('c')).toMatchObject({
      id: 'c',
      status: 'running',
      bundle,
      rootfs: join(bundle, 'rootfs'),
      pid: JSON.parse(runc(runts, 'state', 'c').stdout).pid,
      annotations: { colour: 'red=dark' },
    })
    expect((await runts.ok('list', '-q')).stdout).toBe('c\n')
  })

  test('runs a process in it', async ({ runts }) => {
    byRunc(runts)
    expect(await runts.ok('exec', 'c', 'echo', 'inside')).toMatchObject({ stdout: 'inside\n' })
  })

  test('pauses, kills and deletes it', async ({ runts }) => {
    byRunc(runts)
    const { pid } = await runts.state('c')
    await runts.ok('pause', 'c')
    expect(JSON.parse(runc(runts, 'state', 'c').stdout)).toMatchObject({ status: 'paused' })
    await runts.ok('resume', 'c')
    await runts.ok('kill', 'c', 'KILL')
    await runts.untilStatus('c', 'stopped')
    await runts.ok('delete', 'c')
    expect(isAlive(Number(pid))).toBe(false)
    expect(runc(runts, 'state', 'c').stderr).toContain('does not exist')
  })

  test('starts one that runc has created', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP)
    expect(runc(runts, 'create', '-b', bundle, 'c').code).toBe(0)
    expect(await runts.state('c')).toMatchObject({ status: 'created' })
    await runts.ok('start', 'c')
    expect(JSON.parse(runc(runts, 'state', 'c').stdout)).toMatchObject({ status: 'running' })
  })

  test('does without the bundle for all but exec, and says so there', async ({ runts }) => {
    const bundle = byRunc(runts)
    rmSync(join(bundle, 'config.json'))
    expect(await runts.state('c')).toMatchObject({ status: 'running', bundle })
    expect(await runts.run('exec', 'c', 'true')).toMatchObject({
      code: 255,
      stderr: expect.stringMatching(/cannot exec in container "c" of another runtime: .*config.json": ENOENT/),
    })
    await runts.ok('delete', '-f', 'c')
  })
})

describe('runc with a container of runts', needs('root', 'busybox', 'the runc shim'), () => {
  test('shows its state with the bundle, the annotations and the pid', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP, (spec) => Object.assign(spec, { annotations: { colour: 'red' } }))
    runts.leave('run', '-d', '-b', bundle, 'c')
    const { pid } = await runts.state('c')
    expect(JSON.parse(runc(runts, 'state', 'c').stdout)).toMatchObject({
      ociVersion: '1.0.2',
      id: 'c',
      pid,
      status: 'running',
      bundle,
      rootfs: join(bundle, 'rootfs'),
      annotations: { colour: 'red' },
    })
    expect(runc(runts, 'list', '-q').stdout).toBe('c\n')
  })

  test('starts, pauses, kills and deletes it', async ({ runts }) => {
    runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
    const { pid } = await runts.state('c')
    expect(runc(runts, 'start', 'c')).toMatchObject({ code: 0 })
    expect(runc(runts, 'pause', 'c')).toMatchObject({ code: 0 })
    expect(await runts.state('c')).toMatchObject({ status: 'paused' })
    expect(runc(runts, 'resume', 'c')).toMatchObject({ code: 0 })
    expect(runc(runts, 'kill', 'c', 'KILL')).toMatchObject({ code: 0 })
    await runts.untilStatus('c', 'stopped')
    expect(runc(runts, 'delete', 'c')).toMatchObject({ code: 0 })
    expect(isAlive(Number(pid))).toBe(false)
  })

  test('runs a process in it, under the same filter', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP, (spec) => {
      Object.assign(spec.linux, {
        seccomp: {
          defaultAction: 'SCMP_ACT_ALLOW',
          architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'],
          syscalls: [
            { names: ['mkdir', 'mkdirat', 'no_such_call'], action: 'SCMP_ACT_ERRNO', errnoRet: 122 },
            {
              names: ['kill'],
              action: 'SCMP_ACT_ERRNO',
              errnoRet: 28,
              args: [{ index: 1, value: 2 ** 32 + 63, valueTwo: 10, op: 'SCMP_CMP_MASKED_EQ' }],
            },
          ],
        },
      })
    })
    runts.leave('run', '-d', '-b', bundle, 'c')
    // what the bundle says by now does not count
    const config = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8'))
    writeFileSync(join(bundle, 'config.json'), JSON.stringify({ ...config, linux: { ...config.linux, seccomp: null } }))
    const script = 'mkdir /tmp/x; kill -USR1 $$; kill -0 $$ && echo alive; grep Seccomp: /proc/self/status'
    const { stdout, stderr } = runc(runts, 'exec', 'c', 'sh', '-c', script)
    expect(stderr).toMatch(/mkdir: .*Disk quota exceeded\n.*No space left on device/i)
    expect(stdout).toBe('alive\nSeccomp:\t2\n')
    await runts.ok('delete', '-f', 'c')
  })

  test('deletes a running one by force, its processes with it', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(['sh', '-c', 'sleep 1000 & sleep 1000']), 'c')
    expect(runc(runts, 'delete', '-f', 'c')).toMatchObject({ code: 0 })
  })
})

describe('what both tell of one container', needs('root', 'busybox', 'the runc shim', 'our shim'), () => {
  test.for([
    ['list', '-f', 'json'],
    ['state', 'c'],
  ])('is in the same order: %j', async (words, { runts }) => {
    byRunc(runts, (spec) => Object.assign(spec, { annotations: { colour: 'red' } }))
    const keys = (text: string): string[] => [...text.matchAll(/"(\w+)":/g)].map(([, key]) => key ?? '')
    const [runcs, ours] = [runc(runts, ...words).stdout, (await runts.ok(...words)).stdout]
    expect(keys(runcs)).toContain('annotations')
    expect(keys(ours)).toEqual(keys(runcs))
  })
})

describe('--version', needs('the runc shim', 'our shim'), () => {
  test('has the lines of runc, but for that of Go', async ({ runts }) => {
    const names = (text: string): string[] =>
      text
        .trimEnd()
        .split('\n')
        .map((line) => line.replace(/^runts|^runc/, 'NAME').replace(/(version|:) \S+$/, '$1'))
    const runcs = names(runc(runts, '--version').stdout).filter((line) => line !== 'go:')
    expect(runcs).toEqual(['NAME version', 'commit:', 'spec:', 'libseccomp:'])
    expect(names((await runts.ok('--version')).stdout)).toEqual(runcs)
  })
})

describe('state.json', needs('root', 'busybox'), () => {
  test('of another version is refused by name, and left alone unless it is deleted by force', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const path = join(runts.root, 'c/state.json')
    const saved = readFileSync(path, 'utf8')
    writeFileSync(path, JSON.stringify({ ...JSON.parse(saved), version: 99 }))
    for (const command of [
      ['state', 'c'],
      ['kill', 'c'],
      ['delete', 'c'],
    ]) {
      expect(await runts.run(...command), command.join(' ')).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('its version is 99, and this runtime knows only 1'),
      })
    }
    writeFileSync(path, saved)
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
  })
})
