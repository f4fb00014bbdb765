/**
 * Attacks by the image and by the words of a spec: symlinks that lead to the host, and a false /dev or /proc. Also
 * ids and lengths that do not fit. Each test puts a decoy on the host where the attack would do its damage, and looks
 * at the decoy.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { needs } from '../support/needs.ts'
import { type Runts, test } from '../support/runts.ts'
import type { SpecChange, TestSpec } from '../support/spec.ts'

const SLEEP = ['sleep', '1000']

/** A folder of the host with files that are worth an attack, and how an image would link to it. */
function decoyOf(runts: Runts): { folder: string; link: string; look: () => Record<string, string> } {
  const folder = join(runts.folder, 'decoy')
  mkdirSync(folder)
  for (const name of ['ptmx', 'null', 'console', 'x']) writeFileSync(join(folder, name), 'of the host')
  const look = () =>
    Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name), 'utf8')]))
  return { folder, link: `/../../../../../../..${folder}`, look }
}

/** Replaces what the image has at a path by a symlink. */
function linkInImage(bundle: string, path: string, target: string): void {
  const full = join(bundle, 'rootfs', path)
  rmSync(full, { recursive: true, force: true })
  symlinkSync(target, full)
}

function withoutMounts(...destinations: string[]): SpecChange {
  return (spec) => {
    spec.mounts = spec.mounts.filter(({ destination }) => !destinations.includes(destination))
    spec.linux.maskedPaths = []
    spec.linux.readonlyPaths = []
  }
}

/** Binds a folder of the test's as /dev, as an image with a /dev of its own and no tmpfs would have it. */
function ownDev(runts: Runts, spec: TestSpec): string {
  const dev = join(runts.folder, 'dev')
  mkdirSync(dev)
  spec.mounts = spec.mounts.filter(({ destination }) => !destination.startsWith('/dev'))
  spec.mounts.push({ destination: '/dev', type: 'bind', source: dev, options: ['rbind'] })
  return dev
}

describe('an image', needs('our shim', 'root', 'busybox'), () => {
  test('cannot lead a mount to the host by a symlink (CVE-2014-9356)', async ({ runts }) => {
    const decoy = decoyOf(runts)
    const bundle = runts.bundle(['grep', '-c', 'probe-tmpfs', '/proc/self/mountinfo'], (spec) => {
      spec.mounts.push({ destination: '/mnt/x', type: 'tmpfs', source: 'probe-tmpfs' })
      spec.mounts.push({ destination: '/mnt/made/here', type: 'tmpfs', source: 'probe-tmpfs' })
    })
    linkInImage(bundle, 'mnt', decoy.link)
    const before = decoy.look()
    expect(await runts.run('run', '-b', bundle, 'c')).toMatchObject({ code: 0, stdout: '2\n' })
    expect(decoy.look()).toEqual(before)
  })

  test('cannot have the files of the host /dev replaced by a /dev that is a symlink (CVE-2026-41579, CVE-2026-47766)', async ({
    runts,
  }) => {
    const decoy = decoyOf(runts)
    const bundle = runts.bundle(['ls', '/dev/'], withoutMounts('/dev', '/dev/pts', '/dev/shm'))
    linkInImage(bundle, 'dev', decoy.link)
    const before = decoy.look()
    const { stdout } = await runts.ok('run', '-b', bundle, 'c')
    expect(decoy.look()).toEqual(before)
    expect(stdout.split('\n')).toContain('ptmx')
  })

  for (const [what, prepare] of [
    ['a symlink to /proc/sysrq-trigger', (dev: string) => symlinkSync('/proc/sysrq-trigger', join(dev, 'null'))],
    ['a file', (dev: string) => writeFileSync(join(dev, 'null'), '')],
    ['missing', () => undefined],
  ] as const) {
    test(`cannot have paths masked with a /dev/null that is ${what} (CVE-2025-31133)`, async ({ runts }) => {
      const bundle = runts.bundle(SLEEP, (spec) => prepare(ownDev(runts, spec)))
      // with streams that are no null device, so that it is the mask that fails
      const { code, stderr } = await runts.run('create', '-b', bundle, 'c')
      expect({ code, stderr }).toEqual({
        code: 1,
        stderr: expect.stringMatching(/no proper \/dev\/null|container's \/dev\/null/),
      })
      const masked = runts.bundle(SLEEP, (spec) => {
        spec.mounts.splice(1)
        spec.mounts.push({ destination: '/dev', type: 'bind', source: join(runts.folder, 'dev'), options: ['rbind'] })
      })
      const { finished } = runts.start(['run', '-b', masked, 'c'], { input: 'a pipe' })
      expect(await finished).toMatchObject({ code: 1, stderr: expect.stringContaining('no proper /dev/null') })
    })
  }

  test('cannot stand in for the terminal with a /dev/pts or /dev/console that leads elsewhere (CVE-2025-52565)', async ({
    runts,
  }) => {
    const decoy = decoyOf(runts)
    const before = decoy.look()
    const terminal: SpecChange = (spec) => {
      spec.process.terminal = true
      spec.linux.maskedPaths = []
    }
    const noDevpts = runts.bundle(SLEEP, (spec) => {
      terminal(spec)
      symlinkSync(decoy.link, join(ownDev(runts, spec), 'pts'))
    })
    expect(await runts.run('run', '-b', noDevpts, 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('/dev/pts/ptmx'),
    })

    const dev = join(runts.folder, 'dev')
    rmSync(join(dev, 'pts'))
    for (const folder of ['pts', 'shm']) mkdirSync(join(dev, folder))
    symlinkSync(join(decoy.folder, 'console'), join(dev, 'console'))
    const console = runts.bundle(SLEEP, (spec) => {
      terminal(spec)
      const pts = spec.mounts.filter(({ destination }) => destination === '/dev/pts')
      spec.mounts = spec.mounts.filter(({ destination }) => !destination.startsWith('/dev'))
      spec.mounts.push({ destination: '/dev', type: 'bind', source: dev, options: ['rbind'] }, ...pts)
    })
    expect(await runts.run('run', '-b', console, 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('/dev/console'),
    })
    expect(decoy.look()).toEqual(before)
  })

  test('cannot have its working directory made on the host', async ({ runts }) => {
    const decoy = decoyOf(runts)
    const bundle = runts.bundle(['pwd', '-P'], (spec) => {
      spec.process.cwd = '/mnt/made'
    })
    linkInImage(bundle, 'mnt', decoy.link)
    const before = decoy.look()
    expect((await runts.ok('run', '-b', bundle, 'c')).stdout).toBe(`${decoy.folder}/made\n`)
    expect(decoy.look()).toEqual(before)
  })

  test('cannot have masks and read-only mounts laid over the host', async ({ runts }) => {
    const decoy = decoyOf(runts)
    const bundle = runts.bundle(SLEEP, (spec) => {
      spec.linux.maskedPaths = ['/mnt/x', '/mnt']
      spec.linux.readonlyPaths = ['/mnt/console', '/mnt']
    })
    linkInImage(bundle, 'mnt', decoy.link)
    runts.leave('run', '-d', '-b', bundle, 'c')
    const before = decoy.look()
    writeFileSync(join(decoy.folder, 'x'), 'written')
    expect(decoy.look()).toEqual({ ...before, x: 'written' })
  })

  for (const [name, mounts] of [
    ['proc', ['/proc']],
    ['sys', ['/sys']],
  ] as const) {
    test(`cannot redirect ${mounts[0]} by a symlink of its root (CVE-2019-19921, CVE-2023-27561, CVE-2025-54867)`, async ({
      runts,
    }) => {
      const bundle = runts.bundle(SLEEP)
      mkdirSync(join(bundle, 'rootfs/elsewhere'))
      linkInImage(bundle, name, 'elsewhere')
      expect(await runts.run('run', '-b', bundle, 'c')).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('must be mounted on ordinary directory'),
      })
    })
  }

  test('cannot lead a mount inside /proc by a symlink (CVE-2023-28642)', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP, (spec) => {
      spec.mounts.push({ destination: '/link/self/attr', type: 'tmpfs', source: 'tmpfs' })
    })
    symlinkSync('/proc', join(bundle, 'rootfs/link'))
    expect(await runts.run('run', '-b', bundle, 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/a symlink leads inside \/proc|"\/link\/self\/attr": .*: ELOOP/),
    })
  })
})

describe('a spec', needs('our shim', 'root', 'busybox'), () => {
  test('cannot have a volume mounted on /proc or inside it (CVE-2019-16884, CVE-2019-19921)', async ({ runts }) => {
    const source = join(runts.folder, 'volume')
    mkdirSync(source)
    for (const destination of ['/proc', '/proc/self/attr', '/proc/self', '/proc/sys/net', '//proc/../proc/./self/']) {
      for (const [type, options] of [
        ['bind', ['rbind']],
        ['tmpfs', []],
      ] as const) {
        const bundle = runts.bundle(SLEEP, (spec) => {
          spec.mounts.push({ destination, type, source, options: [...options] })
        })
        expect(await runts.run('run', '-b', bundle, 'c'), `${type} on ${destination}`).toMatchObject({
          code: 1,
          stderr: expect.stringMatching(/(inside \/proc|only the proc file system can be mounted).*\/mounts\/5/),
        })
      }
    }
  })

  test('cannot wrap an id around to root (CVE-2024-40635, CVE-2016-3697, CVE-2026-30892)', async ({ runts }) => {
    const uids = ['4294967296', '18446744073709551616', '-1', '"root"']
    const bundle = runts.bundle(SLEEP, (spec) => {
      spec.process.user.uid = 424242
    })
    const config = join(bundle, 'config.json')
    const text = readFileSync(config, 'utf8')
    for (const uid of uids) {
      writeFileSync(config, text.replace('424242', uid))
      expect(await runts.run('create', '-b', bundle, 'c'), uid).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('/process/user/uid'),
      })
    }
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'd')
    const users = [
      '0abc',
      '1000:',
      ':5',
      '1e3',
      ' 1',
      '-1',
      '0x0',
      '4294967295',
      '4294967296',
      '1:4294967295',
      '1:4294967296',
    ]
    for (const user of users) {
      expect(await runts.run('exec', `--user=${user}`, 'd', 'id'), user).toMatchObject({
        code: 255,
        stdout: '',
        stderr: expect.stringContaining('user'),
      })
    }
    expect((await runts.ok('exec', '--user', '4294967294:7', 'd', 'id', '-u')).stdout).toBe('4294967294\n')
  })

  test('cannot overflow a length of the plan, nor cut a string short with a NUL (CVE-2021-43784)', async ({
    runts,
  }) => {
    const long = 'x'.repeat(70 * 1024)
    const changes: [string, SpecChange][] = [
      ['mount source', (spec) => spec.mounts.push({ destination: '/mnt', type: 'tmpfs', source: long })],
      [
        'mount data',
        (spec) => spec.mounts.push({ destination: '/mnt', type: 'tmpfs', source: 't', options: [`mode=${long}`] }),
      ],
      ['NUL in a path', (spec) => spec.mounts.push({ destination: '/mnt\0/../proc', type: 'tmpfs', source: 't' })],
      ['NUL in an argument', (spec) => spec.process.args.push('a\0b')],
      ['NUL in the environment', (spec) => spec.process.env.push('A=b\0C=d')],
      ['NUL in a sysctl', (spec) => Object.assign(spec.linux, { sysctl: { 'net.ipv4.ip_forward\0x': '1' } })],
      ['NUL in a host name', (spec) => Object.assign(spec, { hostname: 'a\0b' })],
    ]
    for (const [what, change] of changes) {
      const { code, stderr } = await runts.run('create', '-b', runts.bundle(SLEEP, change), 'c')
      expect({ what, code, lines: stderr.split('\n').length }).toEqual({ what, code: 1, lines: 2 })
      expect(stderr.length, what).toBeLessThan(2000)
      expect(stderr, what).not.toContain('\0')
    }
  })

  test('has no options for the runtime in its annotations, which an image may have written (CVE-2026-53492, CVE-2026-50195, CVE-2026-53488)', async ({
    runts,
  }) => {
    const planned = async (annotations: Record<string, string>): Promise<string> => {
      const bundle = runts.bundle(SLEEP, (spec) => {
        Object.assign(spec, { annotations })
        spec.linux.cgroupsPath = '/same'
      })
      return (await runts.ok('plan', bundle)).stdout.replaceAll(bundle, 'BUNDLE')
    }
    const hostile = {
      'run.oci.keep_original_groups': '1',
      'run.oci.hooks.stderr': '/etc/passwd',
      'run.oci.handler': 'krun',
      'run.oci.mount_context_type': 'context',
      'run.oci.seccomp.receiver': '/run/evil',
      'org.criu.config': '/etc/criu/evil.conf',
      'io.kubernetes.cri.untrusted-workload': 'true',
      'org.opencontainers.runc.exec.isolated-cpu-affinity-transition': 'always',
    }
    expect(await planned(hostile)).toBe(await planned({}))
  })
})
