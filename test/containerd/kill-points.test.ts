/**
 * kill -9 of containerd, the shim, the init helper or a log program, at each named place of a container's life.
 * Afterwards containerd can delete the container, and nothing is left: the census after each test looks for that.
 * FULL=1 tries every place, otherwise a few of each kind.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe } from 'vitest'
import { FAILPOINTS, type Failpoint } from '../../runtime/failpoint.ts'
import { SHIM_FAILPOINTS, type ShimFailpoint } from '../../shim/failpoints.ts'
import { until } from '../support/command.ts'
import { type Containers, expect, seconds, test } from '../support/containerd.ts'
import { buildFailing, killAt, StopFile, untilStopped, type Victim } from '../support/kill-points.ts'
import { needs } from '../support/needs.ts'
import { FAILING_SHIM, IMAGE } from '../support/places.ts'

const FULL = process.env['FULL'] === '1'
/** A shim that is left without a container goes after this, here; the product waits longer. */
const LONG_TIME_MS = 1_000

const stop = new StopFile(LONG_TIME_MS)

beforeAll(buildFailing, 120_000)
beforeEach(() => stop.cancel())
afterAll(() => stop.remove())

/** What passes the places whose names match; resolves when the client has its answer, whatever it is. */
interface Operation {
  readonly name: string
  readonly passes: RegExp
  prepare?(ct: Containers, id: string): Promise<void>
  act(ct: Containers, id: string): Promise<unknown>
}

function run(ct: Containers, id: string, ...command: string[]): Promise<unknown> {
  return ct.ctr('run', '-d', '--null-io', '--runtime', FAILING_SHIM, IMAGE, id, ...command)
}

const sleeping = (ct: Containers, id: string): Promise<unknown> => run(ct, id, 'sleep', '1000')

async function running(ct: Containers, id: string): Promise<void> {
  await sleeping(ct, id)
  expect(await ct.task(id)).toMatchObject({ status: 'RUNNING' })
}

async function stopped(ct: Containers, id: string): Promise<void> {
  await running(ct, id)
  await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
  await ct.untilStatus(id, 'STOPPED')
}

const OPERATIONS: readonly Operation[] = [
  { name: 'Create', passes: /^(create:|task:(create|mounted|io|created|announced)$)/, act: sleeping },
  { name: 'Start', passes: /^(start:|task:started$)/, act: sleeping },
  {
    name: 'Exec',
    passes: /^(exec:|task:exec-)/,
    prepare: running,
    act: (ct, id) => ct.exec(id, ['true'], ['--fifo-dir', `${ct.folder}/exec`]),
  },
  {
    name: 'an exit',
    passes: /^task:exit/,
    prepare: running,
    act: (ct, id) => ct.ctr('task', 'kill', '-s', 'SIGKILL', id),
  },
  {
    name: 'Delete',
    passes: /^(delete:|task:(drained|unmounted|recorded|deleted)$)/,
    prepare: stopped,
    act: (ct, id) => ct.ctr('task', 'rm', id),
  },
  {
    name: 'the cleaning up behind a killed shim',
    passes: /^cleanup:/,
    prepare: running,
    act: async (ct, id) => void process.kill(ct.shimPid(id), 'SIGKILL'),
  },
]

/** Those of the normal run: one early, one in the middle and one late in each operation. */
const SOME: readonly (Failpoint | ShimFailpoint)[] = [
  'task:mounted',
  'create:cgroup',
  'create:saved',
  'task:announced',
  'start:opened',
  'exec:spawned',
  'task:exited',
  'delete:cgroup',
  'task:recorded',
  'cleanup:container',
]

async function restart(ct: Containers): Promise<void> {
  await ct.daemon.kill('SIGTERM')
  await ct.daemon.start()
}

/** Removes the task and the container as a user does, who tries again when the daemon was not ready for it. */
async function removeByHand(ct: Containers, id: string): Promise<void> {
  await until(`container ${id} to be removed`, async () => {
    await ct.ctr('task', 'rm', '-f', id)
    await ct.ctr('container', 'rm', id)
    const { stdout } = await ct.ctr('container', 'ls', '-q')
    return !stdout.split('\n').includes(id) && (await ct.task(id)) === undefined
  })
}

/** A program that takes logs and leaves its pid; it stays until it is told to go. */
function logProgram(ct: Containers): { uri: string; readonly pid: number } {
  const path = join(ct.folder, 'logger')
  writeFileSync(path, `#!/bin/sh\necho $$ >${path}.pid\nexec 5>&-\ncat <&3 >/dev/null\nexec sleep 1000\n`, {
    mode: 0o755,
  })
  return {
    uri: `binary://${path}`,
    get pid() {
      return Number(readFileSync(`${path}.pid`, 'utf8'))
    },
  }
}

describe('kill -9', {
  ...needs('root', 'containerd', 'busybox', 'gcc', 'make', 'our shim'),
  timeout: seconds(60),
}, () => {
  for (const { name, passes, prepare, act } of OPERATIONS) {
    const places = [...SHIM_FAILPOINTS, ...FAILPOINTS].filter(
      (place) => passes.test(place) && (FULL || SOME.includes(place)),
    )
    const victims: Victim[] = ['containerd', 'shim']
    for (const [place, victim] of places.flatMap((place) => victims.map((victim) => [place, victim] as const))) {
      test(`of ${victim} at ${place} of ${name}`, async ({ ct }) => {
        const id = ct.id()
        await prepare?.(ct, id)
        stop.order(place)
        const acted = act(ct, id)
        await killAt(ct, await untilStopped(ct, id, stop), victim)
        await acted
        // a `delete` that does not end is not tried again before the daemon's next start
        if (place.startsWith('cleanup:') && victim === 'shim') await restart(ct)
        await removeByHand(ct, id)
      })
    }
  }

  const LOGGED = [
    'create:claimed',
    'create:ready',
    'task:announced',
    'start:opened',
    'task:started',
    'task:exited',
  ] as const
  for (const place of LOGGED.filter((place) => FULL || place === 'create:ready' || place === 'task:exited')) {
    test(`of a log program at ${place} does not stop the container`, async ({ ct }) => {
      const id = ct.id()
      const log = logProgram(ct)
      const act = async (): Promise<void> => {
        await ct.ok('run', '-d', '--log-uri', log.uri, '--runtime', FAILING_SHIM, IMAGE, id, 'yes')
        await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
        await ct.untilStatus(id, 'STOPPED')
        await ct.ok('task', 'rm', id)
      }
      stop.order(place)
      const acted = act()
      const shim = await untilStopped(ct, id, stop)
      await killAt(ct, shim, log.pid)
      await acted
      await removeByHand(ct, id)
    })
  }

  const HELPED = [
    'create:spawned',
    'create:child',
    'create:ready',
    'create:saved',
    'start:opened',
    'exec:spawned',
  ] as const
  for (const place of HELPED.filter((place) => FULL || place !== 'create:child')) {
    test(`of ts-init at ${place} is an error of one call`, async ({ ct }) => {
      const id = ct.id()
      const exec = place.startsWith('exec')
      if (exec) await running(ct, id)
      stop.order(place)
      const acted = exec ? ct.exec(id, ['true'], ['--fifo-dir', `${ct.folder}/exec`]) : sleeping(ct, id)
      await killAt(ct, await untilStopped(ct, id, stop), 'ts-init')
      await acted
      await removeByHand(ct, id)
    })
  }
})
