/** `start`: the shim that comes of it and what it is given, the socket and its name, and everything that is refused. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { BootstrapParams } from 'ttrpc-ts/containerd'
import { describe, expect } from 'vitest'
import { NODE_FLAGS } from '../../proto/launch.ts'
import { needs } from '../support/needs.ts'
import { expectRefusal, hash, knock, LEAKING, socketPath, test } from './launcher-layout.ts'

function mode(path: string): number {
  return lstatSync(path).mode & 0o7777
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
      ...NODE_FLAGS,
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

  test("passes the daemon's environment on, out of Node's way what would change it, and the limit that Node will change", async ({
    layout,
  }) => {
    const through = ['prlimit', '--nofile=321']
    const bad = {
      RUNTS_SOFT_NOFILE: '7',
      RUNTS_OUTER_NODE_ENV: 'of somebody else',
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
      'RUNTS_OUTER_NODE_ENV=x',
      'RUNTS_OUTER_NODE_OPTIONS=--nope',
      'RUNTS_OUTER_NODE_PATH=/x',
      'RUNTS_OUTER_OPENSSL_CONF=/x',
      'RUNTS_OUTER_UV_THREADPOOL_SIZE=1',
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
      'mkfifo "$0" && exec 8<>"$0" && head -c 65536 /dev/zero >&8 && exec timeout --foreground -s KILL 1 "$@" >/dev/full 2>&8'
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
