/**
 * Crashes: of the daemon, which must not hurt a container, and of the shim, after which the daemon must be able to
 * clean up.
 */
import { readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient, TtrpcClient } from 'ttrpc-ts'
import { TaskService } from 'ttrpc-ts/containerd'
import { describe } from 'vitest'
import { isAlive } from '../support/census.ts'
import { until } from '../support/command.ts'
import { expect, test } from '../support/containerd.ts'
import { processAny } from '../support/fake-containerd.ts'
import { needs } from '../support/needs.ts'

describe('kill -9 of containerd', needs('root', 'containerd', 'busybox'), () => {
  test('and a restart leave the container running, listed, ready for exec and for removal', async ({ ct }) => {
    const id = await ct.detached()
    const before = (await ct.task(id))!
    await ct.daemon.kill('SIGKILL')
    expect(isAlive(before.pid)).toBe(true)
    await ct.daemon.start()
    expect(await ct.task(id)).toEqual(before)
    expect(await ct.exec(id, ['payload', 'both', '11', 'after'])).toMatchObject({ code: 11, stdout: 'out:after\n' })
    await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
    await ct.untilStatus(id, 'STOPPED')
    await ct.ok('task', 'rm', id)
    await ct.ok('container', 'rm', id)
  })

  test('keeps the exit status of a container that ended meanwhile', async ({ ct }) => {
    const id = await ct.detached([], ['sh', '-c', 'until [ -e /dev/shm/go ]; do sleep 0.02; done; exit 9'])
    const { pid } = (await ct.task(id))!
    await ct.daemon.kill('SIGKILL')
    writeFileSync(`/proc/${pid}/root/dev/shm/go`, '')
    await until('the container to end', () => !isAlive(pid))
    await ct.daemon.start()
    // from 1.7 on containerd takes a shim without processes for a leaked one, and removes it at its start
    if (ct.daemon.isAtLeast(1, 7)) return expect(await ct.task(id)).toBeUndefined()
    expect(await ct.task(id)).toEqual({ pid, status: 'STOPPED' })
    const events = await ct.daemon.events()
    await ct.ok('task', 'rm', id)
    const [deleted] = await events.until(id, '/tasks/delete')
    expect(deleted!.body).toMatchObject({ exit_status: 9 })
    await events.stop()
  })

  test('does not stop a container that writes, and events come again afterwards', async ({ ct }) => {
    const id = await ct.detached([], ['sh', '-c', 'while :; do echo busy; sleep 0.01; done'])
    await ct.daemon.kill('SIGKILL')
    await ct.daemon.start()
    const events = await ct.daemon.events()
    expect(await ct.exec(id, ['payload', 'exit', '1'])).toMatchObject({ code: 1 })
    await events.until(id, '/tasks/exit')
    await events.stop()
    await ct.ok('task', 'pause', id)
    await ct.ok('task', 'resume', id)
    expect(await ct.task(id)).toMatchObject({ status: 'RUNNING' })
  })
})

describe('what happens while containerd is away', needs('root', 'containerd', 'busybox', 'our shim'), () => {
  test('is told in its order when it is back, nothing left out', async ({ ct }) => {
    const id = await ct.detached()
    const config = join(ct.daemon.folder, 'config.toml')
    const [usual, elsewhere] = [`${ct.daemon.address}.ttrpc`, join(ct.daemon.folder, 'e.sock')]
    const text = readFileSync(config, 'utf8')
    await ct.daemon.kill('SIGKILL')
    using connection = new TtrpcClient({ path: ct.socket(id) })
    const task = createClient(TaskService, connection)
    const expected: string[] = []
    for (let i = 0; i < 20; i++) {
      const execId = `e${i}`
      await task.exec({ id, execId, spec: processAny(['sh', '-c', `exit ${i}`]) })
      await task.start({ id, execId })
      expect(await task.wait({ id, execId })).toMatchObject({ exitStatus: i })
      await task.delete({ id, execId })
      expected.push(`exec-added ${execId}`, `exec-started ${execId}`, `exit ${execId} ${i}`)
    }
    await task.pause({ id })
    await task.resume({ id })
    expected.push('paused ', 'resumed ')
    // back, but for now not where the shim brings its events, so that none comes before a listener
    writeFileSync(config, text.replace(`"${usual}"`, `"${elsewhere}"`))
    await ct.daemon.start()
    writeFileSync(config, text)
    const events = await ct.daemon.events()
    rmSync(usual, { force: true })
    symlinkSync(elsewhere, usual)
    // a call shows the shim that there is a daemon again
    expect(await ct.task(id)).toMatchObject({ status: 'RUNNING' })
    const seen = await events.until(id, '/tasks/resumed')
    const lines = seen.map(({ topic, body }) => {
      const { exec_id: exec, id: process, exit_status: status } = body
      return `${topic.replace('/tasks/', '')} ${[exec ?? process, topic === '/tasks/exit' ? (status ?? 0) : undefined].filter((part) => part !== undefined).join(' ')}`
    })
    // what was on its way when the daemon was killed comes first
    const before = lines.splice(0, Math.max(0, lines.indexOf('exec-added e0')))
    expect(['create ', 'start ']).toEqual(expect.arrayContaining(before))
    expect(lines).toEqual(expected)
    await events.stop()
    await ct.daemon.kill('SIGKILL')
    await ct.daemon.start()
  })
})

describe('kill -9 of the shim', needs('root', 'containerd', 'busybox'), () => {
  test('makes containerd end the container and leaves nothing', async ({ ct }) => {
    const id = await ct.detached([], ['sh', '-c', 'sleep 600 & sleep 601 & wait'])
    await ct.execDetached(id, 'more', ['sleep', '602'])
    const { pid } = (await ct.task(id))!
    process.kill(ct.shimPid(id), 'SIGKILL')
    await until('the container to be killed', () => !isAlive(pid))
    await until('the task to be forgotten', async () => (await ct.task(id)) === undefined)
    await ct.ok('container', 'rm', id)
    // the census after the test finds the rest: cgroup, mounts, socket, state folder, bundle
  })

  test('of a paused container leaves nothing either', async ({ ct }) => {
    const id = await ct.detached()
    const { pid } = (await ct.task(id))!
    await ct.ok('task', 'pause', id)
    process.kill(ct.shimPid(id), 'SIGKILL')
    await until('the container to be killed', () => !isAlive(pid))
    await until('the task to be forgotten', async () => (await ct.task(id)) === undefined)
  })

  test('while the daemon is down is noticed at its restart', async ({ ct }) => {
    const id = await ct.detached()
    const { pid } = (await ct.task(id))!
    const shim = ct.shimPid(id)
    await ct.daemon.kill('SIGKILL')
    process.kill(shim, 'SIGKILL')
    await until('the shim to be gone', () => !isAlive(shim))
    await ct.daemon.start()
    await until('the container to be killed', () => !isAlive(pid))
    expect(await ct.task(id)).toBeUndefined()
    await ct.ok('container', 'rm', id)
  })

  test('frees the id for the next container', needs('our shim'), async ({ ct }) => {
    const id = await ct.detached()
    process.kill(ct.shimPid(id), 'SIGKILL')
    await until('the task to be forgotten', async () => (await ct.task(id)) === undefined)
    await ct.ok('container', 'rm', id)
    // containerd forgets the task at the end of its cleanup, a little after it stops listing it
    await until('the id to be free', async () => {
      const again = await ct.run([], ['payload', 'exit', '5'], { id })
      if (again.stderr.includes('already exists')) return false
      expect(again, again.stderr).toMatchObject({ code: 5 })
      return true
    })
  })
})
