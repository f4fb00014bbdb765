/**
 * A config.json as a whole: the file, what is accepted and filled in, and what this runtime does not support. Also
 * every refusal outside of the process and linux sections, with the words of its message and the pointer to the
 * field.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { loadSpec, parseSpec } from '../../../runtime/spec/load.ts'
import { readRegularFile } from '../../../runtime/sys/regular-file.ts'
import { type Document, defaultSpec, expectRefusal, type RefusedCase, refusal, specText, without } from './fixture.ts'

const mount = (spec: Document, entry: Document) => spec.mounts.push(entry)

const REFUSED: RefusedCase[] = [
  ['no ociVersion', '/ociVersion', 'ociVersion must not be empty', (s) => delete s.ociVersion],
  ['an empty ociVersion', '/ociVersion', 'ociVersion must not be empty', (s) => (s.ociVersion = '')],
  ['another major version', '/ociVersion', 'only 1.x is', (s) => (s.ociVersion = '2.0.0')],
  ['a version that is none', '/ociVersion', 'is not a semantic version', (s) => (s.ociVersion = 'latest')],
  ['a version that is a number', '/ociVersion', 'expected a string, found a number', (s) => (s.ociVersion = 1)],
  ['no root', '/root', 'root must be specified', (s) => delete s.root],
  ['a root without path', '/root/path', 'must not be empty', (s) => (s.root = {})],
  ['a root path that is no string', '/root/path', 'expected a string', (s) => (s.root.path = 7)],
  ['a readonly that is no boolean', '/root/readonly', 'expected true or false', (s) => (s.root.readonly = 'yes')],
  [
    'a hostname without namespace',
    '/hostname',
    'unable to set hostname without a private UTS namespace',
    (s) => {
      s.hostname = 'box'
      without('uts')(s)
    },
  ],
  [
    'a domain name without namespace',
    '/domainname',
    'private UTS namespace',
    (s) => {
      s.domainname = 'lan'
      without('uts')(s)
    },
  ],
  ['an annotation that is no string', '/annotations/a~1b', 'expected a string', (s) => (s.annotations = { 'a/b': 1 })],
  ['a mount without destination', '/mounts/7/destination', 'has no destination', (s) => mount(s, { type: 'tmpfs' })],
  ['a mount without type', '/mounts/7/type', 'has no type', (s) => mount(s, { destination: '/x' })],
  ['a mount that is a string', '/mounts/7', 'expected an object', (s) => mount(s, '/x')],
  [
    'a mount option that is a number',
    '/mounts/7/options/0',
    'expected a string',
    (s) => mount(s, { destination: '/x', type: 'tmpfs', options: [1] }),
  ],
  [
    'a NUL in a mount source',
    '/mounts/7/source',
    'NUL byte',
    (s) => mount(s, { destination: '/x', type: 'bind', source: '/a\0b', options: ['bind'] }),
  ],
  [
    'a bind without source',
    '/mounts/7/source',
    'has no source',
    (s) => mount(s, { destination: '/x', type: 'bind', options: ['rbind'] }),
  ],
  [
    'a bind with data options',
    '/mounts/7/options/1',
    'bind mounts cannot have any filesystem-specific options applied: "size=1k"',
    (s) => mount(s, { destination: '/x', source: '/x', options: ['rbind', 'size=1k'] }),
  ],
  [
    'tmpcopyup on another type',
    '/mounts/7/options/1',
    'for tmpfs only',
    (s) => mount(s, { destination: '/x', type: 'proc', options: ['ro', 'tmpcopyup'] }),
  ],
]

const UNSUPPORTED: [pointer: string, change: (spec: Document) => void][] = [
  ['/windows', (s) => (s.windows = { layerFolders: ['x'] })],
  ['/solaris', (s) => (s.solaris = { milestone: 'x' })],
  ['/vm', (s) => (s.vm = { kernel: { path: '/x' } })],
  ['/mounts/7/options/0', (s) => mount(s, { destination: '/x', source: '/x', options: ['ridmap=uids=0-1-2', 'bind'] })],
  ['/mounts/7/options/0', (s) => mount(s, { destination: '/x', type: 'tmpfs', options: ['remount'] })],
]

describe('parseSpec()', () => {
  test.each(REFUSED)('refuses %s at %s', (...row) => expectRefusal(row))

  test.each(UNSUPPORTED)('says that %s is not supported', (pointer, change) => {
    const error = refusal(specText(change))
    expect(error).toMatchObject({ code: 'Unimplemented', detail: { source: 'spec', pointer } })
    expect(error.message).toMatch(/is not supported by this runtime \(at \//)
  })

  test.each<[string, (spec: Document) => void]>([
    ['as it is', () => {}],
    ['empty hooks', (s) => (s.hooks = { prestart: [], poststop: null })],
    ['empty foreign sections', (s) => Object.assign(s, { windows: {}, vm: null })],
    ['fields of other tools', (s) => Object.assign(s.linux, { 'x-extension': { a: 1 } })],
    [
      'null instead of a missing field',
      (s) => Object.assign(s.process, { rlimits: null, capabilities: null, oomScoreAdj: null }),
    ],
    ['an empty seccomp profile', (s) => (s.linux.seccomp = {})],
    [
      'a listener path without notify',
      (s) => (s.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', listenerPath: '/run/x' }),
    ],
    ['a capability that is yet to be invented', (s) => (s.process.capabilities.bounding = ['CAP_FLY'])],
    ['flags of a personality', (s) => (s.linux.personality = { domain: 'LINUX', flags: ['X'] })],
    ['a new time namespace', (s) => s.linux.namespaces.push({ type: 'time' })],
    ['a joined time namespace', (s) => s.linux.namespaces.push({ type: 'time', path: '/proc/1/ns/time' })],
    ['a joined user namespace', (s) => s.linux.namespaces.push({ type: 'user', path: '/proc/1/ns/user' })],
    ['no linux section', (s) => delete s.linux],
    ['the largest uid', (s) => (s.process.user.uid = 4294967294)],
    [
      'an empty hostname without namespace',
      (s) => {
        s.hostname = ''
        without('uts')(s)
      },
    ],
  ])('accepts a spec with %s', (_, change) => {
    expect(() => parseSpec(specText(change), 'test')).not.toThrow()
  })

  test('fills in empty lists and leaves out what is empty', () => {
    const spec = parseSpec(
      specText((s) => {
        delete s.mounts
        delete s.process.env
        s.linux.cgroupsPath = ''
        s.linux.namespaces[0].path = ''
        s.process.selinuxLabel = ''
      }),
      'test',
    )
    expect(spec.mounts).toEqual([])
    expect(spec.process.env).toEqual([])
    expect(spec.linux).not.toHaveProperty('cgroupsPath')
    expect(spec.linux.namespaces[0]).toEqual({ type: 'pid' })
    expect(spec.process).not.toHaveProperty('selinuxLabel')
  })
})

describe('loadSpec()', () => {
  const bundle = mkdtempSync(join(tmpdir(), 'bundle-'))
  afterAll(() => rmSync(bundle, { recursive: true }))

  test('reads config.json of the bundle', () => {
    writeFileSync(join(bundle, 'config.json'), JSON.stringify(defaultSpec()))
    expect(loadSpec(bundle).process.args).toEqual(['sh', '-c', 'echo hello'])
  })

  test('names the file that is missing', () => {
    const error = refusal('', () => loadSpec('/no/bundle'))
    expect(error.code).toBe('NotFound')
    expect(error.message).toBe(
      `cannot read the container's configuration "/no/bundle/config.json": ENOENT: no such file or directory`,
    )
  })

  test('refuses a file that is not UTF-8', () => {
    writeFileSync(join(bundle, 'config.json'), Buffer.from([0x7b, 0xff, 0x7d]))
    expect(refusal('', () => loadSpec(bundle))).toMatchObject({ code: 'InvalidArgument' })
  })

  test('refuses a file that is not JSON', () => {
    writeFileSync(join(bundle, 'config.json'), '{"ociVersion": ')
    const error = refusal('', () => loadSpec(bundle))
    expect(error.code).toBe('InvalidArgument')
    expect(error.message).toContain('config.json')
  })

  test.for<[string, (path: string) => void, string]>([
    ['a fifo that nobody writes to', (path) => execFileSync('mkfifo', [path]), 'it is not a regular file'],
    ['a device without an end', (path) => symlinkSync('/dev/zero', path), 'it is not a regular file'],
    ['a folder', (path) => mkdirSync(path), 'it is not a regular file'],
    [
      'a file of more than 16 MiB',
      (path) => {
        writeFileSync(path, '')
        truncateSync(path, 2 ** 40)
      },
      'it is larger than 16777216 bytes',
    ],
  ])('refuses %s without reading it', ([, make, why]) => {
    const place = mkdtempSync(join(tmpdir(), 'bundle-'))
    onTestFinished(() => rmSync(place, { recursive: true }))
    make(join(place, 'config.json'))
    expect(refusal('', () => loadSpec(place))).toMatchObject({
      code: 'InvalidArgument',
      message: `cannot read the container's configuration "${place}/config.json": ${why}`,
    })
  })

  test('reads a file whose size the system does not tell', () => {
    const text = readRegularFile('/proc/self/mountinfo', 2 ** 20).toString()
    expect(text).toContain(' / ')
    expect(() => readRegularFile('/proc/self/mountinfo', 10)).toThrow('it is larger than 10 bytes')
  })
})
