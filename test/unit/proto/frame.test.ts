/** The frame decoder is a pure function of the bytes: how they are cut into chunks must never matter. */
import { describe, expect, test } from 'vitest'
import { encodeFrame, type Frame, FrameDecoder, FrameFlag, FrameType } from '../../../proto/ttrpc-ts/frame.ts'

const LIMIT = 64

const STREAM = Buffer.concat([
  encodeFrame({ streamId: 1, type: FrameType.REQUEST, data: Buffer.from('hello') }),
  encodeFrame({
    streamId: 3,
    type: FrameType.DATA,
    flags: FrameFlag.REMOTE_CLOSED | FrameFlag.NO_DATA,
    data: Buffer.alloc(0),
  }),
  encodeFrame({ streamId: 5, type: FrameType.REQUEST, data: Buffer.alloc(LIMIT + 1, 'x') }),
  encodeFrame({ streamId: 7, type: FrameType.RESPONSE, data: Buffer.alloc(LIMIT, 'y') }),
  encodeFrame({ streamId: 0xffffffff, type: 200, flags: 255, data: Buffer.from('!') }),
])

function decodeInPieces(sizes: Iterable<number>): Frame[] {
  const decoder = new FrameDecoder(LIMIT)
  const frames: Frame[] = []
  let pos = 0
  for (const size of sizes) {
    frames.push(...decoder.push(Buffer.from(STREAM.subarray(pos, pos + size))))
    pos += size
  }
  frames.push(...decoder.push(STREAM.subarray(pos)))
  expect(decoder.insideFrame).toBe(false)
  return frames
}

const EXPECTED = [
  { streamId: 1, type: 1, flags: 0, data: Buffer.from('hello'), oversizeBytes: 0 },
  { streamId: 3, type: 3, flags: 5, data: Buffer.alloc(0), oversizeBytes: 0 },
  { streamId: 5, type: 1, flags: 0, data: Buffer.alloc(0), oversizeBytes: LIMIT + 1 },
  { streamId: 7, type: 2, flags: 0, data: Buffer.alloc(LIMIT, 'y'), oversizeBytes: 0 },
  { streamId: 0xffffffff, type: 200, flags: 255, data: Buffer.from('!'), oversizeBytes: 0 },
]

describe('FrameDecoder', () => {
  test('decodes all frames of one chunk', () => {
    expect(decodeInPieces([])).toEqual(EXPECTED)
  })

  test('decodes the same frames byte by byte', () => {
    expect(decodeInPieces(Array.from({ length: STREAM.length }, () => 1))).toEqual(EXPECTED)
  })

  test.each([2, 3, 7, 9, 10, 11, 64, 75])('decodes the same frames in chunks of %i bytes', (size) => {
    const count = Math.floor(STREAM.length / size)
    expect(decodeInPieces(Array.from({ length: count }, () => size))).toEqual(EXPECTED)
  })

  test('decodes the same frames for every cut into two chunks', () => {
    for (let cut = 0; cut <= STREAM.length; cut++) expect(decodeInPieces([cut])).toEqual(EXPECTED)
  })

  test('gives views of the chunk, not copies', () => {
    const chunk = encodeFrame({ streamId: 1, type: FrameType.REQUEST, data: Buffer.from('shared') })
    const [frame] = new FrameDecoder().push(chunk)
    expect(frame?.data.buffer).toBe(chunk.buffer)
  })

  test('reports an oversized frame only when its data is over', () => {
    const decoder = new FrameDecoder(LIMIT)
    const bytes = encodeFrame({ streamId: 9, type: FrameType.REQUEST, data: Buffer.alloc(LIMIT + 5) })
    expect(decoder.push(bytes.subarray(0, bytes.length - 1))).toEqual([])
    expect(decoder.insideFrame).toBe(true)
    expect(decoder.push(bytes.subarray(bytes.length - 1))).toMatchObject([{ streamId: 9, oversizeBytes: LIMIT + 5 }])
    expect(decoder.insideFrame).toBe(false)
  })

  test('allocates for the bytes that came, not for those that a header announces', () => {
    const header = Buffer.from([0, 0x40, 0, 0, 0, 0, 0, 1, 1, 0])
    const before = process.memoryUsage().arrayBuffers
    const decoders = Array.from({ length: 100 }, () => {
      const decoder = new FrameDecoder()
      decoder.push(Buffer.concat([header, Buffer.alloc(16)]))
      return decoder
    })
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * 1024 * 1024)
    expect(decoders.every((decoder) => decoder.insideFrame)).toBe(true)
  })

  test('is inside a frame after a truncated header', () => {
    const decoder = new FrameDecoder()
    decoder.push(Buffer.from([0, 0, 0]))
    expect(decoder.insideFrame).toBe(true)
  })
})
