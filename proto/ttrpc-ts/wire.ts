/**
 * What generated codecs need beyond protobufjs: exact 64-bit integers as bigint, nested messages that cannot read past
 * their end, and the object around a codec. All encodings of the process share one writer: encoding is synchronous, so
 * none interrupts another. Every result is a copy of exactly its size.
 */
import protobuf from 'protobufjs/minimal.js'
import type { MessageInput, MessageType } from './service.ts'

/** protobufjs's reader; its `len` is set to the end of the message that is being read. */
export type Reader = protobuf.Reader
/** protobufjs's writer. */
export type Writer = protobuf.Writer
type Long = Parameters<Writer['uint64']>[0]

/** The default of bytes fields. */
export const EMPTY_BYTES: Uint8Array = Buffer.alloc(0)

/** A writer with a larger buffer is not kept for the next message. */
const KEPT_WRITER_BYTES = 64 * 1024

let sharedWriter: Writer | undefined

/** The writer that the whole process shares, emptied. */
export function takeWriter(): Writer {
  if (sharedWriter === undefined || sharedWriter.buf.length > KEPT_WRITER_BYTES) sharedWriter = protobuf.Writer.create()
  // An encoder that threw may have left open length prefixes behind.
  sharedWriter.states = null
  sharedWriter.pos = 0
  return sharedWriter
}

/** A reader over bytes. It reads from a Buffer, because only that decodes strings natively. */
export function readerOf(bytes: Uint8Array): Reader {
  return new protobuf.BufferReader(
    Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
  )
}

/** The generated parts of a message type. */
export interface MessageParts<T extends object> {
  readonly typeName: string
  readonly init: () => T
  readonly write: (writer: Writer, message: MessageInput<T>) => void
  readonly read: (reader: Reader, into: T) => T
}

/** Makes a message type from its generated parts. */
export function messageType<T extends object>({ typeName, init, write, read }: MessageParts<T>): MessageType<T> {
  return {
    typeName,
    write,
    read,
    create: (fields) => Object.assign(init(), fields),
    encode: (message) => {
      const writer = takeWriter()
      write(writer, message)
      return writer.finish()
    },
    decode: (bytes) => read(readerOf(bytes), init()),
  }
}

/** Writes an unsigned 64-bit integer. @throws RangeError when it does not fit */
export function writeUint64(writer: Writer, value: bigint): void {
  if (BigInt.asUintN(64, value) !== value) throw new RangeError(`not an unsigned 64-bit integer: ${value}`)
  writeBits(writer, value)
}

/** Writes a signed 64-bit integer. @throws RangeError when it does not fit */
export function writeInt64(writer: Writer, value: bigint): void {
  if (BigInt.asIntN(64, value) !== value) throw new RangeError(`not a signed 64-bit integer: ${value}`)
  writeBits(writer, BigInt.asUintN(64, value))
}

function writeBits(writer: Writer, bits: bigint): void {
  if (bits <= 0xffffffffn) writer.uint32(Number(bits))
  else writer.uint64({ low: Number(bits & 0xffffffffn) | 0, high: Number(bits >> 32n) | 0, unsigned: true } as Long)
}

/** Writes a packed list of unsigned 64-bit integers. */
export function writePackedUint64(writer: Writer, tag: number, values: readonly bigint[]): void {
  if (values.length === 0) return
  writer.uint32(tag).fork()
  for (const value of values) writeUint64(writer, value)
  writer.ldelim()
}

/** Writes a packed list of int32 or enum values. */
export function writePackedInt32(writer: Writer, tag: number, values: readonly number[]): void {
  if (values.length === 0) return
  writer.uint32(tag).fork()
  for (const value of values) writer.int32(value)
  writer.ldelim()
}

/** Writes a nested message; its tag has been written. */
export function writeMessage<T extends object>(w: Writer, type: MessageType<T>, message: MessageInput<T>): void {
  w.fork()
  type.write(w, message)
  w.ldelim()
}

/** Writes a map of strings. */
export function writeStringMap(writer: Writer, tag: number, map: Readonly<Record<string, string | undefined>>): void {
  for (const key of Object.keys(map)) {
    writer.uint32(tag).fork().uint32(10).string(key)
    writer.uint32(18).string(map[key] ?? '')
    writer.ldelim()
  }
}

/** Reads an unsigned 64-bit integer. */
export function readUint64(reader: Reader): bigint {
  const { buf, len } = reader
  let pos = reader.pos
  let low = 0
  let high = 0
  for (let shift = 0; ; shift += 7) {
    if (pos >= len) throw new RangeError('varint ends early')
    const byte = buf[pos++]!
    // The tenth byte holds one bit only.
    if (shift === 63 && byte > 1) throw new RangeError('varint is longer than 64 bits')
    if (shift < 28) low |= (byte & 127) << shift
    else if (shift === 28) {
      low |= (byte & 15) << 28
      high = (byte & 127) >> 4
    } else high |= (byte & 127) << (shift - 32)
    if (byte < 128) break
  }
  reader.pos = pos
  return high === 0 ? BigInt(low >>> 0) : (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)
}

/** Reads a signed 64-bit integer. */
export function readInt64(reader: Reader): bigint {
  return BigInt.asIntN(64, readUint64(reader))
}

/** Reads a packed list of unsigned 64-bit integers and appends them. */
export function readPackedUint64(reader: Reader, into: bigint[]): void {
  const outer = enter(reader)
  while (reader.pos < reader.len) into.push(readUint64(reader))
  reader.len = outer
}

/** Reads a packed list of int32 or enum values and appends them. */
export function readPackedInt32(reader: Reader, into: number[]): void {
  const outer = enter(reader)
  while (reader.pos < reader.len) into.push(reader.int32())
  reader.len = outer
}

/** Reads a nested message and merges it into the one that is there, as protobuf demands of repeated singular fields. */
export function readMessage<T extends object>(reader: Reader, type: MessageType<T>, into: T | undefined): T {
  const outer = enter(reader)
  const message = type.read(reader, into ?? type.create())
  reader.len = outer
  return message
}

/** An empty map of strings. It has no prototype, because its keys come from a peer. */
export function stringMap(): Record<string, string> {
  return Object.create(null) as Record<string, string>
}

/** Reads one entry into a map of strings. */
export function readStringMapEntry(reader: Reader, into: Record<string, string>): void {
  const outer = enter(reader)
  let key = ''
  let value = ''
  while (reader.pos < reader.len) {
    const tag = reader.tag()
    if (tag === 10) key = reader.string()
    else if (tag === 18) value = reader.string()
    else reader.skipType(tag & 7, 0, tag >>> 3)
  }
  into[key] = value
  reader.len = outer
}

/** Limits the reader to a length-delimited field; returns the end to restore afterwards. */
function enter(reader: Reader): number {
  const length = reader.size()
  const outer = reader.len
  if (reader.pos + length > outer) throw new RangeError('field is longer than its message')
  reader.len = reader.pos + length
  return outer
}
