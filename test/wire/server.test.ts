/** What a server promises to callers and to peers that misbehave, over real unix sockets. Each promise is one test. */
import { setTimeout as delay } from 'node:timers/promises'
import { test as base, describe, expect } from 'vitest'
import { encodeFrame, FrameFlag, FrameType } from '../../proto/ttrpc-ts/frame.ts'
import {
  ConnectRequest,
  ConnectResponse,
  KillRequest,
  TaskService,
  TaskV3Service,
} from '../../proto/ttrpc-ts/gen/index.ts'
import {
  type CallContext,
  Code,
  type ServerOptions,
  type ServiceHandlers,
  TtrpcError,
  TtrpcServer,
} from '../../proto/ttrpc-ts/index.ts'
import { RawPeer, requestFrame, socketDir } from './raw-peer.ts'

const TASK = TaskService.typeName
type Handlers = ServiceHandlers<typeof TaskService>

/** Stands where a test has no method of its own: a server must have all of its service. */
function unimplemented(): never {
  throw new TtrpcError(Code.UNIMPLEMENTED, 'not in this test')
}

function handlers(some: Partial<Handlers>): Handlers {
  const none: Partial<Handlers> = Object.fromEntries(
    Object.keys(TaskService.methods).map((key) => [key, unimplemented]),
  )
  return { ...none, connect: () => ({ shimPid: 7 }), ...some } as Handlers
}

interface Fixtures {
  readonly serve: (some?: Partial<Handlers>, options?: ServerOptions) => Promise<{ server: TtrpcServer; path: string }>
}

const test = base.extend<Fixtures>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest wants a pattern here
  serve: async ({}, use) => {
    using dir = socketDir()
    const servers: TtrpcServer[] = []
    await use(async (some = {}, options = {}) => {
      const path = dir.path(`${servers.length}.sock`)
      const server = new TtrpcServer(options).register(TaskService, handlers(some))
      servers.push(server)
      await server.listen({ path })
      return { server, path }
    })
    for (const server of servers) await server.close()
  },
})

const connectCall = (streamId: number, id = 'c1') => requestFrame(streamId, TASK, 'Connect', ConnectRequest, { id })
const OK = { code: 0, message: '' }

describe('a call', () => {
  test('is answered on its stream', async ({ serve }) => {
    const { path } = await serve({ connect: ({ id }) => ({ shimPid: id.length }) })
    using peer = await RawPeer.connect(path)
    peer.send(connectCall(1, 'four'))
    const { payload, ...rest } = await peer.response()
    expect(rest).toEqual({ ...OK, streamId: 1 })
    expect(ConnectResponse.decode(payload)).toEqual({ shimPid: 4, taskPid: 0, version: '' })
  })

  test('that waits does not hold up the next one', async ({ serve }) => {
    const gate = Promise.withResolvers<void>()
    const { path } = await serve({
      wait: () => gate.promise.then(() => ({ exitStatus: 3 })),
      kill: () => gate.resolve(),
    })
    using peer = await RawPeer.connect(path)
    peer.send(
      requestFrame(1, TASK, 'Wait', ConnectRequest, {}),
      requestFrame(3, TASK, 'Kill', KillRequest, { signal: 9 }),
    )
    expect(await peer.response()).toMatchObject({ ...OK, streamId: 3, payload: Buffer.alloc(0) })
    expect(await peer.response()).toMatchObject({ ...OK, streamId: 1, payload: Buffer.from('0803', 'hex') })
  })

  test('may be one of a thousand, answered in any order', async ({ serve }) => {
    const { path, server } = await serve({
      connect: ({ id }) => delay(Number(id) % 7, { taskPid: Number(id) }),
    })
    using peer = await RawPeer.connect(path)
    const ids = Array.from({ length: 1000 }, (_, i) => 2 * i + 1)
    peer.send(...ids.map((id) => connectCall(id, String(id))))
    const seen = new Set<number>()
    for (const _ of ids) {
      const { streamId, payload } = await peer.response()
      expect(ConnectResponse.decode(payload).taskPid).toBe(streamId)
      seen.add(streamId)
    }
    expect(seen.size).toBe(1000)
    expect(server.activeCalls).toBe(0)
  })

  test('may arrive byte by byte', async ({ serve }) => {
    const { path } = await serve()
    using peer = await RawPeer.connect(path)
    peer.socket.setNoDelay(true)
    for (const byte of connectCall(1)) {
      peer.send(Buffer.of(byte))
      await delay(0)
    }
    expect(await peer.response()).toMatchObject({ ...OK, streamId: 1 })
  })

  test('brings its metadata, a key of which may repeat', async ({ serve }) => {
    let context: CallContext | undefined
    const { path } = await serve({
      connect: (_request, ctx) => {
        context = ctx
        return {}
      },
    })
    using peer = await RawPeer.connect(path)
    const metadata = [
      { key: 'ns', value: 'a' },
      { key: 'ns', value: 'b' },
    ]
    peer.send(requestFrame(1, TASK, 'Connect', ConnectRequest, {}, { metadata }))
    await peer.response()
    expect(context).toMatchObject({ service: TASK, method: 'Connect' })
    expect(context?.metadata).toEqual(new Map([['ns', ['a', 'b']]]))
  })

  test('that outlives its deadline is answered DeadlineExceeded, and its signal aborts', async ({ serve }) => {
    const aborted = Promise.withResolvers<unknown>()
    const late = Promise.withResolvers<object>()
    const { path } = await serve({
      wait: (_request, ctx) => {
        ctx.signal.addEventListener('abort', () => aborted.resolve(ctx.signal.reason))
        return late.promise
      },
    })
    using peer = await RawPeer.connect(path)
    peer.send(requestFrame(1, TASK, 'Wait', ConnectRequest, {}, { timeoutNano: 20_000_000n }))
    expect(await peer.response()).toMatchObject({ streamId: 1, code: Code.DEADLINE_EXCEEDED })
    expect(await aborted.promise).toMatchObject({ code: Code.DEADLINE_EXCEEDED })
    late.resolve({})
    peer.send(connectCall(3))
    expect(await peer.response()).toMatchObject({ ...OK, streamId: 3 })
  })

  test('runs through the interceptor', async ({ serve }) => {
    const seen: string[] = []
    const around: ServerOptions['around'] = (ctx, next) => {
      seen.push(ctx.method)
      return next()
    }
    const { path } = await serve({}, { around })
    using peer = await RawPeer.connect(path)
    peer.send(connectCall(1))
    await peer.response()
    expect(seen).toEqual(['Connect'])
  })

  test('of a second service with the same messages is told apart', async ({ serve }) => {
    const { path, server } = await serve()
    server.register(TaskV3Service, handlers({ connect: () => ({ shimPid: 3 }) }))
    using peer = await RawPeer.connect(path)
    peer.send(requestFrame(1, TaskV3Service.typeName, 'Connect', ConnectRequest, {}))
    expect(ConnectResponse.decode((await peer.response()).payload).shimPid).toBe(3)
  })
})

describe('a handler that fails', () => {
  test('at once or later, answers its code and message', async ({ serve }) => {
    const error = new TtrpcError(Code.NOT_FOUND, 'container not created: not found')
    const { path } = await serve({
      pids: () => Promise.reject(error),
      state: () => {
        throw error
      },
    })
    using peer = await RawPeer.connect(path)
    peer.send(requestFrame(1, TASK, 'Pids', ConnectRequest, {}))
    expect(await peer.response()).toMatchObject({ streamId: 1, code: 5, message: error.message })
    peer.send(requestFrame(3, TASK, 'State', ConnectRequest, {}))
    expect(await peer.response()).toMatchObject({ streamId: 3, code: 5, message: error.message })
  })

  test('with any other error answers Unknown, or what mapError makes of it', async ({ serve }) => {
    const failing = {
      state: () => {
        throw new Error('boom')
      },
    }
    const plain = await serve(failing)
    const mapped = await serve(failing, {
      mapError: (error) => ({ code: 9, message: `mapped ${(error as Error).message}` }),
    })
    using first = await RawPeer.connect(plain.path)
    using second = await RawPeer.connect(mapped.path)
    for (const peer of [first, second]) peer.send(requestFrame(1, TASK, 'State', ConnectRequest, {}))
    expect(await first.response()).toMatchObject({ code: 2, message: 'boom' })
    expect(await second.response()).toMatchObject({ code: 9, message: 'mapped boom' })
  })

  test('by an answer over 4 MiB answers ResourceExhausted', async ({ serve }) => {
    const { path } = await serve({ connect: () => ({ version: 'x'.repeat(4 * 1024 * 1024) }) })
    using peer = await RawPeer.connect(path)
    peer.send(connectCall(1))
    expect(await peer.response()).toMatchObject({ streamId: 1, code: Code.RESOURCE_EXHAUSTED })
  })

  test('by an answer that cannot be encoded answers Internal', async ({ serve }) => {
    const { path } = await serve({ wait: () => ({ exitedAt: { seconds: 2n ** 64n } }) })
    using peer = await RawPeer.connect(path)
    peer.send(requestFrame(1, TASK, 'Wait', ConnectRequest, {}))
    expect(await peer.response()).toMatchObject({ streamId: 1, code: Code.INTERNAL })
  })
})

describe('a mistake of the peer costs it one stream:', () => {
  const NOT_A_MESSAGE = Buffer.from('0aff', 'hex')
  const badRequest = encodeFrame({ streamId: 1, type: FrameType.REQUEST, data: NOT_A_MESSAGE })
  const badPayload = requestFrame(1, TASK, 'Connect', ConnectRequest, {}, { payload: NOT_A_MESSAGE })
  const data = encodeFrame({ streamId: 1, type: FrameType.DATA, data: Buffer.from('x') })
  const mistakes: [what: string, bytes: Buffer, answer: object][] = [
    ['an even stream id', connectCall(2), { streamId: 2, code: 3 }],
    ['stream id zero', connectCall(0), { streamId: 0, code: 3 }],
    ['a request that does not decode', badRequest, { streamId: 1, code: 3 }],
    [
      'an empty request',
      encodeFrame({ streamId: 1, type: FrameType.REQUEST, data: Buffer.alloc(0) }),
      { streamId: 1, code: 12, message: 'service ' },
    ],
    ['a payload that does not decode', badPayload, { streamId: 1, code: 13 }],
    [
      'an unknown service',
      requestFrame(1, 'a.B', 'Connect', ConnectRequest, {}),
      { streamId: 1, code: 12, message: 'service a.B' },
    ],
    [
      'an unknown method',
      requestFrame(1, TASK, 'Fly', ConnectRequest, {}),
      { streamId: 1, code: 12, message: 'method Fly' },
    ],
    ['data on an unknown stream', data, { streamId: 1, code: 3 }],
    [
      'data without data on an unknown stream',
      encodeFrame({ streamId: 5, type: FrameType.DATA, flags: 5, data: Buffer.alloc(0) }),
      { streamId: 5, code: 3 },
    ],
    [
      'an oversized request',
      encodeFrame({ streamId: 1, type: FrameType.REQUEST, data: Buffer.alloc(4 * 1024 * 1024 + 1) }),
      { streamId: 1, code: 8 },
    ],
  ]
  test.for(mistakes)('%s', async ([_what, bytes, answer], { serve }) => {
    const { path } = await serve()
    using peer = await RawPeer.connect(path)
    peer.send(bytes)
    expect(await peer.response()).toMatchObject(answer)
    peer.send(connectCall(101))
    expect(await peer.response()).toMatchObject({ ...OK, streamId: 101 })
  })

  test('a stream id used again, or lower than the last', async ({ serve }) => {
    const { path } = await serve()
    using peer = await RawPeer.connect(path)
    peer.send(connectCall(5), connectCall(5), connectCall(3), connectCall(7))
    expect(await peer.response()).toMatchObject({ ...OK, streamId: 5 })
    expect(await peer.response()).toMatchObject({ streamId: 5, code: 3 })
    expect(await peer.response()).toMatchObject({ streamId: 3, code: 3 })
    expect(await peer.response()).toMatchObject({ ...OK, streamId: 7 })
  })

  test('data on the stream of a running unary call ends that call', async ({ serve }) => {
    const gate = Promise.withResolvers<object>()
    let signal: AbortSignal | undefined
    const { path, server } = await serve({
      wait: (_request, ctx) => {
        signal = ctx.signal
        return gate.promise
      },
    })
    using peer = await RawPeer.connect(path)
    peer.send(
      requestFrame(1, TASK, 'Wait', ConnectRequest, {}),
      encodeFrame({ streamId: 1, type: FrameType.DATA, flags: FrameFlag.REMOTE_CLOSED, data: Buffer.from('x') }),
    )
    expect(await peer.response()).toMatchObject({ streamId: 1, code: 3 })
    expect(signal?.aborted).toBe(true)
    expect(server.activeCalls).toBe(0)
    gate.resolve({})
    peer.send(connectCall(3))
    expect(await peer.response()).toMatchObject({ ...OK, streamId: 3 })
  })

  test('a response, or a frame of an unknown type, is ignored', async ({ serve }) => {
    const { path } = await serve()
    using peer = await RawPeer.connect(path)
    peer.send(
      encodeFrame({ streamId: 1, type: FrameType.RESPONSE, data: Buffer.from('x') }),
      encodeFrame({ streamId: 1, type: 77, data: Buffer.from('x') }),
      connectCall(1),
    )
    expect(await peer.response()).toMatchObject({ ...OK, streamId: 1 })
  })

  test('more calls in progress than allowed', async ({ serve }) => {
    const { path } = await serve({ wait: () => new Promise(() => {}) }, { maxCalls: 2 })
    using peer = await RawPeer.connect(path)
    peer.send(...[1, 3, 5].map((id) => requestFrame(id, TASK, 'Wait', ConnectRequest, {})))
    expect(await peer.response()).toMatchObject({ streamId: 5, code: Code.RESOURCE_EXHAUSTED })
  })
})

describe('a connection', () => {
  test('that ends inside a header is reported, and the others go on', async ({ serve }) => {
    const failed = Promise.withResolvers<Error>()
    const { path } = await serve({}, { onError: failed.resolve })
    using healthy = await RawPeer.connect(path)
    using broken = await RawPeer.connect(path)
    broken.send(connectCall(1).subarray(0, 7))
    broken.socket.end()
    expect((await failed.promise).message).toBe('connection ended inside a frame')
    healthy.send(connectCall(1))
    expect(await healthy.response()).toMatchObject({ ...OK, streamId: 1 })
  })

  test('that closes aborts its calls only, and they run to their end', async ({ serve }) => {
    const aborted = Promise.withResolvers<void>()
    const finished = Promise.withResolvers<boolean>()
    const { path, server } = await serve({
      wait: async ({ id }, ctx) => {
        if (id !== 'gone') return { exitStatus: 1 }
        ctx.signal.addEventListener('abort', () => aborted.resolve())
        await aborted.promise
        finished.resolve(true)
        return {}
      },
    })
    using other = await RawPeer.connect(path)
    using peer = await RawPeer.connect(path)
    peer.send(requestFrame(1, TASK, 'Wait', ConnectRequest, { id: 'gone' }), connectCall(3))
    await peer.response()
    peer.socket.destroy()
    expect(await finished.promise).toBe(true)
    expect(server.connections).toBe(1)
    other.send(requestFrame(1, TASK, 'Wait', ConnectRequest, {}))
    expect(await other.response()).toMatchObject({ ...OK, streamId: 1 })
  })

  test('whose peer does not read is not read either, and stalls nobody else', async ({ serve }) => {
    let calls = 0
    const answer = { version: 'v'.repeat(64 * 1024) }
    const count = (id: string) => {
      if (id !== '') calls++
      return answer
    }
    const { path } = await serve({ connect: ({ id }) => count(id) }, { maxQueuedBytes: 256 * 1024 })
    using stalled = await RawPeer.connect(path)
    using other = await RawPeer.connect(path)
    stalled.socket.pause()
    const sent = 1000
    const id = 'x'.repeat(1024)
    stalled.send(...Array.from({ length: sent }, (_, i) => connectCall(2 * i + 1, id)))
    for (let streamId = 1; streamId < 40; streamId += 2) {
      other.send(connectCall(streamId, ''))
      expect(await other.response()).toMatchObject({ ...OK, streamId })
    }
    // The bound may be met inside one chunk of 64 KiB, all of whose requests are answered.
    expect(calls).toBeGreaterThan(0)
    expect(calls).toBeLessThan(150)
    stalled.socket.resume()
    for (let i = 0; i < sent; i++) expect((await stalled.response()).code).toBe(0)
    expect(calls).toBe(sent)
  })

  test('is served only if accepted', async ({ serve }) => {
    const { path, server } = await serve({}, { accept: () => false })
    using peer = await RawPeer.connect(path)
    peer.send(connectCall(1))
    expect(await peer.frame()).toBeUndefined()
    expect(server.connections).toBe(0)
  })
})

describe('close()', () => {
  test('sends the answers that were given, tells the calls in progress, and ends every connection', async ({
    serve,
  }) => {
    const aborted = Promise.withResolvers<void>()
    const { path, server } = await serve({
      wait: (_request, ctx) => {
        ctx.signal.addEventListener('abort', () => aborted.resolve())
        return new Promise(() => {})
      },
      shutdown: (_request, ctx) => ctx.afterReply(() => void server.close()),
    })
    using idle = await RawPeer.connect(path)
    using peer = await RawPeer.connect(path)
    peer.send(requestFrame(1, TASK, 'Wait', ConnectRequest, {}), requestFrame(3, TASK, 'Shutdown', ConnectRequest, {}))
    expect(await peer.response()).toMatchObject({ ...OK, streamId: 3 })
    expect(await peer.frame()).toBeUndefined()
    expect(await idle.frame()).toBeUndefined()
    await aborted.promise
    await server.close()
    await expect(RawPeer.connect(path)).rejects.toThrow()
  })

  test('cuts off a peer that does not read', async ({ serve }) => {
    let answers = 0
    const connect = () => {
      answers++
      return { version: 'v'.repeat(4_000_000) }
    }
    const { path, server } = await serve({ connect })
    using peer = await RawPeer.connect(path)
    peer.socket.pause()
    peer.send(connectCall(1), connectCall(3))
    while (answers < 2) await delay(1)
    expect(server.connections).toBe(1)
    await server.close({ graceMs: 50 })
    expect(server.connections).toBe(0)
  })
})
