/**
 * Every refusal of the linux section of a config.json, but for its seccomp profile: namespaces, id maps, hidden
 * paths, devices and the rest.
 */
import { describe, test } from 'vitest'
import { addUserNamespace, expectRefusal, type RefusedCase, without } from './fixture.ts'

const REFUSED: RefusedCase[] = [
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
]

describe('parseSpec()', () => {
  test.each(REFUSED)('refuses %s at %s', (...row) => expectRefusal(row))
})
