/**
 * The one error class of the runtime. Callers branch on `code`, never on the message; `detail` says by source what went wrong.
 * Message grammar: lower case, no period: action, quoted value, colon, reason.
 */

/** What kind of failure it is; named after the gRPC statuses. */
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

/** Where the failure came from. */
export type ErrorDetail =
  | { readonly source: 'none' }
  | {
      readonly source: 'syscall'
      readonly call: string
      readonly errno: number
      readonly path?: string
      /** what in config.json asked for it, where that is known */
      readonly pointer?: string
    }
  | { readonly source: 'spec'; readonly pointer: string }
  /** a container whose status does not allow it */
  | { readonly source: 'state'; readonly status: 'created' | 'running' | 'pausing' | 'paused' | 'stopped' }
  /** a hook of the host's side: `index` in the list of that name */
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

/** Messages quote configurations, images and hooks: no control character of theirs may begin another line of a log or drive a terminal. */
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

/** A refusal of something in config.json (or another OCI document), with the JSON pointer of the field. */
export function specError(pointer: string, message: string): RuntimeError {
  return new RuntimeError('InvalidArgument', `${message} (at ${pointer === '' ? '/' : pointer})`, {
    detail: { source: 'spec', pointer },
  })
}
