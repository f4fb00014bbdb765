/** What the host's rights are needed for: sources of mounts in a user namespace, id-mapped mounts, network devices. */
import { describe, expect, test } from 'vitest'
import { addUserNamespace, type Document } from '../spec/fixture.ts'
import { createPlan, described, HOST_V1, mountOn, opNames, refusal } from './support.ts'

const ROOTLESS = { host: { ...HOST_V1, rootless: true } }
const MAPS = {
  uidMappings: [{ containerID: 0, hostID: 1000, size: 10 }],
  gidMappings: [{ containerID: 0, hostID: 2000, size: 10 }],
}
const data =
  (entry: Document = {}) =>
  (spec: Document) => {
    spec.mounts.push({ destination: '/data', source: '/srv/data', options: ['rbind'], ...entry })
  }
const inUserNamespace = (change: (spec: Document) => void) => (spec: Document) => {
  addUserNamespace(spec)
  change(spec)
}
const joined = (change: (spec: Document) => void) => (spec: Document) => {
  spec.linux.namespaces.push({ type: 'user', path: '/proc/9/ns/user' })
  change(spec)
}

describe('the host agent', () => {
  test('is not there without work for it', () => {
    expect(opNames(createPlan(data()))).not.toContain('host_agent')
    expect(mountOn(createPlan(data()), '/data')).toBe('mount source="/srv/data" target="/data" how=bind|recursive')
  })

  test('starts before anything is joined', () => {
    const names = opNames(createPlan(joined(data())))
    expect(names.indexOf('host_agent')).toBe(names.indexOf('open_ns') - 1)
  })

  test.each([
    ['new', inUserNamespace],
    ['joined', joined],
  ])('opens the sources of binds for a %s user namespace', (_, within) => {
    const ops = createPlan(within(data()))
    expect(mountOn(ops, '/data')).toContain('how=bind|recursive|host_source')
    expect(mountOn(ops, '/dev/null')).toContain('how=bind|host_source')
  })

  test('but not where our own rights are no more than the container’s', () => {
    const ops = createPlan(inUserNamespace(data()), ROOTLESS)
    expect(opNames(ops)).not.toContain('host_agent')
    expect(mountOn(ops, '/data')).toContain('how=bind|recursive')
  })
})

describe('id-mapped mounts', () => {
  test('with maps of their own', () => {
    const ops = createPlan(data(MAPS))
    expect(opNames(ops)).toContain('host_agent')
    expect(mountOn(ops, '/data')).toBe(
      'mount source="/srv/data" target="/data" how=bind|recursive|host_source|idmap uidMap="0 1000 10\\n" gidMap="0 2000 10\\n"',
    )
  })

  test('with those of the container, for the whole tree', () => {
    const ops = createPlan(inUserNamespace(data({ options: ['rbind', 'ridmap'] })))
    expect(mountOn(ops, '/data')).toBe(
      'mount source="/srv/data" target="/data" how=bind|recursive|host_source|idmap|idmap_recursive',
    )
  })

  test('with those of a joined user namespace', () => {
    expect(mountOn(createPlan(joined(data({ options: ['bind', 'idmap'] }))), '/data')).toBe(
      'mount source="/srv/data" target="/data" how=bind|host_source|idmap',
    )
  })

  test('without any maps to take they are refused', () => {
    const error = refusal(() => createPlan(data({ options: ['bind', 'idmap'] })))
    expect(error.message).toContain('must have both uid and gid mappings')
    expect(error.detail).toMatchObject({ pointer: '/mounts/7' })
  })

  test('rootless they are refused', () => {
    const error = refusal(() => createPlan(inUserNamespace(data({ options: ['bind', 'idmap'] })), ROOTLESS))
    expect(error.message).toContain('id-mapped mounts are not supported for rootless containers')
  })
})

describe('network devices', () => {
  const devices = (spec: Document) => (spec.linux.netDevices = { eth1: { name: 'lan0' }, 'a~b': {} })

  test('move once the network namespace is there', () => {
    const ops = createPlan(devices)
    expect(described(ops, 'net_devices')).toEqual(['net_devices (moves "eth1" as "lan0", "a~b")'])
    expect(ops.find(({ op }) => op === 'net_devices')?.origin).toBe('/linux/netDevices')
    const names = opNames(ops)
    expect(names.indexOf('net_devices')).toBe(names.indexOf('loopback_up') + 1)
    expect(names).toContain('host_agent')
  })

  test('rootless they are refused', () => {
    expect(refusal(() => createPlan(devices, ROOTLESS)).detail).toMatchObject({ pointer: '/linux/netDevices' })
  })
})

describe('clocks', () => {
  test('a new time namespace is made by the container, as root of its user namespace, with the offsets’ text', () => {
    const ops = createPlan(
      inUserNamespace((spec) => {
        spec.linux.namespaces.push({ type: 'time' })
        spec.linux.timeOffsets = { boottime: { secs: 5 }, monotonic: { secs: -7, nanosecs: 9 } }
      }),
    )
    expect(described(ops, 'time_offsets')).toEqual(['time_offsets offsets="monotonic -7 9\\nboottime 5 0\\n"'])
    const names = opNames(ops)
    expect(names.indexOf('time_offsets')).toBe(names.indexOf('unshare') + 1)
    expect(described(ops, 'clone', 'unshare').join()).not.toContain('time')
  })

  test('without offsets it is made all the same', () => {
    expect(
      described(
        createPlan((spec) => spec.linux.namespaces.push({ type: 'time' })),
        'time_offsets',
      ),
    ).toEqual(['time_offsets'])
  })
})
