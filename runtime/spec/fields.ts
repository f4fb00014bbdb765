/**
 * Typed access to the fields of a parsed JSON object. Each reader returns the value in its type, or undefined when the
 * field is missing or null; otherwise it throws a specError with the field's JSON pointer. Invariant: no string from
 * here holds a NUL byte or a lone surrogate, so every string can be passed to the kernel.
 */
import { RuntimeError, specError } from '../errors.ts'
import { HIGHEST_ID } from '../sys/linux.ts'
import type { Json, JsonObject } from './json.ts'

/** Bounds of a number, both inclusive. */
export interface Range<T> {
  readonly min: T
  readonly max: T
}

/** Where the object of a number is, and what the number may be. */
interface RangeField<T> {
  readonly at: string
  readonly range: Range<T>
}

/** Where the object of a list or a map is, and how one of its values is read. */
interface ValuesField<T> {
  readonly at: string
  readonly read: (value: Json, at: string) => T
}

/** 0 to 2^32-1. */
export const UINT32: Range<number> = { min: 0, max: 0xffffffff }
/** A uid or gid. */
export const ID: Range<number> = { min: 0, max: HIGHEST_ID }
/** 0 to 2^64-1. */
export const UINT64: Range<bigint> = { min: 0n, max: 0xffffffffffffffffn }
/** -2^63 to 2^63-1. */
export const INT64: Range<bigint> = { min: -0x8000000000000000n, max: 0x7fffffffffffffffn }

/** The pointer of a field (RFC 6901). */
export function pointerTo(at: string, key: string | number): string {
  return `${at}/${String(key).replaceAll('~', '~0').replaceAll('/', '~1')}`
}

function kindOf(value: Json): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object') return 'an object'
  return typeof value === 'bigint' ? 'a number' : `a ${typeof value}`
}

function mismatch(at: string, expected: string, value: Json): Error {
  return specError(at, `expected ${expected}, found ${kindOf(value)}`)
}

/** A value that must be an object. */
export function asObject(value: Json, at: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw mismatch(at, 'an object', value)
  return value as JsonObject
}

/** A value that must be a string without NUL bytes. */
export function asString(value: Json, at: string): string {
  if (typeof value !== 'string') throw mismatch(at, 'a string', value)
  if (value.includes('\0')) throw specError(at, 'the string contains a NUL byte')
  if (!value.isWellFormed()) throw specError(at, 'the string is not valid Unicode')
  return value
}

/** A value that must be a whole number within bounds. */
export function asInteger(value: Json, at: string, range: Range<number>): number {
  if (typeof value === 'bigint') throw outOfRange(at, value, range)
  if (typeof value !== 'number') throw mismatch(at, 'a whole number', value)
  if (!Number.isInteger(value)) throw specError(at, `expected a whole number, found ${value}`)
  if (value < range.min || value > range.max) throw outOfRange(at, value, range)
  return value
}

function outOfRange(at: string, value: number | bigint, range: Range<number | bigint>): Error {
  return specError(at, `${value} is out of range, expected ${range.min} to ${range.max}`)
}

function field(object: JsonObject, key: string): Json | undefined {
  const value = object[key]
  return value === null ? undefined : value
}

/** An object, if present. */
export function objectField(object: JsonObject, key: string, at: string): JsonObject | undefined {
  const value = field(object, key)
  return value === undefined ? undefined : asObject(value, pointerTo(at, key))
}

/** A string, if present; it may be empty. */
function rawString(object: JsonObject, key: string, at: string): string | undefined {
  const value = field(object, key)
  return value === undefined ? undefined : asString(value, pointerTo(at, key))
}

/** A string, if present and not empty: in OCI documents an empty string means the same as a missing one. */
export function stringField(object: JsonObject, key: string, at: string): string | undefined {
  const value = rawString(object, key, at)
  return value === '' ? undefined : value
}

/** A string that must be present; `missing` says what is missing. */
export function requiredString(
  object: JsonObject,
  key: string,
  { at, missing }: { readonly at: string; readonly missing: string },
): string {
  const value = stringField(object, key, at)
  if (value === undefined) throw specError(pointerTo(at, key), missing)
  return value
}

/** One of a fixed set of words, if present. */
export function wordField<const W extends string>(
  object: JsonObject,
  key: string,
  { at, words, what }: { readonly at: string; readonly words: readonly W[]; readonly what: string },
): W | undefined {
  const value = stringField(object, key, at)
  if (value === undefined) return undefined
  const word = words.find((known) => known === value)
  if (word === undefined) throw specError(pointerTo(at, key), `unknown ${what} ${JSON.stringify(value)}`)
  return word
}

/** A truth value, if present. */
export function booleanField(object: JsonObject, key: string, at: string): boolean | undefined {
  const value = field(object, key)
  if (value === undefined) return undefined
  if (typeof value !== 'boolean') throw mismatch(pointerTo(at, key), 'true or false', value)
  return value
}

/** A number that fits a double exactly, if present. */
export function integerField(object: JsonObject, key: string, { at, range }: RangeField<number>): number | undefined {
  const value = field(object, key)
  return value === undefined ? undefined : asInteger(value, pointerTo(at, key), range)
}

/** A 64-bit number, if present. */
export function bigintField(object: JsonObject, key: string, { at, range }: RangeField<bigint>): bigint | undefined {
  const value = field(object, key)
  if (value === undefined) return undefined
  const pointer = pointerTo(at, key)
  if (typeof value !== 'number' && typeof value !== 'bigint') throw mismatch(pointer, 'a whole number', value)
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw specError(pointer, `expected a whole number, found ${value}`)
  }
  const exact = BigInt(value)
  if (exact < range.min || exact > range.max) throw outOfRange(pointer, exact, range)
  return exact
}

/** A list, each element read by `read`; undefined when absent, which differs from empty. */
export function optionalListField<T>(
  object: JsonObject,
  key: string,
  { at, read }: ValuesField<T>,
): readonly T[] | undefined {
  const value = field(object, key)
  if (value === undefined) return undefined
  const pointer = pointerTo(at, key)
  if (!Array.isArray(value)) throw mismatch(pointer, 'a list', value)
  return (value as readonly Json[]).map((item, index) => read(item, `${pointer}/${index}`))
}

/** A list, each element read by `read`; empty when absent. */
export function listField<T>(object: JsonObject, key: string, { at, read }: ValuesField<T>): readonly T[] {
  return optionalListField(object, key, { at, read }) ?? []
}

/** A map with any keys, each value read by `read`; empty when absent. */
export function mapField<T>(
  object: JsonObject,
  key: string,
  { at, read }: ValuesField<T>,
): Readonly<Record<string, T>> {
  const value = objectField(object, key, at)
  if (value === undefined) return {}
  const pointer = pointerTo(at, key)
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => {
      const itemAt = pointerTo(pointer, name)
      return [asString(name, itemAt), read(item, itemAt)]
    }),
  )
}

type Optional<T> = { [K in keyof T]: undefined extends T[K] ? K : never }[keyof T]

/** The result of `defined`: fields that could be undefined are optional. */
export type Defined<T> = { [K in Exclude<keyof T, Optional<T>>]: T[K] } & {
  [K in Optional<T>]?: Exclude<T[K], undefined>
}

/** Removes the undefined fields: an optional field is absent, never present and undefined. */
export function defined<T extends object>(fields: T): Defined<T> {
  const result: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(fields)) if (value !== undefined) result[key] = value
  return result as Defined<T>
}

/** The error for a feature of the specification that this runtime does not support. */
export function unsupported(at: string, what: string): RuntimeError {
  return new RuntimeError('Unimplemented', `${what} is not supported by this runtime (at ${at})`, {
    detail: { source: 'spec', pointer: at },
  })
}

/**
 * Refuses a field that this runtime does not support; an empty value asks for nothing and is accepted.
 * @throws Unimplemented
 */
export function refuseField(object: JsonObject, key: string, at: string): void {
  const value = field(object, key)
  if (value === undefined || value === '' || value === false) return
  if (typeof value === 'object' && value !== null && Object.keys(value).length === 0) return
  throw unsupported(pointerTo(at, key), `"${key}"`)
}
