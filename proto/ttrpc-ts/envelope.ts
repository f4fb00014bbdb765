/**
 * Requests and responses as complete frames. The inner message is written directly into its envelope, and the envelope
 * into its frame, so a call costs one buffer and one write in each direction.
 */

import { beginFrame, endFrame, FrameType, frameDataBytes } from './frame.ts'
import { TtrpcKeyValue, TtrpcResponse } from './gen/ttrpc.ts'
import type { MessageInput, MessageType } from './service.ts'
import { Code, type StatusInfo, TtrpcError } from './status.ts'
import { type Writer, writeInt64, writeMessage } from './wire.ts'

/**
 * Tags of ttrpc.Request and ttrpc.Response. The generated codecs are not used: they take the payload as encoded bytes.
 */
const REQUEST = { SERVICE: 10, METHOD: 18, PAYLOAD: 26, TIMEOUT_NANO: 32, METADATA: 42 } as const
const RESPONSE_PAYLOAD = 18

/** What a request frame is made of. */
export interface RequestParts<I extends object> {
  readonly service: string
  readonly method: string
  readonly input: MessageType<I>
  readonly message: MessageInput<I>
  /** How long the caller waits, in nanoseconds; 0 is without limit. */
  readonly timeoutNano: bigint
  readonly metadata: readonly TtrpcKeyValue[]
}

/** The frame of a unary request. @throws TtrpcError, ResourceExhausted, when it is over the limit */
export function encodeRequest<I extends object>(streamId: number, parts: RequestParts<I>, maxBytes: number): Buffer {
  const writer = beginFrame()
  writer.uint32(REQUEST.SERVICE).string(parts.service)
  writer.uint32(REQUEST.METHOD).string(parts.method)
  writePayload(writer, REQUEST.PAYLOAD, { type: parts.input, message: parts.message })
  if (parts.timeoutNano !== 0n) writeInt64(writer.uint32(REQUEST.TIMEOUT_NANO), parts.timeoutNano)
  for (const entry of parts.metadata) writeMessage(writer.uint32(REQUEST.METADATA), TtrpcKeyValue, entry)
  checkSize(writer, maxBytes)
  return endFrame(writer, { streamId, type: FrameType.REQUEST })
}

/** What a successful response is made of. */
export interface AnswerParts<O extends object> {
  readonly output: MessageType<O>
  readonly message: MessageInput<O>
}

/** The frame of a successful response. @throws TtrpcError, ResourceExhausted, when it is over the limit */
export function encodeAnswer<O extends object>(streamId: number, parts: AnswerParts<O>, maxBytes: number): Buffer {
  const writer = beginFrame()
  writePayload(writer, RESPONSE_PAYLOAD, { type: parts.output, message: parts.message })
  checkSize(writer, maxBytes)
  return endFrame(writer, { streamId, type: FrameType.RESPONSE })
}

/**
 * The frame of a failed response. A failure must reach the caller, so a status over the limit is sent without its
 * details, and with its message cut.
 */
export function encodeFailure(streamId: number, status: StatusInfo, maxBytes: number): Buffer {
  const writer = beginFrame()
  TtrpcResponse.write(writer, { status })
  if (frameDataBytes(writer) <= maxBytes) return endFrame(writer, { streamId, type: FrameType.RESPONSE })
  const short = beginFrame()
  // A UTF-16 unit takes at most three bytes in UTF-8, and the two envelopes take less than 64 bytes.
  const message = status.message.slice(0, Math.max(0, Math.floor((maxBytes - 64) / 3)))
  TtrpcResponse.write(short, { status: { code: status.code, message } })
  return endFrame(short, { streamId, type: FrameType.RESPONSE })
}

/** Writes the payload; an empty message is left out altogether, as in the Go implementation. */
function writePayload<T extends object>(
  writer: Writer,
  tag: number,
  { type, message }: { readonly type: MessageType<T>; readonly message: MessageInput<T> },
): void {
  const start = writer.pos
  writer.uint32(tag).fork()
  const empty = writer.pos
  type.write(writer, message)
  const isEmpty = writer.pos === empty
  writer.ldelim()
  if (isEmpty) writer.pos = start
}

function checkSize(writer: Writer, maxBytes: number): void {
  const bytes = frameDataBytes(writer)
  if (bytes <= maxBytes) return
  throw new TtrpcError(Code.RESOURCE_EXHAUSTED, `message of ${bytes} bytes exceeds the maximum of ${maxBytes}`)
}
