/**
 * The flags of a bind mount, by those of its source and the words of its entry: a table, for each kind of privilege
 * and of file system.
 * Words name all flags: what they do not name is cleared, unless no word names any. In a user namespace what the
 * source brings is locked.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { notRunc } from '../support/needs.ts'
import { BY_ROOT, inModes, MODES, type OciHost } from '../support/oci.ts'
import type { TestMount } from '../support/spec.ts'

const OPEN = 'rw,relatime'
const TIGHT = 'ro,nosuid,nodev,noexec,noatime'
const LOCKED = 'cannot clear locked flags'
const TIMES = 'cannot change locked atime flags'

/** Words; what they make of an open and of a tight source; and of both where flags are locked: flags, or the error. */
const TABLE: readonly (readonly [
  words: string,
  open: string,
  tight: string,
  lockedOpen: string,
  lockedTight: string,
])[] = [
  ['', OPEN, TIGHT, OPEN, TIGHT],
  ['defaults', OPEN, TIGHT, OPEN, TIGHT],
  ['rslave', OPEN, TIGHT, OPEN, TIGHT],
  ['ro', 'ro,relatime', 'ro,noatime', 'ro,relatime', TIGHT],
  ['rw', OPEN, 'rw,noatime', OPEN, LOCKED],
  ['ro,rw', OPEN, 'rw,noatime', OPEN, LOCKED],
  ['nosuid', 'rw,nosuid,relatime', 'rw,nosuid,noatime', 'rw,nosuid,relatime', TIGHT],
  ['nodev', 'rw,nodev,relatime', 'rw,nodev,noatime', 'rw,nodev,relatime', TIGHT],
  ['noexec', 'rw,noexec,relatime', 'rw,noexec,noatime', 'rw,noexec,relatime', TIGHT],
  ['ro,noexec', 'ro,noexec,relatime', 'ro,noexec,noatime', 'ro,noexec,relatime', TIGHT],
  ['ro,nosuid,nodev,noexec', 'ro,nosuid,nodev,noexec,relatime', TIGHT, 'ro,nosuid,nodev,noexec,relatime', TIGHT],
  ['suid', OPEN, 'rw,noatime', OPEN, LOCKED],
  ['dev', OPEN, 'rw,noatime', OPEN, LOCKED],
  ['exec', OPEN, 'rw,noatime', OPEN, LOCKED],
  ['ro,exec', 'ro,relatime', 'ro,noatime', 'ro,relatime', LOCKED],
  ['noatime', 'rw,noatime', 'rw,noatime', TIMES, TIGHT],
  ['relatime', OPEN, OPEN, OPEN, TIMES],
  ['strictatime', 'rw', 'rw', TIMES, TIMES],
  ['nodiratime', 'rw,nodiratime,relatime', 'rw,nodiratime,relatime', TIMES, TIMES],
  ['ro,noatime', 'ro,noatime', 'ro,noatime', TIMES, TIGHT],
  // these words only take back an earlier one: a bind keeps its access times, and alone they name nothing
  ['atime', OPEN, TIGHT, OPEN, TIGHT],
  ['diratime', OPEN, TIGHT, OPEN, TIGHT],
  ['norelatime', OPEN, TIGHT, OPEN, TIGHT],
  ['nostrictatime', OPEN, TIGHT, OPEN, TIGHT],
  ['noatime,atime', OPEN, 'rw,noatime', OPEN, TIGHT],
  ['ro,atime', 'ro,relatime', 'ro,noatime', 'ro,relatime', TIGHT],
  // flags of the superblock, which a bind cannot change, and which are named all the same
  ['sync', OPEN, 'rw,noatime', OPEN, TIGHT],
  ['async', OPEN, TIGHT, OPEN, TIGHT],
  [
    'nosymfollow',
    'rw,relatime,nosymfollow',
    'rw,noatime,nosymfollow',
    'rw,relatime,nosymfollow',
    `${TIGHT},nosymfollow`,
  ],
  ['symfollow', OPEN, 'rw,noatime', OPEN, TIGHT],
  // those of the whole tree go on top of what there is
  ['rro', 'ro,relatime', TIGHT, 'ro,relatime', TIGHT],
  ['ro,rnosuid', 'ro,nosuid,relatime', 'ro,nosuid,noatime', 'ro,nosuid,relatime', TIGHT],
]

/** How a file system gets to a place of the host. */
type Mounting = (place: string, folder: string) => readonly string[]

const TMPFS: Mounting = (place) => ['mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', place]
const FUSE: Mounting = (place, folder) => ['fuse-overlayfs', '-o', `lowerdir=${folder},allow_other`, place]

function host(...[program = '', ...args]: readonly string[]): void {
  const { status, stderr } = spawnSync(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  expect(status, `${program} ${args.join(' ')}: ${stderr}`).toBe(0)
}

/** Calls back with two places of the host, one with an open file system and one with a tight one. */
async function withSources(runts: OciHost, mounting: Mounting, use: (open: string, tight: string) => Promise<void>) {
  const lower = join(runts.folder, 'lower')
  mkdirSync(lower)
  writeFileSync(join(lower, 'file'), '')
  const places = ['open', 'tight'].map((name) => join(runts.folder, name)) as [string, string]
  const mounted: string[] = []
  try {
    for (const [index, place] of places.entries()) {
      mkdirSync(place)
      host(...mounting(place, lower))
      mounted.push(place)
      const flags = index === 0 ? 'rw,suid,dev,exec,atime,relatime,diratime' : TIGHT
      host('mount', '-o', `remount,bind,${flags}`, place)
    }
    await use(...places)
  } finally {
    for (const place of mounted) host('umount', place)
  }
}

/** Runs the whole table against a pair of sources; `more` is what each entry has besides. */
async function runTable(runts: OciHost, mounting: Mounting, isLocked: boolean, more: Partial<TestMount> = {}) {
  await withSources(runts, mounting, async (open, tight) => {
    const fine: { mount: TestMount; words: string; flags: string }[] = []
    for (const [index, [words, ofOpen, ofTight, ofLockedOpen, ofLockedTight]] of TABLE.entries()) {
      for (const [source, free, locked] of [
        [open, ofOpen, ofLockedOpen],
        [tight, ofTight, ofLockedTight],
      ] as const) {
        const flags = isLocked ? locked : free
        const destination = `/m/${fine.length}`
        const options = [index % 2 === 0 ? 'bind' : 'rbind', ...words.split(',').filter(Boolean)]
        const mount = { destination, source, type: 'bind', options, ...more }
        const shown = `${words} on ${source === open ? 'an open' : 'a tight'} source`
        if (flags.startsWith('cannot'))
          expect(await runts.refused((spec) => spec.mounts.push(mount)), shown).toContain(flags)
        else fine.push({ mount, words: shown, flags })
      }
    }
    const out = await runts.inside(`awk '$5 ~ "^/m/" { print $5, $6 }' /proc/self/mountinfo`, (spec) => {
      spec.mounts.push(...fine.map(({ mount }) => mount))
    })
    // the word for mapped ids is one of its own
    expect(out.match(/,idmapped$/gm)?.length ?? 0).toBe(more.uidMappings === undefined ? 0 : fine.length)
    const got = new Map(
      out
        .replaceAll(/,idmapped$/gm, '')
        .trimEnd()
        .split('\n')
        .map((line) => line.split(' ') as [string, string]),
    )
    expect(fine.map(({ mount, words }) => `${words}: ${got.get(mount.destination)}`)).toEqual(
      fine.map(({ words, flags }) => `${words}: ${flags}`),
    )
  })
}

const newer =
  '1.1 ignores words that only clear, and 1.2 takes words about access times for names that clear the others'

inModes(MODES, 'the flags of a bind', (test) => {
  test('are those that its words name, if they name any', notRunc(newer), async ({ runts }) => {
    await runTable(runts, TMPFS, runts.isMapped)
  })

  test('are so on a file system in user space', notRunc(newer, 'fuse-overlayfs'), async ({ runts }) => {
    await runTable(runts, FUSE, runts.isMapped)
  })
})

inModes(BY_ROOT, 'the flags of an id-mapped bind', (test) => {
  test('are those that its words name, if they name any', notRunc('needs runc 1.2'), async ({ runts }) => {
    const maps = [{ containerID: 0, hostID: runts.owner, size: 1000 }]
    await runTable(runts, TMPFS, runts.isMapped, { uidMappings: maps, gidMappings: maps })
  })
})

inModes(['as root'], 'a volume of a disk that is mounted with flags', (test) => {
  test('is as its entry says: programs of it run, and files are written', notRunc(newer), async ({ runts }) => {
    await withSources(runts, TMPFS, async (open, tight) => {
      host('cp', '/bin/busybox', join(open, 'busybox'))
      host('mount', '--bind', open, tight)
      host('mount', '-o', `remount,bind,${TIGHT}`, tight)
      try {
        const out = await runts.inside('/a/busybox echo runs; : >/b/file && echo written', (spec) => {
          for (const [destination, word] of [
            ['/a', 'ro'],
            ['/b', 'nosuid'],
          ] as const) {
            spec.mounts.push({ destination, source: tight, type: 'bind', options: ['rbind', word] })
          }
        })
        expect(out).toBe('runs\nwritten\n')
      } finally {
        host('umount', tight)
      }
    })
  })
})
