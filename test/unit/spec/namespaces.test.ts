/** Clocks, network devices and id maps of mounts: fields that need a certain namespace, or a certain kind of mount. */
import { describe, expect, test } from 'vitest'
import { parseSpec } from '../../../runtime/spec/load.ts'
import { type Document, expectRefusal, type RefusedCase, specText } from './fixture.ts'

const clocks = (timeOffsets: Document, namespace: Document = {}) => {
  return (spec: Document) => {
    spec.linux.namespaces.push({ type: 'time', ...namespace })
    spec.linux.timeOffsets = timeOffsets
  }
}
const devices = (netDevices: Document) => (spec: Document) => (spec.linux.netDevices = netDevices)
const mapping = { containerID: 0, hostID: 1000, size: 1 }
const mount = (entry: Document) => (spec: Document) => spec.mounts.push({ destination: '/x', source: '/y', ...entry })
const bind = (entry: Document) => mount({ options: ['bind'], ...entry })

const REFUSED: RefusedCase[] = [
  [
    'offsets without a time namespace',
    '/linux/timeOffsets',
    'time namespace is not enabled',
    (s) => (s.linux.timeOffsets = { monotonic: { secs: 1 } }),
  ],
  [
    'offsets for a joined time namespace',
    '/linux/timeOffsets',
    'both namespace path and time offsets',
    clocks({ monotonic: { secs: 1 } }, { path: '/proc/1/ns/time' }),
  ],
  ['an unknown clock', '/linux/timeOffsets/realtime', 'unknown clock "realtime"', clocks({ realtime: { secs: 1 } })],
  ['an offset that is a number', '/linux/timeOffsets/boottime', 'expected an object', clocks({ boottime: 5 })],
  ['seconds in words', '/linux/timeOffsets/boottime/secs', 'a whole number', clocks({ boottime: { secs: '5' } })],
  [
    'a second of nanoseconds',
    '/linux/timeOffsets/monotonic/nanosecs',
    'out of range',
    clocks({ monotonic: { nanosecs: 1_000_000_000 } }),
  ],
  [
    'a device without a network namespace',
    '/linux/netDevices',
    'unable to move network devices without a NET namespace',
    (s) => {
      s.linux.namespaces = s.linux.namespaces.filter(({ type }: Document) => type !== 'network')
      s.linux.netDevices = { eth0: {} }
    },
  ],
  [
    'a device name that is too long',
    '/linux/netDevices/abcdefghijklmnop',
    '1 to 15',
    devices({ abcdefghijklmnop: {} }),
  ],
  ['a device name that is a path', '/linux/netDevices/a~1b', 'invalid network device name', devices({ 'a/b': {} })],
  ['a device named ..', '/linux/netDevices/..', 'invalid network device name', devices({ '..': {} })],
  [
    'a new name with a blank',
    '/linux/netDevices/eth0/name',
    'invalid network device',
    devices({ eth0: { name: 'a b' } }),
  ],
  [
    'a new name with a colon',
    '/linux/netDevices/eth0/name',
    'invalid network device',
    devices({ eth0: { name: 'a:1' } }),
  ],
  [
    'two devices of one name',
    '/linux/netDevices/eth1',
    'two network devices would be named "eth0"',
    devices({ eth0: {}, eth1: { name: 'eth0' } }),
  ],
  ['a device that is a name', '/linux/netDevices/eth0', 'expected an object', devices({ eth0: 'eth1' })],
  [
    'an id-mapped tmpfs',
    '/mounts/7/options/0',
    'id-mapped mounts are only supported for bind-mounts',
    mount({ type: 'tmpfs', options: ['idmap'] }),
  ],
  [
    'a tmpfs with maps',
    '/mounts/7/uidMappings',
    'id-mapped mounts are only supported for bind-mounts',
    mount({ type: 'tmpfs', uidMappings: [mapping], gidMappings: [mapping] }),
  ],
  ['half a map', '/mounts/7/gidMappings', 'must have both uid and gid mappings', bind({ uidMappings: [mapping] })],
  [
    'a map without size',
    '/mounts/7/uidMappings/0/size',
    'has no size',
    bind({ uidMappings: [{ containerID: 0, hostID: 0 }] }),
  ],
  [
    'a map with an overlap',
    '/mounts/7/gidMappings',
    'two mappings share the container id 0',
    bind({ uidMappings: [mapping], gidMappings: [mapping, { ...mapping, hostID: 2000 }] }),
  ],
]

describe('namespaces', () => {
  test.each(REFUSED)('refuses %s at %s', (...row) => expectRefusal(row))

  test('reads offsets exactly, backwards too', () => {
    const { linux } = parseSpec(specText(clocks({ monotonic: { secs: -5, nanosecs: 1 }, boottime: {} })), 'test')
    expect(linux.timeOffsets).toEqual({ monotonic: { secs: -5n, nanosecs: 1 }, boottime: { secs: 0n, nanosecs: 0 } })
  })

  test('reads network devices, also with a template that the kernel fills in', () => {
    const given = { eth0: { name: 'net%d' }, eth1: { name: 'net%d' }, dummy0: {} }
    expect(parseSpec(specText(devices(given)), 'test').linux.netDevices).toEqual(given)
  })

  test('reads the maps of a mount', () => {
    const { mounts } = parseSpec(specText(bind({ uidMappings: [mapping], gidMappings: [mapping] })), 'test')
    expect(mounts[7]).toMatchObject({ uidMappings: [mapping], gidMappings: [mapping] })
  })
})
