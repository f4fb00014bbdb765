/** The words of mount options, one by one and in combination. */
import { describe, expect, test } from 'vitest'
import {
  MOUNT_ATTR,
  MOUNT_OPTION_WORDS,
  parseMountOptions,
  singleOptions,
} from '../../../runtime/spec/mount-options.ts'

const { RDONLY, NOSUID, NODEV, NOEXEC, ATIME_MODE, NOATIME, STRICTATIME, NODIRATIME, NOSYMFOLLOW } = MOUNT_ATTR

const ATTRIBUTES: [words: string, set: bigint, clear: bigint][] = [
  ['ro', RDONLY, 0n],
  ['rw', 0n, RDONLY],
  ['ro,rw', 0n, RDONLY],
  ['rw,ro', RDONLY, 0n],
  ['nosuid', NOSUID, 0n],
  ['suid', 0n, NOSUID],
  ['nodev,noexec', NODEV | NOEXEC, 0n],
  ['nodev,dev,noexec,exec', 0n, NODEV | NOEXEC],
  ['noatime', NOATIME, ATIME_MODE],
  ['strictatime', STRICTATIME, ATIME_MODE],
  ['noatime,strictatime', STRICTATIME, ATIME_MODE],
  ['strictatime,noatime', NOATIME, ATIME_MODE],
  ['noatime,relatime', 0n, ATIME_MODE],
  ['nodiratime,noatime', NODIRATIME | NOATIME, ATIME_MODE],
  ['nosymfollow', NOSYMFOLLOW, 0n],
  ['nosymfollow,symfollow', 0n, NOSYMFOLLOW],
]

/** Words that take back an earlier one: of a whole tree they clear what is there, of one mount nothing. */
const TAKEN_BACK: [words: string, set: bigint, clear: bigint, treeSet: bigint, treeClear: bigint][] = [
  ['noatime,atime', 0n, 0n, 0n, ATIME_MODE],
  ['atime', 0n, 0n, 0n, ATIME_MODE],
  ['strictatime,atime', STRICTATIME, ATIME_MODE, 0n, ATIME_MODE],
  ['strictatime,nostrictatime', 0n, 0n, 0n, ATIME_MODE],
  ['nostrictatime', 0n, 0n, 0n, ATIME_MODE],
  ['relatime,norelatime', 0n, 0n, 0n, ATIME_MODE],
  ['norelatime', 0n, 0n, 0n, ATIME_MODE],
  ['diratime', 0n, 0n, 0n, NODIRATIME],
  ['nodiratime,noatime,diratime', NOATIME, ATIME_MODE, NOATIME, ATIME_MODE | NODIRATIME],
]

const OTHERS = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW

describe('parseMountOptions()', () => {
  test.each(TAKEN_BACK)('%s', (words, set, clear, treeSet, treeClear) => {
    expect(parseMountOptions(words.split(',')).attributes).toEqual({ set, clear })
    const tree = parseMountOptions(words.split(',').map((word) => `r${word}`))
    expect(tree.recursive).toEqual({ set: treeSet, clear: treeClear })
  })

  test.each([
    ['', 0n],
    ['bind,rslave,defaults,async,loud,atime,diratime,rro', 0n],
    ['ro', OTHERS & ~RDONLY],
    ['rw,exec', OTHERS & ~RDONLY & ~NOEXEC],
    ['sync', OTHERS],
    ['silent', OTHERS],
    ['ro,atime', OTHERS & ~RDONLY],
    ['noatime', OTHERS | NODIRATIME],
    ['relatime', OTHERS | NODIRATIME],
    ['nodiratime', OTHERS | ATIME_MODE],
  ])('a bind of %s loses what is not named', (words, dropped) => {
    expect(parseMountOptions(words.split(',')).dropped).toBe(dropped)
  })

  test.each(ATTRIBUTES)('%s', (words, set, clear) => {
    const parsed = parseMountOptions(words.split(','))
    expect(parsed.attributes).toEqual({ set, clear })
    expect(parsed.recursive).toEqual({ set: 0n, clear: 0n })
    expect(parsed.data).toEqual([])
  })

  test.each(ATTRIBUTES)('%s for the whole tree', (words, set, clear) => {
    const parsed = parseMountOptions(words.split(',').map((word) => `r${word}`))
    expect(parsed.recursive).toEqual({ set, clear })
    expect(parsed.attributes).toEqual({ set: 0n, clear: 0n })
    expect(parsed.data).toEqual([])
  })

  test.each([
    ['private', [1 << 18]],
    ['rprivate', [(1 << 18) | 16384]],
    ['slave', [1 << 19]],
    ['rshared', [(1 << 20) | 16384]],
    ['unbindable', [1 << 17]],
    ['private,slave', [1 << 18, 1 << 19]],
  ])('propagation %s', (words, propagation) => {
    expect(parseMountOptions(words.split(',')).propagation).toEqual(propagation)
  })

  test.each([
    ['sync', ['sync']],
    ['sync,async', []],
    ['async,sync', ['sync']],
    ['dirsync,lazytime', ['dirsync', 'lazytime']],
    ['lazytime,nolazytime', []],
    ['mand,nomand,iversion', ['iversion']],
    ['iversion,noiversion', []],
    ['sync,sync', ['sync']],
  ])('superblock words %s', (words, superblock) => {
    expect(parseMountOptions(words.split(',')).superblock).toEqual(superblock)
  })

  test.each([
    ['bind', 'bind'],
    ['rbind', 'rbind'],
    ['rbind,bind', 'bind'],
    ['ro', 'no'],
  ])('%s binds: %s', (words, bind) => {
    expect(parseMountOptions(words.split(',')).bind).toBe(bind)
  })

  test('what has no meaning of its own is for the file system, in order', () => {
    const parsed = parseMountOptions([
      'mode=755',
      'ro',
      'acl',
      'size=1k',
      'defaults',
      'silent',
      'loud',
      'hidepid=2',
      '',
    ])
    expect(parsed.data).toEqual(['mode=755', 'acl', 'size=1k', 'hidepid=2'])
  })

  test('tmpcopyup is our own', () => {
    expect(parseMountOptions(['tmpcopyup'])).toMatchObject({ copyUp: true, data: [] })
  })

  test('idmap and ridmap say whose ids are mapped, the later one of both', () => {
    expect(parseMountOptions(['rbind']).idmap).toBe('no')
    expect(parseMountOptions(['rbind', 'idmap']).idmap).toBe('idmap')
    expect(parseMountOptions(['idmap', 'rbind', 'ridmap'])).toMatchObject({ idmap: 'ridmap', data: [] })
  })

  test.each(['remount', 'idmap=uids=0-1-2', 'ridmap=x'])('%s cannot be honoured', (word) => {
    expect(parseMountOptions(['ro', word]).unsupported).toEqual([{ word, index: 1 }])
  })

  test.each(MOUNT_OPTION_WORDS)('%s, which features lists, never reaches the file system', (word) => {
    expect(parseMountOptions([word]).data).toEqual([])
  })

  test('words named like object keys are data', () => {
    expect(parseMountOptions(['toString', 'constructor', '__proto__']).data).toEqual([
      'toString',
      'constructor',
      '__proto__',
    ])
  })
})

describe('singleOptions()', () => {
  test.each<[string[], string[]]>([
    [
      ['mode=755', 'size=1m,nr_inodes=5', 'noswap'],
      ['mode=755', 'size=1m', 'nr_inodes=5', 'noswap'],
    ],
    [
      ['context="system_u:object_r:t:s0:c1,c2"', 'ro'],
      ['context=system_u:object_r:t:s0:c1,c2', 'ro'],
    ],
    [
      ['context="a', 'b"', 'x'],
      ['context=a,b', 'x'],
    ],
    [['a="', 'b'], ['a=",b']],
    [['lowerdir=/a"b,c"d'], ['lowerdir=/a"b,c"d']],
    [
      ['key=', 'k="v=w"', '=x'],
      ['key=', 'k=v=w', '=x'],
    ],
    [
      [',', '', 'a,,b,'],
      ['a', 'b'],
    ],
    [[], []],
  ])('%j are %j', (words, options) => {
    expect(singleOptions(words)).toEqual(options)
  })

  test.each([
    ['a long value', `size=${'x'.repeat(12_000_000)}`],
    ['many quotes', '"'.repeat(12_000_000)],
    ['many commas', 'a,'.repeat(1_000_000)],
  ])('%s is no more than long', (_, word) => {
    expect(singleOptions([word]).length).toBeGreaterThan(0)
  })
})
