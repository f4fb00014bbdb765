/** Every refusal of a config.json: what is wrong, the words of the message, and the pointer to the field. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { loadSpec, parseProcess, parseSpec } from '../../../runtime/spec/load.ts'
import { readRegularFile } from '../../../runtime/sys/regular-file.ts'
import {
  addUserNamespace,
  type Document,
  defaultSpec,
  expectRefusal,
  type RefusedCase,
  refusal,
  specText,
} from './fixture.ts'

const without =
  (type: string) =>
  (spec: Document): void => {
    spec.linux.namespaces = spec.linux.namespaces.filter((namespace: Document) => namespace.type !== type)
  }
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
  ['no process', '/process', 'process property must not be empty', (s) => delete s.process],
  ['a null process', '/process', 'process property must not be empty', (s) => (s.process = null)],
  ['a process that is a list', '/process', 'expected an object, found a list', (s) => (s.process = [])],
  ['no args', '/process/args', 'args must not be empty', (s) => delete s.process.args],
  ['empty args', '/process/args', 'args must not be empty', (s) => (s.process.args = [])],
  ['an empty program name', '/process/args/0', 'must not be empty', (s) => (s.process.args = [''])],
  [
    'an argument that is no string',
    '/process/args/1',
    'expected a string, found a number',
    (s) => (s.process.args = ['a', 1]),
  ],
  ['a NUL in an argument', '/process/args/1', 'NUL byte', (s) => (s.process.args = ['a', 'b\0c'])],
  ['half a surrogate pair', '/process/args/1', 'not valid Unicode', (s) => (s.process.args = ['a', '\ud800'])],
  ['args that are a string', '/process/args', 'expected a list', (s) => (s.process.args = 'sh')],
  ['no cwd', '/process/cwd', 'Cwd property must not be empty', (s) => delete s.process.cwd],
  ['a relative cwd', '/process/cwd', 'Cwd must be an absolute path', (s) => (s.process.cwd = 'home')],
  ['a variable without =', '/process/env/1', 'invalid environment variable: "HOME"', (s) => s.process.env.push('HOME')],
  ['a variable without a name', '/process/env/1', 'invalid environment variable', (s) => s.process.env.push('=x')],
  ['an empty variable', '/process/env/1', 'invalid environment variable', (s) => s.process.env.push('')],
  ['a NUL in a variable', '/process/env/1', 'NUL byte', (s) => s.process.env.push('A=\0')],
  ['a negative uid', '/process/user/uid', 'out of range', (s) => (s.process.user.uid = -1)],
  [
    'the uid that means none',
    '/process/user/uid',
    '4294967295 is out of range, expected 0 to 4294967294',
    (s) => (s.process.user.uid = 4294967295),
  ],
  ['a uid of 33 bits', '/process/user/uid', 'out of range', (s) => (s.process.user.uid = 4294967296)],
  [
    'a uid that is text',
    '/process/user/uid',
    'expected a whole number, found a string',
    (s) => (s.process.user.uid = '0'),
  ],
  [
    'a uid with a fraction',
    '/process/user/uid',
    'expected a whole number, found 1.5',
    (s) => (s.process.user.uid = 1.5),
  ],
  ['a gid out of range', '/process/user/gid', 'out of range', (s) => (s.process.user.gid = 4294967295)],
  [
    'a group out of range',
    '/process/user/additionalGids/1',
    'out of range',
    (s) => (s.process.user.additionalGids = [0, -5]),
  ],
  ['a negative umask', '/process/user/umask', 'out of range', (s) => (s.process.user.umask = -1)],
  [
    'an unknown rlimit',
    '/process/rlimits/0/type',
    'unknown rlimit "RLIMIT_X"',
    (s) => (s.process.rlimits[0].type = 'RLIMIT_X'),
  ],
  ['an rlimit without type', '/process/rlimits/0/type', 'has no type', (s) => delete s.process.rlimits[0].type],
  [
    'the same rlimit twice',
    '/process/rlimits/1/type',
    'duplicate rlimit "RLIMIT_NOFILE"',
    (s) => s.process.rlimits.push({ ...s.process.rlimits[0] }),
  ],
  [
    'a soft limit above the hard one',
    '/process/rlimits/0/soft',
    'above the hard limit 1024',
    (s) => (s.process.rlimits[0].soft = 1025),
  ],
  ['a negative rlimit', '/process/rlimits/0/hard', 'out of range', (s) => (s.process.rlimits[0].hard = -1)],
  [
    'a capability with other characters',
    '/process/capabilities/bounding/0',
    'unknown capability "CAP_FLY!"',
    (s) => (s.process.capabilities.bounding = ['CAP_FLY!']),
  ],
  [
    'a capability without prefix',
    '/process/capabilities/effective/0',
    'unknown capability "CHOWN"',
    (s) => (s.process.capabilities.effective = ['CHOWN']),
  ],
  [
    'a capability in lower case',
    '/process/capabilities/permitted/0',
    'unknown capability',
    (s) => (s.process.capabilities.permitted = ['cap_chown']),
  ],
  [
    'an inherited object key as capability',
    '/process/capabilities/ambient/0',
    'unknown capability',
    (s) => (s.process.capabilities.ambient = ['constructor']),
  ],
  [
    'an oom score too high',
    '/process/oomScoreAdj',
    '1001 is out of range, expected -1000 to 1000',
    (s) => (s.process.oomScoreAdj = 1001),
  ],
  ['an oom score too low', '/process/oomScoreAdj', 'out of range', (s) => (s.process.oomScoreAdj = -1001)],
  [
    'a console too wide',
    '/process/consoleSize/width',
    'out of range',
    (s) => (s.process.consoleSize = { width: 70000, height: 1 }),
  ],
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
  [
    'an unknown namespace',
    '/linux/namespaces/0/type',
    'namespace "pidd" does not exist',
    (s) => (s.linux.namespaces[0].type = 'pidd'),
  ],
  ['a namespace without type', '/linux/namespaces/0/type', 'has no type', (s) => (s.linux.namespaces[0] = {})],
  [
    'a namespace twice',
    '/linux/namespaces/5',
    'duplicated ns "pid"',
    (s) => s.linux.namespaces.push({ type: 'pid', path: '/x' }),
  ],
  [
    'a relative namespace path',
    '/linux/namespaces/0/path',
    'is not absolute',
    (s) => (s.linux.namespaces[0].path = 'ns/pid'),
  ],
  [
    'a user namespace without uid mappings',
    '/linux/uidMappings',
    'needs uidMappings',
    (s) => {
      addUserNamespace(s)
      delete s.linux.uidMappings
    },
  ],
  [
    'a user namespace without gid mappings',
    '/linux/gidMappings',
    'needs gidMappings',
    (s) => {
      addUserNamespace(s)
      s.linux.gidMappings = []
    },
  ],
  [
    'mappings without user namespace',
    '/linux/uidMappings',
    "USER namespace isn't enabled",
    (s) => {
      addUserNamespace(s)
      without('user')(s)
    },
  ],
  [
    'a mapping without size',
    '/linux/uidMappings/0/size',
    'has no size',
    (s) => {
      addUserNamespace(s)
      delete s.linux.uidMappings[0].size
    },
  ],
  [
    'a mapping of no ids',
    '/linux/uidMappings/0/size',
    'out of range',
    (s) => {
      addUserNamespace(s)
      s.linux.uidMappings[0].size = 0
    },
  ],
  [
    'a mapping beyond the last id',
    '/linux/uidMappings/0/size',
    'beyond the last id',
    (s) => {
      addUserNamespace(s)
      s.linux.uidMappings[0].hostID = 4294967000
    },
  ],
  [
    'a mapping without root',
    '/linux/uidMappings',
    'container id 0 is not mapped',
    (s) => {
      addUserNamespace(s)
      s.linux.uidMappings[0].containerID = 1
    },
  ],
  [
    'mappings that overlap',
    '/linux/gidMappings',
    'two mappings share the container id 10',
    (s) => {
      addUserNamespace(s)
      s.linux.gidMappings.push({ containerID: 10, hostID: 1, size: 5 })
    },
  ],
  [
    'too many mappings',
    '/linux/uidMappings',
    'more than the 340',
    (s) => {
      addUserNamespace(s)
      s.linux.uidMappings = Array.from({ length: 341 }, (_, i) => ({ containerID: i, hostID: i, size: 1 }))
    },
  ],
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
  [
    'an unknown propagation',
    '/linux/rootfsPropagation',
    'rootfsPropagation=rslaved is not supported',
    (s) => (s.linux.rootfsPropagation = 'rslaved'),
  ],
  [
    'a propagation named like an object key',
    '/linux/rootfsPropagation',
    'is not supported',
    (s) => (s.linux.rootfsPropagation = 'toString'),
  ],
  [
    'a sysctl of the host',
    '/linux/sysctl/vm.swappiness',
    'is not in a separate kernel namespace',
    (s) => (s.linux.sysctl = { 'vm.swappiness': '1' }),
  ],
  [
    'a sysctl value that is a number',
    '/linux/sysctl/net.core.somaxconn',
    'expected a string',
    (s) => (s.linux.sysctl = { 'net.core.somaxconn': 1 }),
  ],
  [
    'masked paths without mount namespace',
    '/linux/maskedPaths',
    'unable to restrict sys entries without a private MNT namespace',
    without('mount'),
  ],
  [
    'readonly paths without mount namespace',
    '/linux/readonlyPaths',
    'private MNT namespace',
    (s) => {
      without('mount')(s)
      s.linux.maskedPaths = []
    },
  ],
  [
    'a relative masked path',
    '/linux/maskedPaths/0',
    'path "proc/kcore" is not absolute',
    (s) => (s.linux.maskedPaths = ['proc/kcore']),
  ],
  [
    'a relative readonly path',
    '/linux/readonlyPaths/1',
    'is not absolute',
    (s) => (s.linux.readonlyPaths = ['/a', 'b']),
  ],
  [
    'a device type that is none',
    '/linux/devices/0/type',
    'invalid device type "x"',
    (s) => (s.linux.devices = [{ type: 'x', path: '/dev/x', major: 1, minor: 1 }]),
  ],
  [
    'a device of type a',
    '/linux/devices/0/type',
    'invalid device type "a"',
    (s) => (s.linux.devices = [{ type: 'a', path: '/dev/x', major: 1, minor: 1 }]),
  ],
  [
    'a device without path',
    '/linux/devices/0/path',
    'has no path',
    (s) => (s.linux.devices = [{ type: 'c', major: 1, minor: 1 }]),
  ],
  [
    'a device with a relative path',
    '/linux/devices/0/path',
    'is not absolute',
    (s) => (s.linux.devices = [{ type: 'c', path: 'dev/x', major: 1, minor: 1 }]),
  ],
  [
    'a device without numbers',
    '/linux/devices/0/major',
    'has no major number',
    (s) => (s.linux.devices = [{ type: 'c', path: '/dev/x' }]),
  ],
  [
    'a device number out of range',
    '/linux/devices/0/minor',
    'out of range',
    (s) => (s.linux.devices = [{ type: 'c', path: '/dev/x', major: 1, minor: -1 }]),
  ],
  [
    'an unknown personality',
    '/linux/personality/domain',
    'unknown personality "BSD"',
    (s) => (s.linux.personality = { domain: 'BSD' }),
  ],
  ['a personality without domain', '/linux/personality/domain', 'has no domain', (s) => (s.linux.personality = {})],
  [
    'a resource out of range',
    '/linux/resources/cpu/shares',
    'out of range',
    (s) => (s.linux.resources.cpu = { shares: -1 }),
  ],
  [
    'rules without default action',
    '/linux/seccomp/defaultAction',
    'has no default action',
    (s) => (s.linux.seccomp = { syscalls: [{ names: ['read'], action: 'SCMP_ACT_ALLOW' }] }),
  ],
  [
    'an unknown default action',
    '/linux/seccomp/defaultAction',
    'unknown seccomp action "ALLOW"',
    (s) => (s.linux.seccomp = { defaultAction: 'ALLOW' }),
  ],
  [
    'notify as default action',
    '/linux/seccomp/defaultAction',
    'SCMP_ACT_NOTIFY cannot be used as default action',
    (s) => (s.linux.seccomp = { defaultAction: 'SCMP_ACT_NOTIFY', listenerPath: '/run/agent' }),
  ],
  [
    'notify without a listener',
    '/linux/seccomp/listenerPath',
    'seccomp listenerPath is not set',
    (s) =>
      (s.linux.seccomp = {
        defaultAction: 'SCMP_ACT_ALLOW',
        syscalls: [{ names: ['mkdir'], action: 'SCMP_ACT_NOTIFY' }],
      }),
  ],
  [
    'an unknown architecture',
    '/linux/seccomp/architectures/0',
    'unknown seccomp architecture "amd64"',
    (s) => (s.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', architectures: ['amd64'] }),
  ],
  [
    'an unknown flag',
    '/linux/seccomp/flags/0',
    'flag "SECCOMP_FILTER_FLAG_X"',
    (s) => (s.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', flags: ['SECCOMP_FILTER_FLAG_X'] }),
  ],
  [
    'an errno that cannot be carried',
    '/linux/seccomp/defaultErrnoRet',
    'cannot carry an errno',
    (s) => (s.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', defaultErrnoRet: 1 }),
  ],
  [
    'an errno out of range',
    '/linux/seccomp/defaultErrnoRet',
    'out of range',
    (s) => (s.linux.seccomp = { defaultAction: 'SCMP_ACT_ERRNO', defaultErrnoRet: 4096 }),
  ],
]

const RULE = { names: ['read'], action: 'SCMP_ACT_ALLOW' }
const NOTIFY = { names: ['mkdir'], action: 'SCMP_ACT_NOTIFY' }
const BAD_RULES: [what: string, pointer: string, message: string, rule: Document][] = [
  ['without names', '/names', 'names no system call', { action: 'SCMP_ACT_ALLOW' }],
  ['with an empty name', '/names/1', 'must not be empty', { ...RULE, names: ['read', ''] }],
  ['without action', '/action', 'has no action', { names: ['read'] }],
  ['with an unknown action', '/action', 'unknown seccomp action "SCMP_ACT_DENY"', { ...RULE, action: 'SCMP_ACT_DENY' }],
  [
    'that hands write(2) to an agent',
    '/names/1',
    'SCMP_ACT_NOTIFY cannot be used for the write syscall',
    { ...NOTIFY, names: ['mkdir', 'write'] },
  ],
  ['with an errno that it cannot carry', '/errnoRet', 'cannot carry an errno', { ...RULE, errnoRet: 1 }],
  [
    'with an unknown operator',
    '/args/0/op',
    'unknown seccomp operator "=="',
    { ...RULE, args: [{ index: 0, value: 0, op: '==' }] },
  ],
  ['without operator', '/args/0/op', 'has no operator', { ...RULE, args: [{ index: 0, value: 0 }] }],
  [
    'about a seventh argument',
    '/args/0/index',
    'out of range',
    { ...RULE, args: [{ index: 6, value: 0, op: 'SCMP_CMP_EQ' }] },
  ],
  [
    'with a negative value',
    '/args/0/value',
    'out of range',
    { ...RULE, args: [{ index: 0, value: -1, op: 'SCMP_CMP_EQ' }] },
  ],
]

const UNSUPPORTED: [pointer: string, change: (spec: Document) => void][] = [
  ['/windows', (s) => (s.windows = { layerFolders: ['x'] })],
  ['/solaris', (s) => (s.solaris = { milestone: 'x' })],
  ['/vm', (s) => (s.vm = { kernel: { path: '/x' } })],
  ['/linux/intelRdt', (s) => (s.linux.intelRdt = {})],
  ['/mounts/7/options/0', (s) => mount(s, { destination: '/x', source: '/x', options: ['ridmap=uids=0-1-2', 'bind'] })],
  ['/mounts/7/options/0', (s) => mount(s, { destination: '/x', type: 'tmpfs', options: ['remount'] })],
]

describe('parseSpec()', () => {
  test.each(REFUSED)('refuses %s at %s', (...row) => expectRefusal(row))

  test.each(BAD_RULES)('refuses a seccomp rule %s', (_, pointer, message, rule) => {
    const error = refusal(
      specText((spec) => (spec.linux.seccomp = { defaultAction: 'SCMP_ACT_ERRNO', syscalls: [RULE, rule] })),
    )
    expect(error).toMatchObject({ code: 'InvalidArgument', detail: { pointer: `/linux/seccomp/syscalls/1${pointer}` } })
    expect(error.message).toContain(message)
  })

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

describe('parseProcess()', () => {
  test('reads the document of an exec', () => {
    const process = parseProcess(JSON.stringify({ args: ['id'], cwd: '/tmp', user: { uid: 1000, gid: 1000 } }))
    expect(process).toMatchObject({
      args: ['id'],
      cwd: '/tmp',
      user: { uid: 1000, gid: 1000 },
      terminal: false,
      env: [],
    })
  })

  test('points into the document itself', () => {
    const error = refusal(JSON.stringify({ args: ['id'], cwd: 'tmp' }), (text) => parseProcess(text))
    expect(error.detail).toEqual({ source: 'spec', pointer: '/cwd' })
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
    expect(error.message).toBe(`cannot read the container's configuration "/no/bundle/config.json": ENOENT`)
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
