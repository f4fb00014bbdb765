/**
 * Being in front of a process: our signals become its signals, our terminal its terminal, its exit status ours. Invariant: from the
 * moment that a SignalRelay exists, no signal that can be caught ends us and leaves the container behind.
 */
import { constants } from 'node:os'
import { ReadStream } from 'node:tty'
import { type OwnedFd, type RunningProcess, RuntimeError, resizeTerminal } from '../index.ts'

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

/** Relays between our own terminal and the container's; returns when the container's side is closed. */
function relayTerminal(master: OwnedFd): { done: Promise<void>; restore(): void } {
  const fd = master.take()
  const terminal = new ReadStream(fd)
  const { stdin, stdout } = process
  const resize = (): void => {
    if (!stdout.isTTY) return
    const [width, height] = stdout.getWindowSize()
    resizeTerminal(fd, { width, height })
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
    restore() {
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

/** Waits for a process in the foreground and relays its terminal, if it has one; its exit status. */
export async function foreground(target: RunningProcess): Promise<number> {
  const relay = target.console === undefined ? undefined : relayTerminal(target.console)
  try {
    const exit = await target.exited
    await relay?.done
    return exit.status
  } finally {
    relay?.restore()
  }
}
