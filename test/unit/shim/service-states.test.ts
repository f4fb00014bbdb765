/**
 * What the Task service answers in the states of a container that do not suit a call, or where there is no container:
 * codes and texts.
 */
import { packAny } from 'ttrpc-ts'
import { LegacyCheckpointOptions, RuncCheckpointOptions, TaskStatus } from 'ttrpc-ts/containerd'
import { describe, expect } from 'vitest'
import { callers, failure, KILLED, stop, test } from './service-world.ts'

describe('an unknown container', () => {
  const calls = [
    'State',
    'Start',
    'Delete',
    'Pids',
    'Pause',
    'Resume',
    'Kill',
    'Exec',
    'ResizePty',
    'CloseIO',
    'Update',
    'Wait',
    'Stats',
  ] as const
  for (const name of calls) {
    test(`${name} answers NotFound`, async ({ world }) => {
      expect(await failure(() => callers(world)[name]({ id: 'ghost' }))).toEqual({
        code: 5,
        message: 'container not created: not found',
      })
    })
  }

  test('Connect answers without a task', ({ world }) => {
    expect(callers(world).Connect({ id: 'ghost' })).toEqual({ shimPid: 4242, taskPid: 0 })
  })
})

describe('an unknown exec', () => {
  for (const name of ['State', 'Wait', 'Kill', 'Start', 'Delete', 'ResizePty', 'CloseIO'] as const) {
    test(`${name} answers NotFound`, async ({ world }) => {
      const answer = await failure(() => callers(world)[name]({ execId: 'e9' }))
      expect(answer).toEqual({ code: 5, message: 'process does not exist e9: not found' })
    })
  }
})

describe('a container in the wrong state', () => {
  test('a running one is neither started nor deleted', async ({ world }) => {
    const call = callers(world)
    await call.Start()
    expect(await failure(() => call.Start())).toEqual({ code: 2, message: 'cannot start a running process' })
    expect(await failure(() => call.Delete())).toEqual({ code: 2, message: 'cannot delete a running process' })
  })

  test('a paused one takes neither a second pause, nor an exec, nor a delete', async ({ world }) => {
    const call = callers(world)
    await call.Start()
    await call.Pause()
    expect(await call.State()).toMatchObject({ status: TaskStatus.PAUSED })
    expect(await failure(() => call.Pause())).toEqual({ code: 2, message: 'cannot pause a paused container' })
    expect(await failure(() => call.Exec())).toEqual({ code: 2, message: 'cannot exec in a paused state' })
    expect(await failure(() => call.Delete())).toEqual({ code: 2, message: 'cannot delete a paused process' })
    await call.Resume()
    expect(await call.State()).toMatchObject({ status: TaskStatus.RUNNING })
  })

  test('a stopped one refuses what needs a process', async ({ world }) => {
    const call = callers(world)
    await call.Start()
    await stop(world)
    expect(await failure(() => call.Start())).toEqual({ code: 2, message: 'cannot start a stopped process' })
    expect(await failure(() => call.Pause())).toMatchObject({ code: 2 })
    expect(await failure(() => call.Resume())).toMatchObject({ code: 2 })
    expect(await failure(() => call.Exec())).toEqual({ code: 2, message: 'cannot exec in a stopped state' })
    expect(await failure(() => call.Update())).toMatchObject({ code: 2 })
    expect(await failure(() => call.Kill())).toEqual({ code: 5, message: 'process already finished: not found' })
  })

  test('a stopped one still answers what only looks', async ({ world }) => {
    const call = callers(world)
    await stop(world)
    await call.Kill({ all: true })
    expect(world.calls).toContain('killAll 15')
    expect(await call.Pids()).toEqual({ processes: [] })
    expect(call.ResizePty()).toBeUndefined()
    expect(await call.CloseIO()).toBeUndefined()
    expect(await call.Wait()).toEqual({ exitStatus: 137, exitedAt: KILLED.at })
  })

  test('a checkpoint leaves it running unless its options say otherwise, in any of their types', async ({ world }) => {
    const call = callers(world)
    await call.Start()
    await call.Checkpoint({ path: '/images' })
    const options = packAny(RuncCheckpointOptions, { exit: true, openTcp: true, parentPath: '/parent' })
    await call.Checkpoint({ path: '/images', options })
    await call.Checkpoint({ path: '/images', options: packAny(LegacyCheckpointOptions, { exit: true }) })
    expect(world.calls.filter((name) => name.startsWith('checkpoint'))).toEqual([
      'checkpoint /images {"leaveRunning":true,"tcpEstablished":false}',
      'checkpoint /images {"leaveRunning":false,"tcpEstablished":true,"parentPath":"../parent"}',
      'checkpoint /images {"leaveRunning":false,"tcpEstablished":false}',
    ])
  })

  test('a checkpoint that cannot be meant is refused', async ({ world }) => {
    const call = callers(world)
    await call.Start()
    const attempt = (more: object) => failure(() => call.Checkpoint(more))
    const mode = packAny(RuncCheckpointOptions, { cgroupsMode: 'all' })
    const empty = packAny(RuncCheckpointOptions, { emptyNamespaces: ['pid'] })
    expect(await attempt({ path: 'images' })).toMatchObject({ code: 3 })
    expect(await attempt({ path: '/images', options: mode })).toMatchObject({ code: 3 })
    expect(await attempt({ path: '/images', options: empty })).toMatchObject({ code: 3 })
    expect(world.calls.filter((name) => name.startsWith('checkpoint'))).toEqual([])
  })
})
