/**
 * What happens by itself as processes end: the order of the events that tell of it, and what the shim does at the end
 * of an init.
 */
import { describe, expect } from 'vitest'
import { readExit } from '../../../shim/bundle.ts'
import { callers, FakeProcess, failure, KILLED, stop, test, turn } from './service-world.ts'

describe('the order of events', () => {
  test('an exit that comes before Start has returned is told after the start', async ({ world }) => {
    world.on.start = async () => world.init.end(KILLED)
    await callers(world).Start()
    await world.task.init.ended
    await turn()
    expect(world.topics()).toEqual(['/tasks/start', '/tasks/exit c1'])
  })

  test('exits of execs come before the exit of the init', async ({ world }) => {
    const call = callers(world)
    const exec = new FakeProcess(200)
    world.on.exec = async () => exec
    await call.Start()
    call.Exec()
    await call.Start({ execId: 'e1' })
    world.init.end(KILLED)
    await turn()
    expect(world.topics()).not.toContain('/tasks/exit c1')
    exec.end(KILLED)
    await world.task.init.ended
    await turn()
    expect(world.topics()).toEqual([
      '/tasks/start',
      '/tasks/exec-added',
      '/tasks/exec-started',
      '/tasks/exit e1',
      '/tasks/exit c1',
    ])
  })

  test('an exec that is being started when the init ends is waited for too', async ({ world }) => {
    const call = callers(world)
    const exec = new FakeProcess(200)
    const held = Promise.withResolvers<FakeProcess>()
    world.on.exec = () => held.promise
    await call.Start()
    call.Exec()
    const started = call.Start({ execId: 'e1' })
    await turn()
    world.init.end(KILLED)
    await turn()
    held.resolve(exec)
    exec.end(KILLED)
    await started
    await world.task.init.ended
    await turn()
    expect(world.topics().slice(-3)).toEqual(['/tasks/exec-started', '/tasks/exit e1', '/tasks/exit c1'])
  })

  test('an OOM kill is told before the exit, once', async ({ world }) => {
    await callers(world).Start()
    world.on.oomKills = 3
    await stop(world)
    await turn()
    expect(world.topics()).toEqual(['/tasks/start', '/tasks/oom', '/tasks/exit c1'])
  })

  test('a whole life: start, exit, delete', async ({ world }) => {
    const call = callers(world)
    await call.Start()
    await stop(world)
    expect(await call.Delete()).toEqual({ pid: 100, exitStatus: 137, exitedAt: KILLED.at })
    await turn()
    expect(world.topics()).toEqual(['/tasks/start', '/tasks/exit c1', '/tasks/delete'])
    expect(readExit(world.task.bundle)).toEqual({ pid: 100, exit: KILLED })
    expect(await failure(() => call.Delete())).toMatchObject({ code: 5 })
  })
})

describe('the end of an init', () => {
  test('without a pid namespace of its own, the rest of the cgroup is killed', async ({ world }) => {
    world.on.ownsPidNamespace = false
    await callers(world).Start()
    await stop(world)
    expect(world.calls).toContain('killAll 9')
  })

  test('a frozen cgroup is thawed, so that all can die', async ({ world }) => {
    const call = callers(world)
    await call.Start()
    await call.Pause()
    await stop(world)
    expect(world.calls.slice(-1)).toEqual(['thaw'])
  })
})
