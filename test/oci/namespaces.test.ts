/** Namespaces of a container: new ones, those of the host, and those of another container or a file that it joins. */
import { spawnSync } from 'node:child_process'
import { chmodSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { allPids, isAlive } from '../support/census.ts'
import { until } from '../support/command.ts'
import { needs, notRunc } from '../support/needs.ts'
import { BY_ROOT, inModes, MODES, type OciHost } from '../support/oci.ts'
import type { TestSpec } from '../support/spec.ts'

const LINKS: Readonly<Record<string, string>> = {
  pid: 'pid',
  ipc: 'ipc',
  uts: 'uts',
  mount: 'mnt',
  network: 'net',
  user: 'user',
  cgroup: 'cgroup',
  time: 'time',
}

/** The namespace of a process, as the kernel names it. */
function namespaceOf(pid: number | 'self', type: string): string {
  return readlinkSync(`/proc/${pid}/ns/${LINKS[type]}`)
}

async function pidOf(runts: OciHost, id: string): Promise<number> {
  return Number((await runts.state(id))['pid'])
}

/** The processes with a word in their command line. */
function processesCalled(word: string): number[] {
  return allPids().filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(word)
    } catch {
      return false
    }
  })
}

const without = (spec: TestSpec, type: string): void => {
  spec.linux.namespaces = spec.linux.namespaces.filter((each) => each.type !== type)
}

/** In the pid namespace of the host, whose /proc comes by a bind. */
const withoutPid = (spec: TestSpec): void => {
  without(spec, 'pid')
  spec.mounts = spec.mounts.filter(({ destination }) => destination !== '/proc')
  spec.mounts.push({ destination: '/proc', source: '/proc', type: 'bind', options: ['rbind'] })
  spec.linux.maskedPaths = []
  spec.linux.readonlyPaths = []
}

inModes(MODES, 'namespaces', (test) => {
  test('are new exactly where the config lists them', async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      spec.linux.namespaces.push({ type: 'cgroup' })
      without(spec, 'ipc')
    })
    const pid = await pidOf(runts, 'c')
    for (const type of ['pid', 'uts', 'mount', 'network', 'cgroup']) {
      expect(namespaceOf(pid, type), type).not.toBe(namespaceOf('self', type))
    }
    expect(namespaceOf(pid, 'ipc')).toBe(namespaceOf('self', 'ipc'))
    expect(namespaceOf(pid, 'user') === namespaceOf('self', 'user')).toBe(!runts.isMapped)
  })

  test('of a container are all entered by an exec', async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      spec.linux.namespaces.push({ type: 'cgroup' })
    })
    const show = ['sh', '-c', 'for ns in pid ipc uts mnt net user cgroup; do readlink /proc/self/ns/$ns; done']
    const pid = await pidOf(runts, 'c')
    const expected = ['pid', 'ipc', 'uts', 'mount', 'network', 'user', 'cgroup'].map((type) => namespaceOf(pid, type))
    expect((await runts.exec('c', ...show)).trimEnd().split('\n')).toEqual(expected)
  })

  test('give host name, a loopback that is up, and pid 1', async ({ runts }) => {
    const out = await runts.inside(
      'hostname; echo $$; ip addr show lo | grep -o "LOOPBACK,UP\\|inet 127.0.0.1"',
      (spec) => {
        spec.hostname = 'other'
      },
    )
    expect(out).toBe('other\n1\nLOOPBACK,UP\ninet 127.0.0.1\n')
  })

  test('of uts have the domain name too', notRunc('needs runc 1.2: domainname'), async ({ runts }) => {
    const out = await runts.inside('hostname; dnsdomainname 2>/dev/null; cat /proc/sys/kernel/domainname', (spec) => {
      spec.hostname = 'other'
      spec.domainname = 'example.org'
    })
    expect(out).toMatch(/^other\n(.*\n)?example\.org\n$/)
  })

  const newer = notRunc('needs runc 1.2: time namespaces, and a joined user namespace without mappings')
  test('of another container are joined by their paths, also all of them at once', newer, async ({ runts }) => {
    runts.sleeper('first', (spec) => {
      for (const type of ['cgroup', 'time']) spec.linux.namespaces.push({ type })
      spec.linux.timeOffsets = { monotonic: { secs: 7881 } }
    })
    const pid = await pidOf(runts, 'first')
    const types = ['ipc', 'uts', 'network', 'pid', 'cgroup', 'time', ...(runts.isMapped ? ['user'] : [])]
    runts.sleeper('second', (spec) => {
      for (const type of ['cgroup', 'time']) spec.linux.namespaces.push({ type })
      for (const namespace of spec.linux.namespaces) {
        if (types.includes(namespace.type)) namespace.path = `/proc/${pid}/ns/${LINKS[namespace.type]}`
      }
      delete spec.linux.uidMappings
      delete spec.linux.gidMappings
    })
    const second = await pidOf(runts, 'second')
    for (const type of types) expect(namespaceOf(second, type), type).toBe(namespaceOf(pid, type))
    expect(namespaceOf(second, 'mount')).not.toBe(namespaceOf(pid, 'mount'))
    // it shares the pid namespace: its own first process is not number 1 there
    expect(await runts.exec('second', 'sh', '-c', 'ps -o args | grep -c "^sleep 1000"')).toBe('2\n')
  })

  test('are refused when their type or path is wrong, or when they are listed twice', async ({ runts }) => {
    const refused = (type: string, path?: string) =>
      runts.refused((spec) => {
        without(spec, type)
        spec.linux.namespaces.push({ type, ...(path === undefined ? {} : { path }) })
      })
    expect(await refused('imaginary')).toMatch(/imaginary/)
    expect(await refused('network', '/no/such')).toMatch(/\/no\/such/)
    expect(await refused('network', '/proc/self/ns/uts')).not.toBe('')
    expect(await runts.refused((spec) => spec.linux.namespaces.push({ type: 'pid' }))).toMatch(/duplicate/i)
  })

  test('are needed by the names of the host', async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.hostname = 'other'
      without(spec, 'uts')
    })
    expect(error).toContain('unable to set hostname without a private UTS namespace')
  })
})

inModes(BY_ROOT, 'the network namespace', (test) => {
  test('may be one that ip netns made', needs('iproute2'), async ({ runts }) => {
    // user namespaces own their network; one of the host's is joined only for looking
    spawnSync('ip', ['netns', 'add', runts.name])
    try {
      runts.sleeper('c', (spec) => {
        without(spec, 'network')
        spec.linux.namespaces.push({ type: 'network', path: `/run/netns/${runts.name}` })
        // a file system of the host's network is not the container's to mount
        spec.mounts = spec.mounts.filter(({ destination }) => destination !== '/sys')
      })
      const { stdout } = spawnSync('ip', ['netns', 'identify', String(await pidOf(runts, 'c'))], { encoding: 'utf8' })
      expect(stdout.trim()).toBe(runts.name)
      await runts.ok('delete', '-f', 'c')
    } finally {
      spawnSync('ip', ['netns', 'delete', runts.name])
    }
  })
})

inModes(MODES, 'sysctls', (test) => {
  test('of the namespaces that the container has are set, in dots or slashes', async ({ runts }) => {
    const out = await runts.inside(
      'cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/lo/forwarding',
      (spec) => {
        spec.linux.sysctl = { 'net.ipv4.ip_forward': '1', 'net/ipv4/conf/lo/forwarding': '1' }
      },
    )
    expect(out).toBe('1\n1\n')
  })

  test('of ipc are set', async ({ runts }) => {
    const out = await runts.inside('cat /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max', (spec) => {
      spec.linux.sysctl = { 'kernel.shm_rmid_forced': '1', 'fs.mqueue.msg_max': '11' }
    })
    expect(out).toBe('1\n11\n')
  })

  test('of the host are refused', async ({ runts }) => {
    const refused = (key: string, missing?: string) =>
      runts.refused((spec) => {
        spec.linux.sysctl = { [key]: '0' }
        if (missing !== undefined) without(spec, missing)
      })
    expect(await refused('vm.swappiness')).toContain('is not in a separate kernel namespace')
    expect(await refused('kernel.shmmax', 'ipc')).toContain('is not allowed in the hosts ipc namespace')
    expect(await refused('net.ipv4.ip_forward', 'network')).toContain('not allowed in host network namespace')
    expect(await refused('kernel.hostname')).toMatch(/hostname/)
  })
})

// without a cgroup, and so for an unprivileged user, nothing tells its processes from the other's
inModes(BY_ROOT, "a container in another one's pid namespace", (test) => {
  const newer = notRunc('1.1 signals the first process alone')
  test('is killed whole, and the other one lives', newer, async ({ runts }) => {
    runts.sleeper('first')
    const pid = await pidOf(runts, 'first')
    const bundle = runts.bundle(['sh', '-c', 'sh -c "sleep 1000; :" "$0" & exec sleep 1000', runts.name], (spec) => {
      for (const namespace of spec.linux.namespaces) {
        if (['pid', 'user'].includes(namespace.type)) namespace.path = `/proc/${pid}/ns/${LINKS[namespace.type]}`
      }
      delete spec.linux.uidMappings
      delete spec.linux.gidMappings
    })
    runts.leave('run', '-d', '-b', bundle, 'second')
    await until('its child', () => processesCalled(runts.name).length === 1)
    await runts.ok('kill', 'second', 'KILL')
    await until('it to end', () => processesCalled(runts.name).filter(isAlive).length === 0)
    expect(await runts.state('first')).toMatchObject({ status: 'running' })
  })
})

inModes(['as root'], 'a container without a pid namespace', (test) => {
  const whole = notRunc('1.1 signals the first process alone')
  test('is killed whole by a KILL, also when its first process is gone', whole, async ({ runts }) => {
    const bundle = runts.bundle(['sh', '-c', 'sh -c "sleep 1000; :" "$0" & exec sleep 1000', runts.name], withoutPid)
    runts.leave('run', '-d', '-b', bundle, 'c')
    const first = await pidOf(runts, 'c')
    await runts.ok('kill', 'c', 'KILL')
    await runts.untilStatus('c', 'stopped')
    // both of them: the child is found by what only it is called
    await until('both to end', () => [first, ...processesCalled(runts.name)].filter(isAlive).length === 0)
    await runts.ok('delete', 'c')
  })
})

// a user namespace of its own could not change its root
inModes(['as root'], 'a container without a mount namespace', (test) => {
  test('has its root, and hooks that run exactly once', notRunc('needs a /proc in the root'), async ({ runts }) => {
    const mark = join(runts.folder, 'hooks')
    writeFileSync(mark, '')
    chmodSync(mark, 0o666)
    const bundle = runts.bundle(['cat', '/mark'], (spec) => {
      without(spec, 'mount')
      spec.mounts = []
      spec.linux.maskedPaths = []
      spec.linux.readonlyPaths = []
      spec.hooks = { createRuntime: [{ path: '/bin/sh', args: ['sh', '-c', `echo ran >> ${mark}`] }] }
    })
    writeFileSync(join(bundle, 'rootfs/mark'), 'of the container\n')
    expect((await runts.ok('run', '-b', bundle, 'c')).stdout).toBe('of the container\n')
    expect(spawnSync('cat', [mark], { encoding: 'utf8' }).stdout).toBe('ran\n')
  })
})

inModes(MODES, 'time namespaces', (test) => {
  const newer = notRunc('needs runc 1.2: time namespaces')
  const clocks = (text: string): number[] => text.trim().split(' ').map(Number)
  const now = (): number => Math.floor(Number(process.hrtime.bigint() / 1_000_000_000n))

  test('shift the clocks of the first process and of an exec', newer, async ({ runts }) => {
    const bundle = runts.bundle(['sh', '-c', 'probe clocks > /tmp/first; exec sleep 1000'], (spec) => {
      spec.linux.namespaces.push({ type: 'time' })
      spec.linux.timeOffsets = { monotonic: { secs: 7881, nanosecs: 2_718_281 }, boottime: { secs: 1337, nanosecs: 1 } }
    })
    runts.leave('run', '-d', '-b', bundle, 'c')
    const pid = await pidOf(runts, 'c')
    expect(namespaceOf(pid, 'time')).not.toBe(namespaceOf('self', 'time'))
    const first = await runts.exec('c', 'sh', '-c', 'until [ -s /tmp/first ]; do :; done; cat /tmp/first')
    for (const shown of [first, await runts.exec('c', 'probe', 'clocks')]) {
      expect(Math.abs(clocks(shown)[0]! - now() - 7881)).toBeLessThan(30)
    }
    expect(await runts.exec('c', 'cat', '/proc/self/timens_offsets')).toMatch(
      /^monotonic +7881 +2718281\nboottime +1337 +1\n$/,
    )
  })

  test('without offsets shift nothing', newer, async ({ runts }) => {
    const out = await runts.inside('cat /proc/self/timens_offsets', (spec) => {
      spec.linux.namespaces.push({ type: 'time' })
    })
    expect(out).toMatch(/^monotonic +0 +0\nboottime +0 +0\n$/)
  })

  test('are needed for offsets, and must be new', newer, async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.linux.timeOffsets = { monotonic: { secs: 1 } }
    })
    expect(error).toMatch(/time/i)
    const joined = await runts.refused((spec) => {
      spec.linux.namespaces.push({ type: 'time', path: '/proc/self/ns/time' })
      spec.linux.timeOffsets = { monotonic: { secs: 1 } }
    })
    expect(joined).toMatch(/time/i)
  })
})
