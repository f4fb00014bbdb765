/**
 * The streams of one process, from before it exists until after its end. There are four ways:
 *
 *   terminal   the runtime gives the pty's master to the shim; console.ts relays it
 *   direct     the process gets the client's own fifos, and the shim only keeps them open: nothing is copied
 *   relay      the process gets pipes, and a relay copies between them and the client's streams
 *   program    the process gets pipes, and a program that log-program.ts has started reads them
 *
 * Output goes direct only for the init of a container with its own pid namespace. When that init ends, the kernel has
 * ended every process that could hold the fifo. The children of an exec may live on with its output, and the client
 * must still see the end of its fifo when the exec is deleted. A process that a security module confines gets pipes as
 * well: its policy may deny a fifo, which is a file of the host.
 *
 * Input never goes direct. A process may open /dev/stdin again after the client has closed its side. The pipe has then
 * ended; a fifo would make that open(2) wait for a writer.
 *
 * Invariant: every descriptor opened here is closed by spawned(), exited(), a finished relay, or close(), which may
 * come at any time.
 */
import { closeSync, constants, openSync, statSync } from 'node:fs'
import { Socket } from 'node:net'
import { isatty } from 'node:tty'
import { OwnedFd, RuntimeError, type Stdio } from '../../runtime/index.ts'
import {
  chownFd,
  discardSink,
  FileInput,
  FileSink,
  PipeSink,
  pipePair,
  pipeSource,
  pollableSource,
  Relay,
  reasonOf,
  type Sink,
  SocketSink,
} from '../../runtime/internal.ts'
import { Console } from './console.ts'
import { InputFifo, OutputFifo, openStream } from './fifo.ts'
import { type LogProgramOptions, LogWriter } from './log-program.ts'
import { type FileTarget, type LogProgram, parseStreams, type StdioPaths, type Streams } from './stdio-uri.ts'

/** How the streams are made. */
export interface IoOptions extends LogProgramOptions {
  /** owner of the pipes and fifos, in ids of the host: this user may open them again (/dev/stdout) */
  readonly uid: number
  readonly gid: number
  /** relay the outputs even if they are fifos */
  readonly relayOutput: boolean
}

type Target = { kind: 'null' } | { kind: 'fifo'; path: string } | { kind: 'file'; path: string; make: boolean }

/** Looks what is at a path. */
function resolveTarget(target: FileTarget): Target {
  if (target.kind === 'null') return { kind: 'null' }
  const { path } = target
  try {
    // opening a fifo as a file would wait for its other end, and nothing here may wait
    if (target.kind === 'file' && statSync(path, { throwIfNoEntry: false })?.isFIFO() !== true)
      return { kind: 'file', path, make: true }
    const stat = statSync(path)
    if (stat.isFIFO()) return { kind: 'fifo', path }
    if (!stat.isDirectory()) return { kind: 'file', path, make: false }
  } catch (error) {
    throw new RuntimeError('Internal', `cannot open the stream "${path}": ${reasonOf(error)}`, {
      cause: error,
    })
  }
  throw new RuntimeError('InvalidArgument', `cannot open the stream "${path}": EISDIR`)
}

/** The streams of one process. */
export class ProcessIo {
  readonly #options: IoOptions
  /** everything that is open: what was opened last is closed first */
  readonly #open = new DisposableStack()
  /** the process's ends, which spawned() closes */
  readonly #handed = this.#open.use(new DisposableStack())
  readonly #outputs: OutputFifo[] = []
  readonly #relays: Relay[] = []
  #stdio: Stdio = { kind: 'terminal' }
  #null = -1
  #stdin: InputFifo | undefined
  #closeInput = (): void => {}
  #consoleSink: Sink | undefined
  #console: Console | undefined
  #logWriter: LogWriter | undefined
  #inputClosed = false

  private constructor(options: IoOptions) {
    this.#options = options
  }

  /** Opens everything that the process will need. @throws RuntimeError, with nothing left open */
  static async open(paths: StdioPaths, options: IoOptions): Promise<ProcessIo> {
    const io = new ProcessIo(options)
    try {
      await io.#make(parseStreams(paths), paths.terminal)
      return io
    } catch (error) {
      await io.close()
      throw error
    }
  }

  /** What the process is to be started with. The descriptors stay the property of this object. */
  get stdio(): Stdio {
    return this.#stdio
  }

  /** The terminal, if the process has one. */
  get console(): Console | undefined {
    return this.#console
  }

  /** The streams in words, for the report to an operator. */
  get summary(): string {
    const ways = [
      this.#console === undefined ? '' : 'terminal',
      this.#outputs.length > 0 ? `${this.#outputs.length} direct` : '',
      this.#relays.length > 0 ? `${this.#relays.length} relayed` : '',
      this.#logWriter === undefined ? '' : 'log program',
      this.#inputClosed ? 'stdin closed' : '',
    ]
    return ways.filter((way) => way !== '').join(', ') || 'none'
  }

  /** The process exists and has its ends: closes them here, and takes the master of its terminal. */
  spawned(master: OwnedFd | undefined): void {
    this.#handed.dispose()
    if (this.#consoleSink === undefined) return
    if (master === undefined) throw new Error('the runtime gave no terminal')
    this.#console = new Console(master, { stdin: this.#stdin, stdout: this.#consoleSink })
    if (this.#inputClosed) this.#stdin?.closeKeepAlive()
  }

  /** The client writes no more: the process sees the end of its input once the client has closed its side. */
  closeStdin(): void {
    this.#inputClosed = true
    this.#stdin?.closeKeepAlive()
  }

  /** The process has ended: the client sees the end of direct outputs. Relays go on until their pipes are empty. */
  exited(): void {
    for (const output of this.#outputs) output.release()
    this.#closeInput()
    this.#console?.exited()
    this.#stdin?.close()
  }

  /**
   * Waits until the last output was written to the client, and the log program has ended, at most `limitMs`. False when
   * another process still holds an output, or the log program is still there.
   */
  async drain(limitMs: number): Promise<boolean> {
    const deadline = performance.now() + limitMs
    const writer = this.#logWriter
    const relayed = await this.#relayed(writer === undefined ? limitMs : limitMs / 2)
    if (writer === undefined) return relayed
    // another process may still have the terminal open: the program must see the end of it now
    this.#console?.close()
    return (await writer.end(deadline - performance.now())) && relayed
  }

  /**
   * Closes everything; may be called at any time, and again. Resolves when the log program, if there is one, has ended.
   */
  async close(): Promise<void> {
    this.#open.dispose()
    await this.#logWriter?.ended
  }

  async #relayed(limitMs: number): Promise<boolean> {
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

  async #make(streams: Streams, terminal: boolean): Promise<void> {
    const stdin = resolveTarget(streams.stdin)
    if (streams.stdout.kind === 'program') return this.#makeProgram(stdin, streams.stdout, terminal)
    const stdout = resolveTarget(streams.stdout)
    if (terminal) {
      this.#makeTerminal(stdin, this.#sink(stdout))
      return
    }
    const stderr = resolveTarget(streams.stderr)
    this.#stdio = { kind: 'fds', stdin: this.#input(stdin), stdout: this.#output(stdout), stderr: this.#output(stderr) }
  }

  async #makeProgram(stdin: Target, program: LogProgram, terminal: boolean): Promise<void> {
    const { writer, stdout, stderr } = await LogWriter.start(program, this.#options)
    this.#open.defer(() => writer.kill())
    this.#logWriter = writer
    if (terminal) {
      // a terminal has no separate stderr: the program sees its end at once
      stderr.close()
      this.#makeTerminal(stdin, ownedSink(stdout))
      return
    }
    const [out, err] = [this.#hand(stdout), this.#hand(stderr)]
    this.#stdio = { kind: 'fds', stdin: this.#input(stdin), stdout: out, stderr: err }
  }

  #makeTerminal(stdin: Target, output: Sink): void {
    this.#consoleSink = output
    this.#open.defer(() => (this.#console === undefined ? output.destroy() : this.#console.close()))
    if (stdin.kind === 'fifo') this.#openStdin(stdin.path)
  }

  #openStdin(path: string): InputFifo {
    this.#stdin = this.#open.adopt(new InputFifo(path), (fifo) => fifo.close())
    return this.#stdin
  }

  #input(target: Target): number {
    if (target.kind === 'null') return this.#devNull()
    const { read, write } = pipePair()
    const fd = this.#hand(read)
    using end = write
    if (target.kind === 'file') {
      this.#feed(this.#fileInput(target.path, end))
      return fd
    }
    const source = pipeSource(this.#openStdin(target.path).takeReader())
    const relay = new Relay(source, ownedSink(end, { endsSource: true }))
    this.#feed(() => relay.close())
    return fd
  }

  /** Remembers how the input is stopped: when the process has ended, or by close(). */
  #feed(close: () => void): void {
    this.#closeInput = close
    this.#open.defer(close)
  }

  /**
   * Copies a file of the host into `to`; returns how to stop that. The process never gets a descriptor of the file
   * itself, which it could open again for writing.
   */
  #fileInput(path: string, to: OwnedFd): () => void {
    using file = new OwnedFd(openStream(path, constants.O_RDONLY | constants.O_NOCTTY | constants.O_NONBLOCK))
    if (isatty(file.fd)) {
      const relay = new Relay(pollableSource(new OwnedFd(file.take())), ownedSink(to, { endsSource: true }))
      return () => relay.close()
    }
    const onError = (error: Error) => this.#options.logger.warn({ error: error.message }, 'lost input of a process')
    const input = new FileInput(new OwnedFd(file.take()), new OwnedFd(to.take()), { onError })
    return () => input.stop()
  }

  #output(target: Target): number {
    if (target.kind === 'null') return this.#devNull()
    if (target.kind === 'fifo' && !this.#options.relayOutput) {
      const fifo = this.#open.adopt(new OutputFifo(target.path), (output) => output.close())
      this.#outputs.push(fifo)
      this.#chown(fifo.fd)
      return this.#handed.adopt(fifo.openWriter(), closeSync)
    }
    const { read, write } = pipePair()
    // closed here if the sink cannot be opened
    using source = read
    const fd = this.#hand(write)
    const sink = this.#sink(target)
    this.#relays.push(this.#open.adopt(new Relay(pipeSource(source.take()), sink), (relay) => relay.close()))
    return fd
  }

  #sink(target: Target): Sink {
    if (target.kind === 'null') return discardSink()
    const { logger } = this.#options
    const onError = (error: Error) => logger.warn({ error: error.message }, 'lost output of a process')
    if (target.kind === 'fifo') return new PipeSink(new OutputFifo(target.path), { onError })
    return FileSink.open(target.path, { make: target.make, onError })
  }

  #devNull(): number {
    if (this.#null < 0) this.#null = this.#handed.adopt(openSync('/dev/null', constants.O_RDWR), closeSync)
    return this.#null
  }

  /** Takes an end of a pipe for the process, and gives it to the process's user, who may open it again. */
  #hand(end: OwnedFd): number {
    const fd = this.#handed.adopt(end.take(), closeSync)
    this.#chown(fd)
    return fd
  }

  /** The shim runs as root and makes streams as root, so for uid 0 and gid 0 there is nothing to do. */
  #chown(fd: number): void {
    const { uid, gid } = this.#options
    if (uid !== 0 || gid !== 0) chownFd(fd, uid, gid)
  }
}

/** A sink that takes over the descriptor. */
function ownedSink(fd: OwnedFd, options: { endsSource?: boolean } = {}): Sink {
  return new SocketSink(new Socket({ fd: fd.take(), readable: false, writable: true }), options)
}
