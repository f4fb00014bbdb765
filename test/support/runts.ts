/**
 * The OCI command line under test: `runts` (or another one: places.ts) on throw-away bundles below a root of the
 * test's own. Teardown deletes by force what a test left, and then demands that no container, process or cgroup of it
 * remains.
 */
import { spawn, spawnSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { test as base, expect } from 'vitest'
import { cgroupsOf } from './census.ts'
import { type Command, type Finished, type StartOptions, startCommand, until } from './command.ts'
import { LIB, OCI_RUNTIME } from './places.ts'
import { type SpecChange, writeSpec } from './spec.ts'
import type { Outcomes } from './starter.ts'

/** How a command ended that may leave a container behind. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stderr: string
}

/** Options of `leaving`. */
export interface Leaving {
  /** instead of the runtime under test */
  readonly program?: string
  readonly env?: Readonly<Record<string, string>>
}

/** One test's runtime root and bundles. */
export class Runts {
  readonly folder = mkdtempSync(join(tmpdir(), 'runts-'))
  readonly root = join(this.folder, 'root')
  /** prefix of the ids, unique to this test, so that its cgroups can be told from others */
  readonly name = basename(this.folder)
  /** who makes the cgroups of what `startMany` starts */
  protected readonly cgroupManager: 'cgroupfs' | 'systemd' = 'cgroupfs'
  #bundles = 0
  #starts = 0

  /** The whole command line of a call of the runtime. */
  protected commandLine(args: readonly string[]): readonly [string, ...string[]] {
    return [OCI_RUNTIME, '--root', this.root, ...args]
  }

  /** Makes a bundle and answers its folder. */
  bundle(command: readonly string[], change?: SpecChange): string {
    const bundle = join(this.folder, `bundle${this.#bundles++}`)
    mkdirSync(bundle)
    writeSpec(bundle, command, (spec) => {
      spec.linux.cgroupsPath = `/${this.name}/${this.#bundles}`
      change?.(spec)
    })
    return bundle
  }

  /** More bundles with the root of an existing one. In each config.json another word takes the place of `word`. */
  variants(bundle: string, word: string, others: readonly string[]): string[] {
    const config = readFileSync(join(bundle, 'config.json'), 'utf8')
    return others.map((other, number) => {
      const folder = `${bundle}-${number}`
      mkdirSync(folder)
      writeFileSync(join(folder, 'config.json'), config.replaceAll(word, other))
      return folder
    })
  }

  /** Starts the runtime with arguments; it runs until the test or its own end. */
  start(args: readonly string[], options: StartOptions = {}): Command {
    const [program, ...rest] = this.commandLine(args)
    return startCommand(program, rest, options)
  }

  /** Runs the runtime to its end. */
  run(...args: string[]): Promise<Finished> {
    return this.start(args).finished
  }

  /** Runs the runtime and expects success. */
  async ok(...args: string[]): Promise<Finished> {
    const finished = await this.run(...args)
    expect(finished, `${args.join(' ')}: ${finished.stderr}`).toMatchObject({ code: 0 })
    return finished
  }

  /**
   * Runs a command that leaves a container behind. Its streams are /dev/null and a file: the container would keep a
   * pipe open.
   */
  leave(...args: string[]): void {
    const [program, ...rest] = this.commandLine(args)
    const errors = join(this.folder, 'stderr')
    const fd = openSync(errors, 'w')
    const { status } = spawnSync(program, rest, { stdio: ['ignore', 'ignore', fd] })
    closeSync(fd)
    expect(status, `${args.join(' ')}: ${readFileSync(errors, 'utf8')}`).toBe(0)
  }

  /** Starts bundles many times in one process of the library (starter.ts), one after the other or together. */
  async startMany(bundles: readonly string[], rounds: number, together = false): Promise<Outcomes> {
    mkdirSync(this.root, { recursive: true })
    const program = join(import.meta.dirname, 'starter.ts')
    const { stdout, stderr } = await startCommand(process.execPath, [program], {
      input: JSON.stringify({ root: this.root, bundles, rounds, together, cgroupManager: this.cgroupManager }),
      env: { SHIM_TS_LIB: LIB },
      timeoutMs: 600_000,
    }).finished
    expect(stderr).toBe('')
    return JSON.parse(stdout) as Outcomes
  }

  /**
   * Starts a command that may leave a container behind, as `leave` does. Resolves when it has ended, with any status.
   */
  leaving(args: readonly string[], { program, env = {} }: Leaving = {}): Promise<Ended> {
    const [runtime, ...rest] = this.commandLine(args)
    const errors = join(this.folder, `stderr${this.#starts++}`)
    const fd = openSync(errors, 'w')
    const child = spawn(program ?? runtime, rest, { stdio: ['ignore', 'ignore', fd], env: { ...process.env, ...env } })
    closeSync(fd)
    return new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('exit', (code, signal) => resolve({ code, signal, stderr: readFileSync(errors, 'utf8') }))
    })
  }

  /** The `state` of a container. */
  async state(id: string): Promise<Record<string, unknown>> {
    return JSON.parse((await this.ok('state', id)).stdout)
  }

  async untilStatus(id: string, status: string): Promise<void> {
    await until(`${id} to be ${status}`, async () => (await this.state(id))['status'] === status)
  }

  /** The names of the state folders. Those that start with a dot are the runtime's own. */
  #states(): string[] {
    return existsSync(this.root) ? readdirSync(this.root).filter((name) => !name.startsWith('.')) : []
  }

  /** For teardown: removes everything, and answers what should not have been there. */
  async end(): Promise<string[]> {
    // most tests have removed everything themselves, and a call of the runtime costs more than a look
    const left = this.#states().length === 0 ? [] : (await this.run('list', '-q')).stdout.split('\n').filter(Boolean)
    for (const id of left) await this.ok('delete', '-f', id)
    const folders = this.#states()
    const cgroups = cgroupsOf(this.name)
    const leaves = cgroups.filter((path) => basename(path) !== this.name)
    // the folder above the containers' own is shared by them, so no delete removes it
    for (const parent of cgroups) if (leaves.length === 0) rmdirSync(parent)
    rmSync(this.folder, { recursive: true, force: true })
    return [...folders.map((name) => `state folder ${name}`), ...leaves]
  }
}

/** A test with a runtime of its own. */
export const test = base.extend<{ runts: Runts }>({
  runts: async ({ task: _task }, use) => {
    const runts = new Runts()
    await use(runts)
    expect(await runts.end(), 'what the test left behind').toEqual([])
  },
})
