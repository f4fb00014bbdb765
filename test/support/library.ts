/**
 * The runtime as a library in the test's own process: its one reaper, and streams that end in files.
 * Every container lives below the root of a Runts, whose teardown finds what a test left behind.
 */
import { closeSync, openSync, readFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { type CreateOptions, loadSpec, type OwnedFd, Reaper, type Stdio } from '../../runtime/index.ts'
import { receiveMessage } from '../../runtime/sys/socket.ts'
import type { Runts } from './runts.ts'
import type { SpecChange } from './spec.ts'

const MESSAGE_BYTES = 65536

/** Streams of a process: nothing to read, and files to write into. */
export class Streams implements Disposable {
  readonly #out: string
  readonly #fds: readonly [number, number]
  readonly stdio: Stdio

  constructor(folder: string, name: string) {
    this.#out = join(folder, `${name}.out`)
    this.#fds = [openSync('/dev/null', 'r'), openSync(this.#out, 'w')]
    this.stdio = { kind: 'fds', stdin: this.#fds[0], stdout: this.#fds[1], stderr: this.#fds[1] }
  }

  /** What was written so far, by both streams. */
  get text(): string {
    return readFileSync(this.#out, 'utf8')
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds) closeSync(fd)
  }
}

/** The library as a test uses it; one per file, since a process has one reaper. */
export class Library implements Disposable {
  readonly reaper = new Reaper()

  constructor() {
    // a subreaper would reap the commands that a test runs beside
    this.reaper.start({ subreaper: false })
  }

  /** Options for a container of a fresh bundle. */
  options(runts: Runts, id: string, streams: Streams, command: readonly string[], change?: SpecChange): CreateOptions {
    const bundle = runts.bundle(command, change)
    return { root: runts.root, id, bundle, spec: loadSpec(bundle), stdio: streams.stdio, reaper: this.reaper }
  }

  [Symbol.dispose](): void {
    this.reaper.close()
  }
}

/** One message that came with an fd. */
export interface Received extends Disposable {
  readonly fd: OwnedFd
  readonly text: string
}

/** A unix socket that takes messages with fds. */
export class FdListener implements AsyncDisposable {
  readonly path: string
  readonly #arrived: Promise<Socket>
  readonly #server = createServer({ pauseOnConnect: true })

  private constructor(path: string) {
    this.path = path
    this.#arrived = new Promise((resolve) => this.#server.once('connection', resolve))
  }

  static async open(path: string): Promise<FdListener> {
    const listener = new FdListener(path)
    await new Promise<void>((resolve) => listener.#server.listen(path, resolve))
    return listener
  }

  /** The message of the first peer. Ask only after it was sent. */
  async receive(): Promise<Received> {
    const socket = await this.#arrived
    const handle: unknown = Reflect.get(socket, '_handle')
    const received = receiveMessage(Number(Reflect.get(Object(handle), 'fd')), MESSAGE_BYTES)
    socket.destroy()
    if (received === undefined) throw new Error('the message brought no fd')
    const { fd, data } = received
    return { fd, text: data.toString(), [Symbol.dispose]: () => fd.close() }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve))
  }
}
