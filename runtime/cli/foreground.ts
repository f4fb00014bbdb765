/**
 * Running a process in the foreground: signals for this command go to the process, the streams are connected, and the
 * command ends with its exit status. Invariant: once a SignalRelay exists, no signal that can be caught ends this
 * command and leaves the container behind.
 */
import { constants } from 'node:os'
import { isatty } from 'node:tty'
import {
  type Container,
  type Logger,
  type OwnedFd,
  type RunningProcess,
  RuntimeError,
  resizeTerminal,
  type TerminalSize,
} from '../index.ts'
import { duplicate, openPeer, pollableSource, Relay, rawInput, terminalSize } from '../internal.ts'
import { type ChosenStreams, callerInput, callerSink, drained, ForegroundStreams, type Input } from './streams.ts'

/**
 * Signals that are not passed on: about children, the window, Node's timer and debugger, and those that cannot be
 * caught.
 */
const NOT_FORWARDED = new Set([
  'SIGCHLD',
  'SIGWINCH',
  'SIGKILL',
  'SIGSTOP',
  'SIGPROF',
  'SIGURG',
  'SIGPIPE',
  'SIGSEGV',
  'SIGBUS',
  'SIGFPE',
  'SIGILL',
  'SIGTTIN',
  'SIGTTOU',
])

/**
 * How many bytes of a terminal's output the kernel may hold beyond its reader's buffer (tty_buffer.c), with some
 * margin.
 */
const TERMINAL_BYTES = 128 * 1024

/** The size of this command's terminal; undefined if it has none. */
export function ownWindow(): TerminalSize | undefined {
  const terminal = [1, 0, 2].find((fd) => isatty(fd))
  try {
    return terminal === undefined ? undefined : terminalSize(terminal)
  } catch {
    // it has hung up
    return undefined
  }
}

/**
 * A container's terminal, connected to the command's streams until it is disposed. The command keeps the other side
 * open until the process has ended, since a process may close its terminal and open it again.
 */
class TerminalRelay implements Disposable {
  readonly output: Relay
  readonly #input: Input
  readonly #peer: OwnedFd
  readonly #raw: Disposable | undefined
  readonly #resize: () => void

  constructor(master: OwnedFd, logger: Logger) {
    using disposables = new DisposableStack()
    const { fd } = master
    const peer = disposables.use(openPeer(fd))
    this.#resize = () => {
      const size = ownWindow()
      if (size !== undefined && this.output.open) resizeTerminal(fd, size)
    }
    this.#raw = isatty(0) ? disposables.use(rawInput(0)) : undefined
    this.#peer = peer
    this.output = new Relay(pollableSource(master), callerSink(1, logger))
    this.#input = callerInput(duplicate(fd), logger)
    // the terminal hangs up when the caller stops reading its output
    void this.output.done.then(() => this.letGo())
    this.#resize()
    process.on('SIGWINCH', this.#resize)
    disposables.move()
  }

  /** Releases the terminal when the process has ended; it hangs up once no other process has it open. */
  letGo(): void {
    this.#input.stop()
    this.#peer.close()
  }

  [Symbol.dispose](): void {
    process.off('SIGWINCH', this.#resize)
    this.letGo()
    this.#raw?.[Symbol.dispose]()
  }
}

/**
 * Passes signals on to a process that may not exist yet; earlier signals are sent when it exists. It must be made
 * first: without it a signal would end this command and leave the container behind.
 */
export class SignalRelay {
  readonly #names = Object.keys(constants.signals).filter((name) => !NOT_FORWARDED.has(name)) as NodeJS.Signals[]
  readonly #pending: number[] = []
  #target: RunningProcess | undefined

  constructor() {
    for (const name of this.#names) process.on(name, this.#receive)
  }

  /** Sets the process, which exists now, and sends it the earlier signals. */
  attach(target: RunningProcess): void {
    this.#target = target
    for (const signal of this.#pending.splice(0)) this.#send(target, signal)
  }

  [Symbol.dispose](): void {
    for (const name of this.#names) process.off(name, this.#receive)
  }

  readonly #receive = (_: NodeJS.Signals, signal: number): void => {
    if (this.#target === undefined) this.#pending.push(signal)
    else this.#send(this.#target, signal)
  }

  #send(target: RunningProcess, signal: number): void {
    try {
      target.signal(signal)
    } catch (error) {
      if (!(error instanceof RuntimeError) || error.code !== 'NotFound') throw error
    }
  }
}

/**
 * A process in the foreground: its streams or its terminal are connected to the command's until this is disposed. It is
 * made before the program runs if possible, so that the program finds the terminal's size and its first output is not
 * delayed.
 */
export class Foreground {
  readonly #target: RunningProcess
  readonly #outputs: readonly Relay[]
  readonly #input: Input | undefined
  readonly #terminal: TerminalRelay | undefined

  /** `streams` are those that the process was started with. */
  constructor(target: RunningProcess, streams: ChosenStreams, logger: Logger) {
    this.#target = target
    if (target.console !== undefined) {
      this.#terminal = new TerminalRelay(target.console, logger)
      this.#outputs = [this.#terminal.output]
    } else {
      const { input, outputs } = streams instanceof ForegroundStreams ? streams.connect(logger) : { outputs: [] }
      this.#input = input
      this.#outputs = outputs
    }
  }

  /** Waits for the end of the process and of its output; its exit status. */
  async ended(): Promise<number> {
    const exit = await this.#target.exited
    this.#input?.stop()
    this.#terminal?.letGo()
    await drained(this.#outputs, this.#terminal === undefined ? 0 : TERMINAL_BYTES)
    return exit.status
  }

  [Symbol.dispose](): void {
    this.#input?.stop()
    this.#terminal?.[Symbol.dispose]()
  }
}

/** Removes a container whose program has ended, unless another command has done so: a checkpoint, or a delete. */
export async function destroyEnded(container: Container): Promise<void> {
  try {
    await container.destroy({ force: true })
  } catch (error) {
    if (!(error instanceof RuntimeError) || error.code !== 'NotFound') throw error
  }
}
