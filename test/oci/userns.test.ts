/**
 * User namespaces: maps, what the host's files look like, sources of mounts that the container's root could not reach
 * itself.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { notRunc } from '../support/needs.ts'
import { inModes } from '../support/oci.ts'

inModes(['in a user namespace', 'as an unprivileged user'], 'user namespaces', (test) => {
  const newer = notRunc('needs runc 1.2: a joined user namespace without mappings')

  test('map ids as the config says, and files made inside belong to the mapped ids', async ({ runts }) => {
    const bundle = runts.bundle([
      'sh',
      '-c',
      'cat /proc/self/uid_map /proc/self/gid_map; touch /tmp/x; chown 33:44 /tmp/x',
    ])
    const { stdout } = await runts.ok('run', '-b', bundle, 'c')
    const map = runts.isRootless ? [`0 ${runts.owner} 1`, '1 200000 65536'] : [`0 ${runts.owner} 65536`]
    expect(
      stdout
        .trimEnd()
        .split('\n')
        .map((line) => line.trim().split(/ +/).join(' ')),
    ).toEqual([...map, ...map])
    const { uid, gid } = statSync(join(bundle, 'rootfs/tmp/x'))
    expect({ uid, gid }).toEqual({ uid: runts.hostId(33), gid: runts.hostId(44) })
  })

  test('give devices, terminals and the shared memory folder to the container', async ({ runts }) => {
    const out = await runts.inside(
      'echo x >/dev/null; head -c 1 /dev/zero | od -An -tx1; stat -c "%u %a" /dev/shm; ls /dev/pts',
    )
    expect(out).toBe(' 00\n0 1777\nptmx\n')
  })

  test(
    'of a config without mappings are refused, as are mappings without one',
    notRunc('1.1 runs the former'),
    async ({ runts }) => {
      const error = await runts.refused((spec) => {
        delete spec.linux.uidMappings
        delete spec.linux.gidMappings
      })
      expect(error).toMatch(/user namespaces? .*mapping|mapping/i)
      const other = await runts.refused((spec) => {
        spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'user')
      })
      expect(other).toMatch(/user|rootless/i)
    },
  )

  test('are joined by a file that one is bound to, too', newer, async ({ runts }) => {
    runts.sleeper('c')
    const { pid } = await runts.state('c')
    const file = join(runts.folder, 'namespace')
    writeFileSync(file, '')
    expect(spawnSync('mount', ['--bind', `/proc/${pid}/ns/user`, file]).status).toBe(0)
    try {
      const map = readFileSync(`/proc/${pid}/uid_map`, 'utf8')
      const look = (): Promise<string> =>
        runts.inside('cat /proc/self/uid_map; stat -c %u /proc/1', (spec) => {
          spec.linux.namespaces.find(({ type }) => type === 'user')!.path = file
          delete spec.linux.uidMappings
          delete spec.linux.gidMappings
        })
      expect(await look()).toBe(`${map}0\n`)
      // nor need anybody live in it
      await runts.ok('delete', '--force', 'c')
      expect(await look()).toBe(`${map}0\n`)
    } finally {
      spawnSync('umount', [file])
    }
  })

  test('that are joined may not be mapped otherwise', notRunc('needs runc 1.2'), async ({ runts }) => {
    runts.sleeper('c')
    const { pid } = await runts.state('c')
    const error = await runts.refused((spec) => {
      spec.linux.namespaces.find(({ type }) => type === 'user')!.path = `/proc/${pid}/ns/user`
      spec.linux.uidMappings = [{ containerID: 0, hostID: 424_242, size: 10 }]
    })
    expect(error).toMatch(/user namespaces enabled, but both namespace path and .*mapping specified/)
  })

  test('refuse a user that is not mapped, and say so', notRunc('1.1 does not name the id'), async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.process.user = { uid: 70_000, gid: 0 }
    })
    expect(error).toMatch(/unmapped uid 70000|70000/)
  })
})

inModes(['in a user namespace'], 'mounts for a user namespace', (test) => {
  test('may have sources that its root could not reach, and an exec sees them', async ({ runts }) => {
    const closed = ['one', 'two'].map((name) => {
      const folder = join(runts.folder, `closed-${name}`, 'inside')
      mkdirSync(folder, { recursive: true })
      writeFileSync(join(folder, 'file'), `${name}\n`)
      chmodSync(join(runts.folder, `closed-${name}`), 0o700)
      return folder
    })
    runts.sleeper('c', (spec) => {
      for (const [index, source] of closed.entries()) {
        spec.mounts.push({ destination: `/m${index}`, source, type: 'bind', options: ['bind'] })
      }
    })
    expect(await runts.exec('c', 'cat', '/m0/file', '/m1/file')).toBe('one\ntwo\n')
  })

  test('may come before a cgroup file system', async ({ runts }) => {
    const source = join(runts.folder, 'before')
    mkdirSync(source)
    writeFileSync(join(source, 'file'), 'of the host\n')
    const out = await runts.inside('cat /before/file; ls /sys/fs/cgroup | head -n 1 | wc -l', (spec) => {
      spec.mounts.push(
        { destination: '/before', source, type: 'bind', options: ['bind'] },
        {
          destination: '/sys/fs/cgroup',
          source: 'cgroup',
          type: 'cgroup',
          options: ['ro', 'nosuid', 'noexec', 'nodev'],
        },
      )
      spec.linux.namespaces.push({ type: 'cgroup' })
    })
    expect(out).toBe('of the host\n1\n')
  })

  test('keep the flags that their source is locked with', async ({ runts }) => {
    const out = await runts.inside(
      `awk '$5 == "/x" { print $6 }' /proc/self/mountinfo; cat /x/uptime >/dev/null && echo read`,
      (spec) => {
        spec.mounts.push({ destination: '/x', source: '/proc', type: 'bind', options: ['rbind', 'ro'] })
      },
    )
    expect(out).toMatch(/^ro,.*\nread\n$/)
  })
})
