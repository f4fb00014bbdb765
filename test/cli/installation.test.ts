/**
 * Where the programs find their installation: beside themselves, where a link leads, where scripts/install recorded
 * it for copies, or where SHIM_TS_LIB says. Also what they print if it is nowhere. The installation is a real one, in
 * a folder of the test's own.
 */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, linkSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DeleteResponse } from 'ttrpc-ts/containerd'
import { afterAll, beforeAll, describe, expect } from 'vitest'
import { needs } from '../support/needs.ts'
import { BIN, LIB, ROOT } from '../support/places.ts'
import { test } from '../support/runts.ts'

const SHIM = 'containerd-shim-ts-v2'
const PROGRAMS = [SHIM, 'runts']
const base = mkdtempSync(join(tmpdir(), 'installed-'))
// a blank and a quote: what a folder may be called
const prefix = join(base, "a 'prefix'")
let places = 0

function call(program: string, args: readonly string[], env: Record<string, string> = {}): SpawnSyncReturns<string> {
  return spawnSync(program, args, {
    encoding: 'utf8',
    cwd: '/',
    env: { PATH: '/usr/bin:/bin', ...env },
    timeout: 60_000,
  })
}

/** A folder elsewhere, with whatever `make` puts there for each program. */
function elsewhere(make: (name: string, path: string) => void): (name: string) => string {
  const folder = join(base, `place${places++}`, 'bin')
  mkdirSync(folder, { recursive: true })
  for (const name of PROGRAMS) make(name, join(folder, name))
  return (name) => join(folder, name)
}

const installed = (name: string): string => join(prefix, 'bin', name)

/** Expects that both programs work, each with its Node too. */
function expectWorking(at: (name: string) => string, env?: Record<string, string>): void {
  expect(call(at('runts'), ['--version'], env)).toMatchObject({
    status: 0,
    stdout: expect.stringMatching(/^runts version \d/),
  })
  expect(call(at('runts'), ['features'], env)).toMatchObject({ status: 0, stderr: '' })
  expect(call(at(SHIM), ['-v'], env)).toMatchObject({
    status: 0,
    stderr: '',
    stdout: expect.stringMatching(/Version: {2}\d/),
  })
  const flags = [
    '-namespace',
    'default',
    '-id',
    'none',
    '-address',
    join(base, 'none.sock'),
    '-bundle',
    join(base, 'none'),
  ]
  const ended = spawnSync(at(SHIM), [...flags, 'delete'], { env: { PATH: '/usr/bin:/bin', ...env }, timeout: 60_000 })
  expect(ended.status, ended.stderr.toString()).toBe(0)
  expect(DeleteResponse.decode(ended.stdout)).toMatchObject({ exitStatus: 137 })
}

/** Expects that both say in one line what is missing and what to do. */
function expectLost(at: (name: string) => string, missing: string, env?: Record<string, string>): void {
  for (const [name, begin] of [
    [SHIM, `${SHIM}: cannot find the installation`],
    ['runts', 'runts: error: cannot find the installation'],
  ] as const) {
    const { status, stdout, stderr } = call(at(name), ['-v'], env)
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
    expect(stderr).toMatch(/^[^\n]+\n$/)
    expect(stderr).toContain(begin)
    expect(stderr.replace('/bin/../', '/')).toContain(missing)
    for (const way of ['link', 'SHIM_TS_LIB', 'scripts/install']) expect(stderr).toContain(way)
  }
}

function install(...args: string[]): void {
  const { status, stderr, stdout } = spawnSync(join(ROOT, 'scripts/install'), ['--prefix', prefix, ...args], {
    encoding: 'utf8',
    timeout: 300_000,
  })
  expect(status, stderr + stdout).toBe(0)
}

describe('an installation', needs('root', 'gcc', 'make', 'our shim'), () => {
  beforeAll(() => install(), 300_000)
  afterAll(() => {
    install('--uninstall')
    expect(
      existsSync(prefix) ? [join(prefix, 'bin'), join(prefix, 'lib')].filter((path) => existsSync(path)) : [],
    ).toEqual([])
    rmSync(base, { recursive: true, force: true })
  })

  test('is found where it was made', () => expectWorking(installed))

  test('is found by a link, and by a link to one', () => {
    const one = elsewhere((name, path) => symlinkSync(installed(name), path))
    expectWorking(one)
    expectWorking(elsewhere((name, path) => symlinkSync(join('../..', one(name).slice(base.length)), path)))
  })

  test('is found by a copy, and by a second name of the same file', () => {
    expectWorking(elsewhere((name, path) => copyFileSync(installed(name), path)))
    expectWorking(elsewhere((name, path) => linkSync(installed(name), path)))
  })

  test('is found by a copy of what was only built, where SHIM_TS_LIB says', () => {
    expectWorking(
      elsewhere((name, path) => copyFileSync(join(BIN, name), path)),
      { SHIM_TS_LIB: LIB },
    )
  })

  test('beside a program is taken before the recorded one', () => {
    const at = elsewhere((name, path) => copyFileSync(installed(name), path))
    mkdirSync(join(at('runts'), '../../lib'))
    symlinkSync(LIB, join(at('runts'), '../../lib/containerd-shim-ts'))
    renameSync(prefix, `${prefix}.away`)
    try {
      expectWorking(at)
    } finally {
      renameSync(`${prefix}.away`, prefix)
    }
  })

  test('that is nowhere is named in one line, with what to do', () => {
    const unrecorded = elsewhere((name, path) => copyFileSync(join(BIN, name), path))
    expectLost(unrecorded, join(unrecorded('runts'), '../../lib/containerd-shim-ts'))
    const copy = elsewhere((name, path) => copyFileSync(installed(name), path))
    renameSync(prefix, `${prefix}.away`)
    try {
      expectLost(copy, join(prefix, 'lib/containerd-shim-ts'))
    } finally {
      renameSync(`${prefix}.away`, prefix)
    }
    for (const wrong of ['relative', join(base, 'nothing')])
      expectLost(installed, `SHIM_TS_LIB is "${wrong}"`, { SHIM_TS_LIB: wrong })
  })

  test('runs a container by a copy of its program', async ({ runts }) => {
    const at = elsewhere((name, path) => copyFileSync(installed(name), path))
    const bundle = runts.bundle(['echo', 'from a copy'])
    expect(call(at('runts'), ['--root', runts.root, 'run', '-b', bundle, 'c'])).toMatchObject({
      status: 0,
      stdout: 'from a copy\n',
      stderr: '',
    })
  })
})
