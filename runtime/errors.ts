/**
 * The one error class of the runtime. Callers branch on `code`, never on the message; `detail` describes the failure by
 * its source. Grammar of a message: lower case, no period; action, quoted value, colon, reason.
 */

/** The kind of a failure, named after the gRPC statuses. */
export type RuntimeErrorCode =
  | 'NotFound'
  | 'AlreadyExists'
  | 'InvalidArgument'
  | 'FailedPrecondition'
  | 'PermissionDenied'
  | 'ResourceExhausted'
  | 'Unavailable'
  | 'DeadlineExceeded'
  | 'Canceled'
  | 'Unimplemented'
  | 'Internal'

/** The source of a failure. */
export type ErrorDetail =
  | { readonly source: 'none' }
  | {
      readonly source: 'syscall'
      readonly call: string
      readonly errno: number
      readonly path?: string
      /** the place in config.json that asked for the call, if known */
      readonly pointer?: string
    }
  | { readonly source: 'spec'; readonly pointer: string }
  /** the container's status does not allow the operation */
  | { readonly source: 'state'; readonly status: 'created' | 'running' | 'pausing' | 'paused' | 'stopped' }
  /** a hook on the host side: `index` in the list called `name` */
  | {
      readonly source: 'hook'
      readonly name: string
      readonly index: number
      readonly timedOut: boolean
      readonly stdout: string
      readonly stderr: string
    }
  | {
      readonly source: 'helper'
      readonly op: string
      readonly opIndex: number
      readonly errno: number
      readonly step: string
      readonly pointer?: string
    }

/**
 * Escapes control characters: a message quotes configurations, images and hooks, which must not begin a new log line or
 * drive a terminal.
 */
function oneLine(message: string): string {
  return message.replace(/[\x00-\x1f\x7f-\x9f]/g, (byte) => `\\x${byte.charCodeAt(0).toString(16).padStart(2, '0')}`)
}

/** Every deliberate failure of the runtime. Its message is one line: control characters are escaped. */
export class RuntimeError extends Error {
  readonly code: RuntimeErrorCode
  readonly detail: ErrorDetail

  constructor(code: RuntimeErrorCode, message: string, options: { detail?: ErrorDetail; cause?: unknown } = {}) {
    super(oneLine(message), options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'RuntimeError'
    this.code = code
    this.detail = options.detail ?? { source: 'none' }
  }
}

/** The refusal of a field of config.json, or of another OCI document, by its JSON pointer. */
export function specError(pointer: string, message: string): RuntimeError {
  return new RuntimeError('InvalidArgument', `${message} (at ${pointer === '' ? '/' : pointer})`, {
    detail: { source: 'spec', pointer },
  })
}

/** The message of anything that was thrown. When several steps of an undo have failed, it has the message of each. */
export function messageOf(error: unknown): string {
  if (error instanceof SuppressedError) return `${messageOf(error.suppressed)}; ${messageOf(error.error)}`
  return error instanceof Error ? error.message : String(error)
}
