/**
 * Every generated codec against protobufjs's own reflection on the same .proto files: an independent reading of the
 * schema, with samples in which every field of every message is set.
 */
import { join } from 'node:path'
import protobuf from 'protobufjs'
import { describe, expect, test } from 'vitest'
import * as criu from '../../../proto/ttrpc-ts/gen/criu.ts'
import * as generated from '../../../proto/ttrpc-ts/gen/index.ts'
import type { MessageType } from '../../../proto/ttrpc-ts/service.ts'
import { readerOf, readUint64, takeWriter, writeInt64, writeUint64 } from '../../../proto/ttrpc-ts/wire.ts'

const { CgroupV1Metrics, CreateTaskRequest, Mount, RuntimeInfo, TaskCreate, Timestamp } = generated

const PROTO_DIR = join(import.meta.dirname, '../../../proto')
const FILES = [
  'bootstrap',
  'cgroup_v1_metrics',
  'cgroup_v2_metrics',
  'criu',
  'events',
  'legacy_options',
  'process_details',
  'runc_options',
  'runtime_options',
  'task',
  'task_events',
  'task_v3',
  'ttrpc',
]

const root = new protobuf.Root()
root.resolvePath = (_origin, target) => (target.startsWith('/') ? target : join(PROTO_DIR, target))
root.loadSync(FILES.map((name) => `${name}.proto`))
root.resolveAll()

const isMessageType = (value: unknown): value is MessageType<object> =>
  typeof value === 'object' && value !== null && 'typeName' in value && 'decode' in value
const TYPES = Object.values({ ...generated, ...criu })
  .filter(isMessageType)
  .map((type): [string, MessageType<object>] => [type.typeName, type])

let counter = 0

function sampleValue(field: protobuf.Field): unknown {
  counter++
  if (field.resolvedType instanceof protobuf.Type) return sampleOf(field.resolvedType)
  switch (field.type) {
    case 'string':
      return `text ${counter} é`
    case 'bytes':
      return Buffer.from([0, 255, counter & 255])
    case 'bool':
      return true
    case 'double':
      return counter + 0.25
    case 'uint64':
      return 2n ** 64n - BigInt(counter)
    case 'int64':
      return -(2n ** 53n) - BigInt(counter)
    case 'uint32':
      return 2 ** 32 - counter
    case 'int32':
      return -counter
    default:
      return field.resolvedType instanceof protobuf.Enum ? Object.values(field.resolvedType.values).at(-1) : undefined
  }
}

function sampleOf(type: protobuf.Type): Record<string, unknown> {
  const entries = type.fieldsArray.map((field): [string, unknown] => {
    const value = field.resolve() && sampleValue(field)
    if (field.map) return [field.name, { one: value, two: '' }]
    return [field.name, field.repeated ? [value, sampleValue(field)] : value]
  })
  return Object.fromEntries(entries)
}

/** protobufjs takes 64-bit numbers as decimal text. */
function forReflection(value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString()
  if (Array.isArray(value)) return value.map(forReflection)
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, forReflection(inner)]))
}

describe('generated messages', () => {
  test('cover every message of every .proto file', () => {
    const names = (namespace: protobuf.NamespaceBase): string[] =>
      namespace.nestedArray.flatMap((object) => {
        if (object instanceof protobuf.Type) return [object.fullName.slice(1)]
        return object instanceof protobuf.Namespace ? names(object) : []
      })
    const known = names(root)
    expect(TYPES.map(([name]) => name)).toEqual(expect.arrayContaining(known))
    expect(TYPES.length).toBeGreaterThan(80)
  })

  test.each(TYPES)('%s means the same bytes as in protobufjs', (name, type) => {
    const reflected = root.lookupType(name)
    const sample = sampleOf(reflected)
    const bytes = Buffer.from(reflected.encode(reflected.fromObject(forReflection(sample) as object)).finish())
    const decoded = type.decode(bytes)
    expect(decoded).toEqual(sample)
    expect(Buffer.from(type.encode(decoded)).toString('hex')).toBe(bytes.toString('hex'))
  })

  test.each(TYPES)('%s leaves defaults out', (_name, type) => {
    expect(type.encode({})).toHaveLength(0)
    expect(type.encode(type.create())).toHaveLength(0)
    expect(type.decode(Buffer.alloc(0))).toEqual(type.create())
  })

  test.each(TYPES)('%s skips fields that it does not know', (_name, type) => {
    // field 1000: varint, 64 bit, bytes, group with a varint inside, 32 bit
    const unknown = Buffer.from('c03e9601c13e0102030405060708c23e03616263c33e0801c43ec53e01020304', 'hex')
    expect(type.decode(unknown)).toEqual(type.create())
  })

  test.each(TYPES)('%s refuses a field that is longer than the message', (_name, type) => {
    expect(() => type.decode(Buffer.from('c23e7f61', 'hex'))).toThrow()
    expect(() => type.decode(Buffer.from('ff', 'hex'))).toThrow()
    expect(() => type.decode(Buffer.from('00', 'hex'))).toThrow()
  })
})

describe('nested messages', () => {
  test('may be given in part', () => {
    const bytes = CgroupV1Metrics.encode({ memory: { usage: { usage: 5n } }, pids: { current: 2n } })
    expect(CgroupV1Metrics.decode(bytes).memory?.usage).toEqual({ limit: 0n, usage: 5n, max: 0n, failcnt: 0n })
  })

  test('that come twice are merged', () => {
    const twice = Buffer.concat([
      TaskCreate.encode({ io: { stdin: '/a' } }),
      TaskCreate.encode({ io: { terminal: true } }),
    ])
    expect(TaskCreate.decode(twice).io).toEqual({ stdin: '/a', stdout: '', stderr: '', terminal: true })
  })

  test('cannot read past their end', () => {
    // rootfs of three bytes, whose type says that it has four
    expect(() => CreateTaskRequest.decode(Buffer.from('1a030a046162636465', 'hex'))).toThrow(RangeError)
  })

  test('keep keys of a map that every object has', () => {
    const annotations = JSON.parse('{"__proto__": "a", "constructor": "b"}') as Record<string, string>
    expect(Object.entries(RuntimeInfo.decode(RuntimeInfo.encode({ annotations })).annotations)).toEqual([
      ['__proto__', 'a'],
      ['constructor', 'b'],
    ])
  })
})

describe('64-bit integers', () => {
  test.each([
    0n,
    1n,
    127n,
    128n,
    2n ** 28n,
    2n ** 32n - 1n,
    2n ** 32n,
    2n ** 35n,
    2n ** 53n + 1n,
    2n ** 63n,
    2n ** 64n - 1n,
  ])('%s survives unsigned', (value) => {
    const writer = takeWriter()
    writeUint64(writer, value)
    expect(readUint64(readerOf(writer.finish()))).toBe(value)
  })

  test.each([-1n, -(2n ** 31n), -(2n ** 32n), -(2n ** 63n), 2n ** 63n - 1n])('%s survives signed', (seconds) => {
    expect(Timestamp.decode(Timestamp.encode({ seconds })).seconds).toBe(seconds)
  })

  test('that do not fit are refused', () => {
    expect(() => writeUint64(takeWriter(), -1n)).toThrow(RangeError)
    expect(() => writeUint64(takeWriter(), 2n ** 64n)).toThrow(RangeError)
    expect(() => writeInt64(takeWriter(), 2n ** 63n)).toThrow(RangeError)
    expect(() => readUint64(readerOf(Buffer.from('ffffffffffffffffff02', 'hex')))).toThrow('longer than 64 bits')
  })
})

test('an encoder that fails halfway leaves no trace in the next message', () => {
  expect(() => CgroupV1Metrics.encode({ memory: { usage: { usage: -1n } } })).toThrow(RangeError)
  expect(Mount.decode(Mount.encode({ type: 'proc' }))).toEqual({ type: 'proc', source: '', target: '', options: [] })
})
