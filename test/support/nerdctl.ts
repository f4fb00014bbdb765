/**
 * vitest fixtures over nerdctl and a private containerd on a private host: `nerd` runs nerdctl as a user would. After
 * every test nerdctl itself removes all containers. Then nothing may be left of containers, networks and nerdctl's
 * files.
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test as base, expect } from 'vitest'
import { type Census, settledLeaks } from './census.ts'
import { type Command, type Finished, type StartOptions, startCommand, until } from './command.ts'
import { Daemon, words } from './daemon.ts'
import { IMAGE, IS_OURS, NERDCTL, PAYLOAD, RUNTIME } from './places.ts'
import { PrivateHost } from './private-host.ts'

/** What a test with nerdctl needs of the machine. */
export const NERDCTL_NEEDS = [
  'root',
  'containerd',
  'busybox',
  'iproute2',
  'iptables',
  'CNI plugins',
  'procps',
  'nerdctl',
] as const

/** Where Debian has the network plugins. */
const PLUGINS = '/usr/lib/cni'
/** How often containerd looks at restart policies, by default every ten seconds. */
const RESTARTS = '\n[plugins."io.containerd.internal.v1.restart"]\n  interval = "1s"\n'

/** What one test does with nerdctl. */
export class Nerdctl {
  readonly daemon: Daemon
  readonly host: PrivateHost
  readonly image = IMAGE
  readonly runtime = RUNTIME
  readonly #prefix = `t${randomBytes(2).toString('hex')}`
  #next = 1
  #leftFifos = false

  constructor(daemon: Daemon, host: PrivateHost) {
    this.daemon = daemon
    this.host = host
    mkdirSync(this.folder, { recursive: true })
  }

  /** A folder of the test's own, removed with it. */
  get folder(): string {
    return join(this.daemon.folder, this.#prefix)
  }

  /** A container's name that nothing else has. */
  name(): string {
    return `${this.#prefix}-${this.#next++}`
  }

  get #dataRoot(): string {
    return join(this.daemon.folder, 'nerdctl')
  }

  #words(args: readonly string[]): string[] {
    return [...this.host.enter, NERDCTL, '--data-root', this.#dataRoot, ...args]
  }

  #options(options: StartOptions): StartOptions {
    const env = {
      CONTAINERD_ADDRESS: this.daemon.address,
      CONTAINERD_NAMESPACE: this.daemon.namespace,
      CNI_PATH: PLUGINS,
      NETCONFPATH: join(this.daemon.folder, 'networks'),
      // without the configuration of the machine's own users
      NERDCTL_TOML: join(this.daemon.folder, 'nerdctl.toml'),
      DOCKER_CONFIG: join(this.daemon.folder, 'docker'),
    }
    return { ...options, env: { ...env, ...options.env } }
  }

  /** Starts nerdctl. */
  start(args: readonly string[], options: StartOptions = {}): Command {
    const [program, ...rest] = this.#words(args)
    return startCommand(program!, rest, this.#options(options))
  }

  /** Starts nerdctl with a terminal of its own. */
  startOnTerminal(args: readonly string[], options: { rows?: number; columns?: number } = {}): Command {
    const { rows = 24, columns = 80 } = options
    const pty = ['pty', String(rows), String(columns), '--', ...this.#words(args)]
    return startCommand(PAYLOAD, pty, this.#options({ control: true, input: 'open' }))
  }

  /** Runs nerdctl to its end. */
  run(...args: readonly string[]): Promise<Finished> {
    return this.start(args).finished
  }

  /** Runs nerdctl, demands that it succeeds, and answers what it printed. */
  async ok(...args: readonly string[]): Promise<string> {
    const result = await this.run(...args)
    expect(result, `nerdctl ${args.join(' ')}: ${result.stderr}`).toMatchObject({ code: 0 })
    return result.stdout
  }

  /** The arguments of `nerdctl run` for the test image; without a network unless the flags name one. */
  runArgs(flags: readonly string[], command: readonly string[]): string[] {
    const network = flags.some((flag) => ['--network', '-p'].includes(flag)) ? [] : ['--network', 'none']
    return ['run', '--pull', 'never', '--runtime', RUNTIME, ...network, ...flags, IMAGE, ...command]
  }

  /** `nerdctl run --rm` to its end. */
  once(flags: readonly string[], command: readonly string[], options: StartOptions = {}): Promise<Finished> {
    return this.start(this.runArgs(['--rm', ...flags], command), options).finished
  }

  /** What a container of these flags printed; it must succeed. */
  async output(flags: readonly string[], command: readonly string[]): Promise<string> {
    const result = await this.once(flags, command)
    expect(result, result.stderr).toMatchObject({ code: 0 })
    return result.stdout
  }

  /** A container in the background; answers its name. */
  async detached(
    flags: readonly string[] = [],
    command: readonly string[] = ['sleep', '1000'],
    name = this.name(),
  ): Promise<string> {
    await this.ok(...this.runArgs(['-d', '--name', name, ...flags], command))
    return name
  }

  /** `nerdctl exec -d`. Its fifos stay, since the client ends before it could remove them. */
  async execDetached(name: string, command: readonly string[]): Promise<void> {
    this.#leftFifos = true
    await this.ok('exec', '-d', name, ...command)
  }

  /** What `nerdctl inspect` says in the words of a template. */
  async inspect(name: string, template: string): Promise<string> {
    return (await this.ok('inspect', '--mode', 'dockercompat', '-f', template, name)).trim()
  }

  /** Waits until a container has this status. */
  untilStatus(name: string, status: string): Promise<void> {
    return until(
      `${name} to be ${status}`,
      async () => (await this.inspect(name, '{{.State.Status}}')) === status,
      () => this.daemon.log.slice(-2000),
    )
  }

  /** Waits until the log of a container matches. */
  async untilLogged(name: string, text: RegExp): Promise<string> {
    let log = ''
    const matches = async (): Promise<boolean> => {
      log = (await this.run('logs', name)).stdout
      return text.test(log)
    }
    await until(`${text} in the log of ${name}`, matches, () => log)
    return log
  }

  /** The pid of the shim of a container's. */
  async shimPid(name: string): Promise<number> {
    const id = await this.inspect(name, '{{.Id}}')
    const { stdout } = await this.host.run('ps', '-eo', 'pid=,args=')
    const pids = stdout
      .split('\n')
      .filter((line) => line.includes('containerd-shim') && line.includes(` -id ${id}`))
      .map((line) => Number(words(line)[0]))
    const [pid, ...others] = pids
    // never a number that a signal would take for a group of processes
    if (pid === undefined || others.length > 0) throw new Error(`${pids.length} shims of ${name}:\n${stdout}`)
    return pid
  }

  /** Everything that containers of this test's daemon have left behind so far. */
  async census(): Promise<Census> {
    const kept = readdirSync(this.#dataRoot, { withFileTypes: true, recursive: true })
      .map((entry) => join(entry.parentPath, entry.name))
      .filter((path) => new RegExp(`/(containers|names|etchosts|volumes)/${this.daemon.namespace}/[^/]+$`).test(path))
    return new Set([
      ...this.daemon.census(),
      ...(await this.host.traces()),
      ...kept.map((path) => `file of nerdctl's ${path}`),
    ])
  }

  async end(): Promise<void> {
    const all = words(await this.ok('ps', '-aq'))
    if (all.length > 0) await this.ok('rm', '-f', '-v', ...all)
    if (this.#leftFifos) rmSync(join(this.daemon.folder, 'run/fifo'), { recursive: true, force: true })
  }
}

/** vitest's test with a nerdctl. */
export const test = base.extend<{
  $file: { place: { daemon: Daemon; host: PrivateHost } }
  $test: { nerd: Nerdctl }
}>({
  place: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixture's needs from this pattern
    async ({}, use) => {
      const daemon = new Daemon(undefined, 'debug', RESTARTS)
      const host = await PrivateHost.open(daemon.folder)
      daemon.place = host
      try {
        await daemon.start()
        await daemon.importImage()
        mkdirSync(join(daemon.folder, 'nerdctl'))
        await use({ daemon, host })
      } finally {
        await daemon.stop()
        await host.close()
      }
    },
    { scope: 'file' },
  ],
  nerd: async ({ place: { daemon, host }, task }, use) => {
    const nerd = new Nerdctl(daemon, host)
    const before = await nerd.census()
    await use(nerd)
    await nerd.end()
    // allowed: the runc shim leaves its socket behind when it is killed
    const ignored = IS_OURS ? /^$/ : /^socket /
    const left = (await settledLeaks(before, () => nerd.census())).filter((item) => !ignored.test(item))
    rmSync(nerd.folder, { recursive: true, force: true })
    if (task.result?.state === 'fail' && process.env['VERBOSE'] !== undefined) process.stderr.write(daemon.log)
    expect(left, 'left behind by the test').toEqual([])
  },
})

export { expect }
