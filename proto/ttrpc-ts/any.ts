/**
 * google.protobuf.Any as containerd uses it: the type URL is the bare message name. Readers also accept the prefix
 * `type.googleapis.com/`, which other protobuf libraries put in front.
 */
import type { Any } from './gen/google-protobuf.ts'
import type { MessageInput, MessageType } from './service.ts'

const GOOGLE_PREFIX = 'type.googleapis.com/'

/** Wraps a message in an Any. */
export function packAny<T extends object>(type: MessageType<T>, message: MessageInput<T>): Any {
  return { typeUrl: type.typeName, value: type.encode(message) }
}

/** The message name in an Any's type URL. */
export function typeNameOf(any: Any): string {
  return any.typeUrl.startsWith(GOOGLE_PREFIX) ? any.typeUrl.slice(GOOGLE_PREFIX.length) : any.typeUrl
}

/** The wrapped message, or undefined when it is of another type. @throws Error when its bytes are malformed */
export function unpackAny<T extends object>(type: MessageType<T>, any: Any | undefined): T | undefined {
  return any !== undefined && typeNameOf(any) === type.typeName ? type.decode(any.value) : undefined
}
