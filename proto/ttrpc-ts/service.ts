/**
 * The types that generated bindings fill in: a message type with its codec, and a service with its methods. Bindings
 * hold data and codecs only. client.ts and server.ts open the sockets and do the waiting; they know services by these
 * types alone.
 */
import type { Reader, Writer } from './wire.ts'

/** What may be encoded as a `T`: on every level every field may be missing, which means its default. */
export type MessageInput<T> = { readonly [K in keyof T]?: FieldInput<T[K]> | undefined }

type Scalar = string | number | bigint | boolean | Uint8Array | undefined
type FieldInput<V> = V extends Scalar ? V : V extends readonly (infer E)[] ? readonly FieldInput<E>[] : MessageInput<V>

/** A message type: its full name, and its codec. */
export interface MessageType<T extends object> {
  /** Full protobuf name, which is also the type URL that containerd uses. */
  readonly typeName: string
  /** A message with all defaults, then the given fields. */
  create(fields?: Partial<T>): T
  /** The bytes of a message, without fields that have their default. */
  encode(message: MessageInput<T>): Uint8Array
  /** The message in these bytes, whose `bytes` fields are views of them; @throws Error when they are malformed. */
  decode(bytes: Uint8Array): T
  /** Appends a message to a writer. */
  write(writer: Writer, message: MessageInput<T>): void
  /** Reads fields until the reader's end and merges them into a message. */
  read(reader: Reader, into: T): T
}

/** One method of a service. */
export interface MethodDescriptor<I extends object, O extends object> {
  /** Bare name on the wire. */
  readonly name: string
  readonly input: MessageType<I>
  readonly output: MessageType<O>
}

/** A service: its full name and its methods by their names in TypeScript. */
export interface ServiceDescriptor {
  readonly typeName: string
  readonly methods: Readonly<Record<string, MethodDescriptor<object, object>>>
}

/** The message that a method takes. */
export type InputOf<M> = M extends { readonly input: MessageType<infer I> } ? I : never

/** The message that a method answers. */
export type OutputOf<M> = M extends { readonly output: MessageType<infer O> } ? O : never

/** What a handler may answer for `O`; nothing at all when `O` has no fields. */
// biome-ignore lint/suspicious/noConfusingVoidType: an async function without a return has the type Promise<void>
export type Answer<O> = [keyof O] extends [never] ? MessageInput<O> | undefined | void : MessageInput<O>
