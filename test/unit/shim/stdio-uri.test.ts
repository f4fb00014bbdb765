/** What the stdio strings of a request mean. */
import { describe, expect, test } from 'vitest'
import { parseStdio, parseStreams } from '../../../shim/stdio-uri.ts'

describe('parseStdio', () => {
  const meaning: [string, object][] = [
    ['', { kind: 'null' }],
    ['/run/containerd/fifo/1/c1-stdout', { kind: 'path', path: '/run/containerd/fifo/1/c1-stdout' }],
    ['/with%20percent', { kind: 'path', path: '/with%20percent' }],
    ['fifo:///run/f', { kind: 'path', path: '/run/f' }],
    ['file:///var/log/c1.log', { kind: 'file', path: '/var/log/c1.log' }],
    ['file:///var/log/a%20b.log?mode=1#x', { kind: 'file', path: '/var/log/a b.log' }],
  ]
  test.each(meaning)('%s', (uri, target) => {
    expect(parseStdio(uri)).toEqual(target)
  })

  const refused: [string, string][] = [
    ['binary:///usr/bin/logger?a=b', 'binary:// is not supported'],
    ['binary-v2:///usr/bin/logger', 'binary-v2:// is not supported'],
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
})
