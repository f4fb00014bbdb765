/** What may not be written: forbidden words, and in tests a wait for a time in place of a wait for an event. */
import { SAYS_THE_WORDS, TEXTS, WORDS } from './rules.ts'
import { type Finding, isGenerated, lineAt, type Source } from './source.ts'

/** The first use of each forbidden word: of some in code, of others anywhere. */
export function checkWords({ path, text, code }: Source): Finding[] {
  if (isGenerated(path) || SAYS_THE_WORDS.some((place) => place.test(path))) return []
  const found: Finding[] = []
  for (const [rules, where] of [
    [WORDS, code],
    [TEXTS, text],
  ] as const) {
    for (const { place, word, why } of rules) {
      const match = place.test(path) ? word.exec(where) : null
      if (match !== null) found.push({ path, line: lineAt(where, match.index), what: `"${match[0].trim()}": ${why}` })
    }
  }
  return found
}

const MENTION =
  /(?<![\w./@$-])(?:(?:c|runtime|shim|proto|scripts|test)\/[\w/.-]+\.(?:ts|c|h)|[\w-]+(?:\/[\w-]+)+\.ts)\b/g

/** Files that a comment or a string names and that are not there. The first folders of a path may be left out. */
export function checkMentions({ path, text }: Source, paths: readonly string[]): Finding[] {
  if (isGenerated(path) || SAYS_THE_WORDS.some((place) => place.test(path))) return []
  return [...text.matchAll(MENTION)]
    .filter(([name]) => !paths.some((known) => known === name || known.endsWith(`/${name}`)))
    .map(({ 0: name, index }) => ({ path, line: lineAt(text, index), what: `names "${name}", which is not there` }))
}

const SLEEP =
  /\bawait (?:delay|sleep|setTimeout)\((?!0\))|\bawait new Promise(?:<\w+>)?\(\(\w+\) => setTimeout\(\w+, (?!0\))/g
/** A loop that looks again after each wait has a bound or an end, and is no bare wait. */
const LOOP = /\b(?:while|for|until)\b/

/** The lines that open the blocks that an offset is in, from the inside to the next function. */
function headsOfBlocks(code: string, offset: number): string[] {
  const heads: string[] = []
  let depth = 0
  for (let at = offset; at >= 0; at--) {
    if (code[at] === '}') depth++
    if (code[at] !== '{' || depth-- > 0) continue
    depth = 0
    heads.push(code.slice(code.lastIndexOf('\n', at) + 1, at))
    if (/=> $|\bfunction\b/.test(heads.at(-1) ?? '')) break
  }
  return heads
}

/**
 * Tests that wait for a time. A wait in a loop is none, nor is a turn of the event loop. `until` of
 * test/support/command.ts waits for what is to happen, with a bound.
 */
export function checkSleeps({ path, text, code }: Source): Finding[] {
  if (!path.startsWith('test/') || /^test\/(support|bench)\//.test(path)) return []
  return [...code.matchAll(SLEEP)].flatMap(({ index }) => {
    const line = code.slice(code.lastIndexOf('\n', index) + 1, index)
    if ([line, ...headsOfBlocks(code, index)].some((head) => LOOP.test(head))) return []
    const names = [...text.slice(0, index).matchAll(/\btest\(\s*(['"`])(.*?)\1/g)]
    const what = `"${names.at(-1)?.[2] ?? ''}" waits for a time: wait for what is to happen, with until()`
    return [{ path, line: lineAt(code, index), what }]
  })
}
