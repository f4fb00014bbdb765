/** Input that is wrong: each is answered by one clear line that says what and where, and leaves nothing behind. */
import { existsSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { describe } from 'vitest'
import { startBareShim } from '../support/bare-shim.ts'
import { type Finished, until } from '../support/command.ts'
import { type Containers, expect, test } from '../support/containerd.ts'
import { needs } from '../support/needs.ts'
import { BIN, IMAGE } from '../support/places.ts'
import type { SpecChange } from '../support/spec.ts'
import { shimClient } from '../support/task-client.ts'

function expectOneLine(result: Finished, ...words: readonly string[]): void {
  expect(result.code, result.stdout).not.toBe(0)
  expect(result.stderr.trim().split('\n'), result.stderr).toHaveLength(1)
  for (const word of words) expect(result.stderr).toContain(word)
}

/** A runtime that does something to the bundle and then is ours: containerd itself always writes a sound bundle. */
function meddlingRuntime(ct: Containers, script: string): string {
  const path = join(ct.folder, 'containerd-shim-meddling-v2')
  writeFileSync(path, `#!/bin/sh\n[ ! -e config.json ] || { ${script}; }\nexec ${BIN}/containerd-shim-ts-v2 "$@"\n`, {
    mode: 0o755,
  })
  return path
}

const CONFIG_CHANGES: readonly [string, SpecChange, readonly string[]][] = [
  [
    'an unknown namespace type',
    (spec) => spec.linux.namespaces.push({ type: 'galaxy' }),
    ['galaxy', '/linux/namespaces/5'],
  ],
  [
    'a mount whose source is missing',
    (spec) => spec.mounts.push({ destination: '/x', type: 'bind', source: '/no/such/source', options: ['bind'] }),
    ['/no/such/source'],
  ],
  [
    'the same rlimit twice',
    (spec) => {
      spec.process.rlimits = [1, 2].map((soft) => ({ type: 'RLIMIT_NOFILE', soft, hard: 9 }))
    },
    ['RLIMIT_NOFILE', '/process/rlimits/1'],
  ],
  [
    'a relative working folder',
    (spec) => {
      spec.process.cwd = 'home'
    },
    ['absolute path', '/process/cwd'],
  ],
  [
    'a root that does not exist',
    (spec) => {
      spec.root = { path: '/no/such/root' }
    },
    ['/no/such/root'],
  ],
  [
    'an rlimit that does not exist',
    (spec) => {
      spec.process.rlimits = [{ type: 'RLIMIT_PATIENCE', soft: 1, hard: 1 }]
    },
    ['RLIMIT_PATIENCE'],
  ],
  [
    'a soft rlimit above the hard one',
    (spec) => {
      spec.process.rlimits = [{ type: 'RLIMIT_NOFILE', soft: 10, hard: 5 }]
    },
    ['RLIMIT_NOFILE'],
  ],
  [
    'no arguments',
    (spec) => {
      spec.process.args = []
    },
    ['/process/args'],
  ],
]

describe('a config.json with', needs('root', 'containerd', 'busybox', 'our shim'), () => {
  for (const [what, change, words] of CONFIG_CHANGES) {
    test(`${what} is refused`, async ({ ct }) => {
      expectOneLine(await ct.ctr(...ct.configArgs(['--rm'], ct.id(), ['true'], change)), ...words)
    })
  }
})

describe('a bundle', needs('root', 'containerd', 'busybox', 'our shim'), () => {
  for (const [what, script, words] of [
    ['without config.json', 'rm config.json', ['config.json', 'ENOENT']],
    ['whose config.json is not JSON', 'echo "{ not json" >config.json', ['config.json', 'JSON']],
    ['whose config.json is empty', ': >config.json', ['config.json']],
    ['whose config.json is a list', 'echo "[]" >config.json', ['expected an object', '(at /)']],
    [
      'whose config.json is cut in the middle',
      'head -c 200 config.json >cut && mv cut config.json',
      ['config.json', 'JSON'],
    ],
    ['whose config.json is binary', 'head -c 5000 /dev/urandom >config.json', ['config.json']],
  ] as const) {
    test(`${what} is refused`, async ({ ct }) => {
      const runtime = meddlingRuntime(ct, script)
      expectOneLine(await ct.ctr('run', '--rm', '--runtime', runtime, IMAGE, ct.id(), 'true'), ...words)
    })
  }
})

/** Sends bytes to a socket and waits until the other side has closed it, or for `stayMs`. */
function send(path: string, bytes: Uint8Array, stayMs: number): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(path, () => socket.write(bytes))
    const timer = setTimeout(() => socket.destroy(), stayMs)
    socket.on('error', () => undefined)
    socket.on('data', () => undefined)
    socket.once('close', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}

/** A ttrpc header: length, stream, type, flags. */
function header(length: number, stream: number, type: number, flags = 0): Buffer {
  const bytes = Buffer.alloc(10)
  bytes.writeUInt32BE(length, 0)
  bytes.writeUInt32BE(stream, 4)
  bytes.writeUInt8(type, 8)
  bytes.writeUInt8(flags, 9)
  return bytes
}

describe("on the shim's socket,", needs('root', 'containerd', 'busybox', 'our shim'), () => {
  const ATTACKS: readonly [string, Buffer][] = [
    ['random bytes', Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 7919) % 251))],
    ['a frame of 4 GiB', Buffer.concat([header(0xffffffff, 1, 1), Buffer.alloc(65536)])],
    ['a frame above the limit', Buffer.concat([header(5 * 1024 * 1024, 1, 1), Buffer.alloc(5 * 1024 * 1024)])],
    ['half a header', header(10, 1, 1).subarray(0, 5)],
    ['half a frame', Buffer.concat([header(1000, 1, 1), Buffer.alloc(10)])],
    ['a frame of an unknown type', Buffer.concat([header(4, 1, 77), Buffer.alloc(4)])],
    ['a request on an even stream', Buffer.concat([header(4, 2, 1), Buffer.alloc(4)])],
    ['data for a stream that is not open', Buffer.concat([header(4, 9, 3), Buffer.alloc(4)])],
    ['a request that is no protobuf', Buffer.concat([header(8, 1, 1), Buffer.alloc(8, 0xff)])],
    ['nothing at all', Buffer.alloc(0)],
  ]
  test('garbage, oversized and half frames leave the shim serving', async ({ ct }) => {
    const id = await ct.detached()
    const shim = ct.shimPid(id)
    const client = await shimClient(ct, id)
    for (const [what, bytes] of ATTACKS) {
      await send(ct.socket(id), bytes, 200)
      expect(await client.state(), what).toMatchObject({ status: 2 })
    }
    client.close()
    expect(ct.shimPid(id)).toBe(shim)
    expect(await ct.exec(id, ['payload', 'exit', '8'])).toMatchObject({ code: 8 })
  })

  test('two hundred connections that say nothing leave the shim serving', async ({ ct }) => {
    const id = await ct.detached()
    const path = ct.socket(id)
    const sockets = Array.from({ length: 200 }, () => connect(path).on('error', () => undefined))
    const client = await shimClient(ct, id)
    expect(await client.state()).toMatchObject({ status: 2 })
    for (const socket of sockets) socket.destroy()
    client.close()
  })
})

describe('Create', needs('root', 'containerd', 'busybox', 'our shim'), () => {
  test('ignores options of an unknown type', async ({ ct }) => {
    const shim = await startBareShim(ct, ['sleep', '1000'])
    const options = { typeUrl: 'types.example.org/some.unknown.Options', value: new Uint8Array([255, 254, 253]) }
    const { pid } = await shim.task.create({ id: shim.id, bundle: shim.bundle, options })
    expect(pid).toBeGreaterThan(1)
    await shim.task.start({ id: shim.id })
    await shim.task.kill({ id: shim.id, signal: 9 })
    expect(await shim.task.wait({ id: shim.id })).toMatchObject({ exitStatus: 137 })
    await shim.task.delete({ id: shim.id })
    await shim.task.shutdown({ id: shim.id })
    shim.close()
    expect(await shim.delete()).toMatchObject({ code: 0 })
  })

  test('a created container that is never started can be killed and deleted', async ({ ct }) => {
    const shim = await startBareShim(ct, ['sleep', '1000'])
    await shim.task.create({ id: shim.id, bundle: shim.bundle })
    expect(await shim.task.state({ id: shim.id })).toMatchObject({ status: 1 })
    await shim.task.kill({ id: shim.id, signal: 9 })
    expect(await shim.task.wait({ id: shim.id })).toMatchObject({ exitStatus: 137 })
    expect(await shim.task.delete({ id: shim.id })).toMatchObject({ exitStatus: 137 })
    await shim.task.shutdown({ id: shim.id })
    shim.close()
    await shim.delete()
  })

  test('says no to a rootfs that cannot be mounted, and to the same id twice', async ({ ct }) => {
    const shim = await startBareShim(ct, ['sleep', '1000'])
    const rootfs = [{ type: 'bind', source: '/no/such/layer', options: ['rbind'] }]
    await expect(shim.task.create({ id: shim.id, bundle: shim.bundle, rootfs })).rejects.toThrow('/no/such/layer')
    await shim.task.create({ id: shim.id, bundle: shim.bundle })
    await expect(shim.task.create({ id: shim.id, bundle: shim.bundle })).rejects.toThrow('already exists')
    await shim.task.kill({ id: shim.id, signal: 9 })
    await shim.task.wait({ id: shim.id })
    await shim.task.delete({ id: shim.id })
    await shim.task.shutdown({ id: shim.id })
    shim.close()
    await shim.delete()
  })

  test('refuses a stdio scheme that it does not know', async ({ ct }) => {
    const shim = await startBareShim(ct, ['true'])
    await expect(shim.task.create({ id: shim.id, bundle: shim.bundle, stdout: 'gopher://x/y' })).rejects.toThrow(
      'gopher',
    )
    await shim.task.shutdown({ id: shim.id })
    shim.close()
    await shim.delete()
  })
})

describe('a shim that nobody speaks to', needs('root', 'containerd', 'busybox', 'our shim'), () => {
  test('answers delete for a container that never was, and then is gone', async ({ ct }) => {
    const shim = await startBareShim(ct, ['true'])
    shim.close()
    expect(await shim.delete()).toMatchObject({ code: 0 })
    expect(await shim.delete()).toMatchObject({ code: 0 })
    await until('the socket to be gone', () => !existsSync(shim.socket))
  })
})
