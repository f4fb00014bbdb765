/** The functions of a file: where each starts and ends, and how many positional parameters it takes. */
import { lineAt, type Source } from './source.ts'

/** A function of a file, of TypeScript or C. */
export interface FoundFunction {
  readonly name: string
  readonly line: number
  readonly lines: number
  readonly parameters: number
}

const CLOSES: Readonly<Record<string, string>> = { '(': ')', '{': '}', '[': ']' }
/** Words that stand before parentheses and a body, and name no function. */
const STATEMENTS = new Set(['if', 'for', 'while', 'switch', 'catch', 'with', 'return', 'await', 'super', 'import'])
/** A name with its parentheses: a declaration, a method, or a constant that holds an arrow function. */
const CANDIDATE = /(?:\bconst (\w+)(?:: [^=\n]+)? = (?:async )?|([#\w]+))(?:<[^()\n]*>)?\(/g

/** For each opening bracket of the code, where it is closed. */
function bracketsOf(code: string): Map<number, number> {
  const ends = new Map<number, number>()
  const open: { at: number; closes: string }[] = []
  for (const { 0: mark, index } of code.matchAll(/[(){}[\]]/g)) {
    const closes = CLOSES[mark]
    if (closes !== undefined) open.push({ at: index, closes })
    else if (open.at(-1)?.closes === mark) ends.set(open.pop()?.at ?? 0, index)
  }
  return ends
}

/** How many parameters stand in the parentheses: the commas outside of inner brackets and type arguments, and one. */
function countParameters(list: string): number {
  let depth = 0
  let count = 0
  let something = false
  for (const mark of list.replaceAll('=>', '  ').replace(/^\s*this: \w+,?/, '')) {
    if ('([{<'.includes(mark)) depth++
    if (')]}>'.includes(mark)) depth--
    if (mark === ',' && depth === 0) {
      count++
      something = false
    } else if (mark.trim() !== '') something = true
  }
  return count + (something ? 1 : 0)
}

/**
 * The end of a return type that starts at `from`: the end of its line, or a `{` or `=>` that is no part of the type.
 */
function endOfType(code: string, from: number, brackets: ReadonlyMap<number, number>): number {
  let complete = false
  for (let at = from; at < code.length; at++) {
    const mark = code[at] ?? ''
    if (complete && (mark === '{' || code.startsWith('=>', at))) return at
    if (mark === '\n' && complete && !/^\s*[|&]/.test(code.slice(at, at + 40))) return at
    if (/[;)}\]]/.test(mark)) return at
    if (mark.trim() !== '') complete = !/[|&,<.]/.test(mark)
    at = brackets.get(at) ?? at
  }
  return code.length
}

/** The start of the body behind the parameters; undefined where this is a call, or a declaration without a body. */
function bodyAfter(code: string, close: number, brackets: ReadonlyMap<number, number>): number | undefined {
  const next = (at: number): number => at + (/^\s*/.exec(code.slice(at, at + 200))?.[0].length ?? 0)
  const behind = next(close + 1)
  const at = code[behind] === ':' ? next(endOfType(code, behind + 1, brackets)) : behind
  if (code.startsWith('=>', at)) return next(at + 2)
  return code[at] === '{' ? at : undefined
}

/** The functions of a source that have a name. */
export function functionsOf({ code }: Source): FoundFunction[] {
  const brackets = bracketsOf(code)
  return [...code.matchAll(CANDIDATE)].flatMap((match) => {
    const [whole, arrowName, plainName] = match
    const name = arrowName ?? plainName ?? ''
    const open = match.index + whole.length - 1
    const close = brackets.get(open)
    if (close === undefined || STATEMENTS.has(name)) return []
    const body = bodyAfter(code, close, brackets)
    if (body === undefined) return []
    const end = brackets.get(body) ?? body
    const line = lineAt(code, match.index)
    const parameters = countParameters(code.slice(open + 1, close))
    return [{ name, line, lines: lineAt(code, end) - line + 1, parameters }]
  })
}
