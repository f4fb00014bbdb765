/**
 * Attacks that turn the runtime's own writes against the host: mounts over files of procfs that it is about to write.
 * Also a cgroup tree that a container should not reach, and a hook whose output never ends.
 * The writes of LSM labels need a stopped helper: test/c/labels.test.ts attacks them.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { type Finished, startCommand } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { OCI_RUNTIME } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'
import type { TestSpec } from '../support/spec.ts'

/** A user namespace whose root is nobody on the host. */
const HOST_ID = 100_000

function inUserNamespace(spec: TestSpec): void {
  spec.linux.namespaces.push({ type: 'user' })
  const map = [{ containerID: 0, hostID: HOST_ID, size: 65_536 }]
  Object.assign(spec.linux, { uidMappings: map, gidMappings: map })
}

/** Runs the runtime in a mount namespace in which a script of the test's has been at work first. */
function inOwnMounts(runts: Runts, script: string, ...args: string[]): Promise<Finished> {
  const command = `${script} && exec "$@"`
  const unshare = ['-m', '--propagation', 'private', 'sh', '-ec', command, 'sh', OCI_RUNTIME, '--root', runts.root]
  return startCommand('unshare', [...unshare, ...args]).finished
}

describe('a write of the runtime', needs('our shim', 'root', 'busybox'), () => {
  test('to a sysctl lands in procfs or nowhere, whatever is mounted over the file (CVE-2025-52881)', async ({
    runts,
  }) => {
    const decoy = join(runts.folder, 'decoy')
    writeFileSync(decoy, 'of the host')
    const domain = runts.bundle(['true'], (spec) => {
      spec.linux.sysctl = { 'kernel.domainname': 'written' }
    })
    for (const cover of [
      `mount --bind '${decoy}' /proc/sys/kernel/domainname`,
      'mount --bind /proc/sys/kernel/hostname /proc/sys/kernel/domainname',
    ]) {
      expect(await inOwnMounts(runts, cover, 'run', '-b', domain, 'c'), cover).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('write sysctl "kernel/domainname": EXDEV'),
      })
    }
    // the files of a network namespace are its own: what covers those of the host is not even met
    const covered = `mount --bind '${decoy}' /proc/sys/net/ipv4/ip_default_ttl`
    const bundle = runts.bundle(['cat', '/proc/sys/net/ipv4/ip_default_ttl'], (spec) => {
      spec.linux.sysctl = { 'net.ipv4.ip_default_ttl': '43' }
    })
    expect(await inOwnMounts(runts, covered, 'run', '-b', bundle, 'c')).toMatchObject({ code: 0, stdout: '43\n' })
    expect(readFileSync(decoy, 'utf8')).toBe('of the host')
  })

  test('does not trust a /proc of the host that is none', async ({ runts }) => {
    const bundle = runts.bundle(['true'])
    const { code, stderr } = await inOwnMounts(runts, 'mount --rbind /proc/sys /proc', 'run', '-b', bundle, 'c')
    expect(code, stderr).not.toBe(0)
  })
})

describe('the cgroup tree', needs('our shim', 'root', 'busybox'), () => {
  // the classic ways out: a program of the host's, a device, a process outside, a cgroup of one's own
  const look = [
    'cd /sys/fs/cgroup || exit 1',
    'for f in $(find . -name release_agent -o -name devices.allow -o -name cgroup.procs)',
    'do { echo 1 > $f; } 2>/dev/null && echo "wrote $f"; done',
    'for d in $(find . -type d); do mkdir $d/made 2>/dev/null && [ -e $d/made/cgroup.procs ] && echo "made $d"; done; echo done',
  ].join('\n')

  function bundleWith(runts: Runts, options: readonly string[]): string {
    // the container's root, which is nobody here, passes through to its files
    chmodSync(runts.folder, 0o755)
    return runts.bundle(['sh', '-c', look], (spec) => {
      inUserNamespace(spec)
      spec.mounts.push({ destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: [...options] })
    })
  }

  test('cannot be written by a container in a user namespace, even where it is mounted writable (CVE-2023-25809, CVE-2022-0492)', async ({
    runts,
  }) => {
    for (const options of [['ro'], ['nosuid']]) {
      const { stdout } = await runts.ok('run', '-b', bundleWith(runts, options), 'c')
      expect(stdout, options.join()).toBe('done\n')
    }
  })

  test('of version 2 shows such a container nothing of what its user was delegated (CVE-2023-25809)', async ({
    runts,
  }) => {
    // what systemd gives a user: a folder in which the user may do everything. Here the user is the container's root
    const tree = existsSync('/sys/fs/cgroup/unified') ? '/sys/fs/cgroup/unified' : '/sys/fs/cgroup'
    const delegated = join(tree, runts.name)
    mkdirSync(join(delegated, 'other'), { recursive: true })
    const give = `chown -R ${HOST_ID}:${HOST_ID} /sys/fs/cgroup/${runts.name}`
    const v2 = tree === '/sys/fs/cgroup' ? 'true' : 'mount -t cgroup2 none /sys/fs/cgroup'
    const bundle = bundleWith(runts, ['nosuid'])
    const { code, stdout, stderr } = await inOwnMounts(runts, `${v2} && ${give}`, 'run', '-b', bundle, 'c')
    expect(code, stderr).toBe(0)
    expect(stdout).toBe('done\n')
    expect(readdirSync(join(delegated, 'other')).filter((name) => name === 'made')).toEqual([])
    rmdirSync(join(delegated, 'other'))
  })
})

describe('a hook', needs('our shim', 'root', 'busybox'), () => {
  const MEGABYTES = 256
  const talks = { path: '/bin/sh', args: ['sh', '-c', `head -c ${MEGABYTES << 20} /dev/zero | tr '\\0' x; exit 1`] }

  for (const kind of ['createRuntime', 'createContainer'] as const) {
    test(`of the kind ${kind} that prints without end costs no memory (CVE-2022-23471, CVE-2025-64329)`, async ({
      runts,
    }) => {
      const quiet = runts.bundle(['true'])
      const { maxRssKib: before } = await runts.startMany([quiet], 2)
      const bundle = runts.bundle(['true'], (spec) => Object.assign(spec, { hooks: { [kind]: [talks] } }))
      const { outcomes, maxRssKib } = await runts.startMany([bundle], 1)
      expect(outcomes).toMatchObject([{ outcome: expect.stringMatching(/^error: .*hook #0: exit status 1/s) }])
      expect(outcomes[0]?.outcome.length).toBeLessThan(100_000)
      expect(maxRssKib - before).toBeLessThan(96 * 1024)
    })
  }
})
