/**
 * A keeper under test: the real launcher with the real keeper in a layout of its own, and workers that the test drives
 * (keeper-worker.ts). Teardown ends the keeper, with which its workers end, and checks that no process is left.
 */
import { once } from 'node:events'
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { STATUS_FLAGS } from '../../proto/keeper.ts'
import { type Layout, test as layoutTest, socketPath } from '../cli/launcher-layout.ts'
import { until } from '../support/command.ts'
import type { Command } from './keeper-worker.ts'

/** What a worker has told: a notice of the keeper, or the result of a command. */
export type Told = Readonly<Record<string, unknown>>

/** A worker that the test drives. */
export class Worker {
  readonly pid: number
  readonly told: Told[] = []
  readonly #socket: Socket
  #read = 0

  constructor(pid: number, socket: Socket) {
    this.pid = pid
    this.#socket = socket
  }

  /** Whether its connection to the test has ended. */
  get closed(): boolean {
    return this.#socket.closed
  }

  do(command: Command): void {
    this.#socket.write(`${JSON.stringify(command)}\n`)
  }

  /** The next thing that it tells and that has this key, or this value of the key. */
  async hears(key: string, value?: unknown): Promise<Told> {
    const matches = (told: Told): boolean => key in told && (value === undefined || told[key] === value)
    const look = (): number => this.told.findIndex((told, i) => i >= this.#read && matches(told))
    await until(
      `the worker tells ${key} ${value ?? ''}`,
      () => look() >= 0,
      () => JSON.stringify(this.told),
    )
    const at = look()
    this.#read = at + 1
    return this.told[at] ?? {}
  }

  /** Hears all that the keeper knows, up to `go`, which it returns. */
  async takesOver(): Promise<Told> {
    const go = await this.hears('notice', 'go')
    this.do({ do: 'status', flags: STATUS_FLAGS.READY })
    return go
  }

  /** Ends by its own will, and resolves when it is gone. */
  async parks(wakeInMs?: number): Promise<void> {
    this.do({
      do: 'status',
      flags: STATUS_FLAGS.READY | STATUS_FLAGS.PARKS,
      ...(wakeInMs === undefined ? {} : { wakeInMs }),
    })
    await this.dies()
  }

  /** Dies as by kill -9, and resolves when it is gone. */
  async dies(): Promise<void> {
    this.do({ do: 'die' })
    if (!this.#socket.closed) await once(this.#socket, 'close')
  }
}

/** A keeper, its workers in the order of their coming, and where it listens. */
export class KeeperHost {
  readonly layout: Layout
  readonly workers: Worker[] = []
  readonly #server = createServer((socket) => this.#welcome(socket))
  readonly #control: string
  #met = 0

  constructor(layout: Layout) {
    this.layout = layout
    this.#control = join(layout.root, 'control')
    rmSync(join(layout.lib, 'node'))
    symlinkSync(process.execPath, join(layout.lib, 'node'))
    writeFileSync(
      join(layout.lib, 'shim.cjs'),
      `import(${JSON.stringify(join(import.meta.dirname, 'keeper-worker.ts'))})`,
    )
    this.#server.listen(this.#control)
  }

  #welcome(socket: Socket): void {
    let worker: Worker | undefined
    // the interface passes the socket's error on: the worker was killed
    const lines = createInterface({ input: socket }).on('error', () => socket.destroy())
    lines.on('line', (line) => {
      const told: Told = JSON.parse(line)
      worker?.told.push(told)
      if (worker !== undefined) return
      worker = new Worker(Number(told['worker']), socket)
      this.workers.push(worker)
    })
  }

  /** Runs `start`, and returns what the launcher has printed. */
  start(env: Readonly<Record<string, string>> = {}): ReturnType<Layout['start']> {
    return this.layout.start({ env: { RUNTS_KEEPER: '1', KEEPER_TEST: this.#control, ...env } })
  }

  /** The next worker that has not been met. */
  async worker(): Promise<Worker> {
    await until(
      `worker ${this.#met + 1} comes`,
      () => this.workers.length > this.#met,
      () => this.log(),
    )
    const worker = this.workers[this.#met++]
    if (worker === undefined) throw new Error('no worker')
    return worker
  }

  /** The pid of the keeper. */
  get pid(): number {
    const found = this.layout.processes()
    if (found.length !== 1) throw new Error(`${found.length} processes run the launcher`)
    return found[0] ?? 0
  }

  /** Connects as containerd does. */
  async connect(): Promise<Socket> {
    const socket = connect(socketPath(this.layout))
    socket.on('error', () => {
      // the keeper ended with something unread
    })
    await once(socket, 'connect')
    return socket
  }

  /** What the keeper and its workers have logged. */
  log(): string {
    const bytes = Buffer.alloc(65536)
    const fd = openSync(join(this.layout.bundle, 'log'), constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      return bytes.toString('utf8', 0, readSync(fd, bytes))
    } catch {
      // the fifo is empty
      return ''
    } finally {
      closeSync(fd)
    }
  }

  /** Whether the keeper runs. */
  get lives(): boolean {
    return this.layout.processes().length > 0
  }

  async end(): Promise<void> {
    await this.layout.end()
    for (const { pid } of this.workers)
      await until(`worker ${pid} is gone`, () => !existsSync(`/proc/${pid}`) || isZombie(pid))
    this.#server.close()
  }
}

function isZombie(pid: number): boolean {
  try {
    return /\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    // it has ended meanwhile
    return true
  }
}

/** vitest's test with a keeper of its own, which is not started yet. */
export const test = layoutTest.extend<{ host: KeeperHost }>({
  host: async ({ layout }, use) => {
    const host = new KeeperHost(layout)
    await use(host)
    await host.end()
  },
})
