/** From cgroupsPath to the unit and its place in the tree. */
import { describe, expect, test } from 'vitest'
import { expandSlice, pathOfUnit, unitPath, unitPlace } from '../../../../runtime/cgroup/systemd/unit-name.ts'

const ROWS: readonly (readonly [path: string | undefined, id: string, user: boolean, name: string, cgroup: string])[] =
  [
    [undefined, 'web', false, 'runts-web.scope', '/system.slice/runts-web.scope'],
    ['', 'web', true, 'runts-web.scope', '/user.slice/runts-web.scope'],
    ['machine.slice:libpod:web', 'x', false, 'libpod-web.scope', '/machine.slice/libpod-web.scope'],
    [':docker:web', 'x', false, 'docker-web.scope', '/system.slice/docker-web.scope'],
    [':docker:web', 'x', true, 'docker-web.scope', '/user.slice/docker-web.scope'],
    ['-.slice:p:n', 'x', false, 'p-n.scope', '/p-n.scope'],
    [
      'kubepods-burstable-pod1_2.slice:cri-containerd:abc',
      'x',
      false,
      'cri-containerd-abc.scope',
      '/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-abc.scope',
    ],
    ['a.slice:ignored:a-b.slice', 'x', false, 'a-b.slice', '/a.slice/a-b.slice'],
    [':_under:score', 'x', false, '_under-score.scope', '/system.slice/__under-score.scope'],
    [undefined, 'a+b', false, 'runts-a\\x2bb.scope', '/system.slice/runts-a\\x2bb.scope'],
  ]

describe('a unit has its name and place from cgroupsPath, or else from the id:', () => {
  test.each(ROWS)('%s, %s', (path, id, user, name, cgroup) => {
    const place = unitPlace(path, id, user)
    expect(place.name).toBe(name)
    expect(unitPath(place)).toBe(cgroup)
  })
})

describe('a path is refused that names no unit:', () => {
  test.each([
    ['/a/b', 'to be of format "slice:prefix:name" for systemd cgroups, got "/a/b" instead'],
    ['a.slice:p', 'to be of format'],
    ['a.slice:p:n:m', 'to be of format'],
    ['a.slice:p:', 'to be of format'],
    ['a:p:n', 'invalid slice name: "a"'],
    ['a--b.slice:p:n', 'invalid slice name'],
    ['-a.slice:p:n', 'invalid slice name'],
    ['a-.slice:p:n', 'invalid slice name'],
    ['../a.slice:p:n', 'invalid slice name'],
    ['a.slice:p:n/m', 'cannot use "p-n/m.scope" as the name of a systemd unit: it has characters'],
    ['a.slice:p:n m', 'it has characters'],
    [`a.slice:p:${'n'.repeat(256)}`, 'it is longer than 255 characters'],
  ])('%s', (path, message) => {
    expect(() => unitPlace(path, 'id', false)).toThrow(message)
    expect(() => unitPlace(path, 'id', false)).toThrow('/linux/cgroupsPath')
  })
})

test('a slice lies in the slices that its name has', () => {
  expect(expandSlice('a-b-c.slice')).toBe('a.slice/a-b.slice/a-b-c.slice')
  expect(expandSlice('-.slice')).toBe('')
})

test('a path of another form names no unit', () => {
  expect(pathOfUnit({ path: '/a/b', id: 'c' })).toBeUndefined()
  expect(pathOfUnit({ path: ':a:b', id: 'c' })).toBe('/system.slice/a-b.scope')
  expect(pathOfUnit({ path: undefined, id: 'c' })).toBe('/system.slice/runts-c.scope')
})
