/** Bytes that the Go implementation puts on the wire: ours must be the same, and must be understood. */
import { describe, expect, test } from 'vitest'
import { encodeAnswer, encodeFailure, encodeRequest } from '../../../proto/ttrpc-ts/envelope.ts'
import { FrameDecoder, MAX_MESSAGE_BYTES } from '../../../proto/ttrpc-ts/frame.ts'
import {
  BootstrapParams,
  CgroupV1CPUUsage,
  ConnectRequest,
  ConnectResponse,
  Empty,
  LogLevel,
  Timestamp,
  TtrpcKeyValue,
  TtrpcRequest,
  TtrpcResponse,
} from '../../../proto/ttrpc-ts/gen/index.ts'

const text = (value: string) => Buffer.from(value).toString('hex')
const hex = (...parts: string[]) => Buffer.from(parts.join('').replaceAll(' ', ''), 'hex')

const CONNECT_REQUEST = hex(
  '00000055 00000001 01 00',
  `0a17 ${text('containerd.task.v2.Task')} 1207 ${text('Connect')} 1a04 0a02 6331`,
  '20 80a8d6b907',
  `2a25 0a1a ${text('containerd-namespace-ttrpc')} 1207 ${text('default')}`,
)

describe('frames', () => {
  test('Connect with a timeout and a namespace', () => {
    const frame = encodeRequest(
      1,
      {
        service: 'containerd.task.v2.Task',
        method: 'Connect',
        input: ConnectRequest,
        message: { id: 'c1' },
        timeoutNano: 2_000_000_000n,
        metadata: [TtrpcKeyValue.create({ key: 'containerd-namespace-ttrpc', value: 'default' })],
      },
      MAX_MESSAGE_BYTES,
    )
    expect(frame).toEqual(CONNECT_REQUEST)
  })

  test('Connect as the server reads it', () => {
    const [frame] = new FrameDecoder().push(CONNECT_REQUEST)
    expect(frame).toMatchObject({ streamId: 1, type: 1, flags: 0 })
    const request = TtrpcRequest.decode(frame!.data)
    expect(request).toMatchObject({
      service: 'containerd.task.v2.Task',
      method: 'Connect',
      timeoutNano: 2_000_000_000n,
    })
    expect(request.metadata).toEqual([{ key: 'containerd-namespace-ttrpc', value: 'default' }])
    expect(ConnectRequest.decode(request.payload)).toEqual({ id: 'c1' })
  })

  test('a successful response has no status', () => {
    const frame = encodeAnswer(
      1,
      { output: ConnectResponse, message: { shimPid: 4660, taskPid: 4661 } },
      MAX_MESSAGE_BYTES,
    )
    expect(frame).toEqual(hex('00000008 00000001 02 00 1206 08b424 10b524'))
  })

  test('an empty response has no data at all', () => {
    expect(encodeAnswer(3, { output: Empty, message: {} }, MAX_MESSAGE_BYTES)).toEqual(hex('00000000 00000003 02 00'))
  })

  test('a failure has a status and no payload', () => {
    const frame = encodeFailure(1, { code: 5, message: 'container not created: not found' }, MAX_MESSAGE_BYTES)
    expect(frame).toEqual(hex('00000026 00000001 02 00 0a24 0805 1220', text('container not created: not found')))
  })

  test('a failure with an endless message still fits', () => {
    const [frame] = new FrameDecoder().push(encodeFailure(1, { code: 2, message: 'é'.repeat(5000) }, 4096))
    expect(frame!.data.length).toBeLessThanOrEqual(4096)
    expect(TtrpcResponse.decode(frame!.data).status).toMatchObject({ code: 2, message: expect.stringMatching(/^é+$/) })
  })
})

describe('messages', () => {
  test('the time "never" is a ten-byte varint', () => {
    const bytes = hex('08 8092b8c398feffffff01')
    expect(Timestamp.encode({ seconds: -62135596800n })).toEqual(bytes)
    expect(Timestamp.decode(bytes)).toEqual({ seconds: -62135596800n, nanos: 0 })
  })

  test('a negative enum value is a ten-byte varint', () => {
    const bytes = hex('18 f8ffffffffffffffff01')
    expect(BootstrapParams.encode({ logLevel: LogLevel.TRACE })).toEqual(bytes)
    expect(BootstrapParams.decode(bytes).logLevel).toBe(-8)
  })

  test('lists of numbers are packed, and read either way', () => {
    const packed = hex('2203 01 ac02')
    expect(CgroupV1CPUUsage.encode({ perCpu: [1n, 300n] })).toEqual(packed)
    expect(CgroupV1CPUUsage.decode(packed).perCpu).toEqual([1n, 300n])
    expect(CgroupV1CPUUsage.decode(hex('2001 20ac02')).perCpu).toEqual([1n, 300n])
  })

  test('an optional string is told apart from an empty one', () => {
    expect(BootstrapParams.encode({ socketDir: '' })).toEqual(hex('4a00'))
    expect(BootstrapParams.decode(hex('4a00')).socketDir).toBe('')
    expect(BootstrapParams.decode(hex('')).socketDir).toBeUndefined()
  })
})
