/**
 * One whole container below containerd: `runts run` of `true` and the same by the library in a warm Node, against `runc run`, all three in
 * every round on bundles with the same spec. Node's boot is in the first number, and not in the second.
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
  const { status, error } = spawnSync(program, args, { stdio: 'ignore' })
  if (error !== undefined || status !== 0)
    throw new Error(`${program} ${args.join(' ')}: ${error ?? `status ${status}`}`)
  return performance.now() - started
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
