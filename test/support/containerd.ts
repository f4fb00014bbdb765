/**
 * vitest fixtures over a private containerd: one daemon per test file, and a `ct` for each test.
 * Its teardown removes what the test left, and then takes the leak census, which must find nothing.
 */
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test as base, expect } from 'vitest'
import { settledLeaks } from './census.ts'
import { type Command, type Finished, type StartOptions, startCommand, until } from './command.ts'
import { Daemon, type EventRecorder, words } from './daemon.ts'
import { SLOWNESS } from './needs.ts'
import { IMAGE, IS_OURS, PAYLOAD, RUNTIME } from './places.ts'
import { type SpecChange, writeSpec } from './spec.ts'

/** What one test does with its file's daemon. */
export class Containers {
  readonly daemon: Daemon
  readonly #prefix: string
  readonly #endings: (() => Promise<void>)[] = []
  #next = 1

  constructor(daemon: Daemon) {
    this.daemon = daemon
    this.#prefix = `t${randomBytes(2).toString('hex')}`
    mkdirSync(this.folder, { recursive: true })
  }

  /** A folder of the test's own, removed with the daemon's. */
  get folder(): string {
    return join(this.daemon.folder, this.#prefix)
  }

  /** A container id that nothing else has. */
  id(): string {
    const id = `${this.#prefix}-${this.#next++}`
    this.daemon.ids.push(id)
    return id
  }

  /** Disposes of something at the end of the test, whether it passed or not. */
  onEnd(ending: () => Promise<void>): void {
    this.#endings.push(ending)
  }

  async end(): Promise<void> {
    for (const ending of this.#endings.reverse()) await ending()
    await this.daemon.removeAll()
  }

  ctr(...args: readonly string[]): Promise<Finished> {
    return this.daemon.ctr(args)
  }

  /** Runs ctr and demands that it succeeds. */
  async ok(...args: readonly string[]): Promise<Finished> {
    const result = await this.daemon.ctr(args)
    expect(result, result.stderr).toMatchObject({ code: 0 })
    return result
  }

  /** The arguments of `ctr run` for a container of the test image. */
  runArgs(flags: readonly string[], id: string, command: readonly string[]): string[] {
    return ['run', '--runtime', RUNTIME, ...flags, IMAGE, id, ...command]
  }

  /** `ctr run --rm FLAGS IMAGE ID COMMAND` to its end. */
  run(
    flags: readonly string[],
    command: readonly string[],
    options: StartOptions & { id?: string } = {},
  ): Promise<Finished> {
    return this.daemon.ctr(this.runArgs(['--rm', ...flags], options.id ?? this.id(), command), options)
  }

  /** The same, started. */
  startRun(
    flags: readonly string[],
    command: readonly string[],
    options: StartOptions & { id?: string } = {},
  ): Command {
    return this.daemon.startCtr(this.runArgs(['--rm', ...flags], options.id ?? this.id(), command), options)
  }

  /** A container in the background; answers its id. */
  async detached(flags: readonly string[] = [], command: readonly string[] = ['sleep', '1000']): Promise<string> {
    const id = this.id()
    const result = await this.daemon.ctr(this.runArgs(['-d', '--null-io', ...flags], id, command))
    expect(result, result.stderr).toMatchObject({ code: 0 })
    return id
  }

  /** `ctr task exec` to its end. */
  exec(id: string, command: readonly string[], flags: readonly string[] = []): Promise<Finished> {
    return this.daemon.ctr(['task', 'exec', '--exec-id', this.id(), ...flags, id, ...command])
  }

  /** `ctr task exec -d`. Its fifos lie in the test's folder, since the client ends before it could remove them. */
  execDetached(id: string, execId: string, command: readonly string[]): Promise<Finished> {
    return this.ok(
      'task',
      'exec',
      '-d',
      '--fifo-dir',
      join(this.folder, 'detached'),
      '--exec-id',
      execId,
      id,
      ...command,
    )
  }

  /** The arguments of `ctr run` for a whole config.json of the test's making. */
  configArgs(flags: readonly string[], id: string, command: readonly string[], change?: SpecChange): string[] {
    return ['run', '--runtime', RUNTIME, ...flags, '--config', writeSpec(this.folder, command, change), id]
  }

  /**
   * Starts ctr with a terminal of its own, without which it refuses -t. `resize` and `kill` go to the terminal
   * program.
   */
  startOnTerminal(args: readonly string[], options: StartOptions & { rows?: number; columns?: number } = {}): Command {
    const { rows = 24, columns = 80, ...rest } = options
    const ctr = [this.daemon.ctrProgram, ...this.daemon.ctrArgs(args)]
    return startCommand(PAYLOAD, ['pty', String(rows), String(columns), '--', ...ctr], { ...rest, control: true })
  }

  /** The task's line of `ctr task ls`: [id, pid, status], or undefined. */
  async task(id: string): Promise<{ pid: number; status: string } | undefined> {
    const { stdout } = await this.ctr('task', 'ls')
    const [, pid, status] =
      stdout
        .split('\n')
        .map(words)
        .find(([name]) => name === id) ?? []
    return pid === undefined || status === undefined ? undefined : { pid: Number(pid), status }
  }

  /** Waits for a task status as `ctr task ls` spells it. */
  async untilStatus(id: string, status: string): Promise<void> {
    await until(`task ${id} to be ${status}`, async () => (await this.task(id))?.status === status)
  }

  /** The bundle that containerd made for the container. */
  bundle(id: string): string {
    return join(this.daemon.folder, 'state/io.containerd.runtime.v2.task', this.daemon.namespace, id)
  }

  /** The pid of the shim that serves the container. */
  shimPid(id: string): number {
    const pid = this.findShim(id)
    if (pid === undefined) throw new Error(`no shim process of ${id}`)
    return pid
  }

  /** The same, or undefined when there is none. */
  findShim(id: string): number | undefined {
    const found = this.shims(id)
    expect(found.length, `shim processes of ${id}`).toBeLessThan(2)
    return found[0]
  }

  /** The pids of all processes of the shim's program for the container: the one that serves, and one that deletes. */
  shims(id: string): number[] {
    const found = readdirSync('/proc').filter((name) => {
      if (!/^\d+$/.test(name)) return false
      try {
        const line = ` ${readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ')} `
        return (
          /^ (\S*\/)?containerd-shim/.test(line) &&
          line.includes(` -namespace ${this.daemon.namespace} `) &&
          line.includes(` -id ${id} `)
        )
      } catch {
        return false
      }
    })
    return found.map(Number)
  }

  /** The path of the shim's socket. */
  socket(id: string): string {
    return readFileSync(join(this.bundle(id), 'address'), 'utf8')
      .trim()
      .replace(/^unix:\/\//, '')
  }
}

interface Fixtures {
  /** The test's access to the daemon, with cleanup and census after it. */
  ct: Containers
}

interface FileFixtures {
  daemon: Daemon
}

/** vitest's test with a private containerd. */
export const test = base.extend<{ $file: FileFixtures; $test: Fixtures }>({
  daemon: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixture's needs from this pattern
    async ({}, use) => {
      const daemon = new Daemon()
      try {
        await daemon.start()
        await daemon.importImage()
        await use(daemon)
        await daemon.removeAll()
      } finally {
        await daemon.stop()
      }
    },
    { scope: 'file' },
  ],
  ct: async ({ daemon, task }, use) => {
    const before = daemon.census()
    const containers = new Containers(daemon)
    await use(containers)
    await containers.end()
    // allowed: the runc shim leaves its socket behind when it is killed
    const ignored = IS_OURS ? /^$/ : /^socket /
    const left = (await settledLeaks(before, () => daemon.census())).filter((item) => !ignored.test(item))
    if (existsSync(containers.folder)) rmSync(containers.folder, { recursive: true, force: true })
    if (task.result?.state === 'fail' && process.env['VERBOSE'] !== undefined) process.stderr.write(daemon.log)
    expect(left, 'left behind by the test').toEqual([])
  },
})

/** How long a whole file's slow test may take, adjusted to the machine. */
export function seconds(count: number): number {
  return count * 1000 * SLOWNESS
}

export { type EventRecorder, expect }
