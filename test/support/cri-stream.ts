/**
 * One connection to the daemon's streaming server, as a websocket. The first byte of each message names its channel.
 * Everything that arrives is kept, so a test may look at it at any time.
 */
import { until } from './command.ts'

/** Channels of exec and attach. */
export const Channel = { STDIN: 0, STDOUT: 1, STDERR: 2, ERROR: 3, RESIZE: 4 } as const
/** Channels of the first port of a port-forward. */
export const PortChannel = { DATA: 0, ERROR: 1 } as const
/** In version 5 only: the end of the channel that the next byte names. */
const CLOSE = 255

/** How a process ended, as the error channel tells it. */
export interface StreamResult {
  readonly status: string
  readonly message?: string
  readonly exitCode: number | undefined
}

/** An open stream; leaves with `using`. */
export class CriStream implements Disposable {
  readonly #socket: WebSocket
  readonly #came = new Map<number, Buffer[]>()
  /** Resolves when the server has ended the connection. */
  readonly closed: Promise<void>

  private constructor(socket: WebSocket, closed: Promise<void>) {
    this.#socket = socket
    this.closed = closed
    socket.addEventListener('message', ({ data }) => {
      if (!(data instanceof ArrayBuffer)) return
      const bytes = Buffer.from(data)
      const channel = bytes[0] ?? -1
      this.#came.set(channel, [...(this.#came.get(channel) ?? []), bytes.subarray(1)])
    })
  }

  /**
   * Opens what a call of the CRI answered, with the newest version that the server has. @throws Error when it refuses
   */
  static async open(url: string): Promise<CriStream> {
    // asks for one version at a time: older servers take no list
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const socket = new WebSocket(url.replace(/^http/, 'ws'), ['v5.channel.k8s.io', 'v4.channel.k8s.io'])
    socket.binaryType = 'arraybuffer'
    const closed = new Promise<void>((ended) => socket.addEventListener('close', () => ended()))
    const stream = new CriStream(socket, closed)
    socket.addEventListener('open', () => resolve())
    socket.addEventListener('error', () => reject(new Error(`cannot open ${url}`)))
    await promise
    return stream
  }

  /** Whether the end of stdin can be told without leaving. */
  get canEndInput(): boolean {
    return this.#socket.protocol.startsWith('v5.')
  }

  /** What came on a channel so far. */
  bytes(channel: number): Buffer {
    return Buffer.concat(this.#came.get(channel) ?? [])
  }

  get stdout(): string {
    return this.bytes(Channel.STDOUT).toString()
  }

  get stderr(): string {
    return this.bytes(Channel.STDERR).toString()
  }

  write(channel: number, data: string | Uint8Array): void {
    this.#socket.send(Buffer.concat([Buffer.of(channel), Buffer.from(data)]))
  }

  endInput(): void {
    this.#socket.send(Buffer.of(CLOSE, Channel.STDIN))
  }

  resize(rows: number, columns: number): void {
    this.write(Channel.RESIZE, JSON.stringify({ Width: columns, Height: rows }))
  }

  /** Waits until a channel has brought the text. */
  async untilOutput(text: string | RegExp, channel: number = Channel.STDOUT): Promise<void> {
    const has = (): boolean => {
      const came = this.bytes(channel).toString()
      return typeof text === 'string' ? came.includes(text) : text.test(came)
    }
    await until(`${text} on channel ${channel}`, has, () => [...this.#came].map(([at, all]) => `${at}: ${all}`).join())
  }

  /** Waits for the end, and tells what the error channel said. */
  async result(): Promise<StreamResult> {
    await this.closed
    const text = this.bytes(Channel.ERROR).toString()
    const told: unknown = text === '' ? {} : JSON.parse(text)
    const { status, message, details } = { status: '', ...(told as Partial<StatusMessage>) }
    const cause = details?.causes?.find(({ reason }) => reason === 'ExitCode')
    return { status, ...(message === undefined ? {} : { message }), exitCode: cause && Number(cause.message) }
  }

  [Symbol.dispose](): void {
    this.#socket.close()
  }
}

/** The part of Kubernetes' Status that is used here. */
interface StatusMessage {
  readonly status: string
  readonly message?: string
  readonly details?: { readonly causes?: readonly { readonly reason: string; readonly message: string }[] }
}
