/**
 * Opens what a process's streams need, by what their strings mean. Output to a fifo goes direct only for the init of a container with
 * its own pid namespace: when that ends, so has every process that could hold the fifo. An exec's children may live on with its pipe,
 * and then the client must still see the end of its fifo when the exec is deleted. A process that a security module confines gets a pipe
 * too: a fifo is a file of the host to it, which its policy need not let it use. Input never goes direct: who opens /dev/stdin again after
 * the client has closed its side must find the end of a pipe, where the open of a fifo would wait for a writer.
 *
 * Invariant: what was opened is either in the fields that a ProcessIo takes over, or closed by undo().
 */
import { closeSync, constants, openSync, statSync } from 'node:fs'
import { Socket } from 'node:net'
import { isatty } from 'node:tty'
import {
  chownFd,
  discardSink,
  FileInput,
  FileSink,
  OwnedFd,
  PipeSink,
  pipePair,
  pipeSource,
  pollableSource,
  Relay,
  RuntimeError,
  reasonOf,
  type Sink,
  SocketSink,
  type Stdio,
} from '../../runtime/index.ts'
import { InputFifo, OutputFifo, openStream } from './fifo.ts'
import { type LogProgramOptions, LogWriter } from './log-program.ts'
import type { FileTarget, LogProgram, Streams } from './stdio-uri.ts'

/** How the streams are made. */
export interface IoOptions extends LogProgramOptions {
  /** who may open the streams again (/dev/stdout), in host ids */
  readonly uid: number
  readonly gid: number
  /** relay the outputs even if they are fifos */
  readonly relayOutput: boolean
}

type Target = { kind: 'null' } | { kind: 'fifo'; path: string } | { kind: 'file'; path: string; make: boolean }

/** What feeds a process; closed when that has ended. */
export interface Input {
  close(): void
}

/** Looks what is at a path. */
function resolveTarget(target: FileTarget): Target {
  if (target.kind === 'null') return { kind: 'null' }
  const { path } = target
  try {
    // to open a fifo as a file is to wait for its other end, and here nothing may wait
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

/** Collects what a process will need, and can take it all back. */
export class IoSetup {
  readonly handed: number[] = []
  readonly outputs: OutputFifo[] = []
  readonly relays: Relay[] = []
  stdio: Stdio = { kind: 'terminal' }
  stdin: InputFifo | undefined
  input: Input | undefined
  consoleSink: Sink | undefined
  logWriter: LogWriter | undefined
  readonly #options: IoOptions
  #null = -1

  constructor(options: IoOptions) {
    this.#options = options
  }

  /** Opens the streams. @throws RuntimeError; whoever called calls undo() then */
  async make(streams: Streams, terminal: boolean): Promise<void> {
    const stdin = resolveTarget(streams.stdin)
    if (streams.stdout.kind === 'program') return this.#program(stdin, streams.stdout, terminal)
    const stdout = resolveTarget(streams.stdout)
    if (terminal) {
      this.#terminal(stdin, this.#sink(stdout))
      return
    }
    const stderr = resolveTarget(streams.stderr)
    this.stdio = { kind: 'fds', stdin: this.#input(stdin), stdout: this.#output(stdout), stderr: this.#output(stderr) }
  }

  async #program(stdin: Target, program: LogProgram, terminal: boolean): Promise<void> {
    const { writer, stdout, stderr } = await LogWriter.start(program, this.#options)
    this.logWriter = writer
    if (terminal) {
      // the program sees at once that nothing will come from there
      stderr.close()
      this.#terminal(stdin, ownedSink(stdout))
      return
    }
    const [out, err] = [this.#hand(stdout), this.#hand(stderr)]
    this.stdio = { kind: 'fds', stdin: this.#input(stdin), stdout: out, stderr: err }
  }

  #terminal(stdin: Target, output: Sink): void {
    this.consoleSink = output
    if (stdin.kind === 'fifo') this.stdin = new InputFifo(stdin.path)
  }

  /** Lets go of all of it; resolves when the log program, if there is one, has ended. */
  async undo(): Promise<void> {
    for (const fd of this.handed) closeSync(fd)
    for (const relay of this.relays) relay.close()
    this.input?.close()
    this.consoleSink?.destroy()
    for (const output of this.outputs) output.close()
    this.stdin?.close()
    this.logWriter?.kill()
    await this.logWriter?.ended
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
    const { read, write } = pipePair()
    const fd = this.#hand(read)
    using end = write
    if (target.kind === 'file') {
      this.input = this.#fileInput(target.path, end)
      return fd
    }
    this.stdin = new InputFifo(target.path)
    this.input = new Relay(pipeSource(this.stdin.takeReader()), ownedSink(end, { endsSource: true }))
    return fd
  }

  /** The process gets none of the host's files: it could open them again, for writing too. */
  #fileInput(path: string, to: OwnedFd): Input {
    using file = new OwnedFd(openStream(path, constants.O_RDONLY | constants.O_NOCTTY | constants.O_NONBLOCK))
    if (isatty(file.fd)) {
      return new Relay(pollableSource(new OwnedFd(file.take())), ownedSink(to, { endsSource: true }))
    }
    const onError = (error: Error) => this.#options.logger.warn({ error: error.message }, 'lost input of a process')
    const input = new FileInput(new OwnedFd(file.take()), new OwnedFd(to.take()), { onError })
    return { close: () => input.stop() }
  }

  #output(target: Target): number {
    if (target.kind === 'null') return this.#devNull()
    if (target.kind === 'fifo' && !this.#options.relayOutput) {
      const fifo = new OutputFifo(target.path)
      this.outputs.push(fifo)
      this.#chown(fifo.fd)
      const fd = fifo.openWriter()
      this.handed.push(fd)
      return fd
    }
    const { read, write } = pipePair()
    // closed here if there is nowhere to relay to
    using source = read
    const fd = this.#hand(write)
    const sink = this.#sink(target)
    this.relays.push(new Relay(pipeSource(source.take()), sink))
    return fd
  }

  #sink(target: Target): Sink {
    if (target.kind === 'null') return discardSink()
    const { logger } = this.#options
    const onError = (error: Error) => logger.warn({ error: error.message }, 'lost output of a process')
    if (target.kind === 'fifo') return new PipeSink(new OutputFifo(target.path), { onError })
    return FileSink.open(target.path, { make: target.make, onError })
  }

  /** Gives the process an end of a pipe, which its user may open again. */
  #hand(end: OwnedFd): number {
    const fd = end.take()
    this.handed.push(fd)
    this.#chown(fd)
    return fd
  }

  /** root made it and root reads it: nothing to do in the common case */
  #chown(fd: number): void {
    const { uid, gid } = this.#options
    if (uid !== 0 || gid !== 0) chownFd(fd, uid, gid)
  }
}

/** A sink on a descriptor that is the sink's own. */
function ownedSink(fd: OwnedFd, options: { endsSource?: boolean } = {}): Sink {
  return new SocketSink(new Socket({ fd: fd.take(), readable: false, writable: true }), options)
}
