/**
 * What fails in a checkpoint or a restore is one clear line. A container that could not be saved goes on as before, and
 * one that could not be restored leaves nothing.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { allPids } from '../support/census.ts'
import { until } from '../support/command.ts'
import { beginCounting, Counter, contents, leave } from '../support/counter.ts'
import { needs } from '../support/needs.ts'
import { OCI_RUNTIME } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'

/** Where packages install CRIU. */
const PACKAGED = ['/usr/local/sbin/criu', '/usr/sbin/criu', '/sbin/criu'] as const

/**
 * A PATH on which `criu` is killed as soon as `condition`, a test of the shell, holds. It is run again and again until
 * then; the file "killed" tells that it held.
 */
function killedWhen(runts: Runts, condition: string): Readonly<Record<string, string>> {
  const folder = join(runts.folder, 'bin')
  mkdirSync(folder)
  const real = spawnSync('sh', ['-c', 'command -v criu'], { encoding: 'utf8' }).stdout.trim()
  const script = `#!/bin/sh
( exec 3>&-; while kill -0 $$ 2>/dev/null; do if ${condition}; then kill -9 $$; : >${runts.folder}/killed; exit; fi; done ) &
exec ${real} "$@"
`
  writeFileSync(join(folder, 'criu'), script, { mode: 0o755 })
  return { PATH: `${folder}:${process.env['PATH']}` }
}

/** Waits until no process names the test's folder, except those of the test itself. */
async function untilNoProcess(runts: Runts): Promise<void> {
  await until('no process of the container', () =>
    allPids().every((pid) => !contents(`/proc/${pid}/cgroup`).includes(`/${runts.name}/`)),
  )
}

const restore = (counter: Counter) => ['restore', '-d', '--image-path', counter.images, '-b', counter.bundle, 'c']

async function saved(runts: Runts): Promise<Counter> {
  const counter = await beginCounting(runts)
  await runts.ok('checkpoint', '--image-path', counter.images, 'c')
  return counter
}

/** Expects that nothing is there of a container that could not be restored. */
async function expectNothing(runts: Runts): Promise<void> {
  expect(existsSync(join(runts.root, 'c'))).toBe(false)
  expect(contents('/proc/self/mountinfo').includes(runts.name)).toBe(false)
  await untilNoProcess(runts)
}

describe('runts checkpoint and restore without CRIU', needs('root', 'busybox'), () => {
  test('say what to install, and leave all as it is', async ({ runts }) => {
    const counter = await beginCounting(runts)
    // in a mount namespace of its own, where the null device covers the packaged program
    const hide = PACKAGED.filter((path) => existsSync(path)).map((path) => `mount --bind /dev/null ${path};`)
    const without = (...args: string[]) =>
      spawnSync(
        'unshare',
        ['-m', 'sh', '-c', `${hide.join('')} PATH=/usr/bin:/bin exec "$@"`, '-', OCI_RUNTIME, ...args],
        {
          encoding: 'utf8',
        },
      )
    const line =
      /^runts: error: cannot (checkpoint|restore) container "\w": cannot find the program "criu" on the PATH: install CRIU .* \(package criu\)\n$/
    expect(without('--root', runts.root, 'checkpoint', '--image-path', counter.images, 'c')).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(line),
    })
    await counter.goesOn()
    mkdirSync(counter.images, { recursive: true })
    writeFileSync(join(counter.images, 'descriptors.json'), '["","",""]')
    const { stderr } = without(
      '--root',
      runts.root,
      'restore',
      '--image-path',
      counter.images,
      '-b',
      counter.bundle,
      'd',
    )
    expect(stderr).toMatch(line)
    expect(existsSync(join(runts.root, 'd'))).toBe(false)
    expect(JSON.parse(without('features').stdout).annotations).toMatchObject({ 'runts.checkpoint.enabled': 'false' })
  })
})

describe('a failing runts checkpoint', needs('root', 'busybox', 'criu'), () => {
  test('is one line with the end of the log, and the container goes on', async ({ runts }) => {
    const counter = await beginCounting(runts)
    const args = ['checkpoint', '--page-server', '127.0.0.1:1', '--image-path', counter.images, 'c']
    const { code, stderr } = await runts.run(...args)
    expect(code).toBe(1)
    expect(stderr).toMatch(
      /^runts: error: cannot checkpoint container "c": criu dump: criu failed: Can't connect to server 127\.0\.0\.1:1; .*Dumping FAILED\. \(all of it in .*dump\.log\)\n$/,
    )
    expect(readdirSync(counter.images)).toEqual(['dump.log'])
    await counter.goesOn()
  })

  test('for lack of room leaves no images, and the container goes on', async ({ runts }) => {
    const counter = await beginCounting(runts)
    const work = join(runts.folder, 'work')
    mkdirSync(counter.images)
    expect(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', counter.images]).status).toBe(0)
    try {
      const args = ['checkpoint', '--image-path', counter.images, '--work-path', work, 'c']
      expect(await runts.run(...args)).toMatchObject({ code: 1, stderr: expect.stringMatching(/No space left|write/i) })
      expect(readdirSync(counter.images)).toEqual([])
      await counter.goesOn()
    } finally {
      spawnSync('umount', [counter.images])
    }
  })

  for (const [when, condition] of [
    ['at once', 'true'],
    ['when it has begun', '[ -s "$IMAGES/dump.log" ]'],
    ['in the middle', 'grep -q "Dumping core" "$IMAGES/dump.log" 2>/dev/null'],
  ] as const) {
    test(`by a CRIU that is killed ${when} leaves the container running`, async ({ runts }) => {
      const counter = await beginCounting(runts)
      const env = killedWhen(runts, condition.replaceAll('$IMAGES', counter.images))
      const command = runts.start(['checkpoint', '--image-path', counter.images, 'c'], { env })
      expect(await command.finished).toMatchObject({
        code: 1,
        stderr: expect.stringMatching(
          /cannot checkpoint container "c": .*criu ended before it answered: signal: killed/,
        ),
      })
      expect(readdirSync(counter.images).filter((name) => !name.endsWith('.log'))).toEqual([])
      await counter.goesOn()
      rmSync(counter.images, { recursive: true })
      await runts.ok('checkpoint', '--image-path', counter.images, 'c')
    })
  }

  test('of a created or a stopped container is refused', async ({ runts }) => {
    leave(runts, 'create', '-b', runts.bundle(['true']), 'c')
    const refused = (status: string) => ({ code: 1, stderr: `runts: error: cannot checkpoint a ${status} container\n` })
    expect(await runts.run('checkpoint', '--image-path', join(runts.folder, 'i'), 'c')).toMatchObject(
      refused('created'),
    )
    await runts.ok('start', 'c')
    await runts.untilStatus('c', 'stopped')
    expect(await runts.run('checkpoint', '--image-path', join(runts.folder, 'i'), 'c')).toMatchObject(
      refused('stopped'),
    )
  })

  test('names a parent that is no folder below the images', async ({ runts }) => {
    const counter = await beginCounting(runts)
    const attempt = async (parent: string) =>
      (await runts.run('checkpoint', '--image-path', counter.images, '--parent-path', parent, 'c')).stderr
    expect(await attempt('/tmp')).toContain('cannot use the parent path "/tmp": it must be relative to the image path')
    expect(await attempt('../none')).toMatch(/cannot use the parent path "\.\.\/none": ".*none" is not a directory/)
    await counter.goesOn()
  })
})

describe('a failing runts restore', needs('root', 'busybox', 'criu'), () => {
  test('says what is wrong with the folder of the images', async ({ runts }) => {
    const counter = new Counter(runts)
    expect((await runts.run(...restore(counter))).stderr).toContain(
      `cannot open the folder "${counter.images}": ENOENT`,
    )
    mkdirSync(counter.images)
    expect((await runts.run(...restore(counter))).stderr).toContain('descriptors.json": ENOENT')
    writeFileSync(join(counter.images, 'descriptors.json'), '{"a":1}')
    expect((await runts.run(...restore(counter))).stderr).toContain('it must be a list of names')
    await expectNothing(runts)
  })

  test('with a damaged image leaves nothing, and has the end of the log', async ({ runts }) => {
    const counter = await saved(runts)
    truncateSync(join(counter.images, 'core-1.img'), 10)
    const { code, stderr } = await runts.run(...restore(counter))
    expect(code).toBe(1)
    expect(stderr).toMatch(
      /^runts: error: cannot restore container "c": criu restore: .* \(all of it in .*restore\.log\)\n$/,
    )
    await expectNothing(runts)
  })

  test('with a failing hook says which, and leaves nothing', async ({ runts }) => {
    const counter = await saved(runts)
    const config = join(counter.bundle, 'config.json')
    const spec = JSON.parse(contents(config))
    spec.hooks = {
      createRuntime: [{ path: '/bin/false' }],
      poststop: [{ path: '/bin/touch', args: ['touch', `${counter.images}/over`] }],
    }
    writeFileSync(config, JSON.stringify(spec))
    expect((await runts.run(...restore(counter))).stderr).toContain('error running createRuntime hook #0')
    expect(existsSync(join(counter.images, 'over'))).toBe(true)
    await expectNothing(runts)
  })

  test('to an id that is taken leaves its owner alone', async ({ runts }) => {
    const counter = await beginCounting(runts)
    await runts.ok('checkpoint', '--leave-running', '--image-path', counter.images, 'c')
    expect((await runts.run(...restore(counter))).stderr).toContain('container with given ID already exists')
    await counter.goesOn()
  })

  for (const [when, condition] of [
    ['at once', 'true'],
    ['when it has begun', '[ -s "$IMAGES/restore.log" ]'],
    ['when it has made a process', 'grep -q "Forking task" "$IMAGES/restore.log" 2>/dev/null'],
    ['at the end', 'grep -q "Restore finished" "$IMAGES/restore.log" 2>/dev/null'],
  ] as const) {
    test(`by a CRIU that is killed ${when} leaves nothing`, async ({ runts }) => {
      const counter = await saved(runts)
      const env = killedWhen(runts, condition.replaceAll('$IMAGES', counter.images))
      const ended = await runts.leaving(restore(counter), { env })
      // at the very end it may have answered before it was killed
      if (when !== 'at the end' || ended.code !== 0) {
        expect(ended).toMatchObject({ code: 1, stderr: expect.stringContaining('cannot restore container "c"') })
        await expectNothing(runts)
      }
    })
  }
})
