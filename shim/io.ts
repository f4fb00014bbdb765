/**
 * The streams of one process, from before its birth to after its end. Three ways, decided at open():
 *
 *   terminal   the runtime hands us the pty's master; console.ts relays it
 *   direct     the process gets the client's fifos themselves, and we only keep them alive: nothing is copied
 *   relay      the process gets pipes, and relay.ts copies between them and wherever the client wants its streams
 *
 * Output goes direct only for the init of a container with its own pid namespace: when that ends, so has every process that could hold
 * the fifo. An exec's children may live on with its pipe, and then the client must still see the end of its fifo when the exec is
 * deleted. Input goes direct always, but for a process with an SELinux label, which may not touch a fifo of the host.
 *
 * Invariant: every descriptor opened here is closed by spawned(), exited(), a finished relay, or close(), which may come at any time.
 */
import { closeSync, constants, openSync, statSync } from 'node:fs'
import { Socket } from 'node:net'
import {
  chownFd,
  errnoName,
  errnoOf,
  type Logger,
  type OwnedFd,
  pipePair,
  RuntimeError,
  type Stdio,
} from '../runtime/index.ts'
import { Console } from './console.ts'
import { InputFifo, OutputFifo } from './fifo.ts'
import { discardSink, FifoSink, FileSink, pipeSource, Relay, type Sink, SocketSink } from './relay.ts'
import { parseStreams, type StdioPaths, type StreamTarget } from './stdio-uri.ts'

/** How the streams are made. */
export interface IoOptions {
  /** who may open the streams again (/dev/stdout), in host ids */
  readonly uid: number
  readonly gid: number
  /** relay the outputs even if they are fifos */
  readonly relayOutput: boolean
  /** relay the input even if it is a fifo */
  readonly relayInput: boolean
  readonly logger: Logger
}

type Target = { kind: 'null' } | { kind: 'fifo'; path: string } | { kind: 'file'; path: string; make: boolean }

/** Looks what is at a path. */
function resolveTarget(target: StreamTarget): Target {
  if (target.kind === 'null') return { kind: 'null' }
  if (target.kind === 'file') return { kind: 'file', path: target.path, make: true }
  const { path } = target
  try {
    return statSync(path).isFIFO() ? { kind: 'fifo', path } : { kind: 'file', path, make: false }
  } catch (error) {
    throw new RuntimeError('Internal', `cannot open the stream "${path}": ${errnoName(errnoOf(error))}`, {
      cause: error,
    })
  }
}

/** The streams of one process. */
export class ProcessIo {
  /** what the process is started with; its descriptors are ours until spawned() */
  readonly stdio: Stdio
  readonly #logger: Logger
  /** the process's side: closed once it has its own */
  readonly #handed: number[]
  readonly #stdin: InputFifo | undefined
  readonly #outputs: readonly OutputFifo[]
  readonly #relays: Relay[]
  readonly #inputRelay: Relay | undefined
  readonly #consoleSink: Sink | undefined
  #console: Console | undefined
  #inputClosed = false

  private constructor(parts: Setup, logger: Logger) {
    this.stdio = parts.stdio
    this.#logger = logger
    this.#handed = parts.handed
    this.#stdin = parts.stdin
    this.#outputs = parts.outputs
    this.#relays = parts.relays
    this.#inputRelay = parts.inputRelay
    this.#consoleSink = parts.consoleSink
  }

  /** Opens everything that the process will need. @throws RuntimeError, with nothing left open */
  static open(paths: StdioPaths, options: IoOptions): ProcessIo {
    const setup = new Setup(options)
    try {
      const { stdin, stdout, stderr } = parseStreams(paths)
      if (paths.terminal) setup.terminal(resolveTarget(stdin), resolveTarget(stdout))
      else setup.streams(resolveTarget(stdin), resolveTarget(stdout), resolveTarget(stderr))
    } catch (error) {
      setup.undo()
      throw error
    }
    return new ProcessIo(setup, options.logger)
  }

  /** The process exists: lets go of its side, and takes the master of its terminal. */
  spawned(master: OwnedFd | undefined): void {
    for (const fd of this.#handed.splice(0)) closeSync(fd)
    if (this.#consoleSink === undefined) return
    if (master === undefined) throw new Error('the runtime gave no terminal')
    this.#console = new Console(master, { stdin: this.#stdin, stdout: this.#consoleSink })
    if (this.#inputClosed) this.#stdin?.closeKeepAlive()
  }

  /** Whether the process has a terminal that can be resized. */
  get console(): Console | undefined {
    return this.#console
  }

  /** The client writes no more: once it has closed its side, the process sees the end. */
  closeStdin(): void {
    this.#inputClosed = true
    this.#stdin?.closeKeepAlive()
  }

  /** The process has ended: the client sees the end of what went direct; relays go on until their pipes are empty. */
  exited(): void {
    for (const output of this.#outputs) {
      try {
        output.release()
      } catch (error) {
        this.#logger.warn({ error: String(error) }, 'cannot release a stream')
        output.close()
      }
    }
    this.#inputRelay?.close()
    this.#console?.closeInput()
    this.#stdin?.close()
  }

  /** Waits until the last output was handed on, at most `limitMs`. False when something is still held by another process. */
  async drain(limitMs: number): Promise<boolean> {
    const pending = this.#relays.map((relay) => relay.done)
    if (this.#console !== undefined) pending.push(this.#console.drained)
    if (pending.length === 0) return true
    let timer: NodeJS.Timeout | undefined
    const limit = new Promise<false>((resolve) => {
      timer = setTimeout(() => resolve(false), limitMs)
    })
    const drained = await Promise.race([Promise.all(pending).then(() => true), limit])
    clearTimeout(timer)
    return drained
  }

  /** Lets go of everything now; may be called at any time, and again. */
  close(): void {
    for (const fd of this.#handed.splice(0)) closeSync(fd)
    for (const relay of this.#relays) relay.close()
    this.#inputRelay?.close()
    if (this.#console !== undefined) this.#console.close()
    else this.#consoleSink?.destroy()
    for (const output of this.#outputs) output.close()
    this.#stdin?.close()
  }
}

/** Collects what open() makes, and can take it all back. */
class Setup {
  readonly handed: number[] = []
  readonly outputs: OutputFifo[] = []
  readonly relays: Relay[] = []
  stdio: Stdio = { kind: 'terminal' }
  stdin: InputFifo | undefined
  inputRelay: Relay | undefined
  consoleSink: Sink | undefined
  readonly #options: IoOptions
  #null = -1

  constructor(options: IoOptions) {
    this.#options = options
  }

  terminal(stdin: Target, stdout: Target): void {
    if (stdin.kind === 'fifo') this.stdin = new InputFifo(stdin.path, { blocking: false })
    this.consoleSink = this.#sink(stdout)
  }

  streams(stdin: Target, stdout: Target, stderr: Target): void {
    this.stdio = { kind: 'fds', stdin: this.#input(stdin), stdout: this.#output(stdout), stderr: this.#output(stderr) }
  }

  undo(): void {
    for (const fd of this.handed) closeSync(fd)
    for (const relay of this.relays) relay.close()
    this.inputRelay?.close()
    this.consoleSink?.destroy()
    for (const output of this.outputs) output.close()
    this.stdin?.close()
  }

  #devNull(): number {
    if (this.#null < 0) {
      this.#null = openSync('/dev/null', constants.O_RDWR)
      this.handed.push(this.#null)
    }
    return this.#null
  }

  #input(target: Target): number {
    if (target.kind === 'null') return this.#devNull()
    if (target.kind === 'file') {
      const fd = openSync(target.path, constants.O_RDONLY | constants.O_NOCTTY)
      this.handed.push(fd)
      return fd
    }
    const relay = this.#options.relayInput
    this.stdin = new InputFifo(target.path, { blocking: !relay })
    if (!relay) {
      this.#chown(this.stdin.reader)
      const fd = this.stdin.takeReader()
      this.handed.push(fd)
      return fd
    }
    const { read, write } = pipePair()
    this.handed.push(read.take())
    const sink = new SocketSink(new Socket({ fd: write.take(), readable: false, writable: true }), { owned: true })
    this.inputRelay = new Relay(pipeSource(this.stdin.takeReader()), sink)
    return this.#lastHanded()
  }

  #output(target: Target): number {
    if (target.kind === 'null') return this.#devNull()
    if (target.kind === 'fifo' && !this.#options.relayOutput) {
      const fifo = new OutputFifo(target.path)
      this.outputs.push(fifo)
      this.#chown(fifo.fd)
      this.handed.push(fifo.openWriter())
      return this.#lastHanded()
    }
    const sink = this.#sink(target)
    const { read, write } = pipePair()
    this.handed.push(write.take())
    this.relays.push(new Relay(pipeSource(read.take()), sink))
    return this.#lastHanded()
  }

  #sink(target: Target): Sink {
    if (target.kind === 'null') return discardSink()
    const { logger } = this.#options
    const onError = (error: Error) => logger.warn({ error: error.message }, 'lost output of a process')
    if (target.kind === 'fifo') return new FifoSink(new OutputFifo(target.path), { onError })
    return new FileSink(target.path, { make: target.make, onError })
  }

  #lastHanded(): number {
    const fd = this.handed.at(-1)
    if (fd === undefined) throw new Error('no descriptor was handed out')
    this.#chown(fd)
    return fd
  }

  /** root made it and root reads it: nothing to do in the common case */
  #chown(fd: number): void {
    const { uid, gid } = this.#options
    if (uid !== 0 || gid !== 0) chownFd(fd, uid, gid)
  }
}
