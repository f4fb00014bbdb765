/** The Task service call by call: what each answers and does, also before a start, behind an end and two at once. */
import { ProcessDetails, TaskStatus } from 'ttrpc-ts/containerd'
import { describe, expect } from 'vitest'
import { RuntimeError } from '../../../runtime/index.ts'
import { NEVER_RAN } from '../../../shim/task/process-states.ts'
import { callers, failure, KILLED, stop, test, turn } from './service-world.ts'

describe('Kill', () => {
  test('reaches the init also before it is started', async ({ world }) => {
    await callers(world).Kill({ signal: 9 })
    await world.task.init.ended
    await turn()
    expect(world.topics()).toEqual(['/tasks/exit c1'])
  })

  test('refuses a number that is no signal', async ({ world }) => {
    expect(await failure(() => callers(world).Kill({ signal: 65 }))).toEqual({ code: 2, message: 'invalid signal 65' })
  })

  test('an exec that was not started has no process', async ({ world }) => {
    const call = callers(world)
    call.Exec()
    expect(await failure(() => call.Kill({ execId: 'e1' }))).toEqual({
      code: 9,
      message: 'process not created: failed precondition',
    })
  })
})

describe('State', () => {
  test('tells the zero time until the exit, and then the exit', async ({ world }) => {
    const call = callers(world)
    expect(await call.State()).toMatchObject({
      id: 'c1',
      pid: 100,
      status: TaskStatus.CREATED,
      exitStatus: 0,
      exitedAt: NEVER_RAN.at,
    })
    await stop(world)
    expect(await call.State()).toMatchObject({
      pid: 100,
      status: TaskStatus.STOPPED,
      exitStatus: 137,
      exitedAt: KILLED.at,
    })
  })

  test('of an exec names the exec, and is paused with its container', async ({ world }) => {
    const call = callers(world)
    await call.Start()
    call.Exec()
    await call.Start({ execId: 'e1' })
    await call.Pause()
    expect(await call.State({ execId: 'e1' })).toMatchObject({
      id: 'e1',
      execId: '',
      pid: 200,
      status: TaskStatus.PAUSED,
    })
  })

  test('answers while a Start is held up', async ({ world }) => {
    const held = Promise.withResolvers<void>()
    world.on.start = () => held.promise
    const call = callers(world)
    const started = call.Start()
    await turn()
    expect(await call.State()).toMatchObject({ status: TaskStatus.CREATED })
    expect(call.Connect()).toEqual({ shimPid: 4242, taskPid: 100 })
    held.resolve()
    expect(await started).toEqual({ pid: 100 })
  })
})

describe('Pids', () => {
  test('names the execs among the processes', async ({ world }) => {
    const call = callers(world)
    await call.Start()
    call.Exec()
    await call.Start({ execId: 'e1' })
    const { processes } = await call.Pids()
    expect(processes?.map(({ pid }) => pid)).toEqual([100, 200])
    expect(processes?.[0]?.info).toBeUndefined()
    expect(processes?.[1]?.info?.typeUrl).toBe('containerd.runc.v1.ProcessDetails')
    expect(ProcessDetails.decode(Buffer.from(processes?.[1]?.info?.value ?? []))).toEqual({ execId: 'e1' })
  })
})

describe('Exec', () => {
  test('an id is taken once, also by a process that has ended', async ({ world }) => {
    const call = callers(world)
    call.Exec()
    expect(await failure(() => call.Exec())).toEqual({ code: 6, message: 'id e1: already exists' })
  })

  test('bad JSON leaves the id free', async ({ world }) => {
    const call = callers(world)
    expect(await failure(() => call.Exec({ spec: { typeUrl: '', value: Buffer.from('{') } }))).toMatchObject({
      code: 2,
    })
    call.Exec()
  })

  test('one that was never started is deleted with nothing to report', async ({ world }) => {
    const call = callers(world)
    call.Exec()
    const waiting = call.Wait({ execId: 'e1' })
    expect(await call.Delete({ execId: 'e1' })).toEqual({ pid: 0, exitStatus: 0, exitedAt: NEVER_RAN.at })
    expect(await waiting).toEqual({ exitStatus: 0, exitedAt: NEVER_RAN.at })
    expect(await failure(() => call.Delete({ execId: 'e1' }))).toMatchObject({ code: 5 })
  })

  test('whose program is missing stays created; Wait does not hang', async ({ world }) => {
    const call = callers(world)
    await call.Start()
    call.Exec()
    const waiting = call.Wait({ execId: 'e1' })
    world.on.exec = () => Promise.reject(new RuntimeError('NotFound', 'exec: "nope": no such file or directory'))
    const answer = await failure(() => call.Start({ execId: 'e1' }))
    expect(answer).toEqual({
      code: 2,
      message: 'OCI runtime exec failed: exec failed: exec: "nope": no such file or directory',
    })
    expect(await waiting).toEqual({ exitStatus: 0, exitedAt: NEVER_RAN.at })
    expect(await call.State({ execId: 'e1' })).toMatchObject({ status: TaskStatus.CREATED, pid: 0 })
    await call.Delete({ execId: 'e1' })
  })

  test('cannot be started once the init has gone', async ({ world }) => {
    const call = callers(world)
    await call.Start()
    call.Exec()
    world.init.exit = KILLED
    const answer = await failure(() => call.Start({ execId: 'e1' }))
    expect(answer).toEqual({ code: 9, message: 'container c1 init process is not running: failed precondition' })
  })

  test('two Starts of one exec start it once', async ({ world }) => {
    const call = callers(world)
    await call.Start()
    call.Exec()
    const answers = await Promise.allSettled([call.Start({ execId: 'e1' }), call.Start({ execId: 'e1' })])
    expect(answers.map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
    expect(world.calls.filter((name) => name === 'exec')).toHaveLength(1)
  })
})

describe('Delete', () => {
  test('of a created container kills it, and its exit is told first', async ({ world }) => {
    expect(await callers(world).Delete()).toMatchObject({ pid: 100, exitStatus: 137 })
    await turn()
    expect(world.calls).toEqual(['kill 9', 'delete'])
    expect(world.topics()).toEqual(['/tasks/exit c1', '/tasks/delete'])
  })

  test('succeeds when the runtime has nothing left of it', async ({ world }) => {
    await stop(world)
    world.on.delete = () => Promise.reject(new RuntimeError('NotFound', 'container does not exist: "c1"'))
    expect(await callers(world).Delete()).toMatchObject({ pid: 100 })
  })

  test('that fails can be repeated', async ({ world }) => {
    await stop(world)
    world.on.delete = () => Promise.reject(new RuntimeError('Internal', 'cannot remove the cgroup: EBUSY'))
    await expect(callers(world).Delete()).rejects.toThrow('EBUSY')
    delete world.on.delete
    expect(await callers(world).Delete()).toMatchObject({ pid: 100 })
  })

  test('two at once: one deletes, the other finds nothing', async ({ world }) => {
    await stop(world)
    const call = callers(world)
    const answers = await Promise.allSettled([call.Delete(), call.Delete()])
    expect(answers[0]).toMatchObject({ status: 'fulfilled' })
    expect(answers[1]).toMatchObject({ status: 'rejected', reason: { code: 5 } })
    expect(world.calls.filter((name) => name === 'delete')).toHaveLength(1)
  })
})

describe('Shutdown', () => {
  test('is ignored while there is a container', ({ world }) => {
    callers(world).Shutdown()
    expect(world.calls).not.toContain('leave')
    expect(world.calls).not.toContain('withdraw')
  })

  test('ends the shim when there is none', async ({ world }) => {
    await stop(world)
    const call = callers(world)
    await call.Delete()
    call.Shutdown()
    expect(world.calls.slice(-2)).toEqual(['withdraw', 'leave'])
  })
})
