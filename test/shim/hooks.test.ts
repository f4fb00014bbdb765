/** What hooks of the host's side find in a shim: the environment of the daemon, as it has it, and nothing of ours. */
import { readFileSync } from 'node:fs'
import { describe } from 'vitest'
import { expect, test } from '../support/fake.ts'
import { needs } from '../support/needs.ts'

const KINDS = ['prestart', 'createRuntime', 'poststart', 'poststop'] as const

describe('a hook without an environment', needs('root', 'busybox'), () => {
  test("has that of the daemon, without NOTIFY_SOCKET, which is the daemon's alone, and without what we add", async ({
    fake,
  }) => {
    const daemon = [
      'PATH=/usr/sbin:/usr/bin:/sbin:/bin',
      'HTTPS_PROXY=http://proxy',
      'NODE_OPTIONS=--nope',
      'NODE_NO_WARNINGS=0',
      'OPENSSL_CONF=/x',
      'UV_THREADPOOL_SIZE=1',
      'GOMAXPROCS=2',
      'MAX_SHIM_VERSION=2',
      `TTRPC_ADDRESS=${fake.address}.ttrpc`,
      `CONTAINERD_SHIM_TS_ROOT=${fake.path('ts')}`,
    ]
    fake.prefix = ['env', '-i', ...daemon, 'NOTIFY_SOCKET=/run/systemd/notify', 'RUNTS_SOFT_NOFILE=7']
    const notes = fake.path('notes')
    const hook = (kind: string, env?: string[]) => ({
      path: '/bin/sh',
      args: ['sh', '-c', `{ printf '%s: ' ${kind}; tr '\\0' ' ' </proc/$$/environ; echo; } >>${notes}`],
      ...(env === undefined ? {} : { env }),
    })
    try {
      const shim = await fake.shim()
      const task = await shim.started(['sleep', '1000'], (spec) => {
        spec.hooks = Object.fromEntries(KINDS.map((kind) => [kind, [hook(kind), hook(`${kind}-none`, [])]]))
      })
      await task.remove()
      const told = readFileSync(notes, 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => line.split(/: ?/, 1).concat(line.slice(line.indexOf(':') + 1)))
        .map(([kind, environment = '']) => [kind, environment.split(' ').filter(Boolean).sort()])
      expect(told).toEqual(
        KINDS.flatMap((kind) => [
          [kind, daemon.toSorted()],
          [`${kind}-none`, []],
        ]),
      )
    } finally {
      fake.prefix = []
    }
  })
})
