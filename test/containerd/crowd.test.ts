/**
 * A container of thousands of processes, in a pid namespace of the daemon's own.
 * If the list of its processes were cut within a line, each number that could come of that would belong to a stranger.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test as base, onTestFinished } from 'vitest'
import { cgroupsOf, settledLeaks } from '../support/census.ts'
import { until } from '../support/command.ts'
import { Containers, expect } from '../support/containerd.ts'
import { Daemon, words } from '../support/daemon.ts'
import { needs } from '../support/needs.ts'
import { PidNamespace, Strangers } from '../support/pid-namespace.ts'

/** runc's shim needs twenty seconds for fifty. */
const CROWD = 3000

base(
  'task ps shows every process of thousands, and kill -a reaches them and nobody else',
  needs('root', 'containerd', 'busybox', 'our shim'),
  async () => {
    const daemon = new Daemon()
    // by then the namespace has ended, with all that a failure leaves in it
    onTestFinished(() => daemon.stop())
    await using inside = await PidNamespace.create()
    daemon.place = inside
    const strangers = await Strangers.start(inside, 990, 350)
    await daemon.start()
    await daemon.importImage()
    const before = daemon.census()
    const ct = new Containers(daemon)
    const id = ct.id()
    const args = ct.configArgs(['-d', '--null-io'], id, ['payload', 'crowd', String(CROWD)], (spec) => {
      spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'pid')
      spec.linux.cgroupsPath = `/${daemon.namespace}/${id}`
    })
    const run = inside.startFrom(10_000, daemon.ctrProgram, daemon.ctrArgs(args))
    expect(await run.finished, run.stderr).toMatchObject({ code: 0 })

    const [cgroup = ''] = cgroupsOf(daemon.namespace).filter((path) => path.endsWith(id))
    const count = (): number => words(readFileSync(join(cgroup, 'cgroup.procs'), 'utf8')).length
    await until(
      'the crowd',
      () => count() === CROWD + 1,
      () => `${count()} processes`,
    )
    const known = strangers.numbers()
    const listed = (await ct.ok('task', 'ps', id)).stdout
      .trimEnd()
      .split('\n')
      .slice(1)
      .map((row) => Number.parseInt(row, 10))
    expect(listed).toHaveLength(CROWD + 1)
    expect(listed.filter((pid) => !known.includes(Math.floor(pid / 10)))).toEqual([])

    await ct.ok('task', 'kill', '-a', '-s', 'SIGTERM', id)
    await ct.untilStatus(id, 'STOPPED')
    await until(
      'all to be gone',
      () => count() === 0,
      () => `${count()} processes`,
    )
    expect(strangers.numbers()).toEqual(known)
    await ct.end()
    expect(await settledLeaks(before, () => daemon.census())).toEqual([])
  },
)
