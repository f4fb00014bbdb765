/**
 * The meaning of the words in a mount's `options`: attributes of the one mount, attributes of its whole tree,
 * propagation, the runtime's own extensions, and options of the file system. Later words win over earlier ones. The
 * meanings are those of mount(8), mount_setattr(2) and the OCI table of mount options; the bits are the kernel's.
 */
import { PROPAGATION_FLAGS } from '../sys/linux.ts'
import type { Propagation } from './types.ts'

/** MOUNT_ATTR_* bits of mount_setattr(2). */
export const MOUNT_ATTR = {
  RDONLY: 0x1n,
  NOSUID: 0x2n,
  NODEV: 0x4n,
  NOEXEC: 0x8n,
  /** the mask of the access-time mode; must be in `clear` whenever a mode is set */
  ATIME_MODE: 0x70n,
  NOATIME: 0x10n,
  STRICTATIME: 0x20n,
  NODIRATIME: 0x80n,
  NOSYMFOLLOW: 0x200000n,
} as const

/** Bits to set and to clear. */
export interface AttributeChange {
  readonly set: bigint
  readonly clear: bigint
}

/** MS_* propagation flags of mount(2). */
export const PROPAGATION: Readonly<Record<Propagation, number>> = PROPAGATION_FLAGS

const { RDONLY, NOSUID, NODEV, NOEXEC, ATIME_MODE, NOATIME, STRICTATIME, NODIRATIME, NOSYMFOLLOW } = MOUNT_ATTR

/** Words that change an attribute; with the prefix "r" they change the whole tree. */
const ATTRIBUTES: ReadonlyMap<string, AttributeChange> = new Map([
  ['ro', { set: RDONLY, clear: 0n }],
  ['rw', { set: 0n, clear: RDONLY }],
  ['nosuid', { set: NOSUID, clear: 0n }],
  ['suid', { set: 0n, clear: NOSUID }],
  ['nodev', { set: NODEV, clear: 0n }],
  ['dev', { set: 0n, clear: NODEV }],
  ['noexec', { set: NOEXEC, clear: 0n }],
  ['exec', { set: 0n, clear: NOEXEC }],
  ['noatime', { set: NOATIME, clear: ATIME_MODE }],
  ['atime', { set: 0n, clear: ATIME_MODE }],
  ['strictatime', { set: STRICTATIME, clear: ATIME_MODE }],
  ['nostrictatime', { set: 0n, clear: ATIME_MODE }],
  // relatime is the mode without a bit, and the kernel's default
  ['relatime', { set: 0n, clear: ATIME_MODE }],
  ['norelatime', { set: 0n, clear: ATIME_MODE }],
  ['nodiratime', { set: NODIRATIME, clear: 0n }],
  ['diratime', { set: 0n, clear: NODIRATIME }],
  ['nosymfollow', { set: NOSYMFOLLOW, clear: 0n }],
  ['symfollow', { set: 0n, clear: NOSYMFOLLOW }],
])

const RECURSIVE_ATTRIBUTES: ReadonlyMap<string, AttributeChange> = new Map(
  [...ATTRIBUTES].map(([word, change]) => [`r${word}`, change]),
)

/**
 * Words about access times that only undo an earlier word, with the bits that it set ("relatime" sets none). They
 * cannot change what a bind inherits from its source: mount(2) keeps the access times of a mount unless a mode is
 * named.
 */
const TAKES_BACK: ReadonlyMap<string, bigint> = new Map([
  ['atime', NOATIME],
  ['nostrictatime', STRICTATIME],
  ['norelatime', 0n],
  ['diratime', NODIRATIME],
])

/** Words about the superblock that every file system accepts, each with the word that it undoes. */
const SUPERBLOCK: ReadonlyMap<string, { readonly undoes: string; readonly keep: boolean }> = new Map([
  ['sync', { undoes: 'async', keep: true }],
  ['async', { undoes: 'sync', keep: false }],
  ['dirsync', { undoes: '', keep: true }],
  ['lazytime', { undoes: 'nolazytime', keep: true }],
  ['nolazytime', { undoes: 'lazytime', keep: false }],
  ['mand', { undoes: 'nomand', keep: true }],
  ['nomand', { undoes: 'mand', keep: false }],
  ['iversion', { undoes: 'noiversion', keep: true }],
  ['noiversion', { undoes: 'iversion', keep: false }],
])

/** Words without an effect on a new mount: the default options, and how much the kernel logs. */
const WITHOUT_EFFECT: ReadonlySet<string> = new Set(['defaults', 'silent', 'loud'])

/** Words of the specification that the runtime cannot honour and refuses. */
const UNSUPPORTED: ReadonlySet<string> = new Set(['remount'])

/** All words with a meaning here, sorted, for `features`. */
export const MOUNT_OPTION_WORDS: readonly string[] = [
  ...ATTRIBUTES.keys(),
  ...RECURSIVE_ATTRIBUTES.keys(),
  ...SUPERBLOCK.keys(),
  ...WITHOUT_EFFECT,
  ...Object.keys(PROPAGATION),
  'bind',
  'rbind',
  'idmap',
  'ridmap',
  'tmpcopyup',
].sort()

/** The parsed options of a mount. */
export interface MountOptions {
  readonly bind: 'no' | 'bind' | 'rbind'
  readonly attributes: AttributeChange
  /** attributes of its source that a bind loses: if its words name any attribute, all that they do not name */
  readonly dropped: bigint
  readonly recursive: AttributeChange
  /** MS_* values, to be applied in this order */
  readonly propagation: readonly number[]
  readonly copyUp: boolean
  /** whether ids are mapped: on the mount, or with "ridmap" on its sub-mounts too */
  readonly idmap: 'no' | 'idmap' | 'ridmap'
  /** words about the superblock, for a new file system */
  readonly superblock: readonly string[]
  /** words for the file system */
  readonly data: readonly string[]
  /** words that cannot be honoured, with their indexes in the list */
  readonly unsupported: readonly { readonly word: string; readonly index: number }[]
}

const UNCHANGED: AttributeChange = { set: 0n, clear: 0n }
const TIMES = ATIME_MODE | NODIRATIME

function apply(to: AttributeChange, change: AttributeChange): AttributeChange {
  const touched = change.set | change.clear
  return { set: (to.set & ~touched) | change.set, clear: (to.clear & ~touched) | change.clear }
}

function takeBack(from: AttributeChange, bits: bigint): AttributeChange {
  if (bits === NODIRATIME) return { ...from, set: from.set & ~NODIRATIME }
  const chosen = (from.clear & ATIME_MODE) !== 0n && (from.set & ATIME_MODE) === bits
  return chosen ? { set: from.set & ~ATIME_MODE, clear: from.clear & ~ATIME_MODE } : from
}

/**
 * The attributes that a remount with exactly the named words would clear. Those about access times are cleared only if
 * one of their words is named.
 */
function droppedBy({ set, clear }: AttributeChange, isNamed: boolean): bigint {
  if (!isNamed) return 0n
  const times = ((set | clear) & TIMES) === 0n ? 0n : TIMES
  return (RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW | times) & ~(set | clear)
}

/** Parses the options of one mount. Pure; never throws. */
export function parseMountOptions(options: readonly string[]): MountOptions {
  let bind: MountOptions['bind'] = 'no'
  let attributes = UNCHANGED
  let recursive = UNCHANGED
  let isNamed = false
  let copyUp = false
  let idmap: MountOptions['idmap'] = 'no'
  let superblock: string[] = []
  const propagation: number[] = []
  const data: string[] = []
  const unsupported: { word: string; index: number }[] = []
  for (const [index, word] of options.entries()) {
    const own = ATTRIBUTES.get(word)
    const tree = RECURSIVE_ATTRIBUTES.get(word)
    const shared = SUPERBLOCK.get(word)
    const takenBack = TAKES_BACK.get(word)
    if (takenBack !== undefined) attributes = takeBack(attributes, takenBack)
    else if (own !== undefined) attributes = apply(attributes, own)
    else if (tree !== undefined) recursive = apply(recursive, tree)
    else if (shared !== undefined) {
      superblock = superblock.filter((other) => other !== shared.undoes && other !== word)
      if (shared.keep) superblock.push(word)
    } else if (Object.hasOwn(PROPAGATION, word)) propagation.push(PROPAGATION[word as Propagation])
    else if (word === 'bind' || word === 'rbind') bind = word
    else if (word === 'tmpcopyup') copyUp = true
    else if (word === 'idmap' || word === 'ridmap') idmap = word
    else if (UNSUPPORTED.has(word) || word.startsWith('idmap=') || word.startsWith('ridmap=')) {
      unsupported.push({ word, index })
    } else if (word !== '' && !WITHOUT_EFFECT.has(word)) data.push(word)
    isNamed ||= (own !== undefined && takenBack === undefined) || shared?.keep === true || word === 'silent'
  }
  const dropped = droppedBy(attributes, isNamed)
  return { bind, attributes, dropped, recursive, propagation, copyUp, idmap, superblock, data, unsupported }
}

/**
 * The words for a file system as single options, "key=value" or "flag". Commas separate them, except between double
 * quotes, which mount(8) uses for SELinux contexts. Quotes around a value are removed.
 */
export function singleOptions(words: readonly string[]): string[] {
  const options: string[] = []
  let quoted = false
  for (const piece of words.join(',').split(',')) {
    options.push(quoted ? `${options.pop()},${piece}` : piece)
    // an odd number of quotes
    if (piece.split('"').length % 2 === 0) quoted = !quoted
  }
  return options.filter((option) => option !== '').map((option) => option.replace(/^([^=]*=)"(.*)"$/s, '$1$2'))
}
