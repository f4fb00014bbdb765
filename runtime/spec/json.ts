/**
 * JSON with exact numbers: an integer that a double cannot hold becomes a bigint, so that RLIM_INFINITY or a seccomp
 * mask arrives unchanged. Everything else is JSON.parse. Invariant: a number in the result is exact, or it is not a
 * safe integer and the readers of fields.ts refuse it.
 */
import { messageOf, RuntimeError } from '../errors.ts'

/** A parsed JSON value. */
export type Json = null | boolean | number | bigint | string | readonly Json[] | JsonObject

/** A parsed JSON object. */
export interface JsonObject {
  readonly [key: string]: Json
}

const INTEGER = /^-?\d+$/
// a reviver costs a call per value, and without a long run of digits no number needs it
const LONG_NUMBER = /\d{16}/

/** Parses JSON text; `where` names the document in the message. @throws InvalidArgument */
export function parseJson(text: string, where = 'document'): Json {
  try {
    return LONG_NUMBER.test(text) ? (JSON.parse(text, exact) as Json) : (JSON.parse(text) as Json)
  } catch (error) {
    const reason = messageOf(error)
    throw new RuntimeError('InvalidArgument', `cannot parse ${where}: ${reason}`, { cause: error })
  }
}

function exact(_key: string, value: unknown, context?: { readonly source?: string }): unknown {
  if (typeof value !== 'number' || Number.isSafeInteger(value)) return value
  const source = context?.source
  return source !== undefined && INTEGER.test(source) ? BigInt(source) : value
}
