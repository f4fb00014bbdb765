/**
 * How calls fail: the codes, the one error class of this package, and the translation between it and google.rpc.Status.
 * A peer gets a code, a message and details, and never a stack.
 */
import type { Any } from './gen/google-protobuf.ts'
import type { RpcStatus } from './gen/google-rpc.ts'

/** The codes of gRPC, which ttrpc shares. */
export const Code = {
  OK: 0,
  CANCELED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const

/** A failure as it is sent. */
export interface StatusInfo {
  readonly code: number
  readonly message: string
  readonly details?: readonly Any[]
}

/** A failed call. Handlers throw it to choose the answer; clients throw it when they receive one. */
export class TtrpcError extends Error {
  /** One of `Code`, or another number that the peer has sent. */
  readonly code: number
  readonly details: readonly Any[]

  constructor(
    code: number,
    message: string,
    options: { readonly details?: readonly Any[]; readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'TtrpcError'
    this.code = code
    this.details = options.details ?? []
  }
}

/** The name of a code, for logs: `NOT_FOUND`. */
export function codeName(code: number): string {
  for (const [name, value] of Object.entries(Code)) if (value === code) return name
  return `CODE_${code}`
}

/** The failure to send for a thrown value: a TtrpcError as it is, anything else as Unknown with its message. */
export function statusOf(error: unknown): StatusInfo {
  if (error instanceof TtrpcError) return error
  return { code: Code.UNKNOWN, message: error instanceof Error ? error.message : String(error) }
}

/** The error that a received status stands for, or undefined when it says OK. */
export function errorOf(status: RpcStatus | undefined): TtrpcError | undefined {
  if (status === undefined || status.code === Code.OK) return undefined
  return new TtrpcError(status.code, status.message, { details: status.details })
}
