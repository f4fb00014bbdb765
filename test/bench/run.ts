/**
 * Our shim against containerd-shim-runc-v2 with runc: the same `ctr` commands on one private containerd.
 * The two runtimes alternate in every round, so that both see the same machine, after rounds of warm-up.
 * Below containerd, our runtime against runc (oci.ts). It prints medians, the best and ratios, and asserts nothing.
 * `--only oci` leaves containerd out, `--only streams` all but the throughput of output.
 *    run.ts [--rounds N] [--idle N] [--json FILE] [--only oci|streams]
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { allPids } from '../support/census.ts'
import { Daemon } from '../support/daemon.ts'
import { setup } from '../support/global-setup.ts'
import { missing } from '../support/needs.ts'
import { IMAGE } from '../support/places.ts'
import { type MemoryOfOne, memoryOf } from './memory.ts'
import { measureOci, measureRunOutput, RUN_TARGETS } from './oci.ts'
import { STREAM_CASES, streamRate } from './streams.ts'

const RUNTIMES = { ts: 'io.containerd.ts.v2', runc: 'io.containerd.runc.v2' } as const
type Name = keyof typeof RUNTIMES
const NAMES: readonly Name[] = ['runc', 'ts']
const WARM_UP = 3
/** After its last work a runtime's garbage collector tidies up once more: V8's has done so after sixteen seconds. */
const SETTLED_MS = 20_000

/** One measured case: per runtime a list of values. */
interface Case {
  readonly name: string
  /** of MiB/s more is better, of the others less */
  readonly unit: 'ms' | 'KiB' | 'MiB/s'
  readonly values: Record<Name, readonly number[]>
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

interface Options {
  rounds: number
  idle: number
  json: string | undefined
  only: 'oci' | 'streams' | undefined
}

function readArguments(argv: readonly string[]): Options {
  const options: Options = { rounds: 30, idle: 20, json: undefined, only: undefined }
  for (let i = 0; i < argv.length; i += 2) {
    const [name, value] = [argv[i], argv[i + 1]]
    if (name === '--json' && value !== undefined) options.json = value
    else if (name === '--only' && (value === 'oci' || value === 'streams')) options.only = value
    else if ((name === '--rounds' || name === '--idle') && /^\d+$/.test(value ?? ''))
      options[name === '--rounds' ? 'rounds' : 'idle'] = Number(value)
    else throw new Error(`unknown argument "${name}": expected --rounds N, --idle N, --json FILE, --only oci|streams`)
  }
  return options
}

/** What a reader needs to judge the numbers. */
function machine(): string[] {
  const meminfo = readFileSync('/proc/meminfo', 'utf8')
  const load = readFileSync('/proc/loadavg', 'utf8').split(' ').slice(0, 3).join(' ')
  return [
    `Linux ${release()}, ${cpus().length} x ${cpus()[0]?.model ?? 'unknown processor'}, ${Math.round(Number(/MemTotal:\s+(\d+)/.exec(meminfo)?.[1] ?? 0) / 1048576)} GiB`,
    `Node ${process.versions.node}; load average at the start ${load}`,
  ]
}

async function timed(daemon: Daemon, args: readonly string[]): Promise<number> {
  const started = performance.now()
  const result = await daemon.ctr(args)
  const took = performance.now() - started
  if (result.code !== 0) throw new Error(`ctr ${args.join(' ')}: status ${result.code}: ${result.stderr}`)
  return took
}

/** Runs the command of each runtime in turn, `rounds` times after the warm-up. */
async function alternate(
  daemon: Daemon,
  rounds: number,
  command: (name: Name, round: number) => readonly string[],
): Promise<Record<Name, number[]>> {
  const values: Record<Name, number[]> = { ts: [], runc: [] }
  for (let round = 0; round < rounds + WARM_UP; round++) {
    for (const name of NAMES) {
      const took = await timed(daemon, command(name, round))
      if (round >= WARM_UP) values[name].push(took)
    }
  }
  return values
}

function shimPids(namespace: string): number[] {
  return allPids().filter((pid) => {
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
      return /^\S*containerd-shim/.test(line) && line.includes(` ${namespace} `)
    } catch {
      return false
    }
  })
}

/** Memory of each shim while `count` containers do nothing, one runtime after the other. */
async function idleMemory(daemon: Daemon, count: number): Promise<Record<Name, MemoryOfOne[]>> {
  const found: Record<Name, MemoryOfOne[]> = { ts: [], runc: [] }
  for (const name of NAMES) {
    for (let i = 0; i < count; i++)
      await timed(daemon, [
        'run',
        '-d',
        '--null-io',
        '--runtime',
        RUNTIMES[name],
        IMAGE,
        `idle-${name}-${i}`,
        'sleep',
        '10000',
      ])
    await new Promise((resolve) => setTimeout(resolve, SETTLED_MS))
    found[name] = shimPids(daemon.namespace).map(memoryOf)
    await daemon.removeAll()
  }
  return found
}

function print(cases: readonly Case[]): void {
  const row = (...cells: string[]): void => say(`| ${cells.join(' | ')} |`)
  row('case', 'runc median (best)', 'ts median (best)', 'ratio of medians', 'ratio of the best')
  row('---', '---', '---', '---', '---')
  for (const { name, unit, values } of cases) {
    const digits = unit === 'ms' ? 1 : 0
    const best = (list: readonly number[]): number => (unit === 'MiB/s' ? Math.max(...list) : Math.min(...list))
    const cell = (of: Name): string =>
      `${median(values[of]).toFixed(digits)} (${best(values[of]).toFixed(digits)}) ${unit}`
    const ratio = (pick: (list: readonly number[]) => number): string =>
      (pick(values.ts) / pick(values.runc)).toFixed(2)
    row(name, cell('runc'), cell('ts'), ratio(median), ratio(best))
  }
}

async function measure(daemon: Daemon, rounds: number, idle: number): Promise<Case[]> {
  const cases: Case[] = []
  const runs = await alternate(daemon, rounds, (name, round) => [
    'run',
    '--rm',
    '--runtime',
    RUNTIMES[name],
    IMAGE,
    `run-${name}-${round}`,
    'true',
  ])
  cases.push({ name: '`ctr run --rm … true`', unit: 'ms', values: runs })

  for (const name of NAMES)
    await timed(daemon, [
      'run',
      '-d',
      '--null-io',
      '--runtime',
      RUNTIMES[name],
      IMAGE,
      `exec-${name}`,
      'sleep',
      '10000',
    ])
  const execs = await alternate(daemon, rounds, (name, round) => [
    'task',
    'exec',
    '--exec-id',
    `e${round}`,
    `exec-${name}`,
    'true',
  ])
  cases.push({ name: '`ctr task exec … true`', unit: 'ms', values: execs })
  await daemon.removeAll()

  const memory = await idleMemory(daemon, idle)
  for (const [field, label] of [
    ['own', 'anonymous + page tables + stacks'],
    ['rss', 'RSS'],
    ['pss', 'PSS'],
  ] as const) {
    cases.push({
      name: `memory of a shim at ${idle} idle containers: ${label}`,
      unit: 'KiB',
      values: { ts: memory.ts.map((one) => one[field]), runc: memory.runc.map((one) => one[field]) },
    })
  }
  return cases
}

/** Throughput of output: few rounds, since each moves far more than one container's start costs. */
async function streamCases(daemon: Daemon, rounds: number): Promise<Case[]> {
  for (const name of NAMES) {
    const sleeper = ['--runtime', RUNTIMES[name], IMAGE, `stream-${name}`, 'sleep', '10000']
    await timed(daemon, ['run', '-d', '--null-io', ...sleeper])
  }
  const cases: Case[] = []
  for (const each of STREAM_CASES) {
    const values: Record<Name, number[]> = { ts: [], runc: [] }
    for (let round = 0; round <= rounds; round++) {
      for (const name of NAMES) {
        const rate = await streamRate(daemon, each, { runtime: RUNTIMES[name], name, round })
        if (round > 0) values[name].push(rate)
      }
    }
    cases.push({ name: each.name, unit: 'MiB/s', values })
  }
  await daemon.removeAll()
  return cases
}

async function ociCases(rounds: number): Promise<Case[]> {
  const { runc, runts, embedded } = await measureOci(rounds, WARM_UP)
  const output = measureRunOutput(Math.ceil(rounds / 5))
  return [
    { name: '`runts run` of `true`, Node’s boot included, and `runc run`', unit: 'ms', values: { ts: runts, runc } },
    {
      name: 'create, start, exit and destroy by the library in a warm Node, and `runc run`',
      unit: 'ms',
      values: { ts: embedded, runc },
    },
    ...RUN_TARGETS.map((target): Case => {
      const values = { ts: output[target].runts, runc: output[target].runc }
      return { name: `stdout through \`runts run\` to ${target}, 64 KiB writes`, unit: 'MiB/s', values }
    }),
  ]
}

async function main(): Promise<void> {
  const { rounds, idle, json, only } = readArguments(process.argv.slice(2))
  for (const need of ['root', 'containerd', 'busybox', 'the runc shim', 'the built shim'] as const) {
    if (missing(need) !== undefined) throw new Error(`this machine lacks ${need}`)
  }
  setup()
  const header = [
    ...machine(),
    `${rounds} rounds alternated after ${WARM_UP} of warm-up; ratios below 1 are for us, of MiB/s above 1`,
  ]
  for (const line of header) say(line)
  const cases = only === 'streams' ? [] : await ociCases(rounds)
  if (only !== 'oci') cases.push(...(await containerdCases({ rounds, idle, only }, header)))
  say('')
  print(cases)
  if (json !== undefined) writeFileSync(json, `${JSON.stringify({ header, cases }, null, 1)}\n`)
}

async function containerdCases(
  { rounds, idle, only }: Pick<Options, 'rounds' | 'idle' | 'only'>,
  header: string[],
): Promise<Case[]> {
  // the level of a containerd that nobody is debugging
  const daemon = new Daemon(() => '', 'info')
  try {
    await daemon.start()
    await daemon.importImage()
    header.push((await daemon.ctr(['version'])).stdout.replaceAll(/\s+/g, ' ').trim())
    const cases = only === 'streams' ? [] : await measure(daemon, rounds, idle)
    return [...cases, ...(await streamCases(daemon, Math.ceil(rounds / 5)))]
  } finally {
    await daemon.removeAll()
    await daemon.stop()
  }
}

try {
  await main()
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
