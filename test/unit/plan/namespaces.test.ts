/**
 * Namespaces in a plan: which are opened and joined, which are made and when, and ids that a user namespace does not
 * map.
 */
import { describe, expect, test } from 'vitest'
import { addUserNamespace, type Document } from '../spec/fixture.ts'
import { createPlan, described, opNames, refusal, setNamespaces } from './support.ts'

describe('namespaces', () => {
  test('those with a path are opened in order, then joined together, then the rest is made', () => {
    const ops = createPlan((spec) => {
      spec.linux.namespaces[4].path = '/proc/9/ns/net'
      spec.linux.namespaces[1].path = '/proc/9/ns/ipc'
    })
    expect(described(ops, 'open_ns', 'join', 'clone')).toEqual([
      'open_ns path="/proc/9/ns/ipc" type=ipc',
      'open_ns path="/proc/9/ns/net" type=network',
      'join',
      'clone flags=mount|uts|pid',
    ])
    expect(opNames(ops)).not.toContain('loopback_up')
  })

  test('the host’s own network is left alone', () => {
    const ops = createPlan(setNamespaces('pid', 'mount'))
    expect(opNames(ops)).not.toContain('loopback_up')
    expect(described(ops, 'clone')).toEqual(['clone flags=mount|pid'])
  })

  test('a new user namespace brings its maps, root, and limits raised outside', () => {
    const ops = createPlan(addUserNamespace)
    expect(described(ops, 'clone', 'session', 'unshare', 'raise_rlimit', 'rlimit')).toEqual([
      'raise_rlimit resource=nofile hard=1024',
      'clone flags=user|pid uidMap="0 100000 65536\\n" gidMap="0 200000 65536\\n"',
      'session becomeRoot=1',
      'unshare flags=mount|uts|ipc|network',
      'rlimit resource=nofile soft=1024 hard=1024',
    ])
  })

  test('a joined user namespace keeps the maps that it has', () => {
    const ops = createPlan((spec) => {
      addUserNamespace(spec)
      spec.linux.namespaces.at(-1).path = '/proc/9/ns/user'
    })
    expect(described(ops, 'open_ns', 'clone', 'session')).toEqual([
      'open_ns path="/proc/9/ns/user" type=user',
      'clone flags=mount|uts|ipc|pid|network',
      'session becomeRoot=1',
    ])
  })

  test('a new cgroup namespace is made as late as possible, in the final cgroup', () => {
    const names = opNames(createPlan((spec) => spec.linux.namespaces.push({ type: 'cgroup' })))
    const wait = names.indexOf('wait_cgroup')
    expect(names[wait + 1]).toBe('unshare')
    expect(names[wait - 1]).toBe('mask_path')
    expect(names.indexOf('wait_cgroup', wait + 1)).toBe(-1)
  })

  test('before the mounts when one of them shows it', () => {
    const names = opNames(
      createPlan((spec) => {
        spec.linux.namespaces.push({ type: 'cgroup' })
        spec.mounts.push({ destination: '/sys/fs/cgroup', type: 'cgroup' })
      }),
    )
    expect(names.indexOf('unshare')).toBe(names.indexOf('rootfs') + 2)
  })

  test('no cgroup, no waiting', () => {
    expect(opNames(createPlan(undefined, { cgroup: { kind: 'none' } }))).not.toContain('wait_cgroup')
  })

  test.each<[string, string, (user: Document) => void]>([
    ['/process/user/uid', 'cannot setuid to unmapped uid 65536 in user namespace', (user) => (user.uid = 65536)],
    ['/process/user/gid', 'cannot setgid to unmapped gid 70000 in user namespace', (user) => (user.gid = 70000)],
    ['/process/user/additionalGids/1', 'unmapped gid 99999', (user) => (user.additionalGids = [1, 99999])],
  ])('an unmapped id is refused at %s', (pointer, message, change) => {
    const error = refusal(() =>
      createPlan((spec) => {
        addUserNamespace(spec)
        change(spec.process.user)
      }),
    )
    expect(error.message).toContain(message)
    expect(error.detail).toEqual({ source: 'spec', pointer })
  })
})
