/** What a client promises to its caller, whatever the server does. Each promise is one test. */
import { setTimeout as delay } from 'node:timers/promises'
import { test as base, describe, expect } from 'vitest'
import { encodeFrame, FrameType } from '../../proto/ttrpc-ts/frame.ts'
import {
  ConnectResponse,
  ForwardRequest,
  TaskService,
  TtrpcRequest,
  TtrpcResponse,
} from '../../proto/ttrpc-ts/gen/index.ts'
import {
  type CallOptions,
  type ClientOptions,
  Code,
  createClient,
  TtrpcClient,
  type TtrpcError,
} from '../../proto/ttrpc-ts/index.ts'
import { type RawPeer, rawServer, socketDir } from './raw-peer.ts'

interface Fixtures {
  /** A client, and the raw server side of its connection. */
  readonly pair: (options?: Partial<ClientOptions>) => Promise<{ client: TtrpcClient; peer: RawPeer; path: string }>
}

const test = base.extend<Fixtures>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest wants a pattern here
  pair: async ({}, use) => {
    using dir = socketDir()
    const path = dir.path('raw.sock')
    using server = await rawServer(path)
    const opened: Disposable[] = []
    await use(async (options = {}) => {
      const client = new TtrpcClient({ ...options, path })
      const peer = await server.accepted()
      opened.push(client, peer)
      return { client, peer, path }
    })
    for (const one of opened) one[Symbol.dispose]()
  },
})

const connect = (client: TtrpcClient, options?: CallOptions) =>
  createClient(TaskService, client).connect({ id: 'c1' }, options)
const answer = (streamId: number, shimPid: number) =>
  encodeFrame({
    streamId,
    type: FrameType.RESPONSE,
    data: TtrpcResponse.encode({ payload: ConnectResponse.encode({ shimPid }) }),
  })

describe('a call', () => {
  test('sends service, method, payload, metadata and the time that is left', async ({ pair }) => {
    const { client, peer } = await pair({ metadata: { ns: 'default', many: ['a', 'b'] } })
    const result = connect(client, { timeoutMs: 2000 })
    const frame = await peer.frame()
    expect(frame).toMatchObject({ streamId: 1, type: FrameType.REQUEST, flags: 0 })
    expect(TtrpcRequest.decode(frame!.data)).toEqual({
      service: 'containerd.task.v2.Task',
      method: 'Connect',
      payload: Buffer.from('0a026331', 'hex'),
      timeoutNano: 2_000_000_000n,
      metadata: [
        { key: 'ns', value: 'default' },
        { key: 'many', value: 'a' },
        { key: 'many', value: 'b' },
      ],
    })
    peer.send(answer(1, 42))
    expect(await result).toEqual({ shimPid: 42, taskPid: 0, version: '' })
  })

  test('is matched with its answer by stream, in any order', async ({ pair }) => {
    const { client, peer } = await pair()
    const calls = [connect(client), connect(client), connect(client)]
    peer.send(answer(5, 3), answer(1, 1), answer(3, 2))
    expect((await Promise.all(calls)).map(({ shimPid }) => shimPid)).toEqual([1, 2, 3])
  })

  test('rejects with the code, message and details of the status', async ({ pair }) => {
    const { client, peer } = await pair()
    const call = connect(client)
    const details = [{ typeUrl: 'x', value: Buffer.from('y') }]
    peer.send(
      encodeFrame({
        streamId: 1,
        type: FrameType.RESPONSE,
        data: TtrpcResponse.encode({ status: { code: 5, message: 'gone: not found', details } }),
      }),
    )
    await expect(call).rejects.toMatchObject({ name: 'TtrpcError', code: 5, message: 'gone: not found', details })
  })

  test('rejects at its deadline, and drops the late answer', async ({ pair }) => {
    const { client, peer } = await pair()
    await expect(connect(client, { timeoutMs: 20 })).rejects.toMatchObject({ code: Code.DEADLINE_EXCEEDED })
    const next = connect(client)
    peer.send(answer(1, 1), answer(3, 2))
    expect((await next).shimPid).toBe(2)
  })

  test('rejects when its signal aborts, before or after it was sent', async ({ pair }) => {
    const { client } = await pair()
    const controller = new AbortController()
    const call = connect(client, { signal: controller.signal })
    controller.abort(new Error('enough'))
    await expect(call).rejects.toMatchObject({ code: Code.CANCELED, cause: controller.signal.reason })
    await expect(connect(client, { signal: controller.signal })).rejects.toMatchObject({ code: Code.CANCELED })
  })

  test('over 4 MiB is refused here, and the connection goes on', async ({ pair }) => {
    const { client, peer } = await pair()
    const request = ForwardRequest.create({
      envelope: { timestamp: undefined, namespace: '', topic: 'x'.repeat(4 * 1024 * 1024), event: undefined },
    })
    const method = { name: 'Forward', input: ForwardRequest, output: ConnectResponse }
    await expect(client.call({ service: 'a.B', method }, request)).rejects.toMatchObject({
      code: Code.RESOURCE_EXHAUSTED,
    })
    const next = connect(client)
    peer.send(answer(1, 9))
    expect((await next).shimPid).toBe(9)
  })
})

describe('a server that misbehaves:', () => {
  const unusable: [what: string, bytes: Buffer, code: number][] = [
    [
      'an answer that does not decode',
      encodeFrame({ streamId: 1, type: FrameType.RESPONSE, data: Buffer.from('0aff', 'hex') }),
      Code.INTERNAL,
    ],
    [
      'a payload that does not decode',
      encodeFrame({ streamId: 1, type: FrameType.RESPONSE, data: Buffer.from('120208ff', 'hex') }),
      Code.INTERNAL,
    ],
    [
      'stream data for a unary call',
      encodeFrame({ streamId: 1, type: FrameType.DATA, data: Buffer.from('x') }),
      Code.INTERNAL,
    ],
    [
      'an oversized answer',
      encodeFrame({ streamId: 1, type: FrameType.RESPONSE, data: Buffer.alloc(4 * 1024 * 1024 + 1) }),
      Code.RESOURCE_EXHAUSTED,
    ],
  ]
  test.for(unusable)('%s fails that call only', async ([_what, bytes, code], { pair }) => {
    const { client, peer } = await pair()
    const calls = [connect(client), connect(client)] as const
    peer.send(bytes, answer(3, 2))
    await expect(calls[0]).rejects.toMatchObject({ code })
    expect((await calls[1]).shimPid).toBe(2)
  })

  test('answers nobody asked for are ignored', async ({ pair }) => {
    const { client, peer } = await pair()
    const call = connect(client)
    peer.send(
      answer(99, 1),
      answer(2, 1),
      encodeFrame({ streamId: 1, type: FrameType.REQUEST, data: Buffer.alloc(0) }),
      encodeFrame({ streamId: 1, type: 77, data: Buffer.alloc(0) }),
      answer(1, 5),
    )
    expect((await call).shimPid).toBe(5)
  })

  test('one that closes rejects all pending calls with the same error, and all later ones', async ({ pair }) => {
    const { client, peer, path } = await pair()
    const calls = [connect(client), connect(client, { timeoutMs: 60_000 })]
    peer.socket.destroy()
    const [first, second] = (await Promise.allSettled(calls)).map(
      (result) => (result as PromiseRejectedResult).reason as Error,
    )
    expect(first).toMatchObject({
      code: Code.UNAVAILABLE,
      message: expect.stringContaining(`connection to "${path}" closed`),
    })
    expect(second).toBe(first)
    await expect(connect(client)).rejects.toBe(first)
    expect(client.closed).toBe(true)
  })

  test('one that ends inside an answer is Unavailable', async ({ pair }) => {
    const { client, peer } = await pair()
    const call = connect(client)
    peer.send(answer(1, 1).subarray(0, 11))
    peer.socket.end()
    await expect(call).rejects.toMatchObject({
      code: Code.UNAVAILABLE,
      message: expect.stringContaining('ended inside a frame'),
    })
  })

  test('one that does not read gets no more than the bound', async ({ pair }) => {
    const { client, peer } = await pair({ maxQueuedBytes: 1024 * 1024 })
    peer.socket.pause()
    const big = { envelope: { topic: 'x'.repeat(512 * 1024) } }
    const method = { name: 'Forward', input: ForwardRequest, output: ConnectResponse }
    const accepted: Promise<unknown>[] = []
    const refused: unknown[] = []
    // the buffers of the socket take the first bytes, the client's queue the next ones
    while (refused.length === 0) {
      const call = client.call({ service: 'a.B', method }, big)
      call.catch((error: TtrpcError) => {
        if (error.code === Code.RESOURCE_EXHAUSTED) refused.push(call)
      })
      accepted.push(call)
      await delay(0)
    }
    client.close()
    const codes = (await Promise.allSettled(accepted)).map((result) =>
      result.status === 'rejected' ? (result.reason as TtrpcError).code : 0,
    )
    expect(codes.pop()).toBe(Code.RESOURCE_EXHAUSTED)
    expect(new Set(codes)).toEqual(new Set([Code.UNAVAILABLE]))
    expect(codes.length).toBeGreaterThan(1)
  })
})

describe('a client', () => {
  test('of a socket that does not exist rejects its calls with the reason', async ({ pair }) => {
    const { path } = await pair()
    using client = new TtrpcClient({ path: `${path}.missing`, connectTimeoutMs: 1000 })
    await expect(connect(client)).rejects.toMatchObject({
      code: Code.UNAVAILABLE,
      message: expect.stringContaining('ENOENT'),
    })
  })

  test('that is closed rejects what is pending', async ({ pair }) => {
    const { client } = await pair()
    const call = connect(client)
    client.close()
    await expect(call).rejects.toMatchObject({ code: Code.UNAVAILABLE })
  })
})
