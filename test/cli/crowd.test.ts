/**
 * A container with more processes than the buffer for their list has room for.
 * If the list were cut within a line, each number that could come of that would belong to a stranger.
 * The test chooses the numbers, in a pid namespace of its own.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { cgroupsOf } from '../support/census.ts'
import { until } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { PidNamespace, Strangers } from '../support/pid-namespace.ts'
import { OCI_RUNTIME, ROOT } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'

const CROWD = 3000
/** The numbers of the container begin here. */
const FROM = 10_000
/** The container's numbers without their last digit are among these. */
const STRANGERS = { from: 990, count: 330 }

const sorted = (pids: readonly number[]): number[] => [...pids].sort((a, b) => a - b)

/** The container, and what is known of it without the runtime. */
class Crowd {
  readonly strangers: Strangers
  readonly #inside: PidNamespace
  readonly #runts: Runts

  private constructor(inside: PidNamespace, runts: Runts, strangers: Strangers) {
    this.strangers = strangers
    this.#inside = inside
    this.#runts = runts
  }

  static async start(inside: PidNamespace, runts: Runts): Promise<Crowd> {
    const crowd = new Crowd(inside, runts, await Strangers.start(inside, STRANGERS.from, STRANGERS.count))
    const bundle = runts.bundle(['payload', 'crowd', String(CROWD)], (spec) => {
      spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'pid')
    })
    const output = join(runts.folder, 'output')
    const command = [OCI_RUNTIME, '--root', runts.root, 'run', '-d', '-b', bundle, 'c']
    const script = 'exec "$@" </dev/null >"$0" 2>&1'
    const run = inside.startFrom(FROM, 'sh', ['-c', script, output, ...command])
    const said = (): string => readFileSync(output, 'utf8')
    expect(await run.finished, said()).toMatchObject({ code: 0 })
    await until('the crowd', () => said().includes('ready'), said)
    const own = await crowd.processes()
    expect(own).toHaveLength(CROWD + 1)
    const strange = new Set(crowd.strangers.numbers())
    expect(own.filter((pid) => !strange.has(Math.floor(pid / 10)))).toEqual([])
    return crowd
  }

  /** Who is in its cgroup, by the kernel. */
  async processes(): Promise<number[]> {
    const [cgroup = ''] = cgroupsOf(this.#runts.name).filter((path) => !path.endsWith(this.#runts.name))
    const { stdout } = await this.#inside.ok('cat', [join(cgroup, 'cgroup.procs')])
    return sorted(stdout.split('\n').filter(Boolean).map(Number))
  }

  /** Calls the runtime where so many files may be open. */
  async call(files: number, ...args: readonly string[]): Promise<string> {
    const command = [`--nofile=${files}:${files}`, OCI_RUNTIME, '--root', this.#runts.root, ...args]
    return (await this.#inside.ok('prlimit', command)).stdout
  }
}

describe('of a container of thousands of processes', needs('root', 'busybox', 'prlimit', 'procps'), () => {
  test('ps shows all, as numbers and as rows', async ({ runts }) => {
    await using inside = await PidNamespace.create()
    const crowd = await Crowd.start(inside, runts)
    const own = await crowd.processes()
    expect(sorted(JSON.parse(await crowd.call(1024, 'ps', '--format', 'json', 'c')))).toEqual(own)
    const [, ...rows] = (await crowd.call(1024, 'ps', 'c', '-eo', 'pid,args')).trimEnd().split('\n')
    expect(sorted(rows.map((row) => Number.parseInt(row, 10)))).toEqual(own)
  })

  test.for([1024, 40])('kill --all reaches all and nobody else, with %i files', async (files, { runts }) => {
    await using inside = await PidNamespace.create()
    const crowd = await Crowd.start(inside, runts)
    const strangers = crowd.strangers.numbers()
    await crowd.call(files, 'kill', '--all', 'c', 'TERM')
    await until('all to be gone', async () => (await crowd.processes()).length === 0)
    expect(crowd.strangers.numbers()).toEqual(strangers)
    expect(JSON.parse(await crowd.call(files, 'state', 'c'))).toMatchObject({ status: 'stopped' })
    await crowd.call(files, 'delete', 'c')
  })
})

/** Signals a list of one process. It ends while the list is read again, and another process gets its number. */
const REUSE = `
  import { execFileSync } from 'node:child_process'
  import { existsSync, writeFileSync } from 'node:fs'
  import { signalListed } from '${join(ROOT, 'runtime/sys/pids.ts')}'
  const sleeper = () => Number(execFileSync('sh', ['-c', 'sleep 600 >/dev/null 2>&1 & echo $!']))
  const pid = sleeper()
  const reuse = () => {
    process.kill(pid, 'SIGKILL')
    while (existsSync('/proc/' + pid));
    // the shell that starts the sleeper takes a number too
    for (let other = 0; other !== pid; other = sleeper()) writeFileSync('/proc/sys/kernel/ns_last_pid', String(pid - 2))
  }
  let reads = 0
  await signalListed(() => {
    if (reads++ > 0) reuse()
    return [pid]
  }, 15)
  console.log(reads, existsSync('/proc/' + pid))`

test('whoever has got the number of one in a list gets no signal for it', needs('root'), async () => {
  await using inside = await PidNamespace.create()
  const { stdout } = await inside.ok(process.execPath, ['--input-type=module', '-e', REUSE])
  expect(stdout).toBe('2 true\n')
})
