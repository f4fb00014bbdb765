/** The flags of `nerdctl run` that reach the runtime: what each promises, as the process sees it. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { needs } from '../../support/needs.ts'
import { expect, NERDCTL_NEEDS, test } from '../../support/nerdctl.ts'

const SIZE_OF = (path: string): string => `df -k ${path} | tail -1 | tr -s " " | cut -d " " -f 2`

/**
 * Containers: what each flag of one makes a script print. Flags that have nothing to do with each other share a
 * container.
 */
const CONTAINERS: readonly Readonly<Record<string, readonly [script: string, output: string]>>[] = [
  {
    '--read-only': ['touch /file 2>&1', 'touch: /file: Read-only file system\n'],
    '--tmpfs /mnt:size=64k,mode=1777': [`touch /mnt/file && ${SIZE_OF('/mnt')}`, '64\n'],
    '--shm-size 1m': [SIZE_OF('/dev/shm'), '1024\n'],
    '--hostname named': ['hostname; cat /etc/hostname', 'named\nnamed\n'],
    '-w /tmp': ['pwd', '/tmp\n'],
    '-e ONE=1 -e TWO': ['echo $ONE-$TWO', '1-from outside\n'],
    '--ulimit nofile=200:300': ['ulimit -Sn; ulimit -Hn', '200\n300\n'],
    '--sysctl net.ipv4.ip_unprivileged_port_start=77': ['cat /proc/sys/net/ipv4/ip_unprivileged_port_start', '77\n'],
    '--cpuset-cpus 0': ['grep Cpus_allowed_list /proc/self/status', 'Cpus_allowed_list:\t0\n'],
    '--pids-limit 77': ['cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max', '77\n'],
    '--security-opt no-new-privileges': ['grep NoNewPrivs /proc/self/status', 'NoNewPrivs:\t1\n'],
    '--user worker': ['id -u; id -g; id -G', '1000\n1000\n1000 1001\n'],
    '--network none': ['grep Seccomp: /proc/self/status', 'Seccomp:\t2\n'],
  },
  {
    '--user 1234:77': ['id -u; id -g', '1234\n77\n'],
    '--group-add 99': ['id -G', '77 99\n'],
    '--umask 0027': ['umask', '0027\n'],
    '--oom-score-adj 321': ['cat /proc/self/oom_score_adj', '321\n'],
    '--security-opt seccomp=unconfined': ['grep Seccomp: /proc/self/status', 'Seccomp:\t0\n'],
  },
  {
    '--device /dev/fuse:/dev/mine:r': [
      '(: </dev/mine) && echo readable; (: >/dev/mine) 2>&1',
      "readable\nsh: can't create /dev/mine: Operation not permitted\n",
    ],
    '--cap-drop ALL --cap-add CHOWN': [
      'grep -E "Cap(Eff|Bnd)" /proc/self/status',
      'CapEff:\t0000000000000001\nCapBnd:\t0000000000000001\n',
    ],
  },
]

const LIMITS = {
  '--memory 64m --cpus 0.5': ['67108864', '50000'],
  '--memory 32m --memory-reservation 16m --cpu-quota 20000 --cpu-period 50000': ['33554432', '20000'],
} as const
const SHOW_LIMITS =
  'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max;' +
  'cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d " " -f 1 /sys/fs/cgroup/cpu.max'

const NAMESPACES = ['sh', '-c', 'readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc'] as const

const flagsOf = (text: string): string[] => text.split(' ').filter((flag) => flag !== '')

describe('`nerdctl run`', needs(...NERDCTL_NEEDS), () => {
  test('gives the process what its flags say', needs('/dev/fuse'), async ({ nerd }) => {
    for (const promises of CONTAINERS) {
      const flags = Object.keys(promises).flatMap(flagsOf)
      const script = Object.values(promises).map(([part]) => `(${part}); echo =`)
      const result = await nerd.once(flags, ['sh', '-c', script.join('\n')], { env: { TWO: 'from outside' } })
      const printed = result.stdout.split('=\n')
      expect(Object.fromEntries(Object.keys(promises).map((flag, i) => [flag, printed[i]]))).toEqual(
        Object.fromEntries(Object.entries(promises).map(([flag, [, output]]) => [flag, output])),
      )
    }
    const entry = ['--entrypoint', '/bin/echo']
    expect(await nerd.output(entry, ['words'])).toBe('words\n')
  })

  test('limits memory and processors', needs('memory controller'), async ({ nerd }) => {
    for (const [flags, limits] of Object.entries(LIMITS)) {
      const output = await nerd.output(flagsOf(flags), ['sh', '-c', SHOW_LIMITS])
      expect({ flags, limits: output.trim().split('\n') }).toEqual({ flags, limits })
    }
  })

  test('-v shares folders with the host, for reading or for both, and names volumes', async ({ nerd }) => {
    const shared = join(nerd.folder, 'shared')
    mkdirSync(shared)
    writeFileSync(join(shared, 'in'), 'from the host\n')
    const both = await nerd.output(['-v', `${shared}:/mnt`], ['sh', '-c', 'cat /mnt/in; echo back >/mnt/out'])
    expect(both).toBe('from the host\n')
    expect(readFileSync(join(shared, 'out'), 'utf8')).toBe('back\n')
    const only = await nerd.output(['-v', `${shared}:/mnt:ro`], ['sh', '-c', 'cat /mnt/in; touch /mnt/x 2>&1; true'])
    expect(only).toBe('from the host\ntouch: /mnt/x: Read-only file system\n')
    const volume = nerd.name()
    await nerd.output(['-v', `${volume}:/data`], ['sh', '-c', 'echo kept >/data/file'])
    expect(await nerd.output(['-v', `${volume}:/data`], ['cat', '/data/file'])).toBe('kept\n')
    await nerd.ok('volume', 'rm', volume)
  })

  test('--env-file, --label-file and --cidfile are read and written', async ({ nerd }) => {
    writeFileSync(join(nerd.folder, 'env'), '# a comment\nFIRST=one\nSECOND=two words\n')
    const cid = join(nerd.folder, 'cid')
    const flags = ['--env-file', join(nerd.folder, 'env'), '--cidfile', cid]
    expect(await nerd.output(flags, ['sh', '-c', 'echo $FIRST, $SECOND'])).toBe('one, two words\n')
    expect(readFileSync(cid, 'utf8')).toMatch(/^[0-9a-f]{64}$/)
  })

  test('--pid shares a namespace with the host or another container, and nothing else', async ({ nerd }) => {
    const own = (name: string): Promise<string> => nerd.ok('exec', name, ...NAMESPACES)
    const first = await nerd.detached()
    const second = await nerd.detached(['--pid', `container:${first}`])
    const [pid, ipc] = (await own(first)).split('\n')
    const [otherPid, otherIpc] = (await own(second)).split('\n')
    expect(otherPid).toBe(pid)
    expect(otherIpc).not.toBe(ipc)
    const host = await nerd.output(['--pid', 'host'], NAMESPACES)
    const [hostPid, hostIpc] = (await nerd.host.run(...NAMESPACES)).stdout.split('\n')
    expect(host.split('\n')[0]).toBe(hostPid)
    expect(host).not.toContain(hostIpc)
  })

  test('--privileged gives all that the machine has, and the devices', async ({ nerd }) => {
    const script =
      'grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; test -c /dev/full && echo devices; mount -t tmpfs none /mnt && echo mounted'
    const effective = /CapBnd:\s*(\w+)/.exec((await nerd.host.run('cat', '/proc/self/status')).stdout)?.[1]
    expect(await nerd.output(['--privileged'], ['sh', '-c', script])).toBe(
      `CapEff:\t${effective}\nSeccomp:\t0\ndevices\nmounted\n`,
    )
  })

  test('--security-opt seccomp=FILE forbids what the profile forbids', async ({ nerd }) => {
    const profile = join(nerd.folder, 'profile.json')
    const syscalls = [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 95 }]
    writeFileSync(profile, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls }))
    const result = await nerd.once(['--security-opt', `seccomp=${profile}`], ['mkdir', '/new'])
    expect(result).toMatchObject({ code: 1, stderr: expect.stringContaining('Operation not supported') })
  })

  test('--init puts an init before the process', needs('tini-static'), async ({ nerd }) => {
    const result = await nerd.output(['--init', '--init-binary', 'tini-static'], ['sh', '-c', 'cat /proc/1/comm'])
    expect(result).toContain('tini')
  })

  test('--rootfs runs a folder instead of an image', async ({ nerd }) => {
    const root = join(nerd.folder, 'root')
    for (const folder of ['bin', 'etc', 'proc', 'sys', 'dev', 'tmp']) mkdirSync(join(root, folder), { recursive: true })
    expect(await nerd.host.run('cp', '/bin/busybox', join(root, 'bin/sh'))).toMatchObject({ code: 0 })
    const [run, ...rest] = nerd.runArgs(['--rm', '--rootfs'], []).slice(0, -1)
    expect(await nerd.ok(run!, ...rest, root, '/bin/sh', '-c', 'echo from a folder')).toBe('from a folder\n')
  })
})
