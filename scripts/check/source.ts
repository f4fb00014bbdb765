/**
 * Source files as the rules see them: code without comments and strings, comments as blocks, imports and exports.
 * This is a scanner and no parser. It relies on the formatter: a body's `{` is preceded by `)`, `=>` or a return type.
 */
import { dirname, join } from 'node:path'

/** Comments that belong together: one block, or `//` lines that follow each other. `line` is the line of the first. */
export interface Comment {
  readonly line: number
  readonly lines: readonly string[]
}

/** One import, or an export from another file. `names` is undefined where all names are taken. */
export interface Import {
  readonly target: string
  readonly line: number
  readonly typeOnly: boolean
  readonly names: readonly string[] | undefined
}

/** A name that a file exports. Classes count as types: they may be exported for their name alone. */
export interface Export {
  readonly name: string
  readonly line: number
  readonly isType: boolean
}

/**
 * A source file. `code` is `text` with spaces in place of comments, and quotation marks in place of what strings
 * contain.
 */
export interface Source {
  readonly path: string
  readonly text: string
  readonly code: string
  readonly comments: readonly Comment[]
  readonly imports: readonly Import[]
  readonly exports: readonly Export[]
}

/** A rule that is broken at a place. */
export interface Finding {
  readonly path: string
  readonly line: number
  readonly what: string
}

/** The number of the line, from 1, that an offset of the text is on. */
export function lineAt(text: string, offset: number): number {
  let line = 1
  for (let at = text.indexOf('\n'); at >= 0 && at < offset; at = text.indexOf('\n', at + 1)) line++
  return line
}

type Range = readonly [start: number, end: number]

/** The end of the template text that starts at `at`: behind its backtick, or behind a `${`. */
function endOfTemplateText(text: string, at: number): number {
  for (let i = at; i < text.length; i++) {
    if (text[i] === '\\') i++
    else if (text[i] === '`') return i + 1
    else if (text[i] === '$' && text[i + 1] === '{') return i + 2
  }
  return text.length
}

const STRING = /'(?:[^'\\\n]|\\[\s\S])*'|"(?:[^"\\\n]|\\[\s\S])*"/y
const COMMENT = /\/\*[\s\S]*?\*\/|\/\/[^\n]*/y
const REGULAR_EXPRESSION = /\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/y
/** Behind these a slash starts a regular expression; elsewhere it divides. */
const BEFORE_REGULAR_EXPRESSION = /(?:^|[(,=:[!&|?{};+\-*%~^<>\n]|\b(?:return|typeof|case|of|in))\s*$/

function tokenAt(pattern: RegExp, text: string, at: number): number | undefined {
  pattern.lastIndex = at
  return pattern.test(text) ? pattern.lastIndex : undefined
}

/** Where the comments and the literals of a text are. */
function scan(text: string): { comments: Range[]; literals: Range[] } {
  const comments: Range[] = []
  const literals: Range[] = []
  const openTemplates: number[] = []
  let depth = 0
  // `at` is the backtick, or the brace that ends what was put in
  const template = (at: number): number => {
    const end = endOfTemplateText(text, at + 1)
    literals.push([at, end])
    if (text[end - 1] === '{') openTemplates.push(depth)
    return end
  }
  for (const next = /['"`/{}]/g; ; ) {
    const at = next.exec(text)?.index
    if (at === undefined) return { comments, literals }
    const mark = text[at]
    if (mark === '{') depth++
    else if (mark === '}' && openTemplates.at(-1) === depth) {
      openTemplates.pop()
      next.lastIndex = template(at)
    } else if (mark === '}') depth--
    else if (mark === '`') next.lastIndex = template(at)
    else if (mark !== '/') {
      const end = tokenAt(STRING, text, at)
      if (end !== undefined) literals.push([at + 1, end - 1])
      next.lastIndex = end ?? at + 1
    } else {
      const end = tokenAt(COMMENT, text, at)
      if (end !== undefined) comments.push([at, end])
      const expression =
        end === undefined && BEFORE_REGULAR_EXPRESSION.test(text.slice(Math.max(0, at - 20), at))
          ? tokenAt(REGULAR_EXPRESSION, text, at)
          : undefined
      if (expression !== undefined) literals.push([at + 1, expression - 1])
      next.lastIndex = end ?? expression ?? at + 1
    }
  }
}

function covered(text: string, ranges: readonly Range[], cover: string): string {
  const parts: string[] = []
  let at = 0
  for (const [start, end] of ranges) {
    parts.push(text.slice(at, start), text.slice(start, end).replaceAll(/[^\n]/g, cover))
    at = end
  }
  return parts.join('') + text.slice(at)
}

/** What a line of a comment says, without the marks of the comment. */
function bare(line: string): string {
  return line
    .replace(/^\s*(?:\/\*\*?|\*\/|\*(?!\/)|\/\/)/, '')
    .replace(/\s*\*\/\s*$/, '')
    .trimEnd()
}

function blocks(text: string, ranges: readonly Range[]): Comment[] {
  const found: { line: number; lines: string[]; alone: boolean }[] = []
  for (const [start, end] of ranges) {
    const line = lineAt(text, start)
    const lines = text.slice(start, end).split('\n').map(bare)
    const alone = text.slice(text.lastIndexOf('\n', start) + 1, start).trim() === '' && text.startsWith('//', start)
    const before = found.at(-1)
    if (alone && before?.alone && before.line + before.lines.length === line) before.lines.push(...lines)
    else found.push({ line, lines, alone })
  }
  return found
}

const IMPORT =
  /^\s*(?:import|export)\s+(type\s+)?(\{[^}]*\}|\*(?:\s+as\s+\w+)?|\w+(?:\s*,\s*\{[^}]*\})?)\s+from\s+'([^']+)'|^import\s+'([^']+)'|(?:\{([^{}]*)\}\s*=\s*await\s+)?\bimport\('([^']+)'\)/gm
const EXPORT =
  /^export\s+(?:declare\s+)?(?:async\s+)?(?:abstract\s+)?(const|let|function\*?|class|interface|type)\s+(\w+)/gm

/** The names in the braces of an import, as the file that exports them calls them. */
function namesIn(clause: string): string[] {
  return clause
    .replaceAll(/[{}]/g, '')
    .split(',')
    .map((part) =>
      (
        part
          .trim()
          .replace(/^type\s+/, '')
          .split(/\s+as\s+|:/)[0] ?? ''
      ).trim(),
    )
    .filter((name) => name !== '')
}

function importsOf(path: string, text: string, code: string): Import[] {
  // what a template contains is no import, though it may read like one
  const matches = [...text.matchAll(IMPORT)].filter(({ 0: whole, index }) =>
    /\b(im|ex)port\b/.test(code.slice(index, index + whole.length)),
  )
  return matches.map((match) => {
    const [, type, clause, from, bareImport, dynamic, imported] = match
    const specifier = from ?? bareImport ?? imported ?? ''
    const named = clause?.startsWith('{') ? clause : dynamic
    return {
      target: specifier.startsWith('.') ? join(dirname(path), specifier) : specifier,
      line: lineAt(text, match.index + match[0].search(/\S/)),
      typeOnly: type !== undefined,
      names: named === undefined ? undefined : namesIn(named),
    }
  })
}

function exportsOf(code: string): Export[] {
  return [...code.matchAll(EXPORT)].map(({ 1: kind = '', 2: name = '', index }) => ({
    name,
    line: lineAt(code, index),
    isType: kind !== 'const' && kind !== 'let' && !kind.startsWith('function'),
  }))
}

/** Reads a file of TypeScript or C. */
export function parseSource(path: string, text: string): Source {
  const { comments, literals } = scan(text)
  const isTypeScript = path.endsWith('.ts')
  const code = covered(covered(text, literals, '"'), comments, ' ')
  return {
    path,
    text,
    code,
    comments: blocks(text, comments),
    imports: isTypeScript ? importsOf(path, text, code) : [],
    exports: isTypeScript ? exportsOf(code) : [],
  }
}

/** True of what a generator writes: most rules are about what people write. */
export function isGenerated(path: string): boolean {
  return /\/gen\/|\.gen\./.test(path)
}

/** The lines of code of a file: no comments, no blank lines. */
export function linesOfCode({ code }: Source): number {
  return code.split('\n').filter((line) => line.trim() !== '').length
}
