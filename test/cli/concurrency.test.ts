/**
 * Two commands on one container at once: one wins, the other waits for it or says clearly what it found. Each pair is
 * started at the same moment, several times, so that the moments differ.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect } from 'vitest'
import { lockContainer, tryLockContainer } from '../../runtime/state/lock.ts'
import { needs } from '../support/needs.ts'
import { type Ended, type Runts, test } from '../support/runts.ts'

const SLEEP = ['sleep', '1000']
const ROUNDS = 3

/** Starts two commands together; those that leave a container behind get no pipe of ours. */
function both(runts: Runts, ...commands: readonly (readonly string[])[]): Promise<Ended[]> {
  return Promise.all(commands.map((args) => runts.leaving(args)))
}

/** One has succeeded, and the other has failed with one line that matches. */
function expectOneWinner(finished: readonly Ended[], loser: RegExp): void {
  const codes = finished.map(({ code }) => code).sort()
  expect(codes, JSON.stringify(finished)).toEqual([0, 1])
  expect(finished.find(({ code }) => code === 1)?.stderr).toMatch(loser)
}

describe('two commands at once', needs('root', 'busybox'), () => {
  test('create and create: one container, and "already exists"', async ({ runts }) => {
    for (let round = 0; round < ROUNDS; round++) {
      const bundles = [runts.bundle(SLEEP), runts.bundle(SLEEP)]
      const finished = await both(runts, ...bundles.map((bundle) => ['create', '-b', bundle, 'c']))
      expectOneWinner(finished, /container with given ID already exists/)
      expect(await runts.state('c')).toMatchObject({ status: 'created' })
      await runts.ok('delete', '-f', 'c')
    }
  })

  test('start and start: one starts it, the other finds it running', async ({ runts }) => {
    for (let round = 0; round < ROUNDS; round++) {
      runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
      expectOneWinner(await both(runts, ['start', 'c'], ['start', 'c']), /cannot start an already running container/)
      await runts.ok('delete', '-f', 'c')
    }
  })

  test('delete and delete: one removes it, the other finds none', async ({ runts }) => {
    for (let round = 0; round < ROUNDS; round++) {
      runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
      expectOneWinner(await both(runts, ['delete', 'c'], ['delete', 'c']), /container does not exist: "c"/)
    }
  })

  test('delete --force and delete --force: both succeed', async ({ runts }) => {
    for (let round = 0; round < ROUNDS; round++) {
      runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
      const finished = await both(runts, ['delete', '-f', 'c'], ['delete', '-f', 'c'])
      expect(finished.map(({ code, stderr }) => ({ code, stderr }))).toEqual([
        { code: 0, stderr: '' },
        { code: 0, stderr: '' },
      ])
    }
  })

  test('create and delete --force: the container is there whole, or not at all', async ({ runts }) => {
    for (let round = 0; round < 8; round++) {
      const create = runts.leaving(['create', '-b', runts.bundle(SLEEP), 'c'])
      await delay(20 * round)
      const [created, removed] = await Promise.all([create, runts.run('delete', '-f', 'c')])
      expect(removed, removed.stderr).toMatchObject({ code: 0 })
      const { code, stdout } = await runts.run('list', '-q')
      expect(code).toBe(0)
      // either way round: deleted before it was claimed, while it was made, or after
      if (stdout !== '') expect(await runts.state('c')).toMatchObject({ status: 'created' })
      if (created.code !== 0) expect(created.stderr.trimEnd().split('\n')).toHaveLength(1)
      await runts.ok('delete', '-f', 'c')
    }
  })

  test('exec and delete --force: the process runs or is refused, and nothing is left', async ({ runts }) => {
    for (let round = 0; round < ROUNDS; round++) {
      runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
      const [exec, remove] = await both(runts, ['exec', 'c', 'sleep', '1000'], ['delete', '-f', 'c'])
      expect(remove, remove?.stderr).toMatchObject({ code: 0 })
      expect([137, 255]).toContain(exec?.code)
    }
  })

  test('pause and exec: neither is lost, whichever comes first', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    for (let round = 0; round < ROUNDS; round++) {
      const [exec, pause] = await both(runts, ['exec', 'c', 'true'], ['pause', 'c'])
      expect(pause).toMatchObject({ code: 0 })
      await runts.ok('resume', 'c')
      if (exec?.code !== 0) expect(exec?.stderr).toContain('cannot exec in a paused container')
    }
  })

  test('an exec into a paused container waits for the resume, which does not wait for it', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    await runts.ok('pause', 'c')
    const exec = runts.start(['exec', '--ignore-paused', 'c', 'echo', 'ran'])
    await runts.ok('resume', 'c')
    expect(await exec.finished).toMatchObject({ code: 0, stdout: 'ran\n' })
  })
})

describe('lockContainer()', needs('root'), () => {
  test('lets readers in together and keeps a writer out until they have left', async ({ runts }) => {
    mkdirSync(join(runts.root, 'c'), { recursive: true })
    const first = await lockContainer({ root: runts.root, id: 'c', mode: 'shared' })
    const second = await lockContainer({ root: runts.root, id: 'c', mode: 'shared' })
    const order: string[] = []
    const writer = lockContainer({ root: runts.root, id: 'c', mode: 'exclusive' }).then((lock) => {
      order.push('writer')
      lock.close()
    })
    first.close()
    expect(tryLockContainer(runts.root, 'c', 'exclusive')).toBeUndefined()
    order.push('readers')
    second.close()
    await writer
    expect(order).toEqual(['readers', 'writer'])
    await runts.ok('delete', '-f', 'c')
  })

  test('gives up after its time, and the lock is then free again', async ({ runts }) => {
    mkdirSync(join(runts.root, 'c'), { recursive: true })
    const held = await lockContainer({ root: runts.root, id: 'c', mode: 'exclusive' })
    await expect(lockContainer({ root: runts.root, id: 'c', mode: 'shared', timeoutMs: 50 })).rejects.toThrow(
      'container "c": another command is working on it',
    )
    held.close()
    const again = await lockContainer({ root: runts.root, id: 'c', mode: 'exclusive' })
    again.close()
    await runts.ok('delete', '-f', 'c')
  })

  test('is given up on when the caller says so, before or meanwhile', async ({ runts }) => {
    mkdirSync(join(runts.root, 'c'), { recursive: true })
    const held = await lockContainer({ root: runts.root, id: 'c', mode: 'exclusive' })
    const stop = new AbortController()
    const waiting = expect(lockContainer({ root: runts.root, id: 'c', mode: 'shared', signal: stop.signal })).rejects
    const canceled = waiting.toMatchObject({ code: 'Canceled' })
    stop.abort()
    await canceled
    await expect(
      lockContainer({ root: runts.root, id: 'c', mode: 'shared', signal: stop.signal }),
    ).rejects.toMatchObject({
      code: 'Canceled',
    })
    held.close()
    const again = await lockContainer({ root: runts.root, id: 'c', mode: 'exclusive' })
    again.close()
    await runts.ok('delete', '-f', 'c')
  })

  test('says that a container is gone when it was deleted meanwhile', async ({ runts }) => {
    mkdirSync(join(runts.root, 'c'), { recursive: true })
    const held = await lockContainer({ root: runts.root, id: 'c', mode: 'exclusive' })
    const waiting = expect(lockContainer({ root: runts.root, id: 'c', mode: 'shared' })).rejects.toThrow(
      'container does not exist: "c"',
    )
    rmSync(join(runts.root, 'c'), { recursive: true })
    held.close()
    await waiting
  })
})
