/** Which of a host's mounts are below a path, from texts of /proc/PID/mountinfo. */
import { expect, test } from 'vitest'
import { mountsBelow } from '../../../runtime/sys/mount.ts'

const line = (id: number, point: string, root = '/'): string => `${id} 1 0:${id} ${root} ${point} rw - tmpfs tmpfs rw\n`

test('those at the path and below it are found, in their order, and no others', () => {
  const points = [
    '/',
    '/b',
    '/b/rootfs',
    '/b/rootfs',
    '/b/rootfs2',
    '/b/rootfs/proc',
    '/a/b/rootfs',
    '/b/rootfs/proc/sys',
  ]
  const text = points.map((point, id) => line(id, point)).join('')
  expect(mountsBelow('/b/rootfs', text)).toEqual(['/b/rootfs', '/b/rootfs', '/b/rootfs/proc', '/b/rootfs/proc/sys'])
  expect(mountsBelow('/b/rootfs', text.trimEnd())).toHaveLength(4)
  expect(mountsBelow('/c', text)).toEqual([])
  expect(mountsBelow('/c', '')).toEqual([])
})

test('a path is compared as it is, whatever the kernel has to escape', () => {
  const path = '/with blank\tand\nline\\end/ümlaut#1'
  const escaped = '/with\\040blank\\011and\\012line\\134end/ümlaut#1'
  expect(mountsBelow(path, line(1, escaped) + line(2, `${escaped}/x\\040y`))).toEqual([path, `${path}/x y`])
})

test('the root of a bind mount is not its mount point', () => {
  expect(mountsBelow('/b/rootfs', line(1, '/elsewhere', '/b/rootfs') + line(2, '/b/rootfs/x', '/b/rootfs'))).toEqual([
    '/b/rootfs/x',
  ])
})
