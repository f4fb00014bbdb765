/**
 * ttrpc for Node, client and server: the RPC protocol between containerd and its shims. The messages and services of
 * containerd are in `ttrpc-ts/containerd`.
 */
export { packAny, typeNameOf, unpackAny } from './any.ts'
export {
  type CallOptions,
  type ClientOptions,
  createClient,
  type MetadataInput,
  type ServiceClient,
  TtrpcClient,
} from './client.ts'
export { Connection, type ConnectionLimits, type ConnectionOwner } from './connection.ts'
export {
  encodeFrame,
  FRAME_HEADER_BYTES,
  type Frame,
  FrameDecoder,
  FrameFlag,
  FrameType,
  MAX_MESSAGE_BYTES,
} from './frame.ts'
export { type Handler, type Interceptor, type ServerOptions, type ServiceHandlers, TtrpcServer } from './server.ts'
export type { CallContext } from './server-call.ts'
export type { Outcome, ServerLimits } from './server-connection.ts'
export type {
  Answer,
  InputOf,
  MessageInput,
  MessageType,
  MethodDescriptor,
  OutputOf,
  ServiceDescriptor,
} from './service.ts'
export { Code, codeName, errorOf, type StatusInfo, statusOf, TtrpcError } from './status.ts'
