/**
 * Values in the text form of GVariant, as annotations give them: `uint64 5`, `'text'`, `['a', 'b']`, `@as []`. Pure. A
 * whole number without a type is a 32-bit one, as in GLib. Invariant: the whole text becomes one value of D-Bus, or an
 * error; nothing after the value is ignored.
 */
import { RuntimeError } from '../../errors.ts'
import { completeTypes, type DbusData, type DbusValue } from '../../sys/dbus-value.ts'

const KEYWORDS: ReadonlyMap<string, string> = new Map([
  ['boolean', 'b'],
  ['byte', 'y'],
  ['int16', 'n'],
  ['uint16', 'q'],
  ['int32', 'i'],
  ['uint32', 'u'],
  ['int64', 'x'],
  ['uint64', 't'],
  ['handle', 'h'],
  ['double', 'd'],
  ['string', 's'],
  ['objectpath', 'o'],
  ['signature', 'g'],
])

/** Bits and sign of the types of whole numbers. */
const WHOLE: ReadonlyMap<string, readonly [bits: number, signed: boolean]> = new Map([
  ['y', [8, false]],
  ['n', [16, true]],
  ['q', [16, false]],
  ['i', [32, true]],
  ['u', [32, false]],
  ['h', [32, true]],
  ['x', [64, true]],
  ['t', [64, false]],
])

const ESCAPES: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
}

const TOKEN =
  /\s*(?:([[\](){}<>,:])|(@[a-zA-Z({})]+)|(b?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))|([-+]?(?:\.?\d)[\w.]*(?:(?<=[eE])[-+]\d+)?|[-+]?(?:inf|infinity|nan)\b)|([a-z]\w*))/suy

type TokenKind = 'mark' | 'type' | 'text' | 'number' | 'word'

interface Token {
  readonly kind: TokenKind
  readonly text: string
}

/** What was written, before its type is known. */
type Node =
  | { readonly kind: 'number' | 'text' | 'bytes' | 'boolean'; readonly text: string }
  | { readonly kind: 'array' | 'tuple'; readonly items: readonly Node[] }
  | { readonly kind: 'dictionary'; readonly entries: readonly (readonly [Node, Node])[] }
  | { readonly kind: 'variant'; readonly inner: Node }
  | { readonly kind: 'typed'; readonly type: string; readonly inner: Node }

function refuse(why: string): RuntimeError {
  return new RuntimeError('InvalidArgument', why)
}

function tokens(text: string): Token[] {
  const found: Token[] = []
  const kinds: readonly TokenKind[] = ['mark', 'type', 'text', 'number', 'word']
  const end = text.trimEnd().length
  TOKEN.lastIndex = 0
  while (TOKEN.lastIndex < end) {
    const at = TOKEN.lastIndex
    const match = TOKEN.exec(text)
    const index = match?.slice(1).findIndex((group) => group !== undefined) ?? -1
    if (match === null || index < 0) throw refuse(`unexpected "${text.slice(at, end).trim()}"`)
    found.push({ kind: kinds[index] ?? 'mark', text: match[index + 1] ?? '' })
  }
  return found
}

class Parser {
  readonly #tokens: readonly Token[]
  #at = 0

  constructor(text: string) {
    this.#tokens = tokens(text)
  }

  whole(): Node {
    const node = this.#node()
    const rest = this.#tokens[this.#at]
    if (rest !== undefined) throw refuse(`unexpected "${rest.text}" after the value`)
    return node
  }

  #take(): Token {
    const token = this.#tokens[this.#at++]
    if (token === undefined) throw refuse('the value breaks off')
    return token
  }

  #isNext(text: string): boolean {
    const token = this.#tokens[this.#at]
    if (token?.kind !== 'mark' || token.text !== text) return false
    this.#at++
    return true
  }

  #expect(text: string): void {
    const token = this.#take()
    if (token.text !== text) throw refuse(`expected "${text}", got "${token.text}"`)
  }

  #node(): Node {
    const { kind, text } = this.#take()
    switch (kind) {
      case 'number':
        return { kind: 'number', text }
      case 'text':
        return text.startsWith('b') ? { kind: 'bytes', text: text.slice(1) } : { kind: 'text', text }
      case 'type':
        return { kind: 'typed', type: text.slice(1), inner: this.#node() }
      case 'word': {
        if (text === 'true' || text === 'false') return { kind: 'boolean', text }
        const type = KEYWORDS.get(text)
        if (type === undefined) throw refuse(`unknown word "${text}"`)
        return { kind: 'typed', type, inner: this.#node() }
      }
      case 'mark':
        return this.#container(text)
    }
  }

  #container(open: string): Node {
    if (open === '[') return { kind: 'array', items: this.#items(']') }
    if (open === '(') return { kind: 'tuple', items: this.#items(')') }
    if (open === '<') {
      const inner = this.#node()
      this.#expect('>')
      return { kind: 'variant', inner }
    }
    if (open !== '{') throw refuse(`unexpected "${open}"`)
    const entries: (readonly [Node, Node])[] = []
    while (!this.#isNext('}')) {
      const key = this.#node()
      this.#expect(':')
      entries.push([key, this.#node()])
      if (!this.#isNext(',')) {
        this.#expect('}')
        break
      }
    }
    return { kind: 'dictionary', entries }
  }

  #items(close: string): Node[] {
    const items: Node[] = []
    while (!this.#isNext(close)) {
      items.push(this.#node())
      if (!this.#isNext(',')) {
        this.#expect(close)
        break
      }
    }
    return items
  }
}

/** Reads a value. @throws InvalidArgument that says what is wrong with the text */
export function parseVariant(text: string): DbusValue {
  const node = new Parser(text).whole()
  const signature = typeOf(node)
  return { signature, data: convert(node, signature) }
}

/** The type of what was written, where nothing around it tells another. */
function typeOf(node: Node): string {
  switch (node.kind) {
    case 'boolean':
      return 'b'
    case 'text':
      return 's'
    case 'bytes':
      return 'ay'
    case 'number':
      return isFraction(node.text) ? 'd' : 'i'
    case 'variant':
      return 'v'
    case 'typed':
      checkType(node.type)
      return node.type
    case 'tuple':
      return `(${node.items.map(typeOf).join('')})`
    case 'array':
      return `a${common(node.items)}`
    case 'dictionary':
      return `a{${common(node.entries.map(([key]) => key))}${common(node.entries.map(([, value]) => value))}}`
  }
}

function checkType(type: string): void {
  if (/[^abynqiuxthdsogv(){}]/.test(type)) throw refuse(`unknown type "${type}"`)
  let types: readonly string[]
  try {
    types = completeTypes(type)
  } catch {
    throw refuse(`unknown type "${type}"`)
  }
  if (types.length !== 1) throw refuse(`"${type}" is not one type`)
}

/** The type that all members of an array have: one that says its type decides for the others. */
function common(items: readonly Node[]): string {
  if (items.length === 0) throw refuse('an empty list needs its type before it, as in "@as []"')
  const types = items.map(typeOf)
  const told = types[items.findIndex(({ kind }) => kind === 'typed')]
  if (told !== undefined) return told
  return types.includes('d') ? 'd' : (types[0] ?? '')
}

function isFraction(text: string): boolean {
  return /inf|nan/.test(text) || (/[.eE]/.test(text) && !/^[-+]?0[xX]/.test(text))
}

/** The data of what was written, as a type asks for it. */
function convert(node: Node, type: string): DbusData {
  if (node.kind === 'typed') {
    if (node.type !== type) throw refuse(`a value of type "${node.type}" stands where one of type "${type}" must be`)
    checkType(type)
    return convert(node.inner, type)
  }
  const wrong = (): RuntimeError => refuse(`a ${node.kind} stands where a value of type "${type}" must be`)
  if (type === 'v') {
    const inner = node.kind === 'variant' ? node.inner : undefined
    if (inner === undefined) throw wrong()
    const signature = typeOf(inner)
    return { signature, data: convert(inner, signature) }
  }
  switch (node.kind) {
    case 'boolean':
      if (type !== 'b') throw wrong()
      return node.text === 'true'
    case 'number':
      return numberOf(node.text, type)
    case 'text':
      if (type !== 's' && type !== 'o' && type !== 'g') throw wrong()
      return unquote(node.text)
    case 'bytes':
      if (type !== 'ay') throw wrong()
      // GVariant ends a byte string with NUL
      return new TextEncoder().encode(`${unquote(node.text)}\0`)
    case 'array': {
      if (!type.startsWith('a') || type.startsWith('a{')) throw wrong()
      return node.items.map((item) => convert(item, type.slice(1)))
    }
    case 'dictionary': {
      if (!type.startsWith('a{')) throw wrong()
      const [key = '', value = ''] = completeTypes(type.slice(2, -1))
      return node.entries.map(([k, v]) => [convert(k, key), convert(v, value)])
    }
    case 'tuple': {
      const types = type.startsWith('(') ? completeTypes(type.slice(1, -1)) : []
      if (types.length === 0 || types.length !== node.items.length) throw wrong()
      return node.items.map((item, i) => convert(item, types[i] ?? ''))
    }
    case 'variant':
      throw wrong()
  }
}

function numberOf(text: string, type: string): bigint | number {
  if (type === 'd') {
    const value = Number(text.replace('infinity', 'inf').replace('inf', 'Infinity').replace('nan', 'NaN'))
    if (Number.isNaN(value) && !text.endsWith('nan')) throw refuse(`"${text}" is no number`)
    return value
  }
  const [bits, signed] = WHOLE.get(type) ?? []
  if (bits === undefined) throw refuse(`the number ${text} stands where a value of type "${type}" must be`)
  const negative = text.startsWith('-')
  // as in C: a leading 0 means octal
  const digits = text.replace(/^[-+]/, '').replace(/^0(?=\d)/, '0o')
  if (!/^(\d+|0[xX][\da-fA-F]+|0o[0-7]+)$/.test(digits)) throw refuse(`"${text}" is no whole number`)
  const value = negative ? -BigInt(digits) : BigInt(digits)
  if (value !== (signed ? BigInt.asIntN(bits, value) : BigInt.asUintN(bits, value))) {
    throw refuse(`the number ${text} is out of range for the type "${type}"`)
  }
  return value
}

function unquote(quoted: string): string {
  return quoted.slice(1, -1).replace(/\\(u[\da-fA-F]{4}|U[\da-fA-F]{8}|.)/gsu, (_, sequence: string) => {
    if (/^[uU]./.test(sequence)) return String.fromCodePoint(Number.parseInt(sequence.slice(1), 16))
    return ESCAPES[sequence] ?? sequence
  })
}
