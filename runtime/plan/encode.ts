/**
 * Op[] to the bytes that ts-init reads; init-plan.ts describes the form. Invariant: an encoded plan is within the
 * limits that ts-init enforces. A text that is too long is refused here, with its place in the spec.
 */
import { type ArgKind, LIMITS, OPS, type Op, PLAN_MAGIC } from '../../proto/init-plan.ts'
import { PLAN_SCHEMA_HASH } from '../../proto/plan-hash.gen.ts'
import { messageOf, specError } from '../errors.ts'

interface Schema {
  readonly code: number
  readonly args: readonly (readonly [name: string, kind: ArgKind])[]
}

const SCHEMAS: ReadonlyMap<string, Schema> = new Map(
  Object.entries(OPS).map(([name, { code, args }]) => [name, { code, args: Object.entries<ArgKind>(args) }]),
)
const text = new TextEncoder()

/** Encodes a plan. @throws InvalidArgument when a text or the whole is too long */
export function encodePlan(ops: readonly Op[]): Uint8Array {
  const writer = new Writer()
  writer.u32(PLAN_MAGIC)
  writer.u32(PLAN_SCHEMA_HASH)
  writer.u32(0)
  writer.u32(ops.length)
  for (const op of ops) encodeOp(writer, op)
  if (ops.length > LIMITS.PLAN_MAX_OPS || writer.length > LIMITS.PLAN_MAX_BYTES) {
    throw specError('', `the configuration is too large: ${ops.length} operations, ${writer.length} bytes`)
  }
  writer.patch(8, writer.length)
  return writer.take()
}

function encodeOp(writer: Writer, op: Op): void {
  const schema = SCHEMAS.get(op.op)
  if (schema === undefined) throw new Error(`no such operation: ${op.op}`)
  const start = writer.length
  writer.u32(schema.code)
  writer.u32(0)
  const args: Readonly<Record<string, unknown>> = op
  for (const [name, kind] of schema.args) {
    try {
      encodeArg(writer, kind, args[name])
    } catch (error) {
      if (error instanceof TooLong) throw specError(op.origin ?? '', `${op.op}: ${name} is ${error.message}`)
      throw new Error(`${op.op}.${name}: ${messageOf(error)}`, { cause: error })
    }
  }
  writer.patch(start + 4, writer.length - start)
}

class TooLong extends Error {}

function encodeArg(writer: Writer, kind: ArgKind, value: unknown): void {
  switch (kind) {
    case 'u32':
      writer.u32(number(value, 0, 0xffffffff))
      break
    case 'i32':
      writer.u32(number(value, -0x80000000, 0x7fffffff) >>> 0)
      break
    case 'u64':
      writer.u64(bigint(value, 0n, 0xffffffffffffffffn))
      break
    case 'str':
      writer.str(value)
      break
    case 'bytes':
      if (!(value instanceof Uint8Array)) throw new Error('not bytes')
      writer.bytes(value)
      break
    case 'strs':
      for (const item of writer.counted(value)) writer.str(item)
      break
    case 'u32s':
      for (const item of writer.counted(value)) writer.u32(number(item, 0, 0xffffffff))
      break
    default:
      kind satisfies never
  }
}

function number(value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
  throw new Error(`${String(value)} is not a whole number from ${min} to ${max}`)
}

function bigint(value: unknown, min: bigint, max: bigint): bigint {
  if (typeof value === 'bigint' && value >= min && value <= max) return value
  throw new Error(`${String(value)} is not a bigint from ${min} to ${max}`)
}

/** A buffer that grows; little-endian. */
class Writer {
  #bytes = new Uint8Array(16 * 1024)
  #view = new DataView(this.#bytes.buffer)
  length = 0

  #reserve(count: number): void {
    const needed = this.length + count
    if (needed <= this.#bytes.length) return
    const larger = new Uint8Array(Math.max(needed, this.#bytes.length * 2))
    larger.set(this.#bytes.subarray(0, this.length))
    this.#bytes = larger
    this.#view = new DataView(larger.buffer)
  }

  u32(value: number): void {
    this.#reserve(4)
    this.#view.setUint32(this.length, value, true)
    this.length += 4
  }

  u64(value: bigint): void {
    this.#reserve(8)
    this.#view.setBigUint64(this.length, value, true)
    this.length += 8
  }

  patch(offset: number, value: number): void {
    this.#view.setUint32(offset, value, true)
  }

  bytes(value: Uint8Array): void {
    this.u32(value.length)
    this.#reserve(value.length)
    this.#bytes.set(value, this.length)
    this.length += value.length
  }

  str(value: unknown): void {
    if (typeof value !== 'string') throw new Error('not a string')
    if (value.includes('\0')) throw new Error('a NUL byte in a string')
    // UTF-8 takes at most three bytes per UTF-16 unit
    this.#reserve(4 + value.length * 3 + 1)
    const { written } = text.encodeInto(value, this.#bytes.subarray(this.length + 4))
    if (written > LIMITS.STRING_MAX_BYTES)
      throw new TooLong(`${written} bytes long, more than ${LIMITS.STRING_MAX_BYTES}`)
    this.patch(this.length, written)
    this.length += 4 + written
    this.#bytes[this.length] = 0
    this.length += 1
  }

  counted(value: unknown): readonly unknown[] {
    if (!Array.isArray(value)) throw new Error('not a list')
    this.u32(value.length)
    return value
  }

  take(): Uint8Array {
    return this.#bytes.subarray(0, this.length)
  }
}
