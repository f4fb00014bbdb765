/**
 * The launcher alone: the real binary in a folder layout of its own, with a small C program in Node's place that writes down what it was
 * given (launcher-stand-in.c). What the shim does with all that is tested elsewhere, with the real Node.
 * Teardown ends whatever still runs from the layout.
 */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import {
  Any,
  BootstrapParams,
  DeleteResponse,
  LegacyCreateOptions,
  RuncOptions,
  RuntimeInfo,
} from 'ttrpc-ts/containerd'
import { beforeAll, describe, expect, test as plainTest } from 'vitest'
import { nodeFlags } from '../../scripts/node-flags.ts'
import { missing, needs, SLOWNESS } from '../support/needs.ts'

const LAUNCHER = process.env['LAUNCHER'] ?? join(import.meta.dirname, '../../build/bin/containerd-shim-ts-v2')
const STAND_IN_SOURCE = join(import.meta.dirname, 'launcher-stand-in.c')
const FUZZ_SOURCE = join(import.meta.dirname, 'launcher-fuzz.c')
const INFO = RuntimeInfo.encode({
  name: 'io.containerd.ts.v2',
  features: { typeUrl: 'features', value: Buffer.from('{}') },
})
const C_SOURCES = join(import.meta.dirname, '../../c')
const BOUND_MS = 5000 * SLOWNESS

let standIn: string

beforeAll(() => {
  if (missing('gcc') !== undefined) return
  standIn = join(mkdtempSync(join(tmpdir(), 'launcher-')), 'stand-in')
  const built = spawnSync('gcc', ['-Wall', '-Wextra', '-Werror', '-o', standIn, STAND_IN_SOURCE], { encoding: 'utf8' })
  expect(built.stderr).toBe('')
  return () => rmSync(join(standIn, '..'), { recursive: true, force: true })
})

/** Starts the launcher with two files that its parent forgot to close. */
const LEAKING = ['sh', '-c', 'exec "$@" 3</etc/passwd 9</etc/group', 'sh']

interface Result {
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

interface Layout {
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

function hash(address: string, id: string): string {
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

function makeLayout(): Layout {
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

const test = plainTest.extend<{ layout: Layout }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the names of the fixtures from this pattern
  layout: async ({}, use) => {
    const layout = makeLayout()
    await use(layout)
    await layout.end()
    closeSync(layout.log)
    rmSync(layout.root, { recursive: true, force: true })
  },
})

/** Resolves when something listens at the path, rejects when not. */
function knock(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => resolve(socket.destroy() && undefined))
    socket.on('error', reject)
  })
}

async function removeGroup(path: string): Promise<void> {
  for (let tries = 0; tries < 100 && existsSync(path); tries++) {
    try {
      rmdirSync(path)
    } catch {
      await delay(50) // the killed process may stay a zombie of the group for a while
    }
  }
}

function mode(path: string): number {
  return lstatSync(path).mode & 0o7777
}

function socketPath(layout: Layout, id = 'c1'): string {
  return join(layout.sockets, hash(layout.address, id))
}

function options(shimCgroup: string): Any {
  return Any.create({ typeUrl: 'containerd.runc.v1.Options', value: RuncOptions.encode({ shimCgroup }) })
}

const LINE = /^containerd-shim-ts-v2: cannot [^\n]+\n$/

function expectRefusal(result: Result, reason: string): void {
  expect(result).toMatchObject({ text: '', stderr: expect.stringMatching(LINE) })
  expect(result.stderr).toContain(reason)
  expect(result.status).not.toBe(0)
}

describe('start', needs('gcc'), () => {
  test('prints the address of the socket and nothing else', ({ layout }) => {
    expect(layout.start()).toMatchObject({ status: 0, text: `unix://${socketPath(layout)}`, stderr: '' })
  })

  test('returns while the shim process runs, and has handed it the listening socket', async ({ layout }) => {
    layout.start()
    expect((await layout.facts())('listening')).toEqual(['1'])
    expect(layout.processes()).toHaveLength(1)
    await knock(socketPath(layout))
  })

  test('makes the socket 0600 and its folder 0700 below 0711 parents, whatever the umask', ({ layout }) => {
    const socketDir = join(layout.root, 'a/b/s')
    for (const umask of ['000', '077', '777']) {
      const through = ['sh', '-c', `umask ${umask}; exec "$@"`, 'sh']
      expect(layout.start({ id: `c${umask}`, params: { socketDir }, through })).toMatchObject({ status: 0, stderr: '' })
      expect(mode(join(socketDir, hash(layout.address, `c${umask}`)))).toBe(0o600)
      expect(mode(socketDir)).toBe(0o700)
      expect(mode(join(socketDir, '../..'))).toBe(0o711)
      expect(mode(join(layout.bundle, 'address'))).toBe(0o644)
      rmSync(join(layout.root, 'a'), { recursive: true })
    }
  })

  test('leaves an existing socket folder as it is', ({ layout }) => {
    mkdirSync(layout.sockets, { mode: 0o711 })
    layout.start()
    expect(mode(layout.sockets)).toBe(0o711)
  })

  test('writes the address, without a newline, to a file of the bundle', ({ layout }) => {
    writeFileSync(join(layout.bundle, 'address'), 'of an earlier shim')
    layout.start()
    expect(readFileSync(join(layout.bundle, 'address'), 'utf8')).toBe(`unix://${socketPath(layout)}`)
    expect(readdirSync(layout.bundle).sort()).toEqual(['address', 'log'])
  })

  test('runs Node as containerd-shim-ts-v2 with the settings as arguments', async ({ layout }) => {
    layout.start({ flags: ['-debug'] })
    const settings = ['-namespace', 'default', '-id', 'c1', '-address', layout.address, '-bundle', layout.bundle]
    const sockets = ['-ttrpc', join(layout.root, 'ttrpc.sock'), '-socket', socketPath(layout)]
    expect((await layout.facts())('arg')).toEqual([
      'containerd-shim-ts-v2',
      ...nodeFlags(),
      join(layout.lib, 'shim.cjs'),
      ...settings,
      ...sockets,
      '-debug',
      'serve',
    ])
  })

  test('gives Node the log as fd 2, the socket as fd 3 and no other file', async ({ layout }) => {
    layout.start({ through: LEAKING })
    const files = (await layout.facts())('fd').sort()
    expect(files).toEqual(['0 /dev/null', '1 /dev/null', `2 ${layout.bundle}/log`, expect.stringMatching(/^3 socket:/)])
  })

  test('gives Node /dev/null for a missing log', async ({ layout }) => {
    rmSync(join(layout.bundle, 'log'))
    expect(layout.start()).toMatchObject({ status: 0, stderr: '' })
    expect((await layout.facts())('fd')).toContain('2 /dev/null')
  })

  test('does not wait for a reader of the log', async ({ layout }) => {
    rmSync(join(layout.bundle, 'log'))
    spawnSync('mkfifo', [join(layout.bundle, 'log')])
    expect(layout.start()).toMatchObject({ status: 0, stderr: '' })
    expect((await layout.facts())('fd')).toContain(`2 ${layout.bundle}/log`)
  })

  test('gives Node default signals, its own process group and the inherited umask', async ({ layout }) => {
    const through = [
      'env',
      '--ignore-signal=HUP,USR1,PIPE',
      '--block-signal=USR2,TERM',
      'sh',
      '-c',
      'umask 037; exec "$@"',
      'sh',
    ]
    expect(layout.start({ through })).toMatchObject({ status: 0, stderr: '' })
    const facts = await layout.facts()
    expect(facts('status').filter((line) => /^Sig(Blk|Ign|Cgt)/.test(line))).toEqual([
      'SigBlk:\t0000000000000000',
      'SigIgn:\t0000000000000000',
      'SigCgt:\t0000000000000000',
    ])
    expect(facts('pgrp')).toEqual(facts('pid'))
    expect(facts('umask')).toEqual(['37'])
  })

  test('makes Node one point more likely to be killed than the process that ran start', async ({ layout }) => {
    layout.start()
    const ours = Number(readFileSync('/proc/self/oom_score_adj', 'utf8'))
    expect((await layout.facts())('oom')).toEqual([String(Math.min(1000, ours + 1))])
  })

  test('stops at the highest oom_score_adj', async ({ layout }) => {
    layout.start({ through: ['sh', '-c', 'echo 1000 >/proc/self/oom_score_adj; "$@"; exit $?', 'sh'] })
    expect((await layout.facts())('oom')).toEqual(['1000'])
  })

  test("passes the daemon's environment on, without what would change Node, and the limit that Node will change", async ({
    layout,
  }) => {
    const through = ['prlimit', '--nofile=321']
    const bad = {
      RUNTS_SOFT_NOFILE: '7',
      NODE_OPTIONS: '--nope',
      NODE_PATH: '/x',
      NODE_ENV: 'x',
      UV_THREADPOOL_SIZE: '1',
      OPENSSL_CONF: '/x',
    }
    layout.start({ through, env: { ...bad, HTTPS_PROXY: 'p', NODEX: 'kept' } })
    expect(
      (await layout.facts())('env')
        .filter((variable) => !/^(PATH|PWD|_)=/.test(variable))
        .sort(),
    ).toEqual([
      'HTTPS_PROXY=p',
      'NODEX=kept',
      'NODE_NO_WARNINGS=1',
      'RUNTS_SOFT_NOFILE=321',
      `TTRPC_ADDRESS=${join(layout.root, 'ttrpc.sock')}`,
    ])
  })

  test("derives the daemon's ttrpc address when the environment lacks it", async ({ layout }) => {
    layout.start({ env: { TTRPC_ADDRESS: '' } })
    expect((await layout.facts())('arg')).toContain(`${layout.address}.ttrpc`)
  })

  test('works when it is started with closed standard input and error', needs('root'), async ({ layout }) => {
    const through = ['sh', '-c', 'exec "$@" 0<&- 2>&-', 'sh']
    const args = ['-namespace', 'default', '-address', layout.address, '-id', 'c1', 'start']
    const result = layout.run(args, { through })
    expect(result.status).toBe(0)
    const path = result.text.replace('unix://', '')
    expect(path).toBe(join('/run/containerd/s', hash(layout.address, 'c1')))
    try {
      expect((await layout.facts())('fd').filter((file) => file.startsWith('0'))).toEqual(['0 /dev/null'])
      await knock(path)
    } finally {
      rmSync(path, { force: true })
    }
  })

  test('fails and leaves nothing when nobody can read the address', ({ layout }) => {
    for (const redirection of ['>&-', '>/dev/full']) {
      const result = layout.start({ through: ['sh', '-c', `exec "$@" ${redirection}`, 'sh'] })
      expectRefusal(result, 'cannot print the address')
      layout.nothingIsLeft()
    }
  })
})

describe('start refuses', needs('gcc'), () => {
  test('to run without Node, and leaves nothing', ({ layout }) => {
    rmSync(join(layout.lib, 'node'))
    expectRefusal(layout.start(), `cannot run "${layout.lib}/node": No such file or directory`)
    layout.nothingIsLeft()
  })

  test('to run a Node that is no program, and leaves nothing', ({ layout }) => {
    chmodSync(join(layout.lib, 'node'), 0o644)
    expectRefusal(layout.start(), `cannot run "${layout.lib}/node": Permission denied`)
    layout.nothingIsLeft()
  })

  test('to run Node without the shim, and leaves nothing', ({ layout }) => {
    rmSync(join(layout.lib, 'shim.cjs'))
    expectRefusal(layout.start(), `cannot read "${layout.lib}/shim.cjs": No such file or directory`)
    layout.nothingIsLeft()
  })

  test('when nobody takes the reason either, and leaves nothing', ({ layout }) => {
    // the reader of a pipe that is full makes the launcher wait, until it is killed
    const script =
      'mkfifo "$0" && exec 8<>"$0" && head -c 65536 /dev/zero >&8 && exec timeout -s KILL 1 "$@" >/dev/full 2>&8'
    layout.start({ through: ['sh', '-c', script, join(layout.root, 'full')] })
    layout.nothingIsLeft()
  })

  test('a bundle that it cannot write to, and leaves nothing', ({ layout }) => {
    mkdirSync(join(layout.bundle, '.address.tmp'))
    expectRefusal(layout.start(), 'cannot write the file "address"')
    rmdirSync(join(layout.bundle, '.address.tmp'))
    layout.nothingIsLeft()
  })

  test('a socket path that is too long for the kernel', ({ layout }) => {
    expectRefusal(
      layout.start({ params: { socketDir: `/tmp/${'x'.repeat(60)}` } }),
      "the socket's path has 130 bytes, 106 are allowed",
    )
  })

  test('a relative socket folder', ({ layout }) => {
    expectRefusal(layout.start({ params: { socketDir: 'run/s' } }), 'not an absolute path')
  })

  test.for(['777', '770'])('a socket folder where other users could replace the socket: %s', (mode, { layout }) => {
    mkdirSync(layout.sockets)
    chmodSync(layout.sockets, mode)
    expectRefusal(layout.start(), 'other users may change its entries')
  })

  test('to replace something that is not a socket', ({ layout }) => {
    mkdirSync(layout.sockets)
    writeFileSync(socketPath(layout), 'precious')
    expectRefusal(layout.start(), 'something else has this name')
    expect(readFileSync(socketPath(layout), 'utf8')).toBe('precious')
  })

  test('ids and namespaces that containerd would not accept', ({ layout }) => {
    for (const id of ['', '../x', 'a/b', '-x', 'a..b', 'a-', `a${'b'.repeat(76)}`]) {
      expectRefusal(
        layout.run(['-namespace', 'default', '-address', '/a', `-id=${id}`, 'start']),
        'is not a container id',
      )
    }
    expectRefusal(layout.run(['-namespace=a b', '-address', '/a', '-id', 'x', 'start']), 'is not a namespace')
    expectRefusal(layout.run(['-namespace=a', '-id', 'x', 'start']), '-address')
  })

  test('stdin that is no message', ({ layout }) => {
    for (const input of [Buffer.from('hello'), Buffer.of(0x0a, 0x7f), Buffer.of(0x00), Buffer.alloc(12, 0xff)]) {
      expectRefusal(layout.start({ input }), 'cannot read the options on stdin')
    }
    layout.nothingIsLeft()
  })

  test('stdin without an end in sight', ({ layout }) => {
    expectRefusal(layout.start({ input: Buffer.alloc((10 << 20) + 1) }), 'longer than 10485760 bytes')
  })
})

describe('start finds a socket of its name', needs('gcc'), () => {
  test('and replaces it when nobody listens there any more', async ({ layout }) => {
    layout.start()
    await layout.end()
    await expect(knock(socketPath(layout))).rejects.toThrow('ECONNREFUSED')
    expect(layout.start()).toMatchObject({ status: 0, text: `unix://${socketPath(layout)}`, stderr: '' })
    expect((await layout.facts())('listening')).toEqual(['1'])
    await knock(socketPath(layout))
  })

  test('and returns its address when a shim of this id lives', async ({ layout }) => {
    layout.start()
    await layout.facts()
    const before = layout.processes()
    rmSync(join(layout.bundle, 'address'))
    expect(layout.start()).toMatchObject({ status: 0, text: `unix://${socketPath(layout)}`, stderr: '' })
    expect(layout.processes()).toEqual(before)
    expect(existsSync(join(layout.bundle, 'address'))).toBe(true)
    await knock(socketPath(layout))
  })

  test('and does not remove the socket of a living shim when it fails', async ({ layout }) => {
    layout.start()
    const result = layout.start({ through: ['sh', '-c', 'exec "$@" >/dev/full', 'sh'] })
    expectRefusal(result, 'cannot print the address')
    await knock(socketPath(layout))
  })
})

describe('start names the socket', needs('gcc'), () => {
  test('by the same rule as every other shim: sha256 of the joined address, namespace and id', ({ layout }) => {
    const known = createHash('sha256').update('/run/containerd/containerd.sock/default/c1').digest('hex')
    const result = layout.run(
      ['-namespace', 'default', '-address', '/run/containerd/containerd.sock', '-id', 'c1', 'start'],
      { input: BootstrapParams.encode({ instanceId: 'c1', socketDir: layout.sockets }) },
    )
    expect(result.text).toBe(`unix://${layout.sockets}/${known}`)
  })

  test('after joining as Go does', ({ layout }) => {
    const cases = { '/a//b/./c/': '/a/b/c', '/a/../../b': '/b', 'a/../..': '..', '///': '', './x': 'x' }
    for (const [address, cleaned] of Object.entries(cases)) {
      const result = layout.run(['-namespace', 'ns', '-address', address, '-id', 'c1', 'start'], {
        input: BootstrapParams.encode({ instanceId: 'c1', socketDir: `${layout.root}//x/../s/` }),
      })
      const name = createHash('sha256').update(`${cleaned}/ns/c1`).digest('hex')
      expect(result).toMatchObject({ stderr: '', text: `unix://${layout.sockets}/${name}` })
    }
  })

  test('with messages of every length around the block size of sha256', ({ layout }) => {
    for (const size of [1, 40, 41, 49, 50, 51, 64, 105, 113, 114, 115, 200]) {
      const address = `/${'a'.repeat(size)}`
      const result = layout.run(['-namespace', 'n', '-address', address, '-id', 'c', 'start'], {
        input: BootstrapParams.encode({ instanceId: 'c', socketDir: layout.sockets }),
      })
      expect(result.text).toBe(
        `unix://${layout.sockets}/${createHash('sha256').update(`${address}/n/c`).digest('hex')}`,
      )
    }
  })
})

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
        join(C_SOURCES, 'launcher_wire.c'),
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

describe('delete', needs('gcc'), () => {
  const RESPONSE = { pid: 4711, exitStatus: 137, exitedAt: { seconds: 1700000000n, nanos: 123456789 } }
  const RECORD = DeleteResponse.encode(RESPONSE)

  test("answers from the shim's record without Node, any number of times", ({ layout }) => {
    writeFileSync(join(layout.bundle, 'shim-exit'), RECORD)
    for (let time = 0; time < 2; time++) {
      const result = layout.delete()
      expect(result).toMatchObject({ status: 0, stderr: '' })
      expect(DeleteResponse.decode(result.stdout)).toMatchObject(RESPONSE)
    }
    expect(existsSync(join(layout.lib, 'record'))).toBe(false)
  })

  test('takes an end with no status at no time for one, but not an empty record', ({ layout }) => {
    for (const seconds of [0n, -62135596800n]) {
      const record = DeleteResponse.encode({ exitedAt: { seconds, nanos: 0 } })
      writeFileSync(join(layout.bundle, 'shim-exit'), record)
      expect(layout.delete().stdout).toEqual(Buffer.from(record))
    }
  })

  test('removes the socket that the address file names', async ({ layout }) => {
    layout.start()
    await layout.end()
    writeFileSync(join(layout.bundle, 'shim-exit'), RECORD)
    expect(existsSync(socketPath(layout))).toBe(true)
    expect(layout.delete().status).toBe(0)
    expect(existsSync(socketPath(layout))).toBe(false)
  })

  test('leaves a socket that is younger than the record and listened on: the id was started again', async ({
    layout,
  }) => {
    const record = join(layout.bundle, 'shim-exit')
    writeFileSync(record, RECORD)
    layout.start()
    const made = statSync(socketPath(layout)).mtime
    const before = new Date(made.getTime() - 1_000)
    utimesSync(record, before, before)
    expect(layout.delete().status).toBe(0)
    expect(existsSync(socketPath(layout))).toBe(true)
    // one that is dying listens for another moment
    utimesSync(record, new Date(), new Date())
    expect(layout.delete().status).toBe(0)
    expect(existsSync(socketPath(layout))).toBe(false)
  })

  test('removes a socket that nobody listens on, however young it is', async ({ layout }) => {
    layout.start()
    await layout.end()
    writeFileSync(join(layout.bundle, 'shim-exit'), RECORD)
    utimesSync(join(layout.bundle, 'shim-exit'), 1, 1)
    expect(layout.delete().status).toBe(0)
    expect(existsSync(socketPath(layout))).toBe(false)
  })

  test('removes no socket of another name, and no file that is not a socket', async ({ layout }) => {
    layout.start({ id: 'other' })
    await layout.end()
    writeFileSync(join(layout.bundle, 'shim-exit'), RECORD)
    expect(layout.delete().status).toBe(0)
    expect(existsSync(socketPath(layout, 'other'))).toBe(true)

    writeFileSync(socketPath(layout), 'precious')
    writeFileSync(join(layout.bundle, 'address'), `unix://${socketPath(layout)}`)
    expect(layout.delete().status).toBe(0)
    expect(existsSync(socketPath(layout))).toBe(true)
  })

  test('asks Node when there is no record', async ({ layout }) => {
    expect(layout.delete()).toMatchObject({ status: 0, text: "the stand-in's answer\n", stderr: '' })
    const settings = ['-namespace', 'default', '-id', 'c1', '-address', layout.address, '-bundle', layout.bundle]
    const facts = await layout.facts()
    expect(facts('arg')).toEqual([
      'containerd-shim-ts-v2',
      ...nodeFlags(),
      join(layout.lib, 'shim.cjs'),
      ...settings,
      'delete',
    ])
    expect(facts('env')).toContain('NODE_NO_WARNINGS=1')
  })

  test('asks Node when the record makes no sense', async ({ layout }) => {
    const pid = Buffer.of(0x08, 1)
    const records = [
      '', // would read as "exit status 0 of no process"
      RECORD.subarray(0, -1),
      RECORD.subarray(0, 6),
      pid,
      Buffer.concat([RECORD, pid]),
      Buffer.concat([pid, Buffer.of(0x18, 1)]),
      Buffer.concat([Buffer.of(0x0a, 1, 1), RECORD]),
      Buffer.concat([Buffer.of(0x20, 1), RECORD]),
      Buffer.concat([pid, Buffer.of(0x1a, 1, 0xff)]), // whole, but torn within the time
      Buffer.concat([RECORD, Buffer.alloc(300)]),
      '4711 137 1700000000 123456789\n', // a line, as shims from before an update write it
      '1 2 3 4\n',
    ]
    for (const record of records) {
      writeFileSync(join(layout.bundle, 'shim-exit'), record)
      expect(layout.delete().text).toBe("the stand-in's answer\n")
    }
  })

  test('gives Node only the standard files', async ({ layout }) => {
    layout.delete({ through: LEAKING })
    expect(
      (await layout.facts())('fd')
        .map((file) => file.split(' ')[0])
        .sort(),
    ).toEqual(['0', '1', '2'])
  })

  test('works without a current folder, and runs Node in one that exists', async ({ layout }) => {
    const through = ['sh', '-c', 'mkdir gone; cd gone; rmdir ../gone; exec "$@"', 'sh']
    expect(layout.delete({ through })).toMatchObject({ status: 0, stderr: '' })
    expect((await layout.facts())('cwd')).toEqual(['/'])
    const args = ['-namespace', 'default', '-address', layout.address, '-id', 'c1', 'delete']
    expect(layout.run(args, { through })).toMatchObject({ status: 0, stderr: '' })
  })

  test('works without a bundle', async ({ layout }) => {
    rmSync(layout.bundle, { recursive: true })
    expect(layout.delete({ cwd: layout.root })).toMatchObject({
      status: 0,
      text: "the stand-in's answer\n",
      stderr: '',
    })
  })

  test('takes the current folder, or a folder relative to it, as the bundle', async ({ layout }) => {
    writeFileSync(join(layout.bundle, 'shim-exit'), RECORD)
    const args = ['-namespace', 'default', '-address', layout.address, '-id', 'c1']
    expect(DeleteResponse.decode(layout.run([...args, 'delete']).stdout)).toMatchObject(RESPONSE)
    const relative = layout.run([...args, '-bundle', 'bundle', 'delete'], { cwd: layout.root })
    expect(DeleteResponse.decode(relative.stdout)).toMatchObject(RESPONSE)
  })

  test('fails clearly when Node is needed and missing', ({ layout }) => {
    rmSync(join(layout.lib, 'node'))
    expectRefusal(layout.delete(), `cannot run "${layout.lib}/node"`)
  })
})

describe('-info', needs('gcc'), () => {
  test('describes the runtime and its features, and echoes the options', ({ layout }) => {
    const given = options('some-group')
    const result = layout.run(['-info'], { input: Any.encode(given) })
    expect(result).toMatchObject({ status: 0, stderr: '' })
    expect(RuntimeInfo.decode(result.stdout)).toEqual({ ...RuntimeInfo.decode(INFO), options: given })
    expect(existsSync(join(layout.lib, 'record'))).toBe(false)
  })

  test('has no options when none are given', ({ layout }) => {
    expect(layout.run(['-info']).stdout).toEqual(Buffer.from(INFO))
  })

  test('refuses options that are no message, and a build without an answer', ({ layout }) => {
    expectRefusal(layout.run(['-info'], { input: Buffer.from('hello') }), 'cannot read the options on stdin')
    rmSync(join(layout.lib, 'runtime-info'))
    expectRefusal(layout.run(['-info']), `cannot read "${layout.lib}/runtime-info": No such file or directory`)
  })
})

describe('the command line', needs('gcc'), () => {
  test('-v and -version print the version', ({ layout }) => {
    for (const flag of ['-v', '-version', '--v']) {
      expect(layout.run([flag])).toMatchObject({
        status: 0,
        text: 'containerd-shim-ts-v2:\n  Version:  1.2.3\n',
        stderr: '',
      })
    }
  })

  test('-v quotes the file that it cannot read', ({ layout }) => {
    rmSync(join(layout.lib, 'VERSION'))
    mkdirSync(join(layout.lib, 'VERSION'))
    expectRefusal(layout.run(['-v']), `cannot read "${layout.lib}/VERSION": Is a directory`)
  })

  test('-h explains every flag on stdout', ({ layout }) => {
    for (const flag of ['-h', '--help']) {
      const result = layout.run([flag])
      expect(result).toMatchObject({ status: 0, stderr: '' })
      for (const word of [
        '-namespace',
        '-id',
        '-address',
        '-bundle',
        '-debug',
        '-info',
        '-v',
        'start',
        'delete',
        'SIGUSR1',
      ]) {
        expect(result.text).toContain(word)
      }
    }
  })

  test('takes one dash or two, and values after a space or an equals sign', async ({ layout }) => {
    const args = ['--namespace=default', `-address=${layout.address}`, '--id', 'c1', '-debug=false', 'start', '-debug']
    const input = BootstrapParams.encode({ instanceId: 'c1', socketDir: layout.sockets })
    expect(layout.run(args, { input })).toMatchObject({ status: 0, text: `unix://${socketPath(layout)}` })
    expect((await layout.facts())('arg')).not.toContain('-debug')
  })

  test('skips unknown flags, with their values', ({ layout }) => {
    for (const flags of [['-x'], ['-x=start'], ['-x', 'value'], ['--future', '-y'], ['-x=', '-z', '/some/path']]) {
      writeFileSync(join(layout.bundle, 'shim-exit'), DeleteResponse.encode({ pid: 1, exitStatus: 2, exitedAt: {} }))
      const args = ['-namespace', 'default', '-id', 'c1', ...flags, 'delete']
      expect(DeleteResponse.decode(layout.run(args).stdout)).toMatchObject({ pid: 1, exitStatus: 2 })
    }
  })

  test('refuses what it cannot understand, in one line', ({ layout }) => {
    expectRefusal(layout.run([]), 'cannot tell what to do')
    expectRefusal(layout.run(['-debug']), 'cannot tell what to do')
    expectRefusal(layout.run(['restart']), 'cannot do "restart"')
    expectRefusal(layout.run(['-id']), 'its value is missing')
    expectRefusal(layout.run(['-debug=maybe', 'start']), 'neither true nor false')
    expectRefusal(layout.run(['-=x', 'start']), 'cannot understand the flag "-=x"')
    expectRefusal(layout.run(['two\nlines']), 'cannot do "two?lines"')
    expect(layout.run([]).status).toBe(2)
  })
})
