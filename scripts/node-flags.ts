/** The V8 options that the launcher gives to Node, read from the header that the launcher is compiled with. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** The options, in their order. */
export function nodeFlags(): string[] {
  const header = readFileSync(join(import.meta.dirname, '../c/launcher/node_flags.h'), 'utf8')
  return [...header.matchAll(/"(--[^"]+)"/g)].flatMap(([, flag]) => flag ?? [])
}
