/**
 * A peer of D-Bus on a unix socket that a test answers for: systemd itself at its private socket, without a bus. It
 * speaks as much of the protocol as sd-bus needs: the greeting, calls, replies, errors and signals.
 */
import { rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import type { BusAddress } from '../../runtime/sys/sd-bus.ts'

/** A call as it came: its member, and the texts in it. */
export interface FakeCall {
  readonly member: string
  /** the body as latin1, in which a test looks for names */
  readonly body: string
}

/** What the peer does with a call. */
export type FakeAnswer =
  | { readonly reply: readonly (readonly [type: 's' | 'o' | 'v', text: string])[]; readonly after?: () => void }
  | { readonly error: string; readonly message: string }
  /** it never answers */
  | 'silence'
  /** it closes the connection */
  | 'hang up'

const REPLY_SERIAL = 5
const PATH = 1
const INTERFACE = 2
const MEMBER = 3
const ERROR_NAME = 4
const SIGNATURE = 8

class Writer {
  #parts: Buffer[] = []
  #length = 0

  bytes(bytes: Buffer): this {
    this.#parts.push(bytes)
    this.#length += bytes.length
    return this
  }

  align(to: number): this {
    return this.bytes(Buffer.alloc((to - (this.#length % to)) % to))
  }

  u8(...values: readonly number[]): this {
    return this.bytes(Buffer.from(values))
  }

  u32(value: number): this {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(value)
    return this.align(4).bytes(bytes)
  }

  text(text: string): this {
    return this.u32(Buffer.byteLength(text)).bytes(Buffer.from(`${text}\0`))
  }

  signature(text: string): this {
    return this.u8(text.length).bytes(Buffer.from(`${text}\0`))
  }

  get whole(): Buffer {
    return Buffer.concat(this.#parts)
  }
}

interface Fields {
  readonly type: number
  readonly serial: number
  readonly path?: string
  readonly interface?: string
  readonly member?: string
  readonly error?: string
  readonly replyTo?: number
  readonly signature: string
}

function message({ type, serial, ...fields }: Fields, body: Buffer): Buffer {
  const list = new Writer()
  const field = (code: number, signature: string, write: () => void): void => {
    list.align(8).u8(code).signature(signature)
    write()
  }
  if (fields.path !== undefined) field(PATH, 'o', () => list.text(fields.path ?? ''))
  if (fields.interface !== undefined) field(INTERFACE, 's', () => list.text(fields.interface ?? ''))
  if (fields.member !== undefined) field(MEMBER, 's', () => list.text(fields.member ?? ''))
  if (fields.error !== undefined) field(ERROR_NAME, 's', () => list.text(fields.error ?? ''))
  if (fields.replyTo !== undefined) field(REPLY_SERIAL, 'u', () => list.u32(fields.replyTo ?? 0))
  if (fields.signature !== '') field(SIGNATURE, 'g', () => list.signature(fields.signature))
  const header = new Writer().u8(0x6c, type, 0, 1).u32(body.length).u32(serial).u32(list.whole.length)
  return header.bytes(list.whole).align(8).bytes(body).whole
}

/** The fields of a call that a test needs. */
function parse(bytes: Buffer): { length: number; serial: number; member: string; body: string } | undefined {
  if (bytes.length < 16) return undefined
  const fieldsEnd = 16 + bytes.readUInt32LE(12)
  const start = Math.ceil(fieldsEnd / 8) * 8
  const length = start + bytes.readUInt32LE(4)
  if (bytes.length < length) return undefined
  let member = ''
  for (let at = 16; at < fieldsEnd; ) {
    at = Math.ceil(at / 8) * 8
    const code = bytes[at] ?? 0
    const type = String.fromCharCode(bytes[at + 2] ?? 0)
    at += 4
    if (type === 'g') at += 2 + (bytes[at] ?? 0)
    else if (type === 'u') at = Math.ceil(at / 4) * 4 + 4
    else {
      const size = bytes.readUInt32LE(at)
      if (code === MEMBER) member = bytes.toString('latin1', at + 4, at + 4 + size)
      at += 5 + size
    }
  }
  return { length, serial: bytes.readUInt32LE(8), member, body: bytes.toString('latin1', start, length) }
}

/** The peer; disposing it ends it. */
export class FakeSystemd implements AsyncDisposable {
  readonly calls: string[] = []
  readonly address: BusAddress
  readonly #path: string
  readonly #answer: (call: FakeCall) => FakeAnswer
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #serial = 1

  private constructor(path: string, answer: (call: FakeCall) => FakeAnswer, accepts: boolean) {
    this.#path = path
    this.#answer = answer
    this.address = { address: `unix:path=${path}`, direct: true }
    this.#server = createServer((socket) => {
      this.#sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => this.#sockets.delete(socket))
      this.#serve(socket, accepts)
    })
  }

  /** Listens at a path. One that does not accept its clients rejects their greeting. */
  static async at(path: string, answer: (call: FakeCall) => FakeAnswer, accepts = true): Promise<FakeSystemd> {
    const fake = new FakeSystemd(path, answer, accepts)
    await new Promise<void>((resolve) => fake.#server.listen(path, resolve))
    return fake
  }

  /** Tells every client that a job has ended. */
  jobRemoved(job: string, unit: string, result = 'done'): void {
    const body = new Writer().u32(1).text(job).text(unit).text(result).whole
    const fields = {
      type: 4,
      path: '/org/freedesktop/systemd1',
      interface: 'org.freedesktop.systemd1.Manager',
      member: 'JobRemoved',
      signature: 'uoss',
    }
    for (const socket of this.#sockets) socket.write(message({ ...fields, serial: this.#serial++ }, body))
  }

  /** Drops every client, as a restart does. */
  hangUp(): void {
    for (const socket of this.#sockets) socket.end()
  }

  #serve(socket: Socket, accepts: boolean): void {
    let rest = Buffer.alloc(0)
    let greeted = false
    socket.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk])
      const begin = rest.indexOf('BEGIN\r\n')
      if (!greeted && begin < 0) return
      if (!greeted) {
        greeted = true
        rest = rest.subarray(begin + 'BEGIN\r\n'.length)
        if (!accepts) {
          socket.end('REJECTED EXTERNAL\r\nERROR\r\nERROR\r\n')
          return
        }
        socket.write(`DATA\r\nOK ${'0'.repeat(31)}1\r\nAGREE_UNIX_FD\r\n`)
      }
      for (let call = parse(rest); call !== undefined; call = parse(rest)) {
        rest = rest.subarray(call.length)
        this.#handle(socket, call)
      }
    })
  }

  #handle(socket: Socket, call: FakeCall & { serial: number }): void {
    this.calls.push(call.member)
    const answer = this.#answer(call)
    if (answer === 'silence') return
    if (answer === 'hang up') {
      socket.destroy()
      return
    }
    if ('error' in answer) {
      const body = new Writer().text(answer.message).whole
      const fields = { type: 3, error: answer.error, replyTo: call.serial, signature: 's' }
      socket.write(message({ ...fields, serial: this.#serial++ }, body))
      return
    }
    const body = new Writer()
    for (const [type, text] of answer.reply) {
      if (type === 'v') body.signature('s')
      body.text(text)
    }
    const signature = answer.reply.map(([type]) => type).join('')
    const fields = { type: 2, replyTo: call.serial, signature }
    socket.write(message({ ...fields, serial: this.#serial++ }, body.whole))
    answer.after?.()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
    rmSync(this.#path, { force: true })
  }
}
