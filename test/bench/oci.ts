/**
 * One whole container below containerd: `runts run` of `true`, the library in a warm Node, and `runc run`.
 * All three alternate in every round, on bundles with the same spec. Only the first number contains Node's boot.
 * All have pipes as streams, as in a script's `$(…)`.
 * Also how fast the output of `run` in the foreground reaches a pipe and a file, as the writer sees it.
 */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { cgroupsOf } from '../support/census.ts'
import { BIN, LIB } from '../support/places.ts'
import { writeSpec } from '../support/spec.ts'

/** Milliseconds per round. */
export interface OciTimes {
  readonly runc: readonly number[]
  readonly runts: readonly number[]
  readonly embedded: readonly number[]
}

function timed(program: string, args: readonly string[]): number {
  const started = performance.now()
  const { status, error } = spawnSync(program, args, { stdio: ['pipe', 'pipe', 'pipe'] })
  if (error !== undefined || status !== 0)
    throw new Error(`${program} ${args.join(' ')}: ${error ?? `status ${status}`}`)
  return performance.now() - started
}

/** Where the output of `run` goes. */
export const RUN_TARGETS = ['a pipe', 'a file'] as const

/** Bytes of a round, and of one write. */
const POURED = [1024 * 1024 * 1024, 65_536] as const

/** MiB per second of `run`, by target and runtime. */
export function measureRunOutput(
  rounds: number,
): Record<(typeof RUN_TARGETS)[number], Pick<OciTimes, 'runc' | 'runts'>> {
  const folder = mkdtempSync(join(tmpdir(), 'oci-bench-'))
  const name = basename(folder)
  const rate = (program: string, target: (typeof RUN_TARGETS)[number]): number => {
    const sink = target === 'a pipe' ? '| cat >/dev/null' : `>${folder}/out`
    const script = `${program} --root ${folder}/root run -b ${folder} ${name} ${sink}; rm -f ${folder}/out`
    const { stderr } = spawnSync('sh', ['-c', script], { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' })
    if (!(Number(stderr) > 0)) throw new Error(`${script}: ${stderr}`)
    return (POURED[0] / 1024 / 1024 / Number(stderr)) * 1e9
  }
  try {
    writeSpec(folder, ['payload', 'pour', ...POURED.map(String)], (spec) => {
      spec.linux.cgroupsPath = `/${name}/c`
    })
    const measured = (target: (typeof RUN_TARGETS)[number]) => {
      const rates = { runc: [] as number[], runts: [] as number[] }
      for (let round = 0; round <= rounds; round++) {
        const one = { runc: rate('runc', target), runts: rate(join(BIN, 'runts'), target) }
        if (round === 0) continue
        rates.runc.push(one.runc)
        rates.runts.push(one.runts)
      }
      return rates
    }
    return { 'a pipe': measured('a pipe'), 'a file': measured('a file') }
  } finally {
    for (const path of cgroupsOf(name).reverse()) rmdirSync(path)
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Measures `rounds` rounds after the warm-up. */
export async function measureOci(rounds: number, warmUp: number): Promise<OciTimes> {
  const folder = mkdtempSync(join(tmpdir(), 'oci-bench-'))
  const name = basename(folder)
  const bundle = join(folder, 'bundle')
  mkdirSync(bundle)
  writeSpec(bundle, ['true'], (spec) => {
    spec.linux.cgroupsPath = `/${name}/c`
  })
  const root = (of: string): string => join(folder, of)
  mkdirSync(root('embedded'))
  const library = spawn(process.execPath, [join(import.meta.dirname, 'embedded.ts'), root('embedded'), bundle], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, SHIM_TS_LIB: LIB },
  })
  const answers = createInterface({ input: library.stdout })[Symbol.asyncIterator]()
  const embedded = async (): Promise<number> => {
    library.stdin.write('\n')
    const { value, done } = await answers.next()
    if (done === true) throw new Error('the library ended')
    return Number(value)
  }
  const times = { runc: [] as number[], runts: [] as number[], embedded: [] as number[] }
  try {
    for (let round = 0; round < rounds + warmUp; round++) {
      const one = {
        runc: timed('runc', ['--root', root('runc'), 'run', '-b', bundle, `runc-${round}`]),
        runts: timed(join(BIN, 'runts'), ['--root', root('runts'), 'run', '-b', bundle, `runts-${round}`]),
        embedded: await embedded(),
      }
      if (round < warmUp) continue
      times.runc.push(one.runc)
      times.runts.push(one.runts)
      times.embedded.push(one.embedded)
    }
  } finally {
    const ended = new Promise((resolve) => library.once('exit', resolve))
    library.stdin.end()
    await ended
    for (const path of cgroupsOf(name).reverse()) rmdirSync(path)
    rmSync(folder, { recursive: true, force: true })
  }
  return times
}
