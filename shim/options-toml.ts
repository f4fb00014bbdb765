/**
 * Reads the TOML of runtimeoptions.v1.Options. The library for it is loaded only when a container comes with such a
 * document.
 *
 * Invariants: a mistake in the text becomes an error of one line that names its place. Whole numbers stay exact.
 */
import { RuntimeError } from '../runtime/index.ts'

/** A value of a document. Options are strings, whole numbers and booleans; everything else is here to be refused. */
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
    // the other lines of the library's message are a drawing of the place
    const [reason = ''] = cause.message.replace(PREFIX, '').split('\n')
    const message = `cannot read ${where}, line ${cause.line}, column ${cause.column}: ${reason}`
    throw new RuntimeError('InvalidArgument', message, { cause })
  }
}
