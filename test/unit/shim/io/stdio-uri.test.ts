/** What the stdio strings of a request mean. */
import { describe, expect, test } from 'vitest'
import { parseStdio, parseStreams } from '../../../../shim/io/stdio-uri.ts'

describe('parseStdio', () => {
  const meaning: [string, object][] = [
    ['', { kind: 'null' }],
    ['/run/containerd/fifo/1/c1-stdout', { kind: 'path', path: '/run/containerd/fifo/1/c1-stdout' }],
    ['/with%20percent', { kind: 'path', path: '/with%20percent' }],
    ['fifo:///run/f', { kind: 'path', path: '/run/f' }],
    ['file:///var/log/c1.log', { kind: 'file', path: '/var/log/c1.log' }],
    ['file:///var/log/a%20b.log?mode=1#x', { kind: 'file', path: '/var/log/a b.log' }],
    ['binary:///usr/bin/logger', { kind: 'program', path: '/usr/bin/logger', args: [], strict: false }],
    [
      'binary:///a%20b?id=c1&dir=%2Fvar%2Flog&flag&plus=a+b%2B&id=2#x',
      {
        kind: 'program',
        path: '/a b',
        args: ['id', 'c1', 'dir', '/var/log', 'flag', '', 'plus', 'a b+'],
        strict: false,
      },
    ],
    ['binary-v2:///l?a=b=c&&', { kind: 'program', path: '/l', args: ['a', 'b=c'], strict: true }],
  ]
  test.each(meaning)('%s', (uri, target) => {
    expect(parseStdio(uri)).toEqual(target)
  })

  const refused: [string, string][] = [
    ['binary://logger?a=b', 'its path is not absolute'],
    ['binary:///logger?a=%zz', 'its query is not properly escaped'],
    ['binary:///logger?a=%00', 'its query holds a NUL'],
    ['/path/with\0nul', 'it holds a NUL'],
    ['npipe:////./pipe/x', 'unknown STDIO scheme npipe'],
    ['ttrpc+unix:///run/s?streaming_id=1', 'unknown STDIO scheme ttrpc+unix'],
    ['relative/path', 'neither an absolute path nor a URI'],
    ['file://host/path', 'its path is not absolute'],
    ['file:///bad%zz', 'not properly escaped'],
  ]
  test.each(refused)('%s is refused: %s', (uri, message) => {
    expect(() => parseStdio(uri)).toThrow(message)
  })
})

describe('parseStreams', () => {
  test('each stream may be empty by itself', () => {
    const streams = parseStreams({ stdin: '', stdout: '/out', stderr: '', terminal: false })
    expect(streams).toEqual({
      stdin: { kind: 'null' },
      stdout: { kind: 'path', path: '/out' },
      stderr: { kind: 'null' },
    })
  })

  test('with a terminal stderr has no stream of its own', () => {
    expect(parseStreams({ stdin: '/in', stdout: '/out', stderr: 'nonsense', terminal: true }).stderr).toEqual({
      kind: 'null',
    })
  })

  test('a file takes both outputs', () => {
    const { stderr } = parseStreams({ stdin: '', stdout: 'file:///log', stderr: '/elsewhere', terminal: false })
    expect(stderr).toEqual({ kind: 'file', path: '/log' })
  })

  test('a program takes both outputs, also of a terminal, and gives no input', () => {
    const uri = 'binary:///logger'
    const program = { kind: 'program', path: '/logger', args: [], strict: false }
    for (const [stderr, terminal] of [
      [uri, false],
      ['', false],
      ['', true],
    ] as const) {
      const streams = parseStreams({ stdin: '', stdout: uri, stderr, terminal })
      expect(streams).toEqual({ stdin: { kind: 'null' }, stdout: program, stderr: { kind: 'null' } })
    }
    expect(() => parseStreams({ stdin: uri, stdout: '', stderr: '', terminal: false })).toThrow('gives no input')
    expect(() => parseStreams({ stdin: '', stdout: '/out', stderr: uri, terminal: false })).toThrow('stdout names it')
  })
})
