/** Values in the text form of GVariant, and the annotations that have them. */
import { describe, expect, test } from 'vitest'
import { annotatedProperties } from '../../../../runtime/cgroup/systemd/annotations.ts'
import { parseVariant } from '../../../../runtime/cgroup/systemd/variant.ts'
import type { DbusData } from '../../../../runtime/sys/dbus-value.ts'

const VALUES: readonly (readonly [text: string, signature: string, data: DbusData])[] = [
  ['true', 'b', true],
  [' false ', 'b', false],
  ['5', 'i', 5n],
  ['-0x1f', 'i', -31n],
  ['010', 'i', 8n],
  ['1.5', 'd', 1.5],
  ['2e3', 'd', 2000],
  ['1e-2', 'd', 0.01],
  ['-inf', 'd', -Infinity],
  ['double 3', 'd', 3],
  ['uint64 18446744073709551615', 't', 18446744073709551615n],
  ['@t 7', 't', 7n],
  ['byte 255', 'y', 255n],
  ['int16 -32768', 'n', -32768n],
  ["'a \\'b\\' \\u00e9\\n'", 's', "a 'b' é\n"],
  ['"it\'s"', 's', "it's"],
  ["objectpath '/a/b'", 'o', '/a/b'],
  ["signature 'as'", 'g', 'as'],
  ['[\'a\', "b"]', 'as', ['a', 'b']],
  ['@as []', 'as', []],
  ['[1, 2.5]', 'ad', [1, 2.5]],
  ['[uint32 1, 2]', 'au', [1n, 2n]],
  ['@at [1, 2,]', 'at', [1n, 2n]],
  ["b'ab'", 'ay', Uint8Array.of(97, 98, 0)],
  [
    "{'a': 1, 'b': 2}",
    'a{si}',
    [
      ['a', 1n],
      ['b', 2n],
    ],
  ],
  ["@a{sv} {'a': <'x'>}", 'a{sv}', [['a', { signature: 's', data: 'x' }]]],
  ['<uint16 3>', 'v', { signature: 'q', data: 3n }],
  ["('a', 3)", '(si)', ['a', 3n]],
  ["[('/dev/null', 'rw')]", 'a(ss)', [['/dev/null', 'rw']]],
]

describe('a text is read as GLib reads it:', () => {
  test.each(VALUES)('%s', (text, signature, data) => {
    expect(parseVariant(text)).toEqual({ signature, data })
  })
})

describe('a text that is no value is refused:', () => {
  test.each([
    ['', 'breaks off'],
    ['nothing', 'unknown word "nothing"'],
    ['[]', 'needs its type'],
    ['5 6', 'unexpected "6" after the value'],
    ["'open", 'unexpected'],
    ['byte 256', 'out of range'],
    ['uint32 -1', 'out of range'],
    ['12abc', 'no whole number'],
    ["uint32 'x'", 'stands where a value of type "u" must be'],
    ["[1, 'x']", 'stands where a value of type "i" must be'],
    ['@zz 1', 'unknown type "zz"'],
    ['@ss 1', 'is not one type'],
    ['@a( 1', 'unknown type'],
    ['{1: 2', 'breaks off'],
    ['(1, 2', 'breaks off'],
  ])('%s', (text, message) => {
    expect(() => parseVariant(text)).toThrow(message)
  })
})

describe('an annotation', () => {
  test('of systemd becomes a property, and no other does', () => {
    const annotations = { 'org.systemd.property.CollectMode': "'inactive-or-failed'", 'org.example.Foo': 'x' }
    expect(annotatedProperties(annotations)).toEqual([
      { name: 'CollectMode', signature: 's', data: 'inactive-or-failed' },
    ])
  })
  test.each([
    ['TimeoutStopSec', 'uint64 7', 'TimeoutStopUSec', 7_000_000n],
    ['TimeoutStopSec', '1.5', 'TimeoutStopUSec', 1_500_000n],
    ['TimeoutStopUSec', 'uint64 7', 'TimeoutStopUSec', 7n],
  ])('%s with a time of %s is %s', (name, text, property, data) => {
    expect(annotatedProperties({ [`org.systemd.property.${name}`]: text })).toEqual([
      { name: property, signature: 't', data },
    ])
  })
  test.each([
    ['ab', 'true', 'it must be three letters or more'],
    ['Not-A-Name', 'true', 'it must be three letters or more'],
    ['CPUWeight', 'much', 'cannot read the systemd property CPUWeight: unknown word "much"'],
    ['TimeoutStopSec', "'long'", 'a time is a number of seconds'],
    ['TimeoutStopSec', '-1', 'a time is not negative'],
  ])('%s=%s is refused, with its pointer', (name, text, message) => {
    const read = () => annotatedProperties({ [`org.systemd.property.${name}`]: text })
    expect(read).toThrow(message)
    expect(read).toThrow(`(at /annotations/org.systemd.property.${name})`)
  })
})
