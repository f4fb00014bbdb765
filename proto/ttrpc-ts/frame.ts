/**
 * Frames: ten bytes of header, then data. This file knows bytes, and neither sockets nor services.
 *
 *   offset 0  length of the data, u32 big endian        offset 8  type: 1 request, 2 response, 3 data
 *          4  stream id, u32 big endian                        9  flags: 1 remote closed, 2 remote open, 4 no data
 *
 * Invariant: the decoder holds at most twice the bytes that have arrived, and never reserves what a header merely
 * announces. A frame that announces more than the limit is skipped as it arrives, and reported when it is over. Its
 * stream can then be refused while the others go on.
 */
import { takeWriter, type Writer } from './wire.ts'

/** Bytes before the data. */
export const FRAME_HEADER_BYTES = 10

/** The protocol's limit for the data of one frame. */
export const MAX_MESSAGE_BYTES = 4 * 1024 * 1024

/** The types of frames. Frames with other numbers may arrive and are ignored. */
export const FrameType = { REQUEST: 1, RESPONSE: 2, DATA: 3 } as const

/** Bits of a frame's flags. */
export const FrameFlag = { REMOTE_CLOSED: 1, REMOTE_OPEN: 2, NO_DATA: 4 } as const

/** One frame; `data` is a view of the bytes that have arrived. */
export interface Frame {
  readonly streamId: number
  readonly type: number
  readonly flags: number
  readonly data: Buffer
  /** The announced length of data that was over the limit and was skipped; `data` is then empty. Else 0. */
  readonly oversizeBytes: number
}

const NO_FRAMES: readonly Frame[] = []
const NO_DATA = Buffer.alloc(0)
const PLACEHOLDER = Buffer.alloc(FRAME_HEADER_BYTES)

/** Cuts a stream of bytes into frames. */
export class FrameDecoder {
  readonly #maxMessageBytes: number
  /**
   * The beginning of an incomplete frame; the buffer may be larger than the `#used` bytes, which are 0 between frames.
   */
  #partial = NO_DATA
  #used = 0
  /** The frame that is being skipped, and how many bytes of it are still to come. */
  #skipped: Frame | undefined
  #skipBytes = 0

  constructor(maxMessageBytes: number = MAX_MESSAGE_BYTES) {
    this.#maxMessageBytes = maxMessageBytes
  }

  /** Whether the bytes so far end inside a frame. */
  get insideFrame(): boolean {
    return this.#used > 0 || this.#skipBytes > 0
  }

  /**
   * Takes the next bytes and returns the frames that are now complete. The caller must not change the bytes afterwards.
   */
  push(chunk: Buffer): readonly Frame[] {
    let frames: Frame[] | undefined
    let pos = 0
    while (pos < chunk.length) {
      let frame: Frame | undefined
      if (this.#skipBytes > 0) {
        const step = Math.min(this.#skipBytes, chunk.length - pos)
        pos += step
        frame = this.#skip(step)
      } else if (this.#used > 0) {
        pos = this.#fill(chunk, pos)
        frame = this.#takePartial()
      } else {
        const end = frameEnd(chunk, pos)
        if (end - pos - FRAME_HEADER_BYTES > this.#maxMessageBytes) {
          this.#startSkip(chunk, pos)
          pos += FRAME_HEADER_BYTES
        } else if (end <= chunk.length) {
          frame = frameAt(chunk, pos, end)
          pos = end
        } else {
          pos = this.#fill(chunk, pos)
        }
      }
      if (frame === undefined) continue
      if (frames === undefined) frames = [frame]
      else frames.push(frame)
    }
    return frames ?? NO_FRAMES
  }

  #startSkip(header: Buffer, pos: number): void {
    const length = header.readUInt32BE(pos)
    this.#skipBytes = length
    this.#skipped = { ...frameAt(header, pos, pos + FRAME_HEADER_BYTES), oversizeBytes: length }
  }

  #skip(bytes: number): Frame | undefined {
    this.#skipBytes -= bytes
    if (this.#skipBytes > 0) return undefined
    const frame = this.#skipped
    this.#skipped = undefined
    return frame
  }

  /** Copies what the incomplete frame still lacks, its header first; returns the position in the chunk after that. */
  #fill(chunk: Buffer, pos: number): number {
    let wanted = this.#wanted()
    for (;;) {
      const step = Math.min(wanted - this.#used, chunk.length - pos)
      this.#reserve(this.#used + step, wanted)
      chunk.copy(this.#partial, this.#used, pos, pos + step)
      this.#used += step
      pos += step
      // Once the header is complete, its length says how much more the frame needs.
      const next = this.#wanted()
      if (next === wanted || pos === chunk.length) return pos
      wanted = next
    }
  }

  #wanted(): number {
    if (this.#used < FRAME_HEADER_BYTES) return FRAME_HEADER_BYTES
    const length = this.#partial.readUInt32BE(0)
    return length > this.#maxMessageBytes ? FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + length
  }

  /** Grows by doubling. A peer that sends single bytes costs neither quadratic time nor more than twice the memory. */
  #reserve(bytes: number, atMost: number): void {
    if (this.#partial.length >= bytes) return
    const larger = Buffer.allocUnsafe(Math.min(atMost, Math.max(bytes, this.#partial.length * 2)))
    this.#partial.copy(larger, 0, 0, this.#used)
    this.#partial = larger
  }

  #takePartial(): Frame | undefined {
    if (this.#used < FRAME_HEADER_BYTES || this.#used < this.#wanted()) return undefined
    const bytes = this.#partial
    const end = this.#used
    this.#partial = NO_DATA
    this.#used = 0
    if (bytes.readUInt32BE(0) <= this.#maxMessageBytes) return frameAt(bytes, 0, end)
    this.#startSkip(bytes, 0)
    return undefined
  }
}

/** The end of the frame that starts at `pos`, or the end of its header while that is incomplete. */
function frameEnd(bytes: Buffer, pos: number): number {
  if (bytes.length - pos < FRAME_HEADER_BYTES) return pos + FRAME_HEADER_BYTES
  return pos + FRAME_HEADER_BYTES + bytes.readUInt32BE(pos)
}

function frameAt(bytes: Buffer, pos: number, end: number): Frame {
  return {
    streamId: bytes.readUInt32BE(pos + 4),
    type: bytes[pos + 8]!,
    flags: bytes[pos + 9]!,
    data: bytes.subarray(pos + FRAME_HEADER_BYTES, end),
    oversizeBytes: 0,
  }
}

/**
 * Starts a frame in the writer that the whole process shares. The caller appends the data and calls endFrame; no other
 * encoding may come between.
 */
export function beginFrame(): Writer {
  return takeWriter().raw(PLACEHOLDER)
}

/** Bytes of data in the frame so far. */
export function frameDataBytes(writer: Writer): number {
  return writer.pos - FRAME_HEADER_BYTES
}

/** What the header of a frame says, besides the length. */
export interface FrameHead {
  readonly streamId: number
  readonly type: number
  /** default: none */
  readonly flags?: number
}

/** Completes a frame and returns its bytes, ready for one write. */
export function endFrame(writer: Writer, { streamId, type, flags = 0 }: FrameHead): Buffer {
  const bytes = Buffer.allocUnsafe(writer.pos)
  bytes.set(writer.buf.subarray(0, writer.pos))
  bytes.writeUInt32BE(writer.pos - FRAME_HEADER_BYTES, 0)
  bytes.writeUInt32BE(streamId, 4)
  bytes[8] = type
  bytes[9] = flags
  return bytes
}

/** A whole frame from its parts. */
export function encodeFrame({ data, ...head }: FrameHead & { readonly data: Uint8Array }): Buffer {
  return endFrame(beginFrame().raw(data), head)
}
