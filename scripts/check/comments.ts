/** What comments must be like: a head for each file, a line for each export, short sentences with a named subject. */
import { type Comment, type Finding, isGenerated, type Source } from './source.ts'

/** The widest line that may hold a comment. */
const COMMENT_COLUMNS = 120
/** The most words of prose that a sentence may have. */
const SENTENCE_WORDS = 30

/** Words that hide who does something. */
const HIDDEN_SUBJECT = /\bwhoever\b|\bsomebody\b|\bnobody who\b|\bwho is none\b|\bthat is none\b|\bfor want of\b/gi
/** A line that starts something new: an item of a list, a tag, or a label such as `Attacker:`. */
const STARTS_ANEW = /^(?:[-*•] |\d+[.)] |@\w+|[A-Z]\w*(?: \w+){0,4}: )/
/** A drawing, a table, or a line of code: no prose. */
const DRAWN = /[│─┌└├┐┘▼▲]|--+>|<--+|==+>|\S {3,}\S|^\s*\||^ {3,}|[{};]$/
/** A word of prose, in contrast to a name of the code, a path, a number or an operator. */
const PROSE_WORD = /^["'“‘(]*[A-Za-z][A-Za-z'’-]*["'”’).,:;!?]*$/
const SENTENCE_END = /[.!?]["'”’)]*$/
const ABBREVIATION = /^\(?(?:e\.g|i\.e|cf|etc|vs)\.$/i

interface Word {
  readonly text: string
  readonly line: number
}

/** The paragraphs of a comment, as words. What stands in backquotes is a name, and counts as no word. */
function paragraphs({ line, lines }: Comment): Word[][] {
  const found: Word[][] = [[]]
  for (const [index, content] of lines.entries()) {
    const text = content.replace(/^ ?/, '')
    if (text.trim() === '' || DRAWN.test(text) || STARTS_ANEW.test(text.trim())) found.push([])
    if (DRAWN.test(text)) continue
    const words = text.replaceAll(/`[^`]*`/g, '0').split(/\s+/)
    found.at(-1)?.push(...words.filter((word) => word !== '').map((word) => ({ text: word, line: line + index })))
  }
  return found.filter((words) => words.length > 0)
}

function sentences(words: readonly Word[]): Word[][] {
  const found: Word[][] = [[]]
  for (const word of words) {
    found.at(-1)?.push(word)
    if (SENTENCE_END.test(word.text) && !ABBREVIATION.test(word.text)) found.push([])
  }
  return found.filter((sentence) => sentence.length > 0)
}

/** Comments that are too wide, sentences that are too long, and words that hide a subject. */
export function checkProse({ path, text, comments }: Source): Finding[] {
  const found: Finding[] = []
  const find = (line: number, what: string): number => found.push({ path, line, what })
  const textLines = text.split('\n')
  for (const comment of comments) {
    for (const [index, content] of comment.lines.entries()) {
      const line = comment.line + index
      const width = textLines[line - 1]?.length ?? 0
      if (width > COMMENT_COLUMNS) find(line, `a comment of ${width} columns, ${COMMENT_COLUMNS} are allowed`)
      for (const [word] of content.replaceAll(/`[^`]*`|"[^"]*"/g, ' ').matchAll(HIDDEN_SUBJECT))
        find(line, `"${word}" in a comment: name who it is`)
    }
    for (const sentence of paragraphs(comment).flatMap(sentences)) {
      const count = sentence.filter(({ text: word }) => PROSE_WORD.test(word)).length
      if (count > SENTENCE_WORDS)
        find(sentence[0]?.line ?? comment.line, `a sentence of ${count} words, ${SENTENCE_WORDS} are allowed`)
    }
  }
  return found
}

/** A file starts with a paragraph about its idea, and every export says in a line what it is. */
export function checkDocumentation({ path, text, exports }: Source): Finding[] {
  if (isGenerated(path) || !path.endsWith('.ts')) return []
  const found: Finding[] = []
  if (!/^(#!.*\n)?\/\*\*/.test(text)) found.push({ path, line: 1, what: 'has no head comment' })
  if (path.startsWith('test/') && !path.startsWith('test/support/')) return found
  const lines = text.split('\n')
  for (const [index, { name, line }] of exports.entries()) {
    // a type may share the comment of the value of its name, and overloads that of the first
    const isTwin = exports.findIndex((other) => other.name === name) < index
    let above = line - 2
    while (lines[above]?.startsWith('//')) above--
    if (!isTwin && !lines[above]?.trimEnd().endsWith('*/'))
      found.push({ path, line, what: `export ${name} has no comment` })
  }
  return found
}
