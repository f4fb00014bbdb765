/**
 * The TOML of runtimeoptions.v1.Options, read by a library that only the shims of those containers load that have such a document.
 * Invariant: whatever is wrong with the text becomes one line that names its place; whole numbers stay exact.
 */
import { RuntimeError } from '../runtime/index.ts'

/** A value of a document: what options are made of, or anything else. */
export type TomlValue = string | bigint | boolean | object | number

const PREFIX = 'Invalid TOML document: '

/** The keys of a document; `where` names it in messages. @throws InvalidArgument with line and column */
export async function readToml(bytes: Uint8Array, where: string): Promise<Readonly<Record<string, TomlValue>>> {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new RuntimeError('InvalidArgument', `cannot read ${where}: it is not UTF-8`, { cause })
  }
  const { parse, TomlError } = await import('smol-toml')
  try {
    return parse(text, { integersAsBigInt: true })
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause
    // below its first line the library draws the place
    const [reason = ''] = cause.message.replace(PREFIX, '').split('\n')
    const message = `cannot read ${where}, line ${cause.line}, column ${cause.column}: ${reason}`
    throw new RuntimeError('InvalidArgument', message, { cause })
  }
}
