/**
 * A private containerd: the system's program with its root, state, sockets and namespace in a folder of its own.
 * Our build is first on its PATH. This file does not import vitest, since the benchmarks use it too.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, createWriteStream, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { delimiter, join } from 'node:path'
import { type Census, cgroupsOf, takeCensus } from './census.ts'
import { type Command, endProcess, type Finished, type StartOptions, startCommand, until } from './command.ts'
import { SLOWNESS } from './needs.ts'
import { BIN, CONTAINERD_RELEASE, IMAGE_ARCHIVE, releaseBin } from './places.ts'

/** The CRI, which few tests need; 2.x has split it in three. */
const CRI = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.runtime', 'io.containerd.cri.v1.images']
/** Plugins that no test needs, and that would touch the machine outside of the daemon's folder. */
const DISABLED = [
  'io.containerd.nri.v1.nri',
  'io.containerd.internal.v1.opt',
  'io.containerd.tracing.processor.v1.otlp',
]

/** containerd's own time limits, longer where everything takes longer. All releases read format 2. */
const CONFIG = (folder: string, cri: string, level: string): string => `
version = 2
root = "${folder}/root"
state = "${folder}/state"
disabled_plugins = ${JSON.stringify(cri === '' ? [...CRI, ...DISABLED] : DISABLED)}
[grpc]
  address = "${folder}/c.sock"
[ttrpc]
  address = "${folder}/c.sock.ttrpc"
[debug]
  level = "${level}"
[timeouts]
  "io.containerd.timeout.shim.cleanup" = "${5 * SLOWNESS}s"
  "io.containerd.timeout.shim.load" = "${5 * SLOWNESS}s"
  "io.containerd.timeout.shim.shutdown" = "${3 * SLOWNESS}s"
  "io.containerd.timeout.task.state" = "${2 * SLOWNESS}s"
${cri}
`

/** Where a daemon lives when that is not the machine itself: support/private-host.ts. */
export interface Place {
  /** The words before a command that runs it there. */
  readonly enter: readonly string[]
  /** The table of the mounts there. */
  readonly mountinfo: string
  /** The processes that hold the place. The census ignores them. */
  readonly pids: readonly number[]
}

const MACHINE: Place = { enter: [], mountinfo: '/proc/self/mountinfo', pids: [] }

/** The longest that a recording of events may take: a whole soak. */
const RECORDING_MS = 3_600_000

/** One event as `ctr events` shows it. */
export interface RecordedEvent {
  readonly topic: string
  readonly body: Readonly<Record<string, unknown>>
}

/** A running `ctr events`. */
export class EventRecorder {
  readonly #command: Command
  constructor(command: Command) {
    this.#command = command
  }

  /** The task events of one container so far, in order. */
  of(id: string): RecordedEvent[] {
    return this.all().filter(({ body }) => body['container_id'] === id)
  }

  /** All task events so far, in order. */
  all(): RecordedEvent[] {
    const events: RecordedEvent[] = []
    for (const line of this.#command.stdout.split('\n')) {
      const match = /(\/\S+) (\{.*\})$/.exec(line)
      if (match === null) continue
      const body: Record<string, unknown> = JSON.parse(match[2]!)
      if (match[1]!.startsWith('/tasks/')) events.push({ topic: match[1]!, body })
    }
    return events
  }

  /** Waits until the container has had an event of that topic (and, for a process of its own, that id). */
  async until(
    id: string,
    topic: string,
    isIt: (event: RecordedEvent) => boolean = () => true,
  ): Promise<RecordedEvent[]> {
    await until(
      `event ${topic} of ${id}`,
      () => this.of(id).some((event) => event.topic === topic && isIt(event)),
      () => this.#command.describe(),
    )
    return this.of(id)
  }

  async stop(): Promise<void> {
    this.#command.kill('SIGKILL')
    await this.#command.finished
  }
}

/** A containerd that belongs to one test file. */
export class Daemon {
  readonly folder: string
  readonly namespace: string
  /** All container ids that tests used. */
  readonly ids: string[] = []
  /** Pids of processes that run as long as the daemon does. No test ends them. */
  readonly residents = new Set<number>()
  /** Set before the first start. */
  place: Place = MACHINE
  #child: ChildProcess | undefined
  #bin = releaseBin(CONTAINERD_RELEASE)

  /**
   * `cri`: configuration of the CRI, which is off without it.
   * `level`: the level of the log, of the shims too.
   * `more`: other configuration.
   */
  constructor(cri: (folder: string) => string = () => '', level: 'debug' | 'info' = 'debug', more = '') {
    // short: unix socket paths end at 108 bytes
    this.folder = mkdtempSync('/tmp/cts-')
    // others may pass: in a user namespace the container's root is another user, and has to reach the bundle
    chmodSync(this.folder, 0o711)
    this.namespace = `cts-${randomBytes(3).toString('hex')}`
    writeFileSync(join(this.folder, 'config.toml'), CONFIG(this.folder, cri(this.folder), level) + more)
  }

  /** Makes the next start that of another release ("1.7", "2"), and ctr its ctr. */
  use(release: string): void {
    this.#bin = releaseBin(release)
  }

  get #program(): string {
    return join(this.#bin, 'containerd')
  }

  /** The client of the daemon's own release: a newer daemon's answers may mean nothing to an older one. */
  get ctrProgram(): string {
    return join(this.#bin, 'ctr')
  }

  /** The daemon's version, as '1.6'. */
  get version(): string {
    return /\b(\d+\.\d+)\.\d/.exec(execFileSync(this.#program, ['--version'], { encoding: 'utf8' }))?.[1] ?? ''
  }

  /** Whether the daemon is of this release or a newer one. */
  isAtLeast(major: number, minor: number): boolean {
    const [ours = 0, oursMinor = 0] = this.version.split('.').map(Number)
    return ours > major || (ours === major && oursMinor >= minor)
  }

  get address(): string {
    return join(this.folder, 'c.sock')
  }

  get pid(): number {
    return this.#child?.pid ?? -1
  }

  /** What the daemon and the shims logged. */
  get log(): string {
    return readFileSync(join(this.folder, 'containerd.log'), 'utf8')
  }

  async start(): Promise<void> {
    const log = createWriteStream(join(this.folder, 'containerd.log'), { flags: 'a' })
    const env = {
      ...process.env,
      PATH: [BIN, this.#bin, process.env['PATH'] ?? ''].filter((folder) => folder !== '').join(delimiter),
      CONTAINERD_SHIM_TS_ROOT: join(this.folder, 'ts'),
    }
    const [program, ...args] = [...this.place.enter, this.#program, '--config', join(this.folder, 'config.toml')]
    const child = spawn(program!, args, {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    child.stdout.pipe(log)
    child.stderr.pipe(log)
    this.#child = child
    await until(
      'containerd to answer',
      async () => {
        if (child.exitCode !== null) throw new Error(`containerd exited with ${child.exitCode}:\n${this.log}`)
        return (await this.#accepts()) && (await this.ctr(['version'])).code === 0
      },
      () => this.log,
    )
  }

  #accepts(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect(this.address)
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
      socket.once('connect', () => socket.destroy())
    })
  }

  /** Ends the daemon, by default as a crash would; shims and containers stay. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    await endProcess(this.#child, signal)
  }

  /** Starts ctr in this daemon's namespace, or in another one. */
  startCtr(args: readonly string[], options: StartOptions = {}): Command {
    const [program, ...words] = [...this.place.enter, this.ctrProgram, ...this.ctrArgs(args)]
    return startCommand(program!, words, options)
  }

  /**
   * The whole arguments of ctr. Fifos go to this daemon's folder, since all users of the machine share the default
   * one.
   */
  ctrArgs(args: readonly string[]): string[] {
    const verbs = args[0] === 'run' ? 1 : args[0] === 'task' && (args[1] === 'exec' || args[1] === 'start') ? 2 : 0
    const fifos = verbs === 0 || args.includes('--fifo-dir') ? [] : ['--fifo-dir', join(this.folder, 'fifo')]
    return [
      '--address',
      this.address,
      '--namespace',
      this.namespace,
      ...args.slice(0, verbs),
      ...fifos,
      ...args.slice(verbs),
    ]
  }

  /** Runs ctr to its end. */
  ctr(args: readonly string[], options: StartOptions = {}): Promise<Finished> {
    return this.startCtr(args, options).finished
  }

  async importImage(): Promise<void> {
    const result = await this.ctr(['image', 'import', '--no-unpack', IMAGE_ARCHIVE])
    if (result.code !== 0) throw new Error(`cannot import the image: ${result.stderr}`)
  }

  /** Records events from before it returns. */
  async events(): Promise<EventRecorder> {
    const command = this.startCtr(['events'], { timeoutMs: RECORDING_MS })
    const recorder = new EventRecorder(command)
    // the subscription starts some time after the process: provoke events until one shows
    let round = 0
    await until('the event subscription', async () => {
      const label = `probe=${round++}`
      await this.ctr(['namespaces', 'label', this.namespace, label])
      return command.stdout.includes('/namespaces/update')
    })
    return recorder
  }

  /** Removes every task and container of the namespace. It makes few calls, since it runs after every test. */
  async removeAll(): Promise<void> {
    const containers = words((await this.ctr(['container', 'ls', '-q'])).stdout)
    if (containers.length === 0) return
    const tasks = (await this.ctr(['task', 'ls'])).stdout.split('\n').slice(1).map(words)
    for (const [id, , status] of tasks) {
      if (id === undefined) continue
      if (status === 'PAUSED') await this.ctr(['task', 'resume', id])
      await this.ctr(['task', 'rm', '-f', id])
    }
    await this.ctr(['container', 'rm', ...containers])
  }

  census(): Census {
    return takeCensus(this, [this.pid, ...this.residents, ...this.place.pids], this.place.mountinfo)
  }

  /** Ends the daemon and removes its folder. */
  async stop(): Promise<void> {
    await this.kill('SIGTERM')
    for (const path of cgroupsOf(this.namespace).reverse()) {
      try {
        rmdirSync(path)
      } catch {
        // busy: the census has reported it already
      }
    }
    if (process.env['KEEP'] === undefined) rmSync(this.folder, { recursive: true, force: true })
  }
}

/** The words of a text. */
export function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '')
}
