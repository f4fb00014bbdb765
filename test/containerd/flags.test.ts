/**
 * Every flag of Debian's `ctr run` that reaches a runtime, and through --config what it has no flag for; resources
 * are in limits.test.ts.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { describe } from 'vitest'
import { startCommand, until } from '../support/command.ts'
import { type Containers, expect, test } from '../support/containerd.ts'
import { needs } from '../support/needs.ts'
import { IS_OURS, RUNTIME } from '../support/places.ts'
import { rootfsFolder, type SpecChange } from '../support/spec.ts'

const sh = (script: string): string[] => ['sh', '-c', script]

/** The value of a field of the container's /proc/self/status. */
async function statusField(ct: Containers, field: string, flags: readonly string[]): Promise<string> {
  const { stdout, stderr, code } = await ct.run(flags, ['grep', `^${field}:`, '/proc/self/status'])
  expect(code, stderr).toBe(0)
  return stdout.split(':')[1]!.trim()
}

/** Runs a container from a whole config.json of the test's making. */
async function runConfig(ct: Containers, command: readonly string[], change: SpecChange) {
  return ct.ctr(...ct.configArgs(['--rm'], ct.id(), command, change))
}

describe('ctr run', needs('root', 'containerd', 'busybox'), () => {
  test('--env and --env-file set variables', async ({ ct }) => {
    const file = join(ct.folder, 'env')
    writeFileSync(file, 'FROM_FILE=two words\nOTHER=b\n')
    const { stdout } = await ct.run(
      ['--env', 'A=1', '--env', 'B=x=y', '--env-file', file],
      sh('echo "$A|$B|$FROM_FILE|$OTHER"'),
    )
    expect(stdout).toBe('1|x=y|two words|b\n')
  })

  test('--cwd sets the working folder', async ({ ct }) => {
    expect(await ct.run(['--cwd', '/home'], ['pwd'])).toMatchObject({ stdout: '/home\n' })
  })

  test('--cwd makes a folder that is missing', async ({ ct }) => {
    expect(await ct.run(['--cwd', '/new/deep'], ['pwd'])).toMatchObject({ code: 0, stdout: '/new/deep\n' })
  })

  test('--mount binds a host folder read-write and read-only', async ({ ct }) => {
    const source = join(ct.folder, 'src')
    mkdirSync(source)
    writeFileSync(join(source, 'file'), 'from the host')
    const rw = await ct.run(
      ['--mount', `type=bind,src=${source},dst=/data,options=rbind:rw`],
      sh('cat /data/file; echo back >/data/out'),
    )
    expect(rw).toMatchObject({ code: 0, stdout: 'from the host' })
    expect(readFileSync(join(source, 'out'), 'utf8')).toBe('back\n')
    const ro = await ct.run(['--mount', `type=bind,src=${source},dst=/data,options=rbind:ro`], sh('echo no >/data/out'))
    expect(ro.code).toBe(1)
    expect(ro.stderr).toContain('Read-only file system')
  })

  test('--mount binds one file and makes its target', async ({ ct }) => {
    const source = join(ct.folder, 'one')
    writeFileSync(source, 'single\n')
    expect(
      await ct.run(['--mount', `type=bind,src=${source},dst=/etc/made/one,options=bind`], ['cat', '/etc/made/one']),
    ).toMatchObject({ stdout: 'single\n' })
  })

  test('--mount mounts a tmpfs with its size', async ({ ct }) => {
    const { stdout } = await ct.run(
      ['--mount', 'type=tmpfs,src=tmpfs,dst=/scratch,options=size=1m:noexec'],
      sh('grep " /scratch " /proc/self/mounts'),
    )
    expect(stdout).toMatch(/tmpfs \/scratch tmpfs \S*noexec\S*size=1024k/)
  })

  test('--read-only makes the root, but not the mounts, read-only', async ({ ct }) => {
    const result = await ct.run(
      ['--read-only', '--mount', 'type=tmpfs,src=tmpfs,dst=/tmp,options=rw'],
      sh('echo x >/tmp/x && echo x >/x'),
    )
    expect(result.code).toBe(1)
    expect(result.stderr).toContain('/x: Read-only file system')
  })

  test('--rootfs runs from a folder', async ({ ct }) => {
    const root = rootfsFolder(ct.folder)
    const result = await ct.ctr(
      'run',
      '--rm',
      '--runtime',
      RUNTIME,
      '--rootfs',
      root,
      ct.id(),
      '/bin/payload',
      'both',
      '3',
      'rooted',
    )
    expect(result).toMatchObject({ code: 3, stdout: 'out:rooted\n' })
  })

  for (const [propagation, shows] of [
    ['rshared', IS_OURS ? /shared:/ : /^/],
    ['rslave', /^(?!.*shared:)/],
    ['rprivate', /^$/],
  ] as const) {
    test(`--rootfs-propagation ${propagation} shows in the container's mount table`, async ({ ct }) => {
      // (runc leaves a root private that should be shared)
      const { stdout, code, stderr } = await ct.run(
        ['--rootfs-propagation', propagation],
        sh('grep " / / " /proc/self/mountinfo'),
      )
      expect(code, stderr).toBe(0)
      const optional = stdout.split(' - ')[0]!.split(' ').slice(6).join(' ')
      expect(optional).toMatch(shows)
    })
  }

  test('--no-pivot runs without pivot_root', async ({ ct }) => {
    expect(await ct.run(['--no-pivot'], sh('ls -d /bin; grep -c . /proc/self/mounts'))).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^\/bin\n\d+\n$/),
    })
  })

  test('--net-host shares the network, and without it there is only a loopback that is up', async ({ ct }) => {
    const own = await ct.run([], sh('readlink /proc/self/ns/net; cat /sys/class/net/lo/flags; ls /sys/class/net'))
    const shared = await ct.run(['--net-host'], sh('readlink /proc/self/ns/net'))
    const host = startCommand('readlink', ['/proc/self/ns/net'])
    expect(shared.stdout).toBe((await host.finished).stdout)
    const [ns, flags, ...links] = own.stdout.trim().split('\n')
    expect(ns).not.toBe(shared.stdout.trim())
    expect(Number(flags) & 1).toBe(1)
    expect(links).toEqual(['lo'])
  })

  test('--with-ns joins the namespaces of another container', async ({ ct }) => {
    const id = await ct.detached()
    const { pid } = (await ct.task(id))!
    const names = ['network', 'ipc', 'uts'] as const
    const files = { network: 'net', ipc: 'ipc', uts: 'uts' } as const
    const flags = names.flatMap((name) => ['--with-ns', `${name}:/proc/${pid}/ns/${files[name]}`])
    const { stdout, code, stderr } = await ct.run(
      flags,
      sh('for n in net ipc uts mnt; do readlink /proc/self/ns/$n; done'),
    )
    expect(code, stderr).toBe(0)
    const host = await startCommand(
      'readlink',
      ['net', 'ipc', 'uts', 'mnt'].map((n) => `/proc/${pid}/ns/${n}`),
    ).finished
    const [mine, theirs] = [stdout.trim().split('\n'), host.stdout.trim().split('\n')]
    expect(mine.slice(0, 3)).toEqual(theirs.slice(0, 3))
    expect(mine[3]).not.toBe(theirs[3])
  })

  test('--with-ns joins a pid namespace, whose processes it then sees', async ({ ct }) => {
    const id = await ct.detached([], ['sleep', '4321'])
    const { pid } = (await ct.task(id))!
    const { stdout, code, stderr } = await ct.run(['--with-ns', `pid:/proc/${pid}/ns/pid`], sh('cat /proc/1/cmdline'))
    expect(code, stderr).toBe(0)
    expect(stdout).toBe('sleep\x004321\x00')
  })

  test('--uidmap and --gidmap run in a user namespace', async ({ ct }) => {
    const { stdout, code, stderr } = await ct.run(
      ['--uidmap', '0:100000:65536', '--gidmap', '0:100000:65536'],
      sh('id -u; cat /proc/self/uid_map; touch /x; stat -c %u /x'),
    )
    expect(code, stderr).toBe(0)
    expect(stdout.split('\n').map((line) => line.trim().replaceAll(/\s+/g, ' '))).toEqual([
      '0',
      '0 100000 65536',
      '0',
      '',
    ])
  })

  test('--remap-labels leaves the mapping of ids to the snapshotter', async ({ ct }) => {
    const result = await ct.run(
      ['--uidmap', '0:100000:65536', '--gidmap', '0:100000:65536', '--remap-labels'],
      ['id', '-u'],
    )
    // Debian's snapshotters may not support it: then ctr says so, before any runtime is asked
    if (result.code === 0) expect(result.stdout).toBe('0\n')
    else expect(result.stderr).toContain('snapshotter')
  })

  test('--privileged gives all capabilities, devices and a writable /sys', async ({ ct }) => {
    const { stdout } = await ct.run(
      ['--privileged'],
      sh(
        'grep CapEff /proc/self/status; grep " /sys " /proc/self/mounts; cat /proc/self/mounts | grep -c "^tmpfs /proc/"',
      ),
    )
    const own = /CapBnd:\s+(\S+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]!
    expect(stdout).toContain(own)
    expect(stdout).toMatch(/ \/sys sysfs rw/)
  })

  test('without flags there are the default capabilities, no new privileges, and masked paths', async ({ ct }) => {
    const { stdout } = await ct.run(
      [],
      sh(
        'grep -E "Cap(Eff|Bnd|Amb)|NoNewPrivs" /proc/self/status; cat /proc/kcore | wc -c; echo x >/proc/sys/kernel/hostname',
      ),
    )
    expect(stdout).toMatch(/CapEff:\s+00000000a80425fb/)
    expect(stdout).toMatch(/CapBnd:\s+00000000a80425fb/)
    expect(stdout).toMatch(/NoNewPrivs:\s+1/)
    expect(stdout).toMatch(/^0$/m)
  })

  test('--allow-new-privs turns no_new_privs off', async ({ ct }) => {
    expect(await statusField(ct, 'NoNewPrivs', ['--allow-new-privs'])).toBe('0')
  })

  test('--cap-add and --cap-drop change the capability sets', async ({ ct }) => {
    const bits = BigInt(
      `0x${await statusField(ct, 'CapEff', ['--cap-add', 'CAP_SYS_ADMIN', '--cap-drop', 'CAP_CHOWN'])}`,
    )
    expect([(bits >> 21n) & 1n, bits & 1n]).toEqual([1n, 0n])
  })

  test('--seccomp applies the default profile', async ({ ct }) => {
    expect(await statusField(ct, 'Seccomp', ['--seccomp'])).toBe('2')
    expect(await statusField(ct, 'Seccomp', [])).toBe('0')
  })

  test('--seccomp-profile forbids what the profile forbids', async ({ ct }) => {
    const profile = join(ct.folder, 'seccomp.json')
    writeFileSync(
      profile,
      JSON.stringify({
        defaultAction: 'SCMP_ACT_ALLOW',
        syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 38 }],
      }),
    )
    const result = await ct.run(['--seccomp', '--seccomp-profile', profile], sh('touch /ok && mkdir /denied'))
    expect(result.code).toBe(1)
    // the C library's words for ENOSYS (38), which the profile asks for
    expect(result.stderr).toContain('Function not implemented')
  })

  test('--pid-file gets the pid of the container', async ({ ct }) => {
    const file = join(ct.folder, 'pid')
    const id = await ct.detached(['--pid-file', file])
    expect(Number(readFileSync(file, 'utf8'))).toBe((await ct.task(id))!.pid)
  })

  test('--null-io gives /dev/null on all three', async ({ ct }) => {
    const source = join(ct.folder, 'out')
    mkdirSync(source)
    const result = await ct.run(
      ['--null-io', '--mount', `type=bind,src=${source},dst=/out,options=bind`],
      sh(
        'for n in 0 1 2; do readlink /proc/self/fd/$n; done >/out/fds; exec >&-; payload fds; readlink /proc/$$/fd/0 >>/out/in',
      ),
    )
    expect(result.stdout).toBe('')
    expect(readFileSync(join(source, 'in'), 'utf8')).toBe('/dev/null\n')
  })

  test('--log-uri file:// appends both streams to the file', async ({ ct }) => {
    const log = join(ct.folder, 'deep/log')
    const lines = (): string[] => (existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n').sort() : [])
    for (const [round, word] of ['one', 'two'].entries()) {
      const id = ct.id()
      await ct.ok(...ct.runArgs(['-d', '--log-uri', `file://${log}`], id, ['payload', 'both', '0', word]))
      // waited for before the deletion: the runc shim drops what it has not copied by then
      await until('the output in the file', () => lines().length === 2 * (round + 1))
      await ct.untilStatus(id, 'STOPPED')
      await ct.ok('task', 'rm', id)
    }
    expect(lines()).toEqual(['err:one', 'err:two', 'out:one', 'out:two'])
  })

  test('--runc-root is accepted', async ({ ct }) => {
    expect(await ct.run(['--runc-root', join(ct.folder, 'runc')], ['payload', 'exit', '6'])).toMatchObject({ code: 6 })
  })
})

describe('ctr run --config', needs('root', 'containerd', 'busybox'), () => {
  test('applies user, groups and umask', async ({ ct }) => {
    const result = await runConfig(ct, sh('id -u; id -g; id -G; umask; touch /tmp/x; stat -c %a /tmp/x'), (spec) => {
      spec.process.user = { uid: 1000, gid: 1000, additionalGids: [1001, 5], umask: 0o027 }
    })
    expect(result).toMatchObject({ code: 0, stdout: '1000\n1000\n1000 5 1001\n0027\n640\n' })
  })

  test('applies host name and sysctls', async ({ ct }) => {
    const result = await runConfig(
      ct,
      sh('hostname; cat /proc/sys/net/ipv4/ip_forward; cat /proc/sys/kernel/shmmax'),
      (spec) => {
        spec.hostname = 'chosen'
        spec.linux.sysctl = { 'net.ipv4.ip_forward': '1', 'kernel.shmmax': '12345678' }
      },
    )
    expect(result).toMatchObject({ code: 0, stdout: 'chosen\n1\n12345678\n' })
    expect(hostname()).not.toBe('chosen')
  })

  test('applies rlimits', async ({ ct }) => {
    const result = await runConfig(ct, ['payload', 'limits'], (spec) => {
      spec.process.rlimits = [
        { type: 'RLIMIT_NOFILE', soft: 100, hard: 200 },
        { type: 'RLIMIT_CORE', soft: 0, hard: 0 },
      ]
    })
    expect(result.stdout).toContain('nofile 100 200\n')
    expect(result.stdout).toContain('core 0 0\n')
  })

  test('applies oom_score_adj', async ({ ct }) => {
    const result = await runConfig(ct, ['cat', '/proc/self/oom_score_adj'], (spec) => {
      spec.process.oomScoreAdj = 777
    })
    expect(result).toMatchObject({ code: 0, stdout: '777\n' })
  })

  test('applies masked and read-only paths of its own', async ({ ct }) => {
    const result = await runConfig(ct, sh('cat /etc/passwd; ls /home; echo x >/etc/group'), (spec) => {
      spec.linux.maskedPaths = ['/etc/passwd', '/home', '/does/not/exist']
      spec.linux.readonlyPaths = ['/etc/group']
    })
    expect(result.stdout).toBe('')
    expect(result.stderr).toContain('Read-only file system')
  })

  test('without a terminal or namespaces it shares the host ones, and its orphans are reaped', async ({ ct }) => {
    const result = await runConfig(ct, sh('readlink /proc/self/ns/pid; readlink /proc/self/ns/uts'), (spec) => {
      spec.linux.namespaces = [{ type: 'mount' }]
      spec.linux.maskedPaths = []
    })
    const host = await startCommand('readlink', ['/proc/self/ns/pid', '/proc/self/ns/uts']).finished
    expect(result).toMatchObject({ code: 0, stdout: host.stdout })
  })
})
