/**
 * Which mounts propagate after a container was made, from the host to the container and back.
 * Each word is tried, for the root and for volumes. The host is a mount namespace of the test, whose mounts are shared.
 */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { notRunc } from '../support/needs.ts'
import { inModes, MODES, type OciHost } from '../support/oci.ts'
import { SharedHost } from '../support/shared-host.ts'

const WORDS = ['private', 'rprivate', 'slave', 'rslave', 'shared', 'rshared', 'unbindable', 'runbindable'] as const
type Word = (typeof WORDS)[number] | undefined

/** What was seen of a tree that the container shows, by the names of those things that were there. */
async function seen(runts: OciHost, words: { root?: Word; volume?: Word }, of: 'root' | 'volume'): Promise<string[]> {
  using host = await SharedHost.start()
  const volume = join(runts.folder, 'volume')
  const bundle = runts.bundle(['sleep', '1000'], (spec) => {
    if (words.root !== undefined) spec.linux.rootfsPropagation = words.root
    const options = ['rbind', ...(words.volume === undefined ? [] : [words.volume])]
    spec.mounts.push({ destination: '/volume', source: volume, type: 'bind', options })
  })
  const outside = of === 'root' ? join(bundle, 'rootfs') : volume
  // the root's mount is one of its own, as it is under containerd, and what is mounted below it as well
  host.run('mount', '--bind', bundle, bundle)
  host.mount(volume)
  for (const name of ['before', 'stays']) host.mount(join(outside, name))
  for (const name of ['late', 'mine']) host.run('mkdir', join(outside, name))
  const pid = await host.leave(runts, 'run', '-d', '-b', bundle, 'c')
  const place = of === 'root' ? '/' : '/volume'
  const inside = (path: string): boolean => existsSync(join(`/proc/${pid}/root`, place, path))
  const found: string[] = []
  if (inside('before/mark')) found.push('what was below it')
  host.mount(join(outside, 'late'))
  if (inside('late/mark')) found.push('a mount of the host')
  host.mount(join(outside, 'stays/sub'))
  if (inside('stays/sub/mark')) found.push('one further below')
  host.run('umount', '--lazy', join(outside, 'before'))
  if (!inside('before/mark')) found.push('an unmount')
  const mounting = spawnSync('nsenter', [
    `--mount=/proc/${pid}/ns/mnt`,
    'mount',
    '-t',
    'tmpfs',
    't',
    join(place, 'mine'),
  ])
  expect(String(mounting.stderr)).toBe('')
  spawnSync('touch', [join(`/proc/${pid}/root`, place, 'mine/theirs')])
  if (host.sees(join(outside, 'mine/theirs'))) found.push('the host: its mount')
  const table = spawnSync('cat', [`/proc/${pid}/mountinfo`])
  const line = String(table.stdout)
    .split('\n')
    .map((text) => text.split(' '))
    .findLast((fields) => fields[4] === place)
  const kinds = line?.slice(6, line.indexOf('-')).map((kind) => kind.replace(/:\d+/, '')) ?? []
  await runts.ok('delete', '-f', 'c')
  return [...found, kinds.join(' ')]
}

const BELOW = 'what was below it'
const SUB = 'one further below'
const ALL = [BELOW, 'a mount of the host', SUB, 'an unmount']

inModes(['as root'], 'the propagation of the root', (test) => {
  const CASES: readonly [Word, readonly string[]][] = [
    [undefined, [BELOW, SUB, '']],
    ['private', [BELOW, SUB, '']],
    ['rprivate', [BELOW, '']],
    ['slave', [...ALL, 'master']],
    ['rslave', [...ALL, 'master']],
    // a root that is pivoted to cannot be the host's peer: it begins a group of its own
    ['shared', [BELOW, SUB, 'shared']],
    ['rshared', [BELOW, SUB, 'shared']],
    ['unbindable', [BELOW, SUB, 'unbindable']],
    ['runbindable', [BELOW, 'unbindable']],
  ]
  for (const [word, expected] of CASES) {
    const older = notRunc(
      '1.1 makes nothing shared or unbindable again, a root with the word left out a slave, and takes slave for private',
    )
    const options = word === 'rslave' || word === 'rprivate' || word === 'private' ? {} : older
    test(`is ${word ?? 'private without a word'} on both sides`, options, async ({ runts }) => {
      expect(await seen(runts, { root: word }, 'root')).toEqual(expected)
    })
  }

  test('by rslave goes on behind --no-pivot', async ({ runts }) => {
    using host = await SharedHost.start()
    const bundle = runts.bundle(['sleep', '1000'], (spec) => (spec.linux.rootfsPropagation = 'rslave'))
    host.run('mount', '--bind', bundle, bundle)
    const pid = await host.leave(runts, 'run', '-d', '--no-pivot', '-b', bundle, 'c')
    host.mount(join(bundle, 'rootfs/late'))
    expect(existsSync(`/proc/${pid}/root/late/mark`)).toBe(true)
    await runts.ok('delete', '-f', 'c')
  })
})

inModes(['as root'], 'the propagation of a volume', (test) => {
  const SLAVE = [...ALL, 'master']
  const SHARED_SLAVE = [...ALL, 'shared master']
  const PEER = [...ALL, 'the host: its mount', 'shared']
  const CUT = [BELOW, SUB]
  /** Per word: below a root that is a slave, as without a word, and below one that is shared. */
  const CASES: readonly [Word, readonly string[], readonly string[]][] = [
    [undefined, SLAVE, PEER],
    ['private', [...CUT, ''], [...CUT, '']],
    ['rprivate', [BELOW, ''], [BELOW, '']],
    ['slave', SLAVE, SLAVE],
    ['rslave', SLAVE, SLAVE],
    ['shared', SHARED_SLAVE, PEER],
    ['rshared', SHARED_SLAVE, PEER],
    ['unbindable', [...CUT, 'unbindable'], [...CUT, 'unbindable']],
    ['runbindable', [BELOW, 'unbindable'], [BELOW, 'unbindable']],
  ]
  for (const [volume, slave, shared] of CASES) {
    test(`is ${volume ?? 'that of its source without a word'} on both sides`, async ({ runts }) => {
      expect(await seen(runts, { volume }, 'volume')).toEqual(slave)
    })

    test(`is ${volume ?? 'that of its source without a word'} below a root that is rslave`, async ({ runts }) => {
      expect(await seen(runts, { root: 'rslave', volume }, 'volume')).toEqual(slave)
    })

    test(`is ${volume ?? 'that of its source without a word'} below a root that is rshared`, async ({ runts }) => {
      expect(await seen(runts, { root: 'rshared', volume }, 'volume')).toEqual(shared)
    })
  }
})

inModes(MODES, 'a root that cannot be bound', (test) => {
  for (const word of ['unbindable', 'runbindable'] as const) {
    test(
      `by ${word} has volumes of the host all the same`,
      notRunc('its volumes cannot be bound either'),
      async ({ runts }) => {
        const out = await runts.inside(
          `cat /volume/passwd | head -n 1 | cut -c 1-4; awk '$5 == "/" { print $7 }' /proc/self/mountinfo`,
          (spec) => {
            spec.linux.rootfsPropagation = word
            spec.mounts.push({ destination: '/volume', source: '/etc', type: 'bind', options: ['rbind', 'ro'] })
          },
        )
        expect(out).toBe('root\nunbindable\n')
      },
    )
  }
})
