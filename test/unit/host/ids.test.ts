/** The owner of a container's cgroup: its user, exactly if the container may write there and sees nothing above. */
import { expect, test } from 'vitest'
import { cgroupOwner } from '../../../runtime/host/ids.ts'
import { parseSpec } from '../../../runtime/spec/load.ts'

const spec = (options: readonly string[], namespaces: readonly object[], destination = '/sys/fs/cgroup') =>
  parseSpec(
    JSON.stringify({
      ociVersion: '1.0.2',
      root: { path: 'rootfs' },
      process: { user: { uid: 7, gid: 0 }, args: ['true'], cwd: '/' },
      mounts: [{ destination, type: 'cgroup', source: 'cgroup', options }],
      linux: {
        namespaces: [{ type: 'mount' }, { type: 'user' }, ...namespaces],
        uidMappings: [{ containerID: 0, hostID: 1000, size: 10 }],
        gidMappings: [{ containerID: 0, hostID: 1000, size: 10 }],
      },
    }),
    'test',
  )

test('a cgroup goes to the user of the process only with a new namespace and a writable mount', () => {
  const own = [{ type: 'cgroup' }]
  expect(cgroupOwner(spec(['rw'], own))).toBe(1007)
  expect(cgroupOwner(spec([], own))).toBe(1007)
  expect(cgroupOwner(spec(['rw', 'ro'], own))).toBeUndefined()
  expect(cgroupOwner(spec(['ro', 'rw'], own))).toBe(1007)
  expect(cgroupOwner(spec(['rro'], own))).toBeUndefined()
  expect(cgroupOwner(spec(['rw'], own, '/sys/fs/cgroup/'))).toBe(1007)
  expect(cgroupOwner(spec(['rw'], []))).toBeUndefined()
  expect(cgroupOwner(spec(['rw'], [{ type: 'cgroup', path: '/proc/1/ns/cgroup' }]))).toBeUndefined()
  expect(cgroupOwner(spec(['rw'], own, '/elsewhere'))).toBeUndefined()
})
