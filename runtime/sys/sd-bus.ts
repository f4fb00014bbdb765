/**
 * A connection to D-Bus by sd-bus of libsystemd, through koffi. That library is well kept and lies on every host that
 * has a systemd to talk to, so nothing has to be shipped. It is opened at the first connection. Every function of it
 * that is called here returns at once: only poll(2) waits, on a thread of the pool.
 * Invariants: at most one call or wait is in progress on a connection. Every message and connection is released exactly
 * once, and never while the pool's thread looks at its descriptor.
 */
import koffi, { type LibraryHandle } from 'koffi'
import { messageOf, RuntimeError } from '../errors.ts'
import { completeTypes, type DbusData, type DbusValue } from './dbus-value.ts'
import { errnoWords } from './errno.ts'
import { declare, declareAsync } from './libc.ts'
import { EACCES, EAGAIN, EPERM } from './linux.ts'

type Native = (...args: readonly unknown[]) => unknown
type Pointer = unknown

const TYPE_REPLY = 2
const TYPE_ERROR = 3
const TYPE_SIGNAL = 4
const SHUT_RDWR = 2
/** A D-Bus client of this process waits this long before it tries a full backlog again. */
const CONNECT_RETRY_MS = 100

const PROTOTYPES = {
  busNew: 'int sd_bus_new(_Out_ void **bus)',
  setAddress: 'int sd_bus_set_address(void *bus, const char *address)',
  setBusClient: 'int sd_bus_set_bus_client(void *bus, int client)',
  start: 'int sd_bus_start(void *bus)',
  close: 'void sd_bus_close(void *bus)',
  unref: 'void *sd_bus_unref(void *bus)',
  getFd: 'int sd_bus_get_fd(void *bus)',
  getEvents: 'int sd_bus_get_events(void *bus)',
  process: 'int sd_bus_process(void *bus, _Out_ void **message)',
  send: 'int sd_bus_send(void *bus, void *message, _Out_ uint64_t *cookie)',
  newCall:
    'int sd_bus_message_new_method_call(void *bus, _Out_ void **message, const char *destination, const char *path, const char *interface, const char *member)',
  messageUnref: 'void *sd_bus_message_unref(void *message)',
  setExpectReply: 'int sd_bus_message_set_expect_reply(void *message, int expect)',
  appendBasic: 'int sd_bus_message_append_basic(void *message, char type, const void *value)',
  appendArray: 'int sd_bus_message_append_array(void *message, char type, const void *bytes, size_t size)',
  openContainer: 'int sd_bus_message_open_container(void *message, char type, const char *contents)',
  closeContainer: 'int sd_bus_message_close_container(void *message)',
  getType: 'int sd_bus_message_get_type(void *message, _Out_ uint8_t *type)',
  getReplyCookie: 'int sd_bus_message_get_reply_cookie(void *message, _Out_ uint64_t *cookie)',
  getMember: 'const char *sd_bus_message_get_member(void *message)',
  getError: 'const void *sd_bus_message_get_error(void *message)',
  readBasic: 'int sd_bus_message_read_basic(void *message, char type, void *value)',
  enterContainer: 'int sd_bus_message_enter_container(void *message, char type, const char *contents)',
} as const

type Library = Readonly<Record<keyof typeof PROTOTYPES, Native>>

let library: Library | undefined

/** @throws Unimplemented where libsystemd is not installed */
function open(): Library {
  if (library !== undefined) return library
  let handle: LibraryHandle
  try {
    handle = koffi.load('libsystemd.so.0')
  } catch (cause) {
    const message = 'cannot talk to systemd: libsystemd.so.0 is not installed (package libsystemd0 or systemd-libs)'
    throw new RuntimeError('Unimplemented', message, { cause })
  }
  library = functionsOf(handle)
  return library
}

function functionsOf(handle: LibraryHandle): Library {
  const functions: Partial<Record<keyof typeof PROTOTYPES, Native>> = {}
  for (const [name, prototype] of Object.entries(PROTOTYPES)) {
    functions[name as keyof typeof PROTOTYPES] = handle.func(prototype)
  }
  return functions as Library
}

const shutdown = declare('int shutdown(int fd, int how)')
const poll = declareAsync('int poll(void *fds, unsigned long count, int timeoutMs)')

/** Why a call got no reply that can be used. */
export type BusFailureKind =
  /** the peer answered with an error, whose name is `name` */
  | 'refused'
  /** there is no such socket, nobody listens, or this user may not connect */
  | 'absent'
  /** the peer does not accept this user */
  | 'denied'
  /** the connection ended: the peer has restarted, or dropped this client */
  | 'closed'
  /** the time is over */
  | 'timeout'

/** A failure of D-Bus, before a caller says what was attempted. */
export class BusFailure extends Error {
  readonly kind: BusFailureKind
  /** name of the peer's error, else empty */
  readonly errorName: string

  constructor(kind: BusFailureKind, message: string, errorName = '') {
    super(message)
    this.kind = kind
    this.errorName = errorName
  }
}

/** Where a bus, or systemd itself, listens. */
export interface BusAddress {
  readonly address: string
  /** the peer is the program itself and not a bus: there is no greeting and there are no names */
  readonly direct: boolean
}

/** A call of a method. */
export interface BusCall {
  readonly destination: string
  readonly path: string
  readonly interface: string
  readonly member: string
  readonly args?: readonly DbusValue[]
}

/** The data of a message of basic types, each as bigint, string or boolean. */
export type BusWords = readonly (bigint | string | boolean)[]

/** A moment of performance.now() after which nothing is waited for. */
export type Deadline = number

interface BusContainer {
  readonly kind: string
  readonly contents: string
}

interface Connected {
  readonly lib: Library
  readonly bus: Pointer
  readonly address: BusAddress
  readonly signal: AbortSignal | undefined
}

/** A signal that is waited for. */
export interface AwaitedSignal {
  readonly member: string
  readonly types: string
  wanted(words: BusWords): boolean
}

/** One connection. */
export class Bus {
  readonly address: BusAddress
  readonly #lib: Library
  readonly #bus: Pointer
  readonly #signal: AbortSignal | undefined
  /** signals that came while another message was waited for */
  #signals: Pointer[] = []
  #disposed = false

  private constructor({ lib, bus, address, signal }: Connected) {
    this.#lib = lib
    this.#bus = bus
    this.address = address
    this.#signal = signal
    // wakes the thread of the pool, which then sees an end of file
    signal?.addEventListener('abort', this.#hangUp, { once: true })
  }

  /**
   * Connects; the greeting is over only when the first call is answered. A full backlog is waited for.
   * @throws BusFailure; Unimplemented without libsystemd; the signal's reason
   */
  static async open(address: BusAddress, deadline: Deadline, signal?: AbortSignal): Promise<Bus> {
    const lib = open()
    for (;;) {
      signal?.throwIfAborted()
      const out: [Pointer] = [null]
      check(Number(lib.busNew(out)), 'sd_bus_new')
      const bus = out[0]
      let result = Number(lib.setAddress(bus, address.address))
      if (result >= 0 && !address.direct) result = Number(lib.setBusClient(bus, 1))
      if (result >= 0) result = Number(lib.start(bus))
      if (result >= 0) return new Bus({ lib, bus, address, signal })
      lib.unref(bus)
      if (result !== -EAGAIN) throw new BusFailure('absent', errnoWords(-result))
      if (performance.now() + CONNECT_RETRY_MS > deadline) throw new BusFailure('timeout', 'it takes no connection')
      await new Promise((resolve) => setTimeout(resolve, CONNECT_RETRY_MS))
    }
  }

  readonly #hangUp = (): void => {
    if (!this.#disposed) shutdown(Number(this.#lib.getFd(this.#bus)), SHUT_RDWR)
  }

  /** Sends a call whose reply nobody reads. @throws BusFailure */
  post(call: BusCall): void {
    this.#send(call, false)
  }

  /** Calls a method; the reply's data, which has the basic types of `reply` ("o"), or one variant of such ("v:s"). */
  async call(call: BusCall, reply: string, deadline: Deadline): Promise<BusWords> {
    const cookie = this.#send(call, true)
    for (;;) {
      const message = await this.#receive(deadline)
      const type = this.#typeOf(message)
      if (type === TYPE_SIGNAL) {
        this.#signals.push(message)
        continue
      }
      try {
        if ((type !== TYPE_REPLY && type !== TYPE_ERROR) || this.#replyCookie(message) !== cookie) continue
        if (type === TYPE_ERROR) throw this.#errorOf(message)
        return this.#read(message, reply)
      } finally {
        this.#lib.messageUnref(message)
      }
    }
  }

  /** Waits for a signal whose data `wanted` accepts; signals that came since the last wait count. */
  async signal({ member, types, wanted }: AwaitedSignal, deadline: Deadline): Promise<BusWords> {
    for (;;) {
      const message = this.#signals.shift() ?? (await this.#receive(deadline))
      try {
        if (this.#typeOf(message) !== TYPE_SIGNAL || this.#lib.getMember(message) !== member) continue
        const words = this.#read(message, types)
        if (wanted(words)) return words
      } finally {
        this.#lib.messageUnref(message)
      }
    }
  }

  #send({ destination, path, interface: of, member, args = [] }: BusCall, expectsReply: boolean): bigint {
    const lib = this.#lib
    const out: [Pointer] = [null]
    check(Number(lib.newCall(this.#bus, out, destination, path, of, member)), 'sd_bus_message_new_method_call')
    const [message] = out
    try {
      if (!expectsReply) check(Number(lib.setExpectReply(message, 0)), 'sd_bus_message_set_expect_reply')
      for (const { signature, data } of args) this.#append(message, signature, data)
      const cookie: [bigint | number] = [0n]
      const result = Number(lib.send(this.#bus, message, cookie))
      this.#signal?.throwIfAborted()
      if (result < 0) throw lost(-result)
      return BigInt(cookie[0])
    } finally {
      lib.messageUnref(message)
    }
  }

  /** The next message. It belongs to the caller. */
  async #receive(deadline: Deadline): Promise<Pointer> {
    const lib = this.#lib
    for (;;) {
      this.#signal?.throwIfAborted()
      const out: [Pointer] = [null]
      const result = Number(lib.process(this.#bus, out))
      if (result < 0) throw lost(-result)
      if (out[0] !== null) return out[0]
      if (result > 0) continue
      const left = Math.ceil(deadline - performance.now())
      if (left <= 0) throw new BusFailure('timeout', 'there is no answer')
      const set = Buffer.alloc(8)
      set.writeInt32LE(Number(lib.getFd(this.#bus)), 0)
      set.writeInt16LE(Math.max(Number(lib.getEvents(this.#bus)), 0), 4)
      await poll(set, 1, left)
    }
  }

  #typeOf(message: Pointer): number {
    const type: [number] = [0]
    this.#lib.getType(message, type)
    return type[0]
  }

  #replyCookie(message: Pointer): bigint {
    const cookie: [bigint | number] = [0n]
    this.#lib.getReplyCookie(message, cookie)
    return BigInt(cookie[0])
  }

  #errorOf(message: Pointer): BusFailure {
    const { name, message: text } = koffi.decode(this.#lib.getError(message), errorType()) as Record<string, string>
    return new BusFailure('refused', text || name || 'unknown error', name ?? '')
  }

  #append(message: Pointer, type: string, data: DbusData): void {
    const lib = this.#lib
    const first = type[0] ?? ''
    if (type === 'ay' && data instanceof Uint8Array) {
      check(Number(lib.appendArray(message, code('y'), data, data.length)), 'sd_bus_message_append_array')
    } else if (first === 'v' && isValue(data)) {
      this.#inside(message, { kind: 'v', contents: data.signature }, () =>
        this.#append(message, data.signature, data.data),
      )
    } else if (first === 'a' && Array.isArray(data)) {
      const inner = type.slice(1)
      this.#inside(message, { kind: 'a', contents: inner }, () => {
        for (const item of data as readonly DbusData[]) this.#append(message, inner, item)
      })
    } else if ((first === '(' || first === '{') && Array.isArray(data)) {
      const contents = type.slice(1, -1)
      this.#inside(message, { kind: first === '(' ? 'r' : 'e', contents }, () => {
        for (const [i, member] of completeTypes(contents).entries()) this.#append(message, member, data[i] as DbusData)
      })
    } else check(Number(lib.appendBasic(message, code(first), basicBytes(first, data))), 'sd_bus_message_append_basic')
  }

  #inside(message: Pointer, { kind, contents }: BusContainer, fill: () => void): void {
    check(Number(this.#lib.openContainer(message, code(kind), contents)), 'sd_bus_message_open_container')
    fill()
    check(Number(this.#lib.closeContainer(message)), 'sd_bus_message_close_container')
  }

  #read(message: Pointer, types: string): BusWords {
    const [, variant] = /^v:(.*)$/.exec(types) ?? []
    if (variant !== undefined) {
      const result = Number(this.#lib.enterContainer(message, code('v'), variant))
      if (result < 0) throw new BusFailure('refused', `the reply is no variant of type "${variant}"`)
    }
    return [...(variant ?? types)].map((type) => {
      const room = Buffer.alloc(8)
      const result = Number(this.#lib.readBasic(message, code(type), room))
      if (result <= 0) throw new BusFailure('refused', `the reply is not of the type "${types}"`)
      if (type === 's' || type === 'o' || type === 'g') return String(koffi.decode(room, 'char *'))
      if (type === 'b') return room.readInt32LE(0) !== 0
      return type === 't' ? room.readBigUInt64LE(0) : BigInt(room.readUInt32LE(0))
    })
  }

  /** Closes the connection. */
  [Symbol.dispose](): void {
    if (this.#disposed) return
    this.#disposed = true
    this.#signal?.removeEventListener('abort', this.#hangUp)
    for (const message of this.#signals.splice(0)) this.#lib.messageUnref(message)
    this.#lib.close(this.#bus)
    this.#lib.unref(this.#bus)
  }
}

/** The failure of a connection that cannot be used any more. */
function lost(errno: number): BusFailure {
  return new BusFailure(errno === EPERM || errno === EACCES ? 'denied' : 'closed', errnoWords(errno))
}

function isValue(data: DbusData): data is DbusValue {
  return typeof data === 'object' && 'signature' in data
}

function code(letter: string): number {
  return letter.charCodeAt(0)
}

/** sd_bus_error, as far as it is read. */
let errorStruct: ReturnType<typeof koffi.struct> | undefined
function errorType(): ReturnType<typeof koffi.struct> {
  errorStruct ??= koffi.struct({ name: 'const char *', message: 'const char *' })
  return errorStruct
}

/** @throws Internal: the caller has made a message that no bus takes */
function check(result: number, call: string): void {
  if (result < 0)
    throw new RuntimeError('Internal', `cannot make a message to systemd: ${call}: ${errnoWords(-result)}`)
}

/** The bytes of a basic value as C has them; a text is its own bytes. */
function basicBytes(type: string, data: DbusData): Buffer {
  if (typeof data === 'string') {
    if (data.includes('\0')) throw new RuntimeError('InvalidArgument', 'a text for systemd has a NUL')
    return Buffer.from(`${data}\0`)
  }
  const bytes = Buffer.alloc(8)
  if (typeof data === 'boolean') bytes.writeInt32LE(data ? 1 : 0)
  else if (type === 'd') bytes.writeDoubleLE(Number(data))
  else if (typeof data === 'bigint') bytes.writeBigUInt64LE(BigInt.asUintN(64, data))
  else throw new RuntimeError('Internal', `cannot send ${messageOf(data)} to systemd as type "${type}"`)
  return bytes
}
