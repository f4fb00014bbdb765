/**
 * The other end of a connection, with no manners: it sends whatever bytes a test wants and shows what came back,
 * frame by frame. What it gets is cut into frames by the decoder under test, which test/unit/proto covers on its own.
 */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { encodeFrame, type Frame, FrameDecoder, FrameType } from '../../proto/ttrpc-ts/frame.ts'
import { TtrpcRequest, TtrpcResponse } from '../../proto/ttrpc-ts/gen/index.ts'
import type { MessageInput, MessageType } from '../../proto/ttrpc-ts/service.ts'

const PATIENCE_MS = 10_000

/** A socket and the frames that arrived on it. */
export class RawPeer implements Disposable {
  readonly socket: Socket
  readonly #decoder = new FrameDecoder()
  readonly #frames: Frame[] = []
  #wake: (() => void) | undefined
  #ended = false

  constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (chunk) => {
      this.#frames.push(...this.#decoder.push(chunk))
      this.#wake?.()
    })
    // A peer that is cut off is what some tests are about.
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#ended = true
      this.#wake?.()
    })
  }

  static async connect(path: string): Promise<RawPeer> {
    const socket = connect(path)
    await once(socket, 'connect')
    return new RawPeer(socket)
  }

  send(...parts: Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts))
  }

  /** The next frame, or undefined when the connection ended before. */
  async frame(): Promise<Frame | undefined> {
    while (this.#frames.length === 0 && !this.#ended) {
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      const timer = setTimeout(() => reject(new Error('no frame came')), PATIENCE_MS)
      this.#wake = resolve
      await promise.finally(() => clearTimeout(timer))
    }
    return this.#frames.shift()
  }

  /** The next response: its stream, its code (0 for success) and message, and its payload. */
  async response(): Promise<{ streamId: number; code: number; message: string; payload: Uint8Array }> {
    const frame = await this.frame()
    if (frame === undefined) throw new Error('connection ended instead of a response')
    if (frame.type !== FrameType.RESPONSE) throw new Error(`frame of type ${frame.type} instead of a response`)
    const { status, payload } = TtrpcResponse.decode(frame.data)
    return { streamId: frame.streamId, code: status?.code ?? 0, message: status?.message ?? '', payload }
  }

  [Symbol.dispose](): void {
    this.socket.destroy()
  }
}

/** Bytes of a request frame. */
export function requestFrame<T extends object>(
  streamId: number,
  service: string,
  method: string,
  type: MessageType<T>,
  message: MessageInput<T>,
  extra: MessageInput<TtrpcRequest> = {},
): Buffer {
  const data = TtrpcRequest.encode({ service, method, payload: type.encode(message), ...extra })
  return encodeFrame({ streamId, type: FrameType.REQUEST, data })
}

/** A place for sockets, removed at the end. */
export function socketDir(): Disposable & { readonly path: (name: string) => string } {
  const dir = mkdtempSync(join(tmpdir(), 'ttrpc-'))
  return {
    path: (name) => join(dir, name),
    [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }),
  }
}

/** A server without manners: it hands out each accepted connection as a raw peer. */
export async function rawServer(path: string): Promise<Disposable & { accepted: () => Promise<RawPeer> }> {
  const waiting: RawPeer[] = []
  const server: Server = createServer((socket) => waiting.push(new RawPeer(socket)))
  server.listen(path)
  await once(server, 'listening')
  return {
    accepted: async () => {
      if (waiting.length === 0) await once(server, 'connection')
      const peer = waiting.shift()
      if (peer === undefined) throw new Error('nobody connected')
      return peer
    },
    [Symbol.dispose]: () => server.close(),
  }
}
