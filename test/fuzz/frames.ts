/**
 * What a client that breaks every rule sends to a shim's socket, made from a seed alone. Pure: nothing is sent here.
 * There are requests of every kind that are nearly right: odd values, fields of another message, bytes that are
 * changed, cut or doubled. There are broken frames, and noise.
 */
import { encodeFrame, FrameFlag, FrameType, type MessageInput, type MessageType, type MethodDescriptor } from 'ttrpc-ts'
import {
  type Any,
  LegacyCreateOptions,
  RuncCheckpointOptions,
  RuncOptions,
  RuntimeOptions,
  TaskService,
  TaskV3Service,
  TtrpcRequest,
} from 'ttrpc-ts/containerd'
import { mutate, type Random, toNode } from './mutate.ts'

/** What the inputs may name that exists. */
export interface Pool {
  readonly containers: readonly string[]
  readonly execs: readonly string[]
  readonly bundles: readonly string[]
  /** fifos and files below one folder */
  readonly streams: readonly string[]
}

const PROCESS = toNode({
  args: ['true'],
  cwd: '/',
  env: ['PATH=/bin'],
  user: { uid: 0, gid: 0, additionalGids: [1] },
  capabilities: { bounding: ['CAP_KILL'] },
  rlimits: [{ type: 'RLIMIT_NOFILE', soft: 10, hard: 20 }],
  noNewPrivileges: true,
  consoleSize: { height: 3, width: 4 },
})
const RESOURCES = toNode({
  pids: { limit: 77 },
  memory: { limit: 100_000_000 },
  cpu: { shares: 100, quota: 5000, period: 10_000 },
})
const DOCUMENTS = [PROCESS, RESOURCES]
const METHODS: readonly MethodDescriptor<object, object>[] = Object.values(TaskService.methods)
const OPTIONS: readonly MessageType<object>[] = [
  RuncOptions,
  LegacyCreateOptions,
  RuntimeOptions,
  RuncCheckpointOptions,
]
const NUMBERS = [0, 1, 9, 15, 64, 65, 127, 128, 255, 65_536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1]
const STRINGS = [
  '',
  'x',
  '..',
  '../..',
  '/',
  '/no/such/thing',
  'a b',
  'a\nb',
  '\0',
  'é𝄞',
  '-x',
  'gopher://x',
  'fifo://',
  'file://',
  '%2e',
]
const TYPE_URLS = ['', 'x', 'containerd.runc.v1.Options', 'types.containerd.io/opencontainers/runtime-spec/1/Process']
/**
 * A varint, a fixed 64, a length, a group's begin and end, a fixed 32, with small and large field numbers; and what
 * is none.
 */
const TAGS = [
  0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0f, 0x07, 0x00, 0x12, 0x1a, 0x22, 0x32, 0x3a, 0x52, 0xf8, 0xfa, 0xff,
]

/** Bytes of one connection, in the pieces in which they are to be written. */
export function makeInput(random: Random, pool: Pool): Buffer[] {
  let stream = 1
  const frames = Array.from({ length: 1 + random.below(6) }, () => {
    const frame = random.below(12) === 0 ? noise(random) : requestFrame(random, pool, stream)
    stream += random.below(20) === 0 ? random.pick([0, 1, -2, 1000]) : 2
    return frame
  })
  let bytes = Buffer.concat(frames)
  // the last frame is cut, or its end is missing
  if (random.below(8) === 0) bytes = bytes.subarray(0, random.below(bytes.length + 1))
  if (random.below(3) !== 0) return [bytes]
  const pieces: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + random.below(random.pick([3, 50, 5000, 1_000_000]))
    pieces.push(bytes.subarray(at, at + size))
    at += size
  }
  // more pieces than that say nothing new
  return pieces.length > 200 ? [bytes] : pieces
}

function requestFrame(random: Random, pool: Pool, stream: number): Buffer {
  const method = random.pick(METHODS)
  // now and then the fields of another call
  const { input } = random.below(15) === 0 ? random.pick(METHODS) : method
  let payload: Buffer = Buffer.from(input.encode(message(random, input, pool)))
  if (random.below(5) === 0) payload = damage(random, payload)
  const service = random.below(20) === 0 ? random.pick(STRINGS) : random.pick([TaskService, TaskV3Service]).typeName
  const name = random.below(30) === 0 ? random.pick(STRINGS) : method.name
  const request: MessageInput<TtrpcRequest> = { service, method: name, payload, ...extras(random) }
  let data: Buffer = Buffer.from(TtrpcRequest.encode(request))
  if (random.below(15) === 0) data = damage(random, data)
  const odd = random.below(15) === 0
  const type = odd ? random.pick([FrameType.RESPONSE, FrameType.DATA, 0, 4, 255]) : FrameType.REQUEST
  const flags = random.below(15) === 0 ? random.pick([...Object.values(FrameFlag), 7, 255]) : 0
  const frame = encodeFrame({ streamId: Math.max(0, stream), type, flags, data })
  if (random.below(40) === 0)
    frame.writeUInt32BE(random.pick([0, 1, 5, data.length + 1, 2 ** 22, 2 ** 22 + 1, 2 ** 32 - 1]))
  return frame
}

function extras(random: Random): MessageInput<TtrpcRequest> {
  switch (random.below(10)) {
    case 0:
      return { timeoutNano: random.pick([-1n, 1n, 1_000_000n, 2n ** 62n, -(2n ** 63n)]) }
    case 1: {
      const metadata = Array.from({ length: random.pick([1, 3, 1000]) }, () => ({
        key: random.pick(STRINGS),
        value: random.pick(STRINGS),
      }))
      return { metadata }
    }
    default:
      return {}
  }
}

/** A message whose fields have, by their types, values from the pool or odd ones. */
function message(random: Random, type: MessageType<object>, pool: Pool): object {
  const fields = Object.entries(type.create()).map(([name, value]) => [name, field(random, name, value, pool)])
  return Object.fromEntries(fields)
}

function field(random: Random, name: string, value: unknown, pool: Pool): unknown {
  if (typeof value === 'string') return text(random, name, pool)
  if (typeof value === 'number') return random.pick(NUMBERS)
  if (typeof value === 'boolean') return random.below(2) === 0
  if (Array.isArray(value)) return Array.from({ length: random.pick([0, 0, 1, 2, 40]) }, () => mount(random, pool))
  if (name === 'spec' || name === 'resources' || name === 'options') return any(random, name, pool)
  if (typeof value === 'object') return { [random.pick(STRINGS)]: random.pick(STRINGS) }
  return value
}

function text(random: Random, name: string, pool: Pool): string {
  if (random.below(10) === 0) return random.below(10) === 0 ? random.pick(STRINGS).repeat(20_000) : random.pick(STRINGS)
  if (name === 'id') return random.pick(pool.containers)
  if (name === 'execId') return random.below(3) === 0 ? '' : random.pick(pool.execs)
  if (name === 'bundle') return random.pick(pool.bundles)
  if (name === 'stdin' || name === 'stdout' || name === 'stderr')
    return random.below(2) === 0 ? '' : random.pick(pool.streams)
  return name === 'checkpoint' || name === 'parentCheckpoint' ? '' : random.pick(STRINGS)
}

function mount(random: Random, { bundles }: Pool): object {
  return {
    type: random.pick(['bind', 'tmpfs', 'overlay', 'nosuchfs', '']),
    source: random.pick([...bundles, 'tmpfs', '', '/no/such/layer']),
    target: random.pick(['', '', '', 'x', '..', '../../etc', '/']),
    options: Array.from({ length: random.below(4) }, () =>
      random.pick([
        'bind',
        'rbind',
        'ro',
        'size=4096',
        'mode=0',
        'lowerdir=/no',
        'nosuch',
        'x'.repeat(5000),
        'uidmap=0:0:1',
        '',
      ]),
    ),
  }
}

function any(random: Random, name: string, pool: Pool): Any | undefined {
  const typeUrl = random.pick(TYPE_URLS)
  if (name === 'options') {
    if (random.below(2) === 0) return undefined
    const type = random.pick(OPTIONS)
    const value = type.encode(random.below(2) === 0 ? {} : message(random, type, pool))
    return { typeUrl: random.below(8) === 0 ? typeUrl : type.typeName, value: value }
  }
  const document = random.below(8) === 0 ? random.pick(DOCUMENTS) : name === 'spec' ? PROCESS : RESOURCES
  const json = random.below(2) === 0 ? mutate(random, document, DOCUMENTS) : mutate(random, document, [document])
  return { typeUrl, value: Buffer.from(json) }
}

/** Changes bytes: one, a few, a piece cut out, doubled or moved, a new field in front. */
function damage(random: Random, bytes: Buffer): Buffer {
  let changed: Buffer = Buffer.from(bytes)
  for (let rounds = 1 + random.below(3); rounds > 0; rounds--) {
    const at = random.below(changed.length + 1)
    const size = random.below(random.pick([4, 40]))
    switch (random.below(6)) {
      case 0:
        if (at < changed.length) changed[at] = random.pick([0, 1, 0x7f, 0x80, 0xff, random.below(256)])
        break
      case 1:
        changed = changed.subarray(0, at)
        break
      case 2:
        changed = Buffer.concat([changed.subarray(0, at), changed.subarray(at + size)])
        break
      case 3:
        changed = Buffer.concat([changed.subarray(0, at + size), changed.subarray(at)])
        break
      case 4:
        changed = Buffer.concat([changed.subarray(0, at), bytesOf(random, size), changed.subarray(at)])
        break
      default:
        changed = Buffer.concat([Buffer.from([random.pick(TAGS)]), bytesOf(random, size), changed])
        break
    }
  }
  return changed
}

function noise(random: Random): Buffer {
  if (random.below(2) === 0) return bytesOf(random, random.below(random.pick([20, 3000])))
  const length = random.pick([0, 3, 40, 70_000])
  const frame = encodeFrame({
    streamId: random.below(20),
    type: random.below(6),
    flags: random.below(256),
    data: bytesOf(random, length),
  })
  if (random.below(3) === 0) frame.writeUInt32BE(random.pick([0, 2 ** 22 + 1, 2 ** 32 - 1]))
  return frame
}

function bytesOf(random: Random, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => random.below(256)))
}
