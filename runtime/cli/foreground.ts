/**
 * Being in front of a process: our signals become its signals, our terminal its terminal, its exit status ours. Invariant: from the
 * moment that a SignalRelay exists, no signal that can be caught ends us and leaves the container behind.
 */
import { constants } from 'node:os'
import { ReadStream } from 'node:tty'
import { type OwnedFd, openPeer, type RunningProcess, RuntimeError, resizeTerminal } from '../index.ts'

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

/** The size of our own terminal; undefined where we have none. */
export function ownWindow(): { readonly width: number; readonly height: number } | undefined {
  if (!process.stdout.isTTY) return undefined
  const [width, height] = process.stdout.getWindowSize()
  return { width, height }
}

/**
 * Relays between our own terminal and the container's, until `letGo` was called and nobody has the container's side open any more: a
 * process may close it and open it again.
 */
function relayTerminal(master: OwnedFd): { done: Promise<void>; letGo(): void; restore(): void } {
  const peer = openPeer(master.fd)
  const fd = master.take()
  const terminal = new ReadStream(fd)
  const { stdin, stdout } = process
  const resize = (): void => {
    const size = ownWindow()
    if (size !== undefined) resizeTerminal(fd, size)
  }
  resize()
  process.on('SIGWINCH', resize)
  if (stdin.isTTY) stdin.setRawMode(true)
  stdin.on('data', (chunk: Buffer) => terminal.write(chunk))
  terminal.pipe(stdout, { end: false })
  const done = new Promise<void>((ended) => {
    // EIO: every process has closed its side
    terminal.on('error', () => ended())
    terminal.on('close', () => ended())
  })
  return {
    done,
    letGo: () => peer.close(),
    restore() {
      peer.close()
      process.off('SIGWINCH', resize)
      if (stdin.isTTY) stdin.setRawMode(false)
      stdin.pause()
    },
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
 * A process in the foreground: its terminal, if it has one, is connected to ours until this is disposed. Made before the program runs,
 * so that the program finds the terminal's size and nothing that it says is late.
 */
export class Foreground {
  readonly #target: RunningProcess
  readonly #relay: ReturnType<typeof relayTerminal> | undefined

  constructor(target: RunningProcess) {
    this.#target = target
    this.#relay = target.console === undefined ? undefined : relayTerminal(target.console)
  }

  /** Waits for its end and for the last of its output; its exit status. */
  async ended(): Promise<number> {
    const exit = await this.#target.exited
    this.#relay?.letGo()
    await this.#relay?.done
    return exit.status
  }

  [Symbol.dispose](): void {
    this.#relay?.restore()
  }
}
