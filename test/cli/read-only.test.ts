/**
 * Commands on a state root that cannot be written any more: each that cannot do its work says so in one line with its
 * reason.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { cgroupsOf } from '../support/census.ts'
import { needs } from '../support/needs.ts'
import { type Runts, test } from '../support/runts.ts'

const SLEEP = ['sleep', '1000']

function mount(...args: readonly string[]): void {
  const { status, stderr } = spawnSync('mount', args, { encoding: 'utf8' })
  expect(status, stderr).toBe(0)
}

/** The root is a file system of its own; disposed, it is the plain folder again, with nothing in it. */
async function ownFileSystem(runts: Runts): Promise<AsyncDisposable & { readOnly(): void; writable(): void }> {
  mkdirSync(runts.root)
  mount('-t', 'tmpfs', runts.name, runts.root)
  const writable = (): void => mount('-o', 'remount,rw', runts.root)
  return {
    readOnly: () => mount('-o', 'remount,ro', runts.root),
    writable,
    async [Symbol.asyncDispose]() {
      writable()
      for (const id of (await runts.ok('list', '-q')).stdout.split('\n').filter(Boolean))
        await runts.ok('delete', '-f', id)
      expect(spawnSync('umount', [runts.root]).status).toBe(0)
    },
  }
}

describe('on a read-only state root', needs('root', 'busybox'), () => {
  test('delete says in one line what stays and why, and does the rest when it can be written again', async ({
    runts,
  }) => {
    await using root = await ownFileSystem(runts)
    const said = join(runts.folder, 'said')
    const bundle = runts.bundle(SLEEP, (spec) => {
      spec.hooks = { poststop: [{ path: '/bin/sh', args: ['sh', '-c', `echo poststop >>${said}`] }] }
    })
    runts.leave('run', '-d', '-b', bundle, 'c')
    root.readOnly()
    const { code, stdout, stderr } = await runts.run('delete', '-f', 'c')
    const path = join(runts.root, 'c/state.json')
    expect({ code, stdout, stderr }).toEqual({
      code: 1,
      stdout: '',
      stderr: `runts: error: cannot delete the state of container "c": cannot remove "${path}": EROFS: read-only file system\n`,
    })
    expect(await runts.state('c')).toMatchObject({ status: 'stopped' })
    expect(existsSync(said)).toBe(false)
    root.writable()
    await runts.ok('delete', 'c')
    expect(readFileSync(said, 'utf8')).toBe('poststop\n')
  })

  test('every other command that needs to write says so in one line too, and those that do not work', async ({
    runts,
  }) => {
    await using root = await ownFileSystem(runts)
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    runts.leave('create', '-b', runts.bundle(SLEEP), 'waiting')
    const bundle = runts.bundle(SLEEP)
    const limits = join(runts.folder, 'limits.json')
    writeFileSync(limits, '{"pids":{"limit":50}}')
    root.readOnly()
    // that a program runs cannot be taken back
    const started = await runts.ok('start', 'waiting')
    expect(started.stderr).toMatch(/^time=.* level=warning msg="the container was started, but its .*EROFS.*\n$/)
    expect(await runts.state('waiting')).toMatchObject({ status: 'running' })
    const refused = [
      ['create', '-b', bundle, 'new'],
      ['run', '-d', '-b', bundle, 'new'],
      ['update', '-r', limits, 'c'],
      ['delete', '-f', 'waiting'],
    ]
    for (const args of refused) {
      const { code, stdout, stderr } = await runts.run(...args)
      expect({ args, code, stdout, lines: stderr.split('\n').length }).toEqual({ args, code: 1, stdout: '', lines: 2 })
      expect(stderr, args.join(' ')).toMatch(/^runts: error: (\w.*)?EROFS.*\n$/)
    }
    // what cannot be kept is not set
    const maxima = cgroupsOf(runts.name).map((folder) => join(folder, 'pids.max'))
    expect(maxima.filter((path) => existsSync(path) && readFileSync(path, 'utf8') !== 'max\n')).toEqual([])
    expect((await runts.ok('exec', 'c', 'echo', 'alive')).stdout).toBe('alive\n')
    for (const args of [['list'], ['state', 'c'], ['pause', 'c'], ['resume', 'c'], ['kill', 'c']])
      await runts.ok(...args)
  })
})
