/**
 * Containers of a user without privileges, with subordinate ids or with one id alone, and of root in a user namespace.
 * There is no permission for cgroups, devices or other ids.
 */
import { spawnSync } from 'node:child_process'
import { chownSync, mkdirSync, rmdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { cgroupsOf } from '../support/census.ts'
import { type Finished, startCommand, until } from '../support/command.ts'
import { isCgroup2, notRunc } from '../support/needs.ts'
import { inModes, type OciHost } from '../support/oci.ts'
import { OCI_RUNTIME } from '../support/places.ts'
import type { SpecChange, TestSpec } from '../support/spec.ts'

const SLEEP = ['sleep', '1000']

/** Only the user's own id is known in the container, so devpts has no group 5 to give its terminals to. */
const alone: SpecChange = (spec) => {
  for (const maps of [spec.linux.uidMappings, spec.linux.gidMappings]) maps?.splice(1)
  withoutTtyGroup(spec)
}

/** No user namespace in the document. */
const unmapped: SpecChange = (spec) => {
  spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'user')
  delete spec.linux.uidMappings
  delete spec.linux.gidMappings
  withoutTtyGroup(spec)
}

function withoutTtyGroup(spec: TestSpec): void {
  for (const { type, options = [] } of spec.mounts) {
    if (type === 'devpts') options.splice(0, options.length, ...options.filter((option) => option !== 'gid=5'))
  }
}

/** Runs the runtime by another program, as the user. */
function runBy(runts: OciHost, program: readonly string[], ...args: string[]): Promise<Finished> {
  const words = runts.commandOf(...args)
  const at = words.indexOf(OCI_RUNTIME)
  const [first = '', ...rest] = [...words.slice(0, at), ...program, ...words.slice(at)]
  return startCommand(first, rest).finished
}

inModes(['as an unprivileged user'], 'a container', (test) => {
  test('is created, looked into, started, looked into again, killed and deleted', async ({ runts }) => {
    runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'created' })
    expect(await runts.exec('c', 'id', '-u')).toBe('0\n')
    await runts.ok('start', 'c')
    expect(await runts.exec('-u', '5:6', 'c', 'sh', '-c', 'id -u; id -g')).toBe('5\n6\n')
    expect((await runts.ok('list', '-q')).stdout).toBe('c\n')
    await runts.ok('kill', 'c', 'KILL')
    await runts.untilStatus('c', 'stopped')
    await runts.ok('delete', 'c')
  })

  test('knows the ids that newuidmap and newgidmap have given it', async ({ runts }) => {
    const words = (text: string) => text.trim().split(/\s+/)
    const maps = await runts.inside('cat /proc/self/uid_map /proc/self/gid_map; cat /proc/self/setgroups')
    expect(words(maps)).toEqual([...words('0 5000 1 1 200000 65536'), ...words('0 5000 1 1 200000 65536'), 'allow'])
  })

  test('knows the ids of its supplementary groups', notRunc('refuses groups for every user'), async ({ runts }) => {
    const groups = await runts.inside('grep Groups: /proc/self/status', (spec) => {
      spec.process.user.additionalGids = [7, 8]
    })
    expect(groups).toMatch(/7 8/)
  })

  test('may know the one id of the user, and then has no groups to set', async ({ runts }) => {
    expect(await runts.inside('cat /proc/self/setgroups', alone)).toBe('deny\n')
    const error = await runts.refused((spec) => {
      alone(spec)
      spec.process.user.additionalGids = [0]
    })
    expect(error).toContain('cannot set any additional groups in a rootless container')
  })

  test('gets the device nodes of the host, and cannot make others', async ({ runts }) => {
    const script = 'stat -c %t:%T /dev/null; echo gone > /dev/null; mknod /tmp/x c 1 3 2>/dev/null; echo $?'
    expect(await runts.inside(script)).toBe('1:3\n1\n')
  })

  test(
    'runs behind a seccomp profile, which is kept beside the containers',
    notRunc('keeps none'),
    async ({ runts }) => {
      const script = 'chmod 600 /tmp 2>/dev/null || echo refused'
      const output = await runts.inside(script, (spec) => {
        spec.linux.seccomp = {
          defaultAction: 'SCMP_ACT_ALLOW',
          syscalls: [{ names: ['chmod', 'fchmodat', 'fchmodat2'], action: 'SCMP_ACT_ERRNO' }],
        }
      })
      expect(output).toBe('refused\n')
      expect(statSync(join(runts.root, '.seccomp')).isDirectory()).toBe(true)
    },
  )

  test(
    'keeps its state where only the user looks, and where no sweeper removes it',
    notRunc('does so for its default folder alone'),
    async ({ runts }) => {
      runts.sleeper('c')
      expect((statSync(runts.root).mode & 0o7777).toString(8)).toBe('1700')
    },
  )

  test('has no cgroup to be paused in', notRunc('says so in other words'), async ({ runts }) => {
    runts.sleeper('c')
    expect(await runts.run('pause', 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('it has no cgroup of its own'),
    })
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
  })

  test('is listed by its pid namespace instead', notRunc('lists by cgroup alone'), async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(['sh', '-c', 'sleep 1000 & sleep 1000; wait']), 'c')
    await until('all three', async () => JSON.parse((await runts.ok('ps', '-f', 'json', 'c')).stdout).length === 3)
  })

  test(
    'uses a cgroup that was delegated to the user, and can be paused in it',
    notRunc('has no use for the v2 tree of a hybrid host'),
    async ({ runts }) => {
      const delegated = join(isCgroup2() ? '/sys/fs/cgroup' : '/sys/fs/cgroup/unified', runts.name)
      const own = join(delegated, 'own')
      mkdirSync(own, { recursive: true })
      for (const dir of [delegated, own])
        for (const path of [dir, `${dir}/cgroup.procs`]) chownSync(path, runts.owner, runts.owner)
      // each command is born in the user's part of the tree, as those of a session are
      const inside = (...args: string[]): number | null => {
        const words = ['-c', 'echo $$ >"$0" && exec "$@"', `${own}/cgroup.procs`, ...runts.commandOf(...args)]
        return spawnSync('sh', words, { stdio: 'ignore' }).status
      }
      try {
        expect(inside('run', '-d', '-b', runts.bundle(SLEEP), 'c')).toBe(0)
        expect(inside('pause', 'c')).toBe(0)
        expect(await runts.state('c')).toMatchObject({ status: 'paused' })
        expect(inside('resume', 'c')).toBe(0)
        expect(inside('delete', '-f', 'c')).toBe(0)
        expect(cgroupsOf(runts.name)).toHaveLength(2)
      } finally {
        rmdirSync(own)
      }
    },
  )

  test('with the processes of the host in sight is discouraged', notRunc('wants a /proc in it'), async ({ runts }) => {
    const bundle = runts.bundle(['true'], (spec) => {
      spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'pid')
      spec.mounts = spec.mounts.filter(({ destination }) => destination !== '/proc')
      spec.linux.maskedPaths = []
      spec.linux.readonlyPaths = []
    })
    expect(await runts.run('run', '-b', bundle, 'c')).toMatchObject({
      code: 0,
      stderr: expect.stringContaining('Such configuration is strongly discouraged'),
    })
  })

  test('with limits, or a cgroup by name, is refused', async ({ runts }) => {
    const limits = await runts.refused((spec) => {
      spec.linux.resources = { pids: { limit: 100 } }
    })
    expect(limits).toContain(
      isCgroup2()
        ? 'rootless needs no limits + no cgrouppath when no permission is granted for cgroups'
        : 'cannot set pids limit: container could not join or create cgroup',
    )
    const path = await runts.refused((spec) => {
      spec.linux.cgroupsPath = `/${runts.name}/asked`
    })
    expect(path).toMatch(/cannot create cgroup .*: EACCES|mkdir .*: permission denied/)
  })

  test('without a user namespace is refused', async ({ runts }) => {
    expect(await runts.refused(unmapped)).toContain('rootless container requires user namespaces')
  })

  test('whose ids are not the user’s is refused in the words of newuidmap', async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.linux.uidMappings?.push({ containerID: 70_000, hostID: 0, size: 1 })
    })
    expect(error).toContain('newuidmap: uid range [70000-70001) -> [0-1) not allowed')
  })

  test('whose file systems would belong to unknown ids is refused', async ({ runts }) => {
    const error = await runts.refused((spec) => {
      alone(spec)
      spec.mounts.push({ destination: '/mnt', type: 'tmpfs', source: 'tmpfs', options: ['uid=7'] })
    })
    expect(error).toContain('cannot specify uid= mount options for unmapped uid in rootless containers')
  })

  test('names the package of newuidmap where that is missing', notRunc('names no package'), async ({ runts }) => {
    const bundle = runts.bundle(['true'])
    const { code, stderr } = await runBy(runts, ['env', 'PATH=/none'], 'run', '-b', bundle, 'c')
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/"newgidmap" is not in PATH \(Debian's package uidmap has it\)/),
    })
  })
})

inModes(['as an unprivileged user'], 'root of a user namespace', (test) => {
  const ROOT_OF_NAMESPACE = ['unshare', '--user', '--map-root-user']

  test('runs a container that has no other user namespace', async ({ runts }) => {
    const bundle = runts.bundle(
      ['sh', '-c', 'id -u; cat /sys/class/net/lo/operstate; stat -c %t:%T /dev/null'],
      unmapped,
    )
    const { code, stdout, stderr } = await runBy(runts, ROOT_OF_NAMESPACE, 'run', '-b', bundle, 'c')
    expect({ code, stderr, stdout }).toEqual({ code: 0, stderr: '', stdout: '0\nunknown\n1:3\n' })
  })

  test(
    'runs one with the network of the host, whose /sys it then shows',
    notRunc('leaves that bind to the document'),
    async ({ runts }) => {
      const bundle = runts.bundle(['sh', '-c', 'test -d /sys/class/net && echo there'], (spec) => {
        unmapped(spec)
        spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'network')
      })
      const { code, stdout, stderr } = await runBy(runts, ROOT_OF_NAMESPACE, 'run', '-b', bundle, 'c')
      expect({ code, stderr, stdout }).toEqual({ code: 0, stderr: '', stdout: 'there\n' })
    },
  )

  test('runs one with a user namespace below its own', async ({ runts }) => {
    const bundle = runts.bundle(['cat', '/proc/self/setgroups'], (spec) => {
      alone(spec)
      for (const [map] of [spec.linux.uidMappings ?? [], spec.linux.gidMappings ?? []]) if (map) map.hostID = 0
    })
    const { code, stdout, stderr } = await runBy(runts, ROOT_OF_NAMESPACE, 'run', '-b', bundle, 'c')
    expect({ code, stderr, stdout }).toEqual({ code: 0, stderr: '', stdout: 'deny\n' })
  })
})
