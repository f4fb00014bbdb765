/** The V8 options that the launcher gives Node, read from the header that it is compiled with, so that they are written once. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** The options, in their order. */
export function nodeFlags(): string[] {
  const header = readFileSync(join(import.meta.dirname, '../c/launcher/node_flags.h'), 'utf8')
  return [...header.matchAll(/"(--[^"]+)"/g)].flatMap(([, flag]) => flag ?? [])
}
