/**
 * Being in front of a process: our signals become its signals, our streams its streams, its exit status ours. Invariant: from the
 * moment that a SignalRelay exists, no signal that can be caught ends us and leaves the container behind.
 */
import { constants } from 'node:os'
import { isatty } from 'node:tty'
import {
  duplicate,
  type Logger,
  type OwnedFd,
  openPeer,
  pollableSource,
  Relay,
  type RunningProcess,
  RuntimeError,
  rawInput,
  resizeTerminal,
  type TerminalSize,
  terminalSize,
} from '../index.ts'
import { type ChosenStreams, callerInput, callerSink, drained, ForegroundStreams, type Input } from './streams.ts'

/** Signals that are ours alone: children, the window, Node's own timer and debugger, and what cannot be caught. */
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

/** What the kernel may hold of a terminal's output beyond its reader's buffer (tty_buffer.c), with some room. */
const TERMINAL_BYTES = 128 * 1024

/** The size of our own terminal; undefined where we have none. */
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
 * A container's terminal, connected to our own streams until it is disposed. We have the other side of it open until the process has
 * ended, since a process may let go of its terminal and come back.
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
    // when the caller reads no more of the terminal, the terminal hangs up
    void this.output.done.then(() => this.letGo())
    this.#resize()
    process.on('SIGWINCH', this.#resize)
    disposables.move()
  }

  /** The process has ended: the terminal ends when no other process has it open. */
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
 * Passes our signals on to a process that may not exist yet: what comes before it is there is sent when it is. Without this from the very
 * start, a signal would end us and leave the container behind.
 */
export class SignalRelay {
  readonly #names = Object.keys(constants.signals).filter((name) => !NOT_FORWARDED.has(name)) as NodeJS.Signals[]
  readonly #pending: number[] = []
  #target: RunningProcess | undefined

  constructor() {
    for (const name of this.#names) process.on(name, this.#receive)
  }

  /** The process is there. */
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
 * A process in the foreground: its streams or its terminal are connected to ours until this is disposed. Made before the program runs where
 * that can be, so that the program finds the terminal's size and nothing that it says is late.
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

  /** Waits for its end and for the last of its output; its exit status. */
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
