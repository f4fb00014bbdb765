/** Where a cgroup goes: the path rule, and the parsing of the kernel's two lists. */
import { describe, expect, test } from 'vitest'
import { displayName, innerPath, parseCgroupMount, parseOwnCgroups } from '../../../runtime/cgroup/hierarchy.ts'

describe('innerPath', () => {
  test.each([
    ['/default/x', '/own', '/default/x'],
    ['/a/../../../b/', '/own', '/b'],
    ['//a//b', '/own', '/a/b'],
    ['a/b', '/own/me', '/own/me/a/b'],
    ['../../a', '/own/me', '/own/me/a'],
    ['a', '/', '/a'],
    ['', '/own', '/own/id'],
    [undefined, '/', '/id'],
    ['x.slice:prefix:name', '/own', '/own/x.slice:prefix:name'],
    ['/x.slice:prefix:name', '/own', '/x.slice:prefix:name'],
  ])('%j from %j is %j', (path, own, inner) => expect(innerPath(path, 'id', own)).toBe(inner))

  test.each(['/', '/..', '.', '../..'])('%j is the root and refused', (path) => {
    expect(() => innerPath(path, 'id', '/own')).toThrow(/it is the root/)
  })
})

test('parseOwnCgroups reads paths with colons', () => {
  const own = parseOwnCgroups('5:cpu,cpuacct:/a:b\n1:name=systemd:/user.slice\n0::/\n')
  expect([...own]).toEqual([
    ['cpu,cpuacct', '/a:b'],
    ['name=systemd', '/user.slice'],
    ['', '/'],
  ])
})

describe('parseCgroupMount', () => {
  const keys = ['cpu,cpuacct', 'memory', 'name=systemd', '']
  test.each([
    [
      '32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct',
      { key: 'cpu,cpuacct', mountpoint: '/sys/fs/cgroup/cpu,cpuacct', root: '/' },
    ],
    [
      '40 31 0:37 /docker/x /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd',
      { key: 'name=systemd', mountpoint: '/sys/fs/cgroup/systemd', root: '/docker/x' },
    ],
    [
      '41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw',
      { key: '', mountpoint: '/sys/fs/cgroup/unified', root: '/' },
    ],
    [
      '41 31 0:38 / /sys/fs/cgroup/a\\040b rw - cgroup cgroup rw,memory',
      { key: 'memory', mountpoint: '/sys/fs/cgroup/a b', root: '/' },
    ],
    ['41 31 0:38 / /mnt/memory rw - cgroup cgroup rw,memory', undefined],
    ['41 31 0:38 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids', undefined],
    ['31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755', undefined],
    ['', undefined],
  ])('%s', (line, mount) => expect(parseCgroupMount(line, keys)).toEqual(mount))
})

test.each([
  ['memory', '/sys/fs/cgroup/memory/default/x', '/default/x'],
  ['', '/sys/fs/cgroup/default/x', '/default/x'],
  ['', '/sys/fs/cgroup/unified/default/x', '/default/x'],
  ['devices', '/tmp/fixture/x', '/tmp/fixture/x'],
])('displayName(%j, %j) is %j', (key, path, name) => expect(displayName(key, path)).toBe(name))
