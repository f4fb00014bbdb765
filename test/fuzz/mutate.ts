/**
 * Mutations of a JSON document that know its structure. A document is a tree whose leaves are JSON texts, so that it
 * can hold what no
 * JavaScript value can: the same key twice, a number of 400 digits, half a surrogate pair. Invariant: a Random with
 * the same seed makes the same mutations of the same document.
 */

/** JSON that may be more than one value can hold, or no JSON at all. */
export type Node =
  | { readonly kind: 'leaf'; text: string }
  | { readonly kind: 'list'; items: Node[] }
  | { readonly kind: 'object'; entries: [key: string, value: Node][] }

/** Numbers from a seed (the generator is mulberry32). */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** A whole number from 0 to below `bound`. */
  below(bound: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound)
  }

  /** One of a list that is not empty. */
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T
  }
}

/** The tree of a value. */
export function toNode(value: unknown): Node {
  if (Array.isArray(value)) return { kind: 'list', items: value.map(toNode) }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).map(([key, item]): [string, Node] => [JSON.stringify(key), toNode(item)])
    return { kind: 'object', entries }
  }
  return { kind: 'leaf', text: JSON.stringify(value) }
}

/** The text of a tree. */
function toText(node: Node): string {
  if (node.kind === 'leaf') return node.text
  if (node.kind === 'list') return `[${node.items.map(toText).join(',')}]`
  return `{${node.entries.map(([key, value]) => `${key}:${toText(value)}`).join(',')}}`
}

function copy(node: Node): Node {
  if (node.kind === 'leaf') return { ...node }
  if (node.kind === 'list') return { kind: 'list', items: node.items.map(copy) }
  return { kind: 'object', entries: node.entries.map(([key, value]) => [key, copy(value)]) }
}

const leaf = (text: string): Node => ({ kind: 'leaf', text })

/** What is too large for a config.json is refused without a look at it. */
const MOST_COPIED_CHARACTERS = 2_000_000

const ODD_VALUES = [
  ...['null', 'true', 'false', '""', '"x"', '" "', '[]', '{}', '[[]]', '[null]', '{"a":1}', '[{}]', '"\\u0000"'],
  ...['0', '-0', '-1', '1', '0.5', '1e3', '1e-7', '1E400', '-1e400', '2147483648', '-2147483649', '4294967295'],
  ...['4294967296', '9007199254740993', '9223372036854775807', '9223372036854775808', '-9223372036854775809'],
  ...['18446744073709551615', '18446744073709551616', '"1"', '"-1"', '"0x10"', '"NaN"'],
  ...['"\\ud800"', '"\\udc00\\ud800"', '"\\u2028\\n\\r\\t"', '"\\u001b[31m"', '"💥"', '"é"', '"e\\u0301"'],
  ...[
    '"/"',
    '"//"',
    '"."',
    '".."',
    '"/.."',
    '"../.."',
    '"/proc/self/fd/3"',
    '"/proc"',
    '"/dev"',
    '"a/b"',
    '"/a\\u0000b"',
  ],
]
const ODD_KEYS = [
  '"__proto__"',
  '"constructor"',
  '"toString"',
  '"hasOwnProperty"',
  '""',
  '"a/b~c"',
  '"\\ud800"',
  '"\\n"',
]
const STRING_PARTS = [
  '/',
  '/../',
  '..',
  ',',
  '=',
  ':',
  '-',
  '\\u0000',
  '\\n',
  ' ',
  '%s',
  '~',
  '\\ud83d',
  '0',
  '999999',
  'ü',
]

/** Everything that can be exchanged: the place of each node in the tree. */
function places(root: Node): { get: () => Node; set: (node: Node) => void; parent: Node | undefined }[] {
  const found: ReturnType<typeof places> = []
  const walk = (parent: Node): void => {
    if (parent.kind === 'list') {
      for (let i = 0; i < parent.items.length; i++) {
        found.push({ parent, get: () => parent.items[i] as Node, set: (node) => (parent.items[i] = node) })
        walk(parent.items[i] as Node)
      }
    } else if (parent.kind === 'object') {
      for (const entry of parent.entries) {
        found.push({ parent, get: () => entry[1], set: (node) => (entry[1] = node) })
        walk(entry[1])
      }
    }
  }
  walk(root)
  return found
}

function longString(random: Random): string {
  const unit = random.pick(['x', '/', '/a', 'é', '\\u0000', '\\ud800', ',', 'a=b,', '../', '0'])
  return `"${unit.repeat(1 + random.below(random.pick([300, 70_000, 1_100_000]) / unit.length))}"`
}

function deep(random: Random): string {
  const depth = 1 + random.below(random.pick([50, 20_000]))
  const [open, close] = random.pick([
    ['[', ']'],
    ['{"a":', '}'],
    ['[{"path":', '}]'],
  ] as const)
  return `${open.repeat(depth)}1${close.repeat(depth)}`
}

function number(random: Random): string {
  const digits = Array.from({ length: 1 + random.below(random.pick([3, 12, 22, 400])) }, () => random.below(10)).join(
    '',
  )
  return `${random.pick(['', '-'])}${digits.replace(/^0+(?=\d)/, '')}${random.pick(['', '', '', '.5', 'e5'])}`
}

function editString(random: Random, text: string): string {
  if (text.length < 2 || !text.startsWith('"')) return random.pick(ODD_VALUES)
  const inside = text.slice(1, -1)
  const at = random.below(inside.length + 1)
  // an escape that is cut in two is no JSON: that is tried as well
  const part = random.pick(STRING_PARTS)
  return random.below(3) === 0
    ? `"${inside.slice(0, at)}"`
    : `"${inside.slice(0, at)}${part}${inside.slice(at + random.below(3))}"`
}

/** Changes a tree in one place. `others` are trees that parts may come from. */
function mutateOnce(random: Random, root: Node, others: readonly Node[]): void {
  const all = places(root)
  if (all.length === 0) return
  const place = random.pick(all)
  const node = place.get()
  switch (random.below(12)) {
    case 0:
    case 1:
      place.set(leaf(random.pick(ODD_VALUES)))
      break
    case 2:
      place.set(leaf(number(random)))
      break
    case 3:
      place.set(leaf(random.below(4) === 0 ? longString(random) : deep(random)))
      break
    case 4:
    case 5:
      if (node.kind === 'leaf') place.set(leaf(editString(random, node.text)))
      break
    case 6:
      place.set(copy(random.pick(places(random.pick(others))).get()))
      break
    case 7: // the same key twice
      if (place.parent?.kind === 'object')
        place.parent.entries.push([random.pick(place.parent.entries)[0], copy(random.pick(all).get())])
      break
    case 8:
      if (place.parent?.kind === 'object') {
        const entry = random.pick(place.parent.entries)
        entry[0] = random.below(2) === 0 ? random.pick(ODD_KEYS) : editString(random, entry[0])
      }
      break
    case 9:
      if (place.parent?.kind === 'object') place.parent.entries.splice(random.below(place.parent.entries.length), 1)
      else if (place.parent?.kind === 'list') place.parent.items.splice(random.below(place.parent.items.length), 1)
      break
    case 10: // more of the same
      if (place.parent?.kind === 'list') {
        const wanted = 1 + random.below(random.pick([3, 100, 5000]))
        const count = Math.min(wanted, Math.ceil(MOST_COPIED_CHARACTERS / toText(node).length))
        for (let i = 0; i < count; i++) place.parent.items.push(copy(node))
      }
      break
    default:
      {
        // two places change theirs, unless one is in the other
        const other = random.pick(all)
        const [mine, theirs] = [copy(node), copy(other.get())]
        place.set(theirs)
        if (place.parent === other.parent) other.set(mine)
      }
      break
  }
}

/** Damage to the text itself. */
function breakText(random: Random, text: string): string {
  const at = random.below(text.length + 1)
  switch (random.below(4)) {
    case 0:
      return text.slice(0, at)
    case 1:
      return `${text.slice(0, at)}${random.pick(['"', '\\', '{', ']', ',', '\u0000', '\ud800', '\n', '1e', '\u2028'])}${text.slice(at)}`
    case 2:
      return text.slice(0, at) + text.slice(at + 1 + random.below(8))
    default:
      return `${text}${random.pick(['x', '{}', '\n\n', ' ', '\ufeff', '//'])}`
  }
}

/** A changed document, as text: mostly in one to four places, sometimes broken. */
export function mutate(random: Random, document: Node, others: readonly Node[]): string {
  const root = copy(document)
  const rounds = 1 + random.below(4)
  for (let i = 0; i < rounds; i++) mutateOnce(random, root, others)
  const text = toText(root)
  return random.below(20) === 0 ? breakText(random, text) : text
}
