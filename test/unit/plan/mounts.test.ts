/** Entries of `mounts` as mount operations. */
import { describe, expect, test } from 'vitest'
import type { CgroupJoin } from '../../../runtime/cgroup/cgroup.ts'
import { RuntimeError } from '../../../runtime/errors.ts'
import type { CreateInput } from '../../../runtime/plan/build.ts'
import { addUserNamespace, type Document } from '../spec/fixture.ts'
import { createPlan, described, HOST_V1, HOST_V2, mountOn } from './support.ts'

const withMount = (entry: Document, input: Partial<CreateInput> = {}, change: (spec: Document) => void = () => {}) =>
  createPlan((spec) => {
    spec.mounts.push(entry)
    change(spec)
  }, input)

const MOUNTS: [what: string, entry: Document, op: string][] = [
  ['a bind', { destination: '/x', type: 'none', source: '/y', options: ['bind'] }, 'source="/y" target="/x" how=bind'],
  ['a bind by type only', { destination: '/x', type: 'bind', source: '/y' }, 'source="/y" target="/x" how=bind'],
  [
    'a recursive bind, read-only',
    { destination: '/x', source: '/y', options: ['rbind', 'ro'] },
    'source="/y" target="/x" how=bind|recursive set=rdonly dropped=nosuid|nodev|noexec|nosymfollow',
  ],
  [
    'a bind, writable again',
    { destination: '/x', source: '/y', options: ['bind', 'rw', 'exec'] },
    'source="/y" target="/x" how=bind clear=rdonly|noexec dropped=nosuid|nodev|nosymfollow',
  ],
  [
    'a bind, read-only throughout',
    { destination: '/x', source: '/y', options: ['rbind', 'rro', 'rnoatime'] },
    'source="/y" target="/x" how=bind|recursive recSet=rdonly|noatime recClear=atime_mode',
  ],
  [
    'a bind with propagation',
    { destination: '/x', source: '/y', options: ['rbind', 'rprivate', 'slave'] },
    'source="/y" target="/x" how=bind|recursive propagation=rprivate,slave',
  ],
  [
    'a bind from the bundle',
    { destination: '/x', source: '../y/./z', options: ['bind'] },
    'source="/run/y/z" target="/x" how=bind',
  ],
  [
    'superblock words on a bind, which name no flag of it, but are named',
    { destination: '/x', source: '/y', options: ['bind', 'sync', 'lazytime'] },
    'source="/y" target="/x" how=bind dropped=rdonly|nosuid|nodev|noexec|nosymfollow',
  ],
  [
    'a relative destination',
    { destination: 'a/../x/', source: '/y', options: ['bind'] },
    'source="/y" target="/x" how=bind',
  ],
  [
    'a destination that climbs',
    { destination: '/../../x', source: '/y', options: ['bind'] },
    'source="/y" target="/x" how=bind',
  ],
  ['a tmpfs', { destination: '/x', type: 'tmpfs' }, 'source="tmpfs" target="/x" fstype="tmpfs" how=inherit_mode'],
  [
    'a tmpfs with a mode',
    { destination: '/x', type: 'tmpfs', source: 'none', options: ['mode=1777', 'noexec'] },
    'source="none" target="/x" fstype="tmpfs" options=["mode=1777"] set=noexec',
  ],
  [
    'a tmpfs with the old content',
    { destination: '/x', type: 'tmpfs', options: ['tmpcopyup', 'size=1m'] },
    'source="tmpfs" target="/x" fstype="tmpfs" options=["size=1m"] how=copy_up|inherit_mode',
  ],
  [
    'a disk',
    { destination: '/x', type: 'ext4', source: '/dev/sdb', options: ['ro', 'sync', 'data=journal', 'nodev'] },
    'source="/dev/sdb" target="/x" fstype="ext4" options=["ro", "sync", "data=journal"] set=rdonly|nodev',
  ],
  [
    'an overlay',
    { destination: '/x', type: 'overlay', source: 'o', options: ['lowerdir=/a:/b', 'upperdir=/u', 'workdir=/w'] },
    'source="o" target="/x" fstype="overlay" options=["lowerdir=/a:/b", "upperdir=/u", "workdir=/w"]',
  ],
  [
    'an overlay with more layers than one option takes',
    { destination: '/x', type: 'overlay', source: 'o', options: [`lowerdir=/a:/${'b'.repeat(250)}:/c`, 'ro'] },
    `source="o" target="/x" fstype="overlay" options=["ro", "lowerdir+=/a", "lowerdir+=/${'b'.repeat(250)}", "lowerdir+=/c"] set=rdonly`,
  ],
  [
    'an mqueue',
    { destination: '/x', type: 'mqueue', source: 'mqueue', options: ['nosuid'] },
    'source="mqueue" target="/x" fstype="mqueue" how=optional set=nosuid',
  ],
  [
    'a sysfs elsewhere',
    { destination: '/x', type: 'sysfs', source: 'sysfs', options: ['ro'] },
    'source="sysfs" target="/x" fstype="sysfs" how=plain_directory set=rdonly',
  ],
  [
    'a file below /proc that is emulated',
    { destination: '/proc/meminfo', source: '/lxcfs/meminfo', options: ['bind'] },
    'source="/lxcfs/meminfo" target="/proc/meminfo" how=bind',
  ],
  [
    'the host’s /proc',
    { destination: '/proc', source: '/proc', options: ['rbind'] },
    'source="/proc" target="/proc" how=bind|recursive',
  ],
  [
    'below the path of the root on the host',
    { destination: '/run//bundle/./rootfs/x', source: '/y', options: ['bind'] },
    'source="/y" target="/x" how=bind',
  ],
  [
    'below a path that begins like it',
    { destination: '/run/bundle/rootfs2/x', source: '/y', options: ['bind'] },
    'source="/y" target="/run/bundle/rootfs2/x" how=bind',
  ],
]

describe('planMounts()', () => {
  test.each(MOUNTS)('%s', (_, entry, expected) => {
    const ops = createPlan((spec) => (spec.mounts = [entry]))
    const mounts = described(ops, 'mount')
    expect(mounts).toEqual([`mount ${expected}`])
  })

  test.each<[string, Document, string]>([
    ['on the root', { destination: '/', type: 'tmpfs' }, 'it is on the top of rootfs'],
    ['on the root by another name', { destination: '/x/..', type: 'tmpfs' }, 'it is on the top of rootfs'],
    ['on the root as the host calls it', { destination: '/run/bundle/rootfs/', type: 'tmpfs' }, 'on the top of rootfs'],
    ['inside the root’s /proc', { destination: '/run/bundle/rootfs/proc/sys/net', type: 'tmpfs' }, 'is inside /proc'],
    ['inside /proc', { destination: '/proc/sys/net', type: 'tmpfs' }, 'cannot be mounted because it is inside /proc'],
    ['inside /proc by a detour', { destination: '/x/../proc/1', source: '/y', options: ['bind'] }, 'inside /proc'],
    ['of something else on /proc', { destination: '/proc', type: 'tmpfs' }, 'only the proc file system'],
    ['of a directory on /proc', { destination: '/proc', source: '/y', options: ['bind'] }, 'only the proc file system'],
    [
      'with an option of no length that a kernel takes',
      { destination: '/x', type: 'tmpfs', options: [`size=${'1'.repeat(256)}`] },
      'option "size=11111111111111111111111111111111111…" is longer',
    ],
    [
      'with an option of no such name',
      { destination: '/x', type: 'tmpfs', options: ['ü'.repeat(128)] },
      'is longer than the kernel takes (255 bytes)',
    ],
    [
      'of escaped layers that do not fit',
      { destination: '/x', type: 'overlay', options: [`lowerdir=/a\\:${'b'.repeat(256)}:/c`] },
      'is longer',
    ],
  ])('refuses a mount %s', (_, entry, message) => {
    try {
      withMount(entry)
    } catch (error) {
      expect(error).toBeInstanceOf(RuntimeError)
      expect(error).toMatchObject({
        detail: { source: 'spec', pointer: expect.stringMatching(/^\/mounts\/7\/(destination|options)$/) },
      })
      expect((error as RuntimeError).message).toContain(message)
      return
    }
    throw new Error('nothing was refused')
  })

  test('mounts keep their order, since one may be the source or the place of another', () => {
    const ops = createPlan()
    const targets = ops.flatMap((op) => (op.op === 'mount' ? [op.target] : []))
    expect(targets).toEqual(['/proc', '/dev', '/dev/pts', '/dev/shm', '/dev/mqueue', '/sys', '/run'])
  })
})

describe('mounts that become read-only at the end', () => {
  test('a tmpfs, and /dev of any type', () => {
    const ops = createPlan((spec) => {
      spec.mounts[1].options.push('ro')
      spec.mounts.push({ destination: '/x/', type: 'tmpfs', options: ['ro'] })
    })
    expect(mountOn(ops, '/dev')).not.toContain('rdonly')
    expect(mountOn(ops, '/x')).not.toContain('rdonly')
    expect(described(ops, 'readonly_mount')).toEqual(['readonly_mount path="/dev"', 'readonly_mount path="/x"'])
  })

  test('not one that a later mount covers', () => {
    const ops = createPlan((spec) =>
      spec.mounts.push(
        { destination: '/x/a', type: 'tmpfs', options: ['ro'] },
        { destination: '/xy', type: 'tmpfs', options: ['ro'] },
        { destination: '/x', source: '/y', options: ['bind'] },
      ),
    )
    expect(described(ops, 'readonly_mount')).toEqual(['readonly_mount path="/xy"'])
  })
})

describe('devices', () => {
  const DEFAULTS = ['/dev/null', '/dev/zero', '/dev/full', '/dev/random', '/dev/urandom', '/dev/tty']

  test('a device of the spec replaces the default one of the same path, and /dev/ptmx stays a link', () => {
    const ops = createPlan((spec) => {
      spec.linux.devices = [
        { path: '/dev//null', type: 'c', major: 1, minor: 3, fileMode: 0o100600, uid: 5, gid: 6 },
        { path: '/dev/ptmx', type: 'c', major: 5, minor: 2 },
        { path: '/dev/sda', type: 'b', major: 8, minor: 0, fileMode: 0o640 },
        { path: '/dev/raw', type: 'u', major: 9, minor: 1 },
        { path: '/run/pipe', type: 'p' },
      ]
    })
    const devices = described(ops, 'device')
    expect(devices).toHaveLength(DEFAULTS.length + 3)
    expect(devices[0]).toBe('device path="/dev/null" mode=c0600 major=1 minor=3 uid=5 gid=6')
    expect(devices.slice(DEFAULTS.length)).toEqual([
      'device path="/dev/sda" mode=b0640 major=8 minor=0',
      'device path="/dev/raw" mode=c0666 major=9 minor=1',
      'device path="/run/pipe" mode=p0666 major=0 minor=0',
    ])
    expect(described(ops, 'symlink')[0]).toBe('symlink target="pts/ptmx" path="/dev/ptmx" replace=1')
  })

  test('/dev/core leads to the kernel’s image where the host has one', () => {
    const core = 'symlink target="/proc/kcore" path="/dev/core"'
    expect(described(createPlan(undefined, { host: { ...HOST_V1, kcore: true } }), 'symlink')).toContain(core)
    expect(described(createPlan(), 'symlink')).not.toContain(core)
  })

  test('nothing is made in a /dev that is the host’s', () => {
    const ops = createPlan((spec) => (spec.mounts[1] = { destination: '/dev', source: '/dev', options: ['rbind'] }))
    expect(described(ops, 'device', 'symlink')).toEqual([])
  })

  test('in a user namespace the host’s nodes are bound', () => {
    const ops = createPlan((spec) => {
      addUserNamespace(spec)
      spec.linux.devices = [
        { path: '/dev/fuse', type: 'c', major: 10, minor: 229 },
        { path: '/run/pipe', type: 'p' },
      ]
    })
    for (const path of [...DEFAULTS, '/dev/fuse']) {
      expect(mountOn(ops, path)).toBe(`mount source="${path}" target="${path}" how=bind|host_source`)
    }
    expect(described(ops, 'device')).toEqual(['device path="/run/pipe" mode=p0666 major=0 minor=0'])
  })
})

describe('sysfs', () => {
  test('is the host’s, as a whole, in a user namespace with the host’s network', () => {
    const ops = createPlan((spec) => {
      addUserNamespace(spec)
      spec.linux.namespaces = spec.linux.namespaces.filter(({ type }: Document) => type !== 'network')
    })
    expect(mountOn(ops, '/sys')).toBe(
      'mount source="/sys" target="/sys" how=bind|recursive|host_source recSet=rdonly|nosuid|nodev|noexec',
    )
  })

  test.each([
    ['a new user namespace and a joined network, which it does not own', 'user', 'network', 'bind|recursive'],
    ['a joined user namespace and a new network, which it owns', 'network', 'user', 'plain_directory'],
  ])('with %s', (_, created, joined, how) => {
    const ops = createPlan((spec) => {
      addUserNamespace(spec)
      spec.linux.namespaces = [{ type: 'mount' }, { type: created }, { type: joined, path: `/run/ns/${joined}` }]
    })
    expect(mountOn(ops, '/sys')).toContain(`how=${how}`)
  })

  test('is its own with a network of its own', () => {
    expect(mountOn(createPlan(addUserNamespace), '/sys')).toContain('fstype="sysfs"')
  })
})

describe('mountLabel', () => {
  const label = (spec: Document) => (spec.linux.mountLabel = 'system_u:object_r:container_file_t:s0:c1,c2')

  test('is a context of new file systems, but not of proc, sysfs and mqueue', () => {
    const ops = createPlan(label, { host: { ...HOST_V1, selinux: true } })
    expect(mountOn(ops, '/run')).toContain('"context=system_u:object_r:container_file_t:s0:c1,c2"')
    for (const path of ['/proc', '/sys', '/dev/mqueue']) expect(mountOn(ops, path)).not.toContain('context')
  })

  test('is refused without SELinux', () => {
    expect(() => createPlan(label)).toThrow(/selinux is disabled or not supported \(at \/linux\/mountLabel\)/)
  })
})

describe('a cgroup mount', () => {
  const entry = { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['nosuid', 'noexec', 'ro'] }
  const cgroupNamespace = (spec: Document) => spec.linux.namespaces.push({ type: 'cgroup' })
  const onCgroup = (ops: ReturnType<typeof createPlan>) =>
    described(ops, 'mount', 'symlink', 'readonly_mount').filter((line) => line.includes('/sys/fs/cgroup'))

  test('v1: binds of the own directories, or of the inherited ones, below a tmpfs', () => {
    expect(onCgroup(withMount(entry))).toEqual([
      'mount source="tmpfs" target="/sys/fs/cgroup" fstype="tmpfs" options=["mode=755"] set=nosuid|noexec',
      'mount source="/sys/fs/cgroup/memory/default/box" target="/sys/fs/cgroup/memory" how=bind|recursive recSet=rdonly|nosuid|noexec',
      'mount source="/sys/fs/cgroup/cpu,cpuacct/user" target="/sys/fs/cgroup/cpu,cpuacct" how=bind|recursive recSet=rdonly|nosuid|noexec',
      'symlink target="cpu,cpuacct" path="/sys/fs/cgroup/cpu"',
      'symlink target="cpu,cpuacct" path="/sys/fs/cgroup/cpuacct"',
      'mount source="/sys/fs/cgroup/systemd" target="/sys/fs/cgroup/systemd" how=bind|recursive recSet=rdonly|nosuid|noexec',
      'readonly_mount path="/sys/fs/cgroup"',
    ])
  })

  test('v1: mounts of the hierarchies in a cgroup namespace', () => {
    expect(onCgroup(withMount({ ...entry, options: ['nosuid'] }, {}, cgroupNamespace))).toEqual([
      'mount source="tmpfs" target="/sys/fs/cgroup" fstype="tmpfs" options=["mode=755"] set=nosuid',
      'mount source="cgroup" target="/sys/fs/cgroup/memory" fstype="cgroup" options=["memory"] set=nosuid',
      'mount source="cgroup" target="/sys/fs/cgroup/cpu,cpuacct" fstype="cgroup" options=["cpu", "cpuacct"] set=nosuid',
      'symlink target="cpu,cpuacct" path="/sys/fs/cgroup/cpu"',
      'symlink target="cpu,cpuacct" path="/sys/fs/cgroup/cpuacct"',
      'mount source="cgroup" target="/sys/fs/cgroup/systemd" fstype="cgroup" options=["name=systemd"] set=nosuid',
    ])
  })

  test('v2: the file system itself in a cgroup namespace', () => {
    const cgroup = { kind: 'dir', path: '/sys/fs/cgroup/box' } as const
    expect(onCgroup(withMount(entry, { host: HOST_V2, cgroup }, cgroupNamespace))).toEqual([
      'mount source="cgroup" target="/sys/fs/cgroup" fstype="cgroup2" set=rdonly|nosuid|noexec',
    ])
  })

  test('v2: in a user namespace that cannot own the one that it joins, its own cgroup alone, or an empty folder', () => {
    const planned = (cgroup: CgroupJoin) =>
      createPlan(
        (spec) => {
          addUserNamespace(spec)
          spec.linux.namespaces.push({ type: 'cgroup', path: '/run/ns/cgroup' })
          spec.mounts.push({ destination: '/sys/fs/cgroup', type: 'cgroup', options: ['nosuid'] })
        },
        { host: HOST_V2, cgroup },
      )
    expect(mountOn(planned({ kind: 'dir', path: '/sys/fs/cgroup/box' }), '/sys/fs/cgroup')).toContain(
      'source="/sys/fs/cgroup/box" target="/sys/fs/cgroup" how=bind|recursive',
    )
    expect(mountOn(planned({ kind: 'none' }), '/sys/fs/cgroup')).toContain(
      'source="tmpfs" target="/sys/fs/cgroup" fstype="tmpfs" options=["mode=755", "nr_inodes=1"] set=rdonly|nosuid',
    )
  })

  test('v2: nothing of the tree of a user who has no cgroup for the container', () => {
    const host = { ...HOST_V2, rootless: true }
    expect(onCgroup(withMount(entry, { host, cgroup: { kind: 'none' } }))[0]).toContain('source="tmpfs"')
  })

  test('v2: a bind of the host’s without one', () => {
    expect(onCgroup(withMount(entry, { host: HOST_V2, cgroup: { kind: 'none' } }))).toEqual([
      'mount source="/sys/fs/cgroup" target="/sys/fs/cgroup" how=bind|recursive recSet=rdonly|nosuid|noexec',
    ])
  })

  test('is refused on a host without cgroups', () => {
    const host = { ...HOST_V1, cgroupMounts: [] }
    expect(() => withMount(entry, { host })).toThrow(/the host has no cgroup file system \(at \/mounts\/7\)/)
  })
})
