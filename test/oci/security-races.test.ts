/**
 * Attacks by a process that changes a shared volume while a container is being made. The process exchanges a
 * directory with a symlink to the host as fast as it can. Many containers start meanwhile, and the test looks for
 * damage on the host. RACES sets the number of starts; the default suits a usual run, and a release needs 10000.
 */
import { copyFileSync, lstatSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import type { Command } from '../support/command.ts'
import { needs, SLOWNESS } from '../support/needs.ts'
import { ATTACK } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'
import type { TestSpec } from '../support/spec.ts'

const ROUNDS = Number(process.env['RACES'] ?? 120)
/** What the container must never read. */
const SECRET = 'of the host'
const BOUND = 60_000 * SLOWNESS + ROUNDS * 100

/** Everything below a folder that an attack could change, by path. */
function snapshot(folder: string): string[] {
  const entry = (path: string): string => {
    const { mode, uid, gid, nlink, size, mtimeMs, ctimeMs, ino } = lstatSync(path)
    return [path, mode, uid, gid, nlink, size, mtimeMs, ctimeMs, ino].join(' ')
  }
  return [folder, ...readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name))].map(
    entry,
  )
}

interface Scene {
  readonly volume: string
  readonly decoy: string
  readonly attacker: Command
}

/** A volume with a directory and a symlink to the host that change places, and on the host what the link leads to. */
async function attackedVolume(runts: Runts, link: (decoy: string) => string): Promise<Scene> {
  const volume = join(runts.folder, 'volume')
  const decoy = join(runts.folder, 'decoy')
  for (const folder of ['masked', 'protected', 'cwd', 'dev']) mkdirSync(join(decoy, folder), { recursive: true })
  for (const file of ['secret', 'file']) writeFileSync(join(decoy, file), SECRET)
  mkdirSync(join(volume, 'x'), { recursive: true })
  symlinkSync(link(decoy), join(volume, 'y'))
  const bundle = runts.bundle(['attack', 'swap', '/volume/x', '/volume/y'], (spec) => share(spec, volume))
  copyFileSync(ATTACK, join(bundle, 'rootfs/bin/attack'))
  const attacker = runts.start(['run', '-b', bundle, 'attacker'], { timeoutMs: BOUND })
  await attacker.untilOutput('ready')
  return { volume, decoy, attacker }
}

function share(spec: TestSpec, volume: string): void {
  spec.mounts.push({ destination: '/volume', type: 'bind', source: volume, options: ['rbind'] })
}

async function endAttack(runts: Runts, attacker: Command): Promise<void> {
  await runts.ok('kill', 'attacker', 'TERM')
  const { stdout } = await attacker.finished
  expect(Number(/swaps (\d+)/.exec(stdout)?.[1])).toBeGreaterThan(ROUNDS)
}

/** As many bundles as there are rounds: in each the place to make has another name, so that it is not there yet. */
function renamed(runts: Runts, bundle: string): string[] {
  return runts.variants(
    bundle,
    'NAME',
    Array.from({ length: Math.ceil(ROUNDS / 3) }, (_, number) => `n${number}`),
  )
}

/** The mount points of a source in the text of mountinfo. */
function mountPoints(mountinfo: string, source: string): string[] {
  return mountinfo
    .split('\n')
    .filter((line) => line.includes(` ${source} `))
    .map((line) => line.split(' ')[4] ?? '')
}

const LINKS: readonly [string, (decoy: string) => string][] = [
  ['an absolute path of the host', (decoy) => decoy],
  ['a path with too many ".."', (decoy) => `${'../'.repeat(20)}${decoy.slice(1)}`],
  ['a magic link of procfs', (decoy) => `/proc/self/root${decoy}`],
]

describe(
  'a container that is made over a volume in which somebody swaps directories and symlinks',
  needs('our shim', 'root', 'busybox', 'gcc'),
  () => {
    for (const [what, link] of LINKS) {
      test(`mounts and makes nothing outside of its root, the link being ${what} (CVE-2021-30465, CVE-2024-45310, CVE-2019-18837)`, {
        timeout: BOUND,
      }, async ({ runts }) => {
        const { volume, decoy, attacker } = await attackedVolume(runts, link)
        const before = snapshot(decoy)
        const victim = runts.bundle(['cat', '/proc/self/mountinfo'], (spec) => {
          share(spec, volume)
          spec.mounts.push(
            { destination: '/volume/x/NAME/probe', type: 'tmpfs', source: 'probe-tmpfs' },
            { destination: '/volume/x/NAME.file', type: 'bind', source: '/etc/hostname', options: ['bind', 'ro'] },
          )
        })
        const { outcomes } = await runts.startMany(renamed(runts, victim), 1)
        await endAttack(runts, attacker)
        expect(snapshot(decoy)).toEqual(before)
        expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain('probe-tmpfs')
        for (const { outcome } of outcomes) {
          if (outcome.startsWith('error: ')) expect(outcome).toMatch(/^error: .*"\/volume\/x\/n\d+(\/probe|\.file)"/)
          // what was mounted at all is seen in the root: it went nowhere else
          else expect(mountPoints(outcome, 'probe-tmpfs'), outcome).toEqual([expect.stringMatching(/\/n\d+\/probe$/)])
        }
        expect(outcomes.reduce((sum, { count }) => sum + count, 0)).toBe(Math.ceil(ROUNDS / 3))
      })
    }

    test('makes no device, masks nothing and works nowhere outside of its root (CVE-2026-41579, CVE-2024-45310)', {
      timeout: BOUND,
    }, async ({ runts }) => {
      const { volume, decoy, attacker } = await attackedVolume(runts, (path) => path)
      const before = snapshot(decoy)
      const victim = runts.bundle(['true'], (spec) => {
        share(spec, volume)
        spec.process.cwd = '/volume/x/cwd/NAME'
        spec.linux.maskedPaths = ['/volume/x/masked', '/volume/x/secret']
        spec.linux.readonlyPaths = ['/volume/x/protected']
        Object.assign(spec.linux, {
          devices: [{ path: '/volume/x/dev/NAME', type: 'c', major: 1, minor: 3, fileMode: 0o666, uid: 1, gid: 1 }],
        })
      })
      const { outcomes } = await runts.startMany(renamed(runts, victim), 1)
      await endAttack(runts, attacker)
      expect(snapshot(decoy)).toEqual(before)
      for (const { outcome } of outcomes) expect(outcome).toMatch(/^(0 $|error: .*"\/volume\/x\/)/)
    })

    test('copies nothing of the host into a tmpfs that takes what it covers (tmpcopyup)', { timeout: BOUND }, async ({
      runts,
    }) => {
      const { volume, decoy, attacker } = await attackedVolume(runts, (path) => path)
      const before = snapshot(decoy)
      const victim = runts.bundle(['sh', '-c', 'cat /copied/* 2>/dev/null; find /volume -name secret'], (spec) => {
        share(spec, volume)
        spec.mounts.push({ destination: '/volume/x', type: 'tmpfs', source: 'tmpfs', options: ['tmpcopyup'] })
      })
      const { outcomes } = await runts.startMany([victim], Math.ceil(ROUNDS / 3))
      await endAttack(runts, attacker)
      expect(snapshot(decoy)).toEqual(before)
      for (const { outcome } of outcomes) expect(outcome).not.toMatch(/secret|of the host/)
    })
  },
)
