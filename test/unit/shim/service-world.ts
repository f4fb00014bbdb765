/**
 * The Task service over a container that does what the test says: the real handlers, and fakes around them.
 * Each call has what a client would send, and the test can look at all that it leads to. It needs no privilege.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type CallContext, TtrpcError } from 'ttrpc-ts'
import { TaskExit } from 'ttrpc-ts/containerd'
import { test as base } from 'vitest'
import {
  type Exit,
  type ProcessResult,
  parseSpec,
  Reaper,
  type RunningProcess,
  RuntimeError,
  silentLogger,
} from '../../../runtime/index.ts'
import { type Envelope, EventQueue } from '../../../shim/events.ts'
import { parseOptions } from '../../../shim/options.ts'
import { watchExit } from '../../../shim/task/exits.ts'
import { Registry, type Shim, Task, type TaskContainer, type TaskIo, TaskProcess } from '../../../shim/task/registry.ts'
import { taskHandlers } from '../../../shim/task/service.ts'

const { options: OPTIONS } = await parseOptions(undefined)
const STDIO = { stdin: '', stdout: '', stderr: '', terminal: false }
const NO_STREAMS: TaskIo = {
  console: undefined,
  summary: 'none',
  closeStdin() {},
  exited() {},
  drain: async () => true,
  close: async () => {},
}
/** How a process ends that is killed. */
export const KILLED: Exit = { status: 137, at: { seconds: 1_700_000_000n, nanos: 9 } }
const PROCESS = JSON.stringify({ args: ['true'], cwd: '/', user: { uid: 0, gid: 0 } })

const SPEC = JSON.stringify({
  ociVersion: '1.0.2',
  root: { path: 'rootfs' },
  process: JSON.parse(PROCESS),
  linux: { namespaces: [{ type: 'pid' }, { type: 'mount' }] },
})

/** A process that ends when told to. */
export class FakeProcess implements RunningProcess {
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
export interface World {
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
    cgroup: {
      thaw: async () => note('thaw'),
      stats: () => {
        throw new RuntimeError('NotFound', 'no cgroup')
      },
    },
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
    checkpoint: async ({ imagePath, leaveRunning, tcpEstablished, parentPath }) =>
      note(`checkpoint ${imagePath} ${JSON.stringify({ leaveRunning, tcpEstablished, parentPath })}`),
    set: async () => note('update'),
    processes: () => [100, 200],
    listProcesses: async () => [100, 200],
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
  process.attach(init, NO_STREAMS)
  const task = new Task({ bundle, container, options: OPTIONS, init: process })
  registry.add(task)
  watchExit(shim, task, process)
  return { shim, task, init, calls, events, topics: () => events.map(topicOf), handlers: taskHandlers(shim), on }
}

function topicOf({ topic, event }: Envelope): string {
  return topic === '/tasks/exit' ? `${topic} ${TaskExit.decode(event.value).id}` : topic
}

/** vitest's test with a world of its own. */
export const test = base.extend<{ world: World }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixtures that are needed from this pattern
  world: async ({}, use) => {
    const bundle = mkdtempSync(join(tmpdir(), 'shim-service-'))
    await use(makeWorld(bundle))
    rmSync(bundle, { recursive: true })
  },
})

/** Lets everything happen that is due. */
export const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** The failure of a call, sync or not. */
export async function failure(call: () => unknown): Promise<{ code: number; message: string }> {
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
export function callers({ handlers }: World) {
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

/** Ends the first process, and waits until the shim has seen it. */
export async function stop(world: World): Promise<void> {
  world.init.end(KILLED)
  await world.task.init.ended
}
