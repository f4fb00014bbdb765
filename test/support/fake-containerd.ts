/**
 * A stand-in for containerd. It makes bundles, and starts shims with the daemon's arguments, environment and log fifo.
 * It takes their events, and calls them in any order that a test wants, which the real daemon never would.
 * This file does not import vitest.
 */
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmdirSync,
  rmSync,
} from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { createClient, type MessageInput, type ServiceClient, TtrpcClient } from 'ttrpc-ts'
import {
  type Any,
  type CreateTaskRequest,
  type DeleteResponse,
  type ExecProcessRequest,
  type StateResponse,
  TaskService,
  TaskV3Service,
  type WaitResponse,
} from 'ttrpc-ts/containerd'
import { errnoOf } from '../../runtime/internal.ts'
import { errnoName } from '../../runtime/sys/errno.ts'
import { mkfifo } from '../../runtime/sys/libc.ts'
import { type Census, cgroupsOf, isAlive, takeCensus } from './census.ts'
import { type Finished, startCommand, until } from './command.ts'
import { EventSink } from './event-sink.ts'
import { BIN, BUSYBOX, KEEPER_WISH } from './places.ts'
import { rootfsFolder, type SpecChange, type TestProcess, writeSpec } from './spec.ts'

/** The Task service as a client sees it, under either name. */
export type TaskClient = ServiceClient<typeof TaskService>

/** Which name a connection calls the service by. */
export type TaskVersion = 'v2' | 'v3'

const SIGKILL = 9
const PROCESS_URL = 'types.containerd.io/opencontainers/runtime-spec/1/Process'

/** What is different in an exec's process. */
export type ProcessChange = Partial<TestProcess>

/** An exec's process as the Any that clients send. */
export function processAny(args: readonly string[], change: ProcessChange = {}): Any {
  const process = { args, cwd: '/', env: ['PATH=/bin:/usr/bin'], user: { uid: 0, gid: 0 }, ...change }
  return { typeUrl: PROCESS_URL, value: Buffer.from(JSON.stringify(process)) }
}

/** A fifo at which a process of the test waits until the test opens it. */
export class Gate {
  readonly path: string
  #writer: Promise<FileHandle> | undefined

  constructor(path: string) {
    this.path = path
    mkfifo(path, 0o600)
  }

  /** The shell command that waits here, on the host. */
  get command(): string[] {
    return [BUSYBOX, 'sh', '-c', `read line <${this.path}`]
  }

  /** Resolves when a process waits: the writing end of a fifo can be opened once it has a reader. */
  async reached(): Promise<void> {
    this.#writer = open(this.path, 'w')
    await this.#writer
  }

  /** Lets it through. */
  async pass(): Promise<void> {
    const writer = await this.#writer
    this.#writer = undefined
    await writer?.write('go\n')
    await writer?.close()
  }

  /** Ends our open() if no process came to the gate, and lets go of the gate. */
  async [Symbol.asyncDispose](): Promise<void> {
    closeSync(openSync(this.path, constants.O_RDWR | constants.O_NONBLOCK))
    const writer = await this.#writer
    await writer?.close()
  }
}

/** A container of a shim, with its id filled in. */
export class FakeTask {
  readonly id: string
  readonly bundle: string
  readonly client: TaskClient
  readonly #sink: EventSink

  constructor(parts: { id: string; bundle: string; client: TaskClient; sink: EventSink }) {
    this.id = parts.id
    this.bundle = parts.bundle
    this.client = parts.client
    this.#sink = parts.sink
  }

  async create(request: MessageInput<CreateTaskRequest> = {}): Promise<number> {
    return (await this.client.create({ id: this.id, bundle: this.bundle, ...request })).pid
  }

  async start(execId = ''): Promise<number> {
    return (await this.client.start({ id: this.id, execId })).pid
  }

  state(execId = ''): Promise<StateResponse> {
    return this.client.state({ id: this.id, execId })
  }

  wait(execId = ''): Promise<WaitResponse> {
    return this.client.wait({ id: this.id, execId })
  }

  delete(execId = ''): Promise<DeleteResponse> {
    return this.client.delete({ id: this.id, execId })
  }

  async kill(signal = SIGKILL, execId = '', all = false): Promise<void> {
    await this.client.kill({ id: this.id, signal, execId, all })
  }

  async exec(execId: string, args: readonly string[], request: MessageInput<ExecProcessRequest> = {}): Promise<void> {
    await this.client.exec({ id: this.id, execId, spec: processAny(args), ...request })
  }

  async closeStdin(execId = ''): Promise<void> {
    await this.client.closeIO({ id: this.id, execId, stdin: true })
  }

  async pids(): Promise<number[]> {
    return (await this.client.pids({ id: this.id })).processes.map(({ pid }) => pid)
  }

  /** Exec and Start. */
  async run(execId: string, args: readonly string[], request: MessageInput<ExecProcessRequest> = {}): Promise<number> {
    await this.exec(execId, args, request)
    return this.start(execId)
  }

  /** Kills what runs, and deletes it. */
  async remove(): Promise<DeleteResponse> {
    await this.kill(SIGKILL, '', true)
    await this.wait()
    const answer = await this.delete()
    await this.#sink.until(`the delete event of ${this.id}`, (event) => this.#isDelete(event))
    return answer
  }

  /** What was published of it so far, as lines. */
  get story(): string[] {
    return this.#sink.story(this.id)
  }

  #isDelete({ container, topic }: { container: string; topic: string }): boolean {
    return container === this.id && topic === '/tasks/delete'
  }
}

/** A started shim. */
export class FakeShim {
  readonly id: string
  readonly bundle: string
  readonly socket: string
  readonly pid: number
  readonly #daemon: FakeContainerd
  readonly #logFd: number
  readonly #connections: TtrpcClient[] = []
  readonly #clients: Partial<Record<TaskVersion, TaskClient>> = {}

  constructor(
    daemon: FakeContainerd,
    parts: { id: string; bundle: string; socket: string; pid: number; logFd: number },
  ) {
    this.#daemon = daemon
    this.#logFd = parts.logFd
    this.id = parts.id
    this.bundle = parts.bundle
    this.socket = parts.socket
    this.pid = parts.pid
  }

  /** Calls over the shim's first connection under that name. */
  client(version: TaskVersion = 'v2'): TaskClient {
    this.#clients[version] ??= this.connect(version)
    return this.#clients[version]
  }

  /** Calls over a connection of its own. */
  connect(version: TaskVersion = 'v2'): TaskClient {
    const connection = this.connection()
    return createClient(version === 'v2' ? TaskService : TaskV3Service, connection)
  }

  /** A connection that is closed with the shim, or before. */
  connection(): TtrpcClient {
    const metadata = { 'containerd-namespace-ttrpc': this.#daemon.namespace }
    const connection = new TtrpcClient({ path: this.socket, metadata })
    this.#connections.push(connection)
    return connection
  }

  /**
   * A container that is not created yet: in this shim's bundle, or in its own bundle for a further container of a
   * pod.
   */
  task(command: readonly string[], change?: SpecChange, version: TaskVersion = 'v2', id = this.#daemon.id()): FakeTask {
    const bundle = this.#daemon.bundle(id, command, change)
    return new FakeTask({ id, bundle, client: this.client(version), sink: this.#daemon.sink })
  }

  /** A container that runs. */
  async started(command: readonly string[] = ['sleep', '1000'], change?: SpecChange): Promise<FakeTask> {
    const task = this.task(command, change)
    await task.create()
    await task.start()
    return task
  }

  get alive(): boolean {
    return isAlive(this.pid)
  }

  /** Runs the launcher's `delete` for a container, as the daemon does after every one. */
  delete(id = this.id): Promise<Finished> {
    return this.#daemon.launch(id, '-bundle', this.#daemon.bundlePath(id), 'delete')
  }

  /** What it has logged since the last look. */
  log(): string {
    const chunk = Buffer.alloc(65_536)
    try {
      return chunk.toString('utf8', 0, readSync(this.#logFd, chunk))
    } catch (error) {
      if (errnoName(errnoOf(error)) === 'EAGAIN') return ''
      throw error
    }
  }

  /** Closes all connections of ours. */
  close(): void {
    for (const connection of this.#connections.splice(0)) connection.close()
  }
}

/** The daemon's place. */
export class FakeContainerd {
  readonly folder: string
  readonly namespace: string
  readonly sink: EventSink
  /** The launcher that is run; another build's, when a test says so. */
  program = join(BIN, 'containerd-shim-ts-v2')
  /** Words before its command line: a program that runs it. */
  prefix: readonly string[] = []
  /** More of its environment. */
  readonly env: Record<string, string> = {}
  /** All container ids so far. */
  readonly ids: string[] = []
  readonly #shims: FakeShim[] = []
  readonly #logs: number[] = []
  readonly #rootfs: string
  #next = 1

  constructor() {
    this.folder = mkdtempSync('/tmp/cts-')
    chmodSync(this.folder, 0o711)
    this.namespace = `cts-${randomBytes(3).toString('hex')}`
    this.sink = new EventSink(`${this.address}.ttrpc`)
    mkdirSync(join(this.folder, 'bundles'))
    this.#rootfs = rootfsFolder(this.folder)
  }

  get address(): string {
    return join(this.folder, 'c.sock')
  }

  /** The folder that all containers have as their root. */
  get rootfs(): string {
    return this.#rootfs
  }

  async start(): Promise<void> {
    await this.sink.listen()
  }

  /** An id that nothing else has. */
  id(): string {
    const id = `f${this.#next++}`
    this.ids.push(id)
    return id
  }

  bundlePath(id: string): string {
    return join(this.folder, 'bundles', id)
  }

  /** Makes a bundle as the daemon would. */
  bundle(id: string, command: readonly string[], change: SpecChange = () => undefined): string {
    const path = this.bundlePath(id)
    mkdirSync(path, { recursive: true })
    const withCgroup: SpecChange = (spec) => {
      spec.linux.cgroupsPath = `/${this.namespace}/${id}`
      change(spec)
    }
    writeSpec(path, command, withCgroup, this.#rootfs)
    return path
  }

  /** A gate in this daemon's folder. */
  gate(): Gate {
    return new Gate(this.path('gate'))
  }

  /** A path in this daemon's folder that nothing has yet. */
  path(name: string): string {
    return join(this.folder, `${name}-${this.#next++}`)
  }

  /** Runs our launcher with the daemon's arguments and environment. */
  launch(id: string, ...action: readonly string[]): Promise<Finished> {
    const { address, namespace } = this
    const flags = ['-namespace', namespace, '-address', address, '-publish-binary', '/bin/false', '-id', id]
    const [program = '', ...args] = [...this.prefix, this.program, ...flags, ...action]
    return startCommand(program, args, {
      cwd: this.bundlePath(id),
      env: {
        TTRPC_ADDRESS: `${address}.ttrpc`,
        GRPC_ADDRESS: address,
        NAMESPACE: namespace,
        MAX_SHIM_VERSION: '2',
        GOMAXPROCS: '2',
        CONTAINERD_SHIM_TS_ROOT: join(this.folder, 'ts'),
        ...KEEPER_WISH,
        ...this.env,
      },
    }).finished
  }

  /** Starts a shim on a bundle of its own, in which nothing is created yet. */
  async shim(id = this.id(), command: readonly string[] = ['sleep', '1000'], change?: SpecChange): Promise<FakeShim> {
    const bundle = this.bundle(id, command, change)
    const log = join(bundle, 'log')
    mkfifo(log, 0o700)
    const logFd = openSync(log, constants.O_RDWR | constants.O_NONBLOCK)
    this.#logs.push(logFd)
    const { code, stdout, stderr } = await this.launch(id, 'start')
    if (code !== 0 || stderr !== '') throw new Error(`start ended with ${code}: ${stdout}${stderr}`)
    const socket = stdout.replace(/^unix:\/\//, '')
    const connection = new TtrpcClient({ path: socket })
    const { shimPid } = await createClient(TaskService, connection).connect({ id })
    connection.close()
    const shim = new FakeShim(this, { id, bundle, socket, pid: shimPid, logFd })
    this.#shims.push(shim)
    return shim
  }

  /** Ends all shims in whatever state, and removes what they left, with the launcher's own `delete`. */
  async removeAll(): Promise<void> {
    for (const shim of this.#shims.splice(0)) {
      shim.close()
      if (!shim.alive) continue
      process.kill(shim.pid, 'SIGKILL')
      await until(`shim ${shim.pid} to end`, () => !shim.alive)
    }
    for (const id of this.ids.splice(0)) {
      const { code, stderr } = await this.launch(id, '-bundle', this.bundlePath(id), 'delete')
      if (code !== 0) throw new Error(`delete of ${id} ended with ${code}: ${stderr}`)
      rmSync(this.bundlePath(id), { recursive: true })
    }
    for (const fd of this.#logs.splice(0)) closeSync(fd)
    this.sink.events.length = 0
  }

  /** Takes the census of these containers, and of all that was started from this folder. */
  census(ids: readonly string[] = this.ids): Census {
    return takeCensus({ folder: this.folder, namespace: this.namespace, ids })
  }

  /** Forgets everything and removes the folder. */
  async stop(): Promise<void> {
    await this.removeAll()
    await this.sink.away()
    for (const path of cgroupsOf(this.namespace).reverse()) rmdirSync(path)
    if (process.env['KEEP'] === undefined) rmSync(this.folder, { recursive: true, force: true })
  }
}

/** The resident memory of a process, in KiB. */
export function residentKib(pid: number): number {
  return Number(/VmRSS:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0)
}
