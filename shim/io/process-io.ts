/**
 * The streams of one process, from before its birth to after its end. Four ways, which io-setup.ts chooses from at open():
 *
 *   terminal   the runtime hands us the pty's master; console.ts relays it
 *   direct     the process gets the client's fifos themselves, and we only keep them alive: nothing is copied
 *   relay      the process gets pipes, and a relay copies between them and wherever the client wants its streams
 *   program    the process gets pipes, and a program that log-program.ts started reads them
 *
 * Invariant: every descriptor opened here is closed by spawned(), exited(), a finished relay, or close(), which may come at any time.
 */
import { closeSync } from 'node:fs'
import type { OwnedFd, Relay, Sink, Stdio } from '../../runtime/index.ts'
import { Console } from './console.ts'
import type { InputFifo, OutputFifo } from './fifo.ts'
import { type Input, type IoOptions, IoSetup } from './io-setup.ts'
import type { LogWriter } from './log-program.ts'
import { parseStreams, type StdioPaths } from './stdio-uri.ts'

/** The streams of one process. */
export class ProcessIo {
  /** what the process is started with; its descriptors are ours until spawned() */
  readonly stdio: Stdio
  /** the process's side: closed once it has its own */
  readonly #handed: number[]
  readonly #stdin: InputFifo | undefined
  readonly #outputs: readonly OutputFifo[]
  readonly #relays: Relay[]
  readonly #input: Input | undefined
  readonly #consoleSink: Sink | undefined
  readonly #logWriter: LogWriter | undefined
  #console: Console | undefined
  #inputClosed = false

  private constructor(parts: IoSetup) {
    this.stdio = parts.stdio
    this.#handed = parts.handed
    this.#stdin = parts.stdin
    this.#outputs = parts.outputs
    this.#relays = parts.relays
    this.#input = parts.input
    this.#consoleSink = parts.consoleSink
    this.#logWriter = parts.logWriter
  }

  /** Opens everything that the process will need. @throws RuntimeError, with nothing left open */
  static async open(paths: StdioPaths, options: IoOptions): Promise<ProcessIo> {
    const setup = new IoSetup(options)
    try {
      await setup.make(parseStreams(paths), paths.terminal)
    } catch (error) {
      await setup.undo()
      throw error
    }
    return new ProcessIo(setup)
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

  /** For people: what the streams are made of at this moment. */
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

  /** The client writes no more: once it has closed its side, the process sees the end. */
  closeStdin(): void {
    this.#inputClosed = true
    this.#stdin?.closeKeepAlive()
  }

  /** The process has ended: the client sees the end of what went direct; relays go on until their pipes are empty. */
  exited(): void {
    for (const output of this.#outputs) output.release()
    this.#input?.close()
    this.#console?.exited()
    this.#stdin?.close()
  }

  /**
   * Waits until the last output was handed on, and a log program has ended, at most `limitMs`. False when something is still held by
   * another process.
   */
  async drain(limitMs: number): Promise<boolean> {
    const deadline = performance.now() + limitMs
    const writer = this.#logWriter
    const relayed = await this.#relayed(writer === undefined ? limitMs : limitMs / 2)
    if (writer === undefined) return relayed
    // whoever still has the terminal: the program must see the end of it now
    this.#console?.close()
    return (await writer.end(deadline - performance.now())) && relayed
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

  /** Lets go of everything now; may be called at any time, and again. Resolves when a log program, if there was one, has ended. */
  async close(): Promise<void> {
    for (const fd of this.#handed.splice(0)) closeSync(fd)
    for (const relay of this.#relays) relay.close()
    this.#input?.close()
    if (this.#console !== undefined) this.#console.close()
    else this.#consoleSink?.destroy()
    for (const output of this.#outputs) output.close()
    this.#stdin?.close()
    this.#logWriter?.kill()
    await this.#logWriter?.ended
  }
}
