/** Calls that are sent together: whatever order the shim takes them in, the answers fit one. */
import { describe } from 'vitest'
import { until } from '../support/command.ts'
import { expect, test } from '../support/fake.ts'
import { needs } from '../support/needs.ts'
import { codeOf, hostPids, NEVER } from './overlap.ts'

describe('calls that are sent together', needs('root', 'busybox'), () => {
  test('Kill and Delete of a container that was never started', async ({ shim }) => {
    const task = shim.task(['sleep', '1000'])
    await task.create()
    const [killed, deleted] = await Promise.all([codeOf(task.kill()), codeOf(task.delete())])
    expect([killed, deleted]).toEqual([0, 0])
    expect(await codeOf(task.state())).toBe(5)
    await until('its last event', () => task.story.at(-1) === 'delete')
    expect(task.story).toEqual(['create', 'exit 137', 'delete'])
  })

  test('two Deletes of a container: one does it, the other finds nothing', async ({ shim }) => {
    const task = await shim.started()
    await task.kill()
    await task.wait()
    expect((await Promise.all([task.delete(), task.delete()].map(codeOf))).sort()).toEqual([0, 5])
    await until('its last event', () => task.story.at(-1) === 'delete')
    expect(task.story).toEqual(['create', 'start', 'exit 137', 'delete'])
  })

  test('two Starts of an exec: it is started once, and the shim survives its end', async ({ shim }) => {
    const task = await shim.started()
    await task.exec('e1', ['sleep', '1000'])
    expect(await Promise.all([task.start('e1'), task.start('e1')].map(codeOf))).toEqual([0, 2])
    expect(await task.pids()).toHaveLength(2)
    await task.remove()
    expect(task.story.filter((line) => line.startsWith('exec-started'))).toHaveLength(1)
    expect(shim.alive).toBe(true)
  })

  test('two Execs of one id: one is there', async ({ shim }) => {
    const task = await shim.started()
    expect(await Promise.all([task.exec('e1', ['true']), task.exec('e1', ['true'])].map(codeOf))).toEqual([0, 6])
    await task.remove()
  })

  test('Pause and Kill: the container ends, and nothing stays frozen', async ({ shim }) => {
    for (let round = 0; round < 5; round++) {
      const task = await shim.started()
      const { client, id } = task
      const pausing = codeOf(client.pause({ id }))
      await task.kill(9)
      expect([0, 2, 9]).toContain(await pausing)
      expect(await task.wait()).toMatchObject({ exitStatus: 137 })
      await task.remove()
      expect(task.story.filter((line) => line !== 'paused')).toEqual(['create', 'start', 'exit 137', 'delete'])
      expect(task.story.slice(-2)).toEqual(['exit 137', 'delete'])
    }
  })

  test('Kill of a paused container ends it, and its execs before it', async ({ shim }) => {
    const task = await shim.started()
    await task.run('e1', ['sleep', '1000'])
    await task.client.pause({ id: task.id })
    await Promise.all([task.kill(9), codeOf(task.client.pause({ id: task.id }))])
    expect(await task.wait('e1')).toMatchObject({ exitStatus: 137 })
    expect(await task.wait()).toMatchObject({ exitStatus: 137 })
    await task.remove()
    expect(task.story.slice(-4)).toEqual(['paused', 'exit e1 137', 'exit 137', 'delete'])
  })

  test("Start of an exec and Kill of an init in the host's pid namespace: it runs and dies, or is refused", async ({
    shim,
  }) => {
    for (let round = 0; round < 10; round++) {
      const task = await shim.started(['sleep', '1000'], hostPids)
      await task.exec('e1', ['sleep', '1000'])
      const [started] = await Promise.all([codeOf(task.start('e1')), task.kill(9)])
      expect([0, 9]).toContain(started)
      expect(await task.wait()).toMatchObject({ exitStatus: 137 })
      expect(await task.wait('e1')).toMatchObject(started === 0 ? { exitStatus: 137 } : { exitedAt: NEVER })
      await task.remove()
    }
  })

  test('Start of an exec and Kill of the init: it runs and dies, or is refused because there is no init', async ({
    shim,
  }) => {
    for (let round = 0; round < 20; round++) {
      const task = await shim.started()
      await task.exec('e1', ['sleep', '1000'])
      const before = round % 2 === 0 ? task.kill(9) : undefined
      const starting = codeOf(task.start('e1'))
      await Promise.all([starting, before ?? task.kill(9)])
      expect(before === undefined ? [0, 9] : [9]).toContain(await starting)
      expect(await task.wait()).toMatchObject({ exitStatus: 137 })
      await task.remove()
    }
  })

  test('Delete of a container takes along its execs, and whoever waits for them', async ({ shim }) => {
    const task = shim.task(['sleep', '1000'])
    await task.create()
    await task.exec('e1', ['true'])
    const waiting = task.wait('e1')
    await task.delete()
    expect(await waiting).toEqual({ exitStatus: 0, exitedAt: NEVER })
    expect(await codeOf(task.state('e1'))).toBe(5)
  })
})
