/**
 * The Task service over a container that does what the test says: error codes and texts of every call in every state, the order of
 * events, and that what must stay responsive does. Nothing here needs a privilege.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type CallContext, TtrpcError } from 'ttrpc-ts'
import { ProcessDetails, TaskExit, TaskStatus } from 'ttrpc-ts/containerd'
import { test as base, describe, expect } from 'vitest'
import {
  type Exit,
  type ProcessResult,
  parseSpec,
  Reaper,
  type RunningProcess,
  RuntimeError,
  silentLogger,
} from '../../../runtime/index.ts'
import { readExit } from '../../../shim/bundle.ts'
import { type Envelope, EventQueue } from '../../../shim/events.ts'
import { watchExit } from '../../../shim/task/exits.ts'
import { NEVER_RAN } from '../../../shim/task/process.ts'
import { Registry, type Shim, Task, type TaskContainer, TaskProcess } from '../../../shim/task/registry.ts'
import { taskHandlers } from '../../../shim/task/service.ts'

const OPTIONS = { noPivotRoot: false, noNewKeyring: false, ioUid: 0, ioGid: 0, root: '' }
const STDIO = { stdin: '', stdout: '', stderr: '', terminal: false }
const KILLED: Exit = { status: 137, at: { seconds: 1_700_000_000n, nanos: 9 } }
const PROCESS = JSON.stringify({ args: ['true'], cwd: '/', user: { uid: 0, gid: 0 } })

const SPEC = JSON.stringify({
  ociVersion: '1.0.2',
  root: { path: 'rootfs' },
  process: JSON.parse(PROCESS),
  linux: { namespaces: [{ type: 'pid' }, { type: 'mount' }] },
})

/** A process that ends when told to. */
class FakeProcess implements RunningProcess {
  readonly pid: number
  readonly console = undefined
  readonly signals: number[] = []
  exit: Exit | undefined
  readonly #exited = Promise.withResolvers<Exit>()

  constructor(pid: number) {
    this.pid = pid
  }

  get exited(): Promise<Exit> {
    return this.#exited.promise
  }

  get alive(): boolean {
    return this.exit === undefined
  }

  signal(signal: number): void {
    if (this.exit !== undefined) throw new RuntimeError('NotFound', 'process already finished')
    this.signals.push(signal)
    if (signal === 9) this.end(KILLED)
  }

  async wait(): Promise<ProcessResult> {
    return { exitCode: (await this.exited).status, oomKilled: false }
  }

  end(exit: Exit): void {
    this.exit = exit
    this.#exited.resolve(exit)
  }
}

/** Everything that a test may steer or look at. */
interface World {
  readonly shim: Shim
  readonly task: Task
  readonly init: FakeProcess
  readonly calls: string[]
  readonly events: Envelope[]
  readonly topics: () => string[]
  readonly handlers: ReturnType<typeof taskHandlers>
  /** set by a test to hold or fail a step */
  readonly on: {
    start?: () => Promise<void>
    exec?: () => Promise<FakeProcess>
    delete?: () => Promise<void>
    oomKills: number
    ownsPidNamespace: boolean
  }
}

const context: CallContext = {
  service: 's',
  method: 'm',
  metadata: new Map(),
  signal: new AbortController().signal,
  afterReply: (callback) => callback(),
}

function makeWorld(bundle: string): World {
  const calls: string[] = []
  const events: Envelope[] = []
  const on: World['on'] = { oomKills: 0, ownsPidNamespace: true }
  const init = new FakeProcess(100)
  let nextPid = 200
  const note = (call: string) => {
    calls.push(call)
  }
  const container: TaskContainer = {
    id: 'c1',
    spec: parseSpec(SPEC, 'config.json'),
    init,
    get ownsPidNamespace() {
      return on.ownsPidNamespace
    },
    get ending() {
      return !init.alive
    },
    cgroup: { thaw: async () => note('thaw') },
    start: async () => {
      note('start')
      await on.start?.()
    },
    exec: async () => {
      note('exec')
      return (await on.exec?.()) ?? new FakeProcess(nextPid++)
    },
    signal: async (signal) => {
      note(`kill ${signal}`)
      init.signal(signal)
    },
    signalAll: async (signal) => note(`killAll ${signal}`),
    pause: async () => note('pause'),
    resume: async () => note('resume'),
    set: async () => note('update'),
    stats: () => {
      throw new RuntimeError('NotFound', 'no cgroup')
    },
    processes: () => [100, 200],
    oomKillCount: () => on.oomKills,
    watchOom: () => ({ [Symbol.dispose]() {} }),
    destroy: async () => {
      note('delete')
      await on.delete?.()
    },
  }
  const registry = new Registry()
  const queue = new EventQueue({
    namespace: 'ns',
    forwarder: {
      forward: async (envelope) => {
        events.push(envelope)
      },
      close() {},
    },
    logger: silentLogger,
  })
  const shim: Shim = {
    namespace: 'ns',
    pid: 4242,
    registry,
    reaper: new Reaper(),
    events: queue,
    logger: { ...silentLogger, flush: async () => {} },
    withdraw: () => note('withdraw'),
    leave: () => note('leave'),
  }
  const process = new TaskProcess({ execId: '', stdio: STDIO, pid: init.pid })
  process.running = init
  const task = new Task({ bundle, container, options: OPTIONS, init: process })
  registry.add(task)
  watchExit(shim, task, process)
  return { shim, task, init, calls, events, topics: () => events.map(topicOf), handlers: taskHandlers(shim), on }
}

function topicOf({ topic, event }: Envelope): string {
  return topic === '/tasks/exit' ? `${topic} ${TaskExit.decode(event.value).id}` : topic
}

const test = base.extend<{ world: World }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixtures that are needed from this pattern
  world: async ({}, use) => {
    const bundle = mkdtempSync(join(tmpdir(), 'shim-service-'))
    await use(makeWorld(bundle))
    rmSync(bundle, { recursive: true })
  },
})

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** The failure of a call, sync or not. */
async function failure(call: () => unknown): Promise<{ code: number; message: string }> {
  try {
    await call()
  } catch (error) {
    if (error instanceof TtrpcError) return { code: error.code, message: error.message }
    throw error
  }
  throw new Error('the call succeeded')
}

const MESSAGES = {
  id: 'c1',
  execId: '',
  signal: 15,
  all: false,
  width: 80,
  height: 24,
  stdin: '',
  stdout: '',
  stderr: '',
  terminal: false,
  path: '',
  options: undefined,
  annotations: {},
  now: false,
}

/** One call of each kind, for a container, with what is different from a plain request. */
function callers({ handlers }: World) {
  const resources = { typeUrl: 'r', value: Buffer.from('{}') }
  const spec = { typeUrl: 'p', value: Buffer.from(PROCESS) }
  return {
    State: (more = {}) => handlers.state({ ...MESSAGES, ...more }, context),
    Start: (more = {}) => handlers.start({ ...MESSAGES, ...more }, context),
    Delete: (more = {}) => handlers.delete({ ...MESSAGES, ...more }, context),
    Pids: (more = {}) => handlers.pids({ ...MESSAGES, ...more }, context),
    Pause: (more = {}) => handlers.pause({ ...MESSAGES, ...more }, context),
    Resume: (more = {}) => handlers.resume({ ...MESSAGES, ...more }, context),
    Checkpoint: (more = {}) => handlers.checkpoint({ ...MESSAGES, ...more }, context),
    Kill: (more = {}) => handlers.kill({ ...MESSAGES, ...more }, context),
    Exec: (more = {}) => handlers.exec({ ...MESSAGES, execId: 'e1', spec, ...more }, context),
    ResizePty: (more = {}) => handlers.resizePty({ ...MESSAGES, ...more }, context),
    CloseIO: (more = {}) => handlers.closeIO({ ...MESSAGES, stdin: true, ...more }, context),
    Update: (more = {}) => handlers.update({ ...MESSAGES, resources, ...more }, context),
    Wait: (more = {}) => handlers.wait({ ...MESSAGES, ...more }, context),
    Stats: (more = {}) => handlers.stats({ ...MESSAGES, ...more }, context),
    Connect: (more = {}) => handlers.connect({ ...MESSAGES, ...more }, context),
    Shutdown: (more = {}) => handlers.shutdown({ ...MESSAGES, ...more }, context),
  }
}

async function stop(world: World): Promise<void> {
  world.init.end(KILLED)
  await world.task.init.ended
}

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
    expect(call.Pids()).toEqual({ processes: [] })
    expect(call.ResizePty()).toBeUndefined()
    expect(await call.CloseIO()).toBeUndefined()
    expect(await call.Wait()).toEqual({ exitStatus: 137, exitedAt: KILLED.at })
  })

  test('checkpoints are not implemented', async ({ world }) => {
    const call = callers(world)
    await call.Start()
    expect(await failure(() => call.Checkpoint({ path: '/images' }))).toEqual({
      code: 12,
      message: 'cannot checkpoint container "c1" to "/images": not implemented',
    })
  })
})

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

describe('Delete', () => {
  test('of a created container kills it, and its exit is told first', async ({ world }) => {
    expect(await callers(world).Delete()).toMatchObject({ pid: 100, exitStatus: 137 })
    await turn()
    expect(world.calls).toEqual(['kill 9', 'delete'])
    expect(world.topics()).toEqual(['/tasks/exit c1', '/tasks/delete'])
  })

  test('succeeds when the runtime has nothing left of it', async ({ world }) => {
    await stop(world)
    world.on.delete = () => Promise.reject(new RuntimeError('NotFound', 'container "c1" does not exist'))
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
