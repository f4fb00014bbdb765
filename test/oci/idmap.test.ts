/**
 * Id-mapped bind mounts: whose a file is seen to be, per mount, with and without a user namespace, recursive or not.
 */
import { chownSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { notRunc } from '../support/needs.ts'
import { BY_ROOT, inModes, type OciHost } from '../support/oci.ts'
import type { TestMapping, TestMount } from '../support/spec.ts'

const newer = notRunc('needs runc 1.2: id-mapped mounts in general')

/** A folder with files of the ids 0 to 2, 1000 and 2000. */
function source(runts: OciHost, name = 'source'): string {
  const folder = join(runts.folder, name)
  mkdirSync(join(folder, 'sub'), { recursive: true })
  for (const id of [0, 1, 2, 1000, 2000]) {
    const file = join(folder, `of${id}`)
    writeFileSync(file, '')
    chownSync(file, id, id)
  }
  return folder
}

const range = (containerID: number, hostID: number, size: number): TestMapping => ({ containerID, hostID, size })

/** An id-mapped bind: in each mapping, containerID is the id on disk and hostID the one that it stands for. */
function idmapped(from: string, to: string, mappings: TestMapping[], ...options: string[]): TestMount {
  return {
    destination: to,
    source: from,
    type: 'bind',
    options: ['bind', ...options],
    ...(mappings.length === 0 ? {} : { uidMappings: mappings, gidMappings: mappings }),
  }
}

const owners = (place: string): string =>
  `stat -c '%u:%g' ${['of0', 'of1', 'of2'].map((n) => join(place, n)).join(' ')}`

inModes(BY_ROOT, 'id-mapped mounts', (test) => {
  /** The host's ids for three ids that the container sees as given. */
  const hostRange = (runts: OciHost, first: number): number => runts.owner + first

  test('show files with the ids of the mapping, and write back the ids on disk', newer, async ({ runts }) => {
    const folder = source(runts)
    chownSync(join(folder, 'sub'), 1000, 1000)
    // root of the container has no id on the disk of the first mount, so that it can make nothing there
    const script = `${owners('/seen')}; stat -c %u:%g /seen/of1000; touch /seen/new 2>&1
      touch /written/sub/new; chown 2:3 /written/sub/new`
    const out = await runts.inside(script, (spec) => {
      spec.mounts.push(
        idmapped(folder, '/seen', [range(0, hostRange(runts, 500), 3)]),
        idmapped(folder, '/written', [range(1000, hostRange(runts, 0), 10)]),
      )
    })
    expect(out).toBe(
      '500:500\n501:501\n502:502\n65534:65534\ntouch: /seen/new: Value too large for defined data type\n',
    )
    const { uid, gid } = statSync(join(folder, 'sub/new'))
    expect({ uid, gid }).toEqual({ uid: 1002, gid: 1003 })
  })

  test(
    'may have several ranges, their own maps of users and groups, and plain binds beside them',
    newer,
    async ({ runts }) => {
      const folder = source(runts)
      const at = (id: number): number => hostRange(runts, id)
      const out = await runts.inside(
        `${owners('/a')}; ${owners('/b')}; ${owners('/c')}; stat -c %u:%g /plain/of2 /a/of1000`,
        (spec) => {
          spec.mounts.push(
            idmapped(folder, '/a', [range(0, at(10), 1), range(1, at(21), 2), range(1000, at(5), 1)]),
            { destination: '/plain', source: folder, type: 'bind', options: ['bind'] },
            idmapped(folder, '/b', [range(0, at(10), 1), range(1, at(21), 2), range(1000, at(5), 1)]),
            { ...idmapped(folder, '/c', [range(0, at(30), 3)]), gidMappings: [range(0, at(40), 3)] },
          )
        },
      )
      const split = '10:10\n21:21\n22:22\n'
      const plain = runts.isMapped ? '65534:65534' : '2:2'
      expect(out).toBe(`${split}${split}30:40\n31:41\n32:42\n${plain}\n5:5\n`)
    },
  )

  test('keep other options, relative sources and a place that an earlier mount brought', newer, async ({ runts }) => {
    const folder = source(runts)
    const mappings = [range(0, hostRange(runts, 500), 3)]
    const show = (place: string): string => `awk '$5 == "${place}" { print $6, $7 }' /proc/self/mountinfo`
    const bundle = runts.bundle(
      ['sh', '-c', `${owners('/m')}; ${show('/m')}; stat -c %u /rel/of1; stat -c %u /later/of2`],
      (spec) => {
        spec.mounts.push(
          idmapped(folder, '/m', mappings, 'ro', 'nosuid', 'shared'),
          idmapped('data', '/rel', mappings),
          { destination: '/first', source: folder, type: 'bind', options: ['bind'] },
          idmapped('rootfs/first', '/later', mappings),
        )
      },
    )
    mkdirSync(join(bundle, 'data'))
    writeFileSync(join(bundle, 'data/of1'), '')
    chownSync(join(bundle, 'data/of1'), 1, 1)
    const { stdout } = await runts.ok('run', '-b', bundle, 'c')
    expect(stdout).toMatch(/^500:500\n501:501\n502:502\nro,nosuid.* shared:\d+\n501\n502\n$/)
  })

  test('reach what is mounted below them only with ridmap', newer, async ({ runts }) => {
    const folder = source(runts)
    const mappings = [range(0, hostRange(runts, 500), 3)]
    const below = { destination: '/first/sub', source: source(runts, 'below'), type: 'bind', options: ['bind'] }
    const out = await runts.inside('stat -c %u /only/of1 /only/sub/of1 /all/of1 /all/sub/of1', (spec) => {
      spec.mounts.push(
        { destination: '/first', source: folder, type: 'bind', options: ['bind'] },
        below,
        idmapped('rootfs/first', '/only', mappings, 'rbind', 'idmap'),
        idmapped('rootfs/first', '/all', mappings, 'rbind', 'ridmap'),
      )
    })
    const untouched = runts.isMapped ? '65534' : '1'
    expect(out).toBe(`501\n${untouched}\n501\n501\n`)
  })

  test('are refused on anything but a bind, with half a mapping, or with an empty one', newer, async ({ runts }) => {
    const folder = source(runts)
    const refused = (mount: TestMount) => runts.refused((spec) => spec.mounts.push(mount))
    const mappings = [range(0, 0, 1)]
    expect(await refused({ ...idmapped('tmpfs', '/m', mappings), type: 'tmpfs', options: [] })).toContain(
      'id-mapped mounts are only supported for bind-mounts',
    )
    const { gidMappings: _left, ...half } = idmapped(folder, '/m', mappings)
    expect(await refused(half)).toMatch(/mappings/)
  })
})

inModes(['in a user namespace'], 'id-mapped mounts without a mapping', (test) => {
  test('take that of the container, also when its user namespace is a joined one', newer, async ({ runts }) => {
    const folder = source(runts)
    runts.sleeper('first', (spec) => {
      spec.mounts.push(idmapped(folder, '/m', [], 'idmap'))
    })
    expect(await runts.exec('first', 'sh', '-c', owners('/m'))).toBe('0:0\n1:1\n2:2\n')
    const { pid } = await runts.state('first')
    const out = await runts.inside(owners('/m'), (spec) => {
      spec.linux.namespaces.find(({ type }) => type === 'user')!.path = `/proc/${pid}/ns/user`
      delete spec.linux.uidMappings
      delete spec.linux.gidMappings
      spec.mounts.push(idmapped(folder, '/m', [], 'idmap'))
    })
    expect(out).toBe('0:0\n1:1\n2:2\n')
  })
})

inModes(['as an unprivileged user'], 'id-mapped mounts', (test) => {
  test('are refused: nobody may map the files of others', newer, async ({ runts }) => {
    const mount = idmapped(source(runts), '/m', [range(0, runts.owner, 1)])
    expect(await runts.refused((spec) => spec.mounts.push(mount))).toMatch(/id-?mapped mounts/)
  })
})

inModes(['as root'], 'id-mapped mounts without any user namespace', (test) => {
  test('need a mapping of their own', newer, async ({ runts }) => {
    const folder = source(runts)
    const error = await runts.refused((spec) => spec.mounts.push(idmapped(folder, '/m', [], 'idmap')))
    expect(error).toMatch(/mapping|user namespace/)
  })
})
