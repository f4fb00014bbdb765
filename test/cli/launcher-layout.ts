/**
 * The launcher alone: the real binary in a folder layout of its own, with a small C program in Node's place that
 * writes down what it was given (launcher-stand-in.c). What the shim does with all that is tested elsewhere, with the
 * real Node. Teardown ends whatever still runs from the layout.
 */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Any, BootstrapParams, RuncOptions, RuntimeInfo } from 'ttrpc-ts/containerd'
import { test as base, expect } from 'vitest'
import { SLOWNESS } from '../support/needs.ts'

const LAUNCHER = process.env['LAUNCHER'] ?? join(import.meta.dirname, '../../build/bin/containerd-shim-ts-v2')
const STAND_IN_SOURCE = join(import.meta.dirname, 'launcher-stand-in.c')
/** What the launcher knows of the runtime from its build. */
export const INFO = RuntimeInfo.encode({
  name: 'io.containerd.ts.v2',
  features: { typeUrl: 'features', value: Buffer.from('{}') },
})
const BOUND_MS = 5000 * SLOWNESS

/** Starts the launcher with two files that its parent forgot to close. */
export const LEAKING = ['sh', '-c', 'exec "$@" 3</etc/passwd 9</etc/group', 'sh']

/** How one run of the launcher ended. */
export interface Result {
  readonly status: number | null
  readonly stdout: Buffer
  readonly text: string
  readonly stderr: string
}

interface RunOptions {
  readonly input?: Uint8Array
  readonly cwd?: string
  readonly env?: Record<string, string>
  /** Command in front of the launcher, to prepare the process that it inherits. */
  readonly through?: readonly string[]
}

/** What the stand-in wrote down: all values of a key, in order. */
type Facts = (key: string) => string[]

/** A launcher with all that belongs to it, and with what it is run on. */
export interface Layout {
  readonly root: string
  readonly lib: string
  readonly bundle: string
  readonly sockets: string
  readonly address: string
  readonly log: number
  run(args: readonly string[], options?: RunOptions): Result
  start(options?: RunOptions & { id?: string; flags?: readonly string[]; params?: Partial<BootstrapParams> }): Result
  delete(options?: RunOptions & { id?: string; bundle?: string | undefined }): Result
  /** Waits for the stand-in's record. */
  facts(): Promise<Facts>
  /** Processes that run a program of this layout. */
  processes(): number[]
  end(): Promise<void>
  nothingIsLeft(): void
}

/** The name of a socket, by the rule that all shims follow. */
export function hash(address: string, id: string): string {
  return createHash('sha256').update(`${address}/default/${id}`).digest('hex')
}

/** A zombie counts: its files are closed, and who reaps it is the machine's business. */
function isDead(pid: number): boolean {
  try {
    return /\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return true
  }
}

function makeLayout(standIn: string): Layout {
  const root = mkdtempSync(join(tmpdir(), 'launcher-'))
  const lib = join(root, 'lib/containerd-shim-ts')
  const bundle = join(root, 'bundle')
  const launcher = join(root, 'bin/containerd-shim-ts-v2')
  for (const folder of [lib, bundle, join(root, 'bin')]) mkdirSync(folder, { recursive: true })
  copyFileSync(LAUNCHER, launcher)
  copyFileSync(standIn, join(lib, 'node'))
  writeFileSync(join(lib, 'shim.cjs'), '')
  writeFileSync(join(lib, 'VERSION'), '1.2.3\n')
  writeFileSync(join(lib, 'runtime-info'), INFO)
  spawnSync('mkfifo', ['-m', '700', join(bundle, 'log')])

  const layout: Layout = {
    root,
    lib,
    bundle,
    sockets: join(root, 's'),
    address: join(root, 'containerd.sock'),
    log: openSync(join(bundle, 'log'), 'r+'), // the daemon holds it open like this
    run(args, { input, cwd = bundle, env = {}, through = [] } = {}) {
      const [program, ...rest] = [...through, launcher, ...args]
      const done: SpawnSyncReturns<Buffer> = spawnSync(program!, rest, {
        cwd,
        env: { PATH: process.env['PATH'], TTRPC_ADDRESS: join(root, 'ttrpc.sock'), ...env },
        stdio: [input ? 'pipe' : 'ignore', 'pipe', 'pipe'],
        timeout: BOUND_MS,
        ...(input ? { input } : {}),
      })
      if (done.error) throw done.error
      return { status: done.status, stdout: done.stdout, text: done.stdout.toString(), stderr: done.stderr.toString() }
    },
    start({ id = 'c1', flags = [], params, ...options } = {}) {
      const input = BootstrapParams.encode({
        instanceId: id,
        namespace: 'default',
        socketDir: layout.sockets,
        ...params,
      })
      const args = ['-namespace', 'default', '-address', layout.address, '-publish-binary', '/usr/bin/containerd']
      return layout.run([...args, '-id', id, ...flags, 'start'], { input, ...options })
    },
    delete({ id = 'c1', bundle: folder = bundle, ...options } = {}) {
      const args = ['-namespace', 'default', '-address', layout.address, '-publish-binary', '/usr/bin/containerd']
      return layout.run([...args, '-id', id, '-bundle', folder, 'delete'], options)
    },
    async facts() {
      const path = join(lib, 'record')
      for (const until = Date.now() + BOUND_MS; !existsSync(path) && Date.now() < until; ) await delay(5)
      const lines = readFileSync(path, 'utf8').split('\n')
      return (key) => lines.filter((line) => line.startsWith(`${key} `)).map((line) => line.slice(key.length + 1))
    },
    processes() {
      return readdirSync('/proc')
        .filter((name) => /^\d+$/.test(name))
        .filter((name) => {
          try {
            return readlinkSync(`/proc/${name}/exe`).startsWith(`${root}/`)
          } catch {
            return false // it has ended meanwhile
          }
        })
        .map(Number)
    },
    async end() {
      const ours = layout.processes()
      for (const pid of ours) process.kill(pid, 'SIGKILL')
      for (const until = Date.now() + BOUND_MS; !ours.every(isDead) && Date.now() < until; ) await delay(5)
      rmSync(join(lib, 'record'), { force: true })
    },
    nothingIsLeft() {
      expect(layout.processes()).toEqual([])
      expect(existsSync(layout.sockets) ? readdirSync(layout.sockets) : []).toEqual([])
      expect(readdirSync(bundle)).toEqual(['log'])
    },
  }
  return layout
}

/** vitest's test with a layout of its own; the stand-in is built once per file. */
export const test = base.extend<{ $file: { standIn: string }; $test: { layout: Layout } }>({
  standIn: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixture's needs from this pattern
    async ({}, use) => {
      const standIn = join(mkdtempSync(join(tmpdir(), 'launcher-')), 'stand-in')
      const flags = ['-Wall', '-Wextra', '-Werror']
      const built = spawnSync('gcc', [...flags, '-o', standIn, STAND_IN_SOURCE], { encoding: 'utf8' })
      expect(built.stderr).toBe('')
      await use(standIn)
      rmSync(join(standIn, '..'), { recursive: true, force: true })
    },
    { scope: 'file' },
  ],
  layout: async ({ standIn }, use) => {
    const layout = makeLayout(standIn)
    await use(layout)
    await layout.end()
    closeSync(layout.log)
    rmSync(layout.root, { recursive: true, force: true })
  },
})

/** Resolves when something listens at the path, rejects when not. */
export function knock(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => resolve(socket.destroy() && undefined))
    socket.on('error', reject)
  })
}

/** Where the socket of an id is. */
export function socketPath(layout: Layout, id = 'c1'): string {
  return join(layout.sockets, hash(layout.address, id))
}

/** Runtime options that name a cgroup for the shim. */
export function options(shimCgroup: string): Any {
  return Any.create({ typeUrl: 'containerd.runc.v1.Options', value: RuncOptions.encode({ shimCgroup }) })
}

const LINE = /^containerd-shim-ts-v2: cannot [^\n]+\n$/

/** Checks that the launcher failed and said why in one line. */
export function expectRefusal(result: Result, reason: string): void {
  expect(result).toMatchObject({ text: '', stderr: expect.stringMatching(LINE) })
  expect(result.stderr).toContain(reason)
  expect(result.status).not.toBe(0)
}
