/**
 * A private dockerd over a file's private containerd: a third kind of client, besides ctr and the CRI.
 * It has options, fifos, hooks and a reconnecting reader of its own.
 * It gets a network namespace of its own: it would change the machine's (it removes a docker0 that it does not want).
 * Invariant: its files lie in the daemon's folder, and its containers in the daemon's namespace.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { type Command, endProcess, type Finished, type StartOptions, startCommand, until } from './command.ts'
import { test as base, expect } from './containerd.ts'
import type { Daemon } from './daemon.ts'
import { DOCKER_BIN, IMAGE, IMAGE_ARCHIVE, PAYLOAD } from './places.ts'

/** A dockerd and its client. */
export class Docker {
  readonly #daemon: Daemon
  readonly #config: Readonly<Record<string, unknown>>
  readonly #wrapper: readonly string[]
  #child: ChildProcess | undefined
  #runs = 0

  /** `config`: more of daemon.json. `wrapper`: a command line that executes dockerd in its own process. */
  constructor(
    daemon: Daemon,
    config: Readonly<Record<string, unknown>> = {},
    wrapper: readonly string[] = ['unshare', '--net', '--'],
  ) {
    this.#daemon = daemon
    this.#config = config
    this.#wrapper = wrapper
    mkdirSync(this.folder, { recursive: true })
  }

  /** The digests of what containerd's store holds for docker; what nothing uses goes some time after its last use. */
  async stored(): Promise<string> {
    return (await this.#daemon.ctr(['content', 'ls', '-q'])).stdout
  }

  get folder(): string {
    return join(this.#daemon.folder, 'docker')
  }

  get pid(): number {
    return this.#child?.pid ?? -1
  }

  /** What dockerd logged. */
  get log(): string {
    return readFileSync(join(this.folder, 'log'), 'utf8')
  }

  /** Starts dockerd, or starts it again; it takes up the containers that it finds. */
  async start(): Promise<void> {
    const { folder } = this
    const config = {
      containerd: this.#daemon.address,
      'containerd-namespace': this.#daemon.namespace,
      'containerd-plugins-namespace': this.#daemon.namespace,
      'data-root': join(folder, 'data'),
      'exec-root': join(folder, 'exec'),
      pidfile: join(folder, 'pid'),
      hosts: [`unix://${folder}/sock`],
      group: 'root',
      bridge: 'none',
      iptables: false,
      ip6tables: false,
      'ip-forward': false,
      'userland-proxy': false,
      'storage-driver': 'vfs',
      'cgroup-parent': `/${this.#daemon.namespace}`,
      'exec-opts': ['native.cgroupdriver=cgroupfs'],
      'live-restore': true,
      experimental: true,
      debug: true,
      'default-runtime': 'ts',
      ...this.#config,
      runtimes: { ts: { runtimeType: 'io.containerd.ts.v2' }, ...Object(this.#config['runtimes']) },
    }
    await this.#mountData()
    writeFileSync(join(folder, 'daemon.json'), JSON.stringify(config))
    const log = openSync(join(folder, 'log'), 'a')
    const [program = '', ...args] = [...this.#wrapper, 'dockerd', '--config-file', join(folder, 'daemon.json')]
    const PATH = [DOCKER_BIN, process.env['PATH'] ?? ''].join(delimiter)
    const child = spawn(program, args, { env: { ...process.env, PATH }, stdio: ['ignore', log, log] })
    this.#child = child
    this.#daemon.residents.add(this.pid)
    await until(
      'dockerd to answer',
      async () => {
        if (child.exitCode !== null) throw new Error(`dockerd exited with ${child.exitCode}:\n${this.log}`)
        return existsSync(join(folder, 'sock')) && (await this.docker('version')).code === 0
      },
      () => this.log,
    )
  }

  /**
   * Makes dockerd's folder a mount. dockerd would otherwise do that itself with its first work, in the middle of a
   * test.
   */
  async #mountData(): Promise<void> {
    const data = join(this.folder, 'data')
    if (existsSync(data)) return
    mkdirSync(data)
    for (const words of [
      ['--bind', data, data],
      ['--make-private', data],
    ])
      expect(await startCommand('mount', words).finished).toMatchObject({ code: 0 })
  }

  /** Ends dockerd; the containers go on. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    await endProcess(this.#child, signal)
    this.#daemon.residents.delete(this.pid)
  }

  /** Starts the client. */
  startDocker(args: readonly string[], options: StartOptions = {}): Command {
    return startCommand(join(DOCKER_BIN, 'docker'), args, { ...options, env: { ...this.#env, ...options.env } })
  }

  /** Starts the client on a terminal of its own. */
  startOnTerminal(args: readonly string[], rows: number, columns: number): Command {
    const docker = [join(DOCKER_BIN, 'docker'), ...args]
    return startCommand(PAYLOAD, ['pty', String(rows), String(columns), '--', ...docker], {
      env: this.#env,
      input: 'open',
      control: true,
    })
  }

  /** Runs the client to its end. */
  docker(...args: readonly string[]): Promise<Finished> {
    return this.startDocker(args).finished
  }

  /** Runs the client and demands that it succeeds; answers what it said, without the last line's end. */
  async ok(...args: readonly string[]): Promise<string> {
    const result = await this.docker(...args)
    expect(result, result.stderr).toMatchObject({ code: 0 })
    return result.stdout.trimEnd()
  }

  /** `docker run --rm FLAGS IMAGE COMMAND` to its end. */
  async run(flags: readonly string[], command: readonly string[], options: StartOptions = {}): Promise<Finished> {
    const result = await this.startDocker(this.runArgs(['--rm', ...flags], command), options).finished
    this.#note()
    return result
  }

  /** The arguments of `docker run`, for a container whose id is kept for the census. */
  runArgs(flags: readonly string[], command: readonly string[]): string[] {
    const network = flags.some((flag) => flag.startsWith('--network')) ? [] : ['--network=none']
    return ['run', ...network, '--cidfile', join(this.folder, `cid-${this.#runs++}`), ...flags, IMAGE, ...command]
  }

  /** A container in the background; answers its id. */
  async detached(flags: readonly string[] = [], command: readonly string[] = ['sleep', '1000']): Promise<string> {
    const id = await this.ok(...this.runArgs(['-d', ...flags], command))
    this.#note()
    return id
  }

  /** One value of `docker inspect`. */
  inspect(id: string, template: string): Promise<string> {
    return this.ok('inspect', '-f', template, id)
  }

  /** Removes all containers. */
  async removeAll(): Promise<void> {
    this.#note()
    const ids = (await this.ok('ps', '-aq', '--no-trunc')).split('\n').filter((id) => id !== '')
    if (ids.length > 0) await this.ok('rm', '-f', ...ids)
  }

  async loadImage(): Promise<void> {
    await this.ok('load', '-i', IMAGE_ARCHIVE)
  }

  /** Ends dockerd for good, and unmounts what it has mounted. */
  async stop(): Promise<void> {
    await this.kill('SIGTERM')
    const mounted = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[4] ?? '')
      .filter((path) => path.startsWith(`${this.folder}/`))
    for (const path of mounted.reverse()) await startCommand('umount', [path]).finished
  }

  get #env(): Record<string, string> {
    return { DOCKER_HOST: `unix://${this.folder}/sock`, DOCKER_CONFIG: this.folder }
  }

  /** Tells the census of the containers that have been started. */
  #note(): void {
    const { ids } = this.#daemon
    for (const name of readdirSync(this.folder).filter((file) => file.startsWith('cid-'))) {
      const id = readFileSync(join(this.folder, name), 'utf8')
      if (id !== '' && !ids.includes(id)) ids.push(id)
    }
  }
}

/** The test of a file whose containers are dockerd's; `config` as for Docker. */
export function dockerTest(
  config: (folder: string) => Readonly<Record<string, unknown>> = () => ({}),
  wrapper?: (folder: string) => readonly string[],
) {
  const test = base.extend<{ $file: { dockerd: Docker }; $test: { docker: Docker } }>({
    dockerd: [
      async ({ daemon }, use) => {
        const docker = new Docker(daemon, config(daemon.folder), wrapper?.(daemon.folder))
        try {
          await docker.start()
          await docker.loadImage()
          await use(docker)
        } finally {
          await docker.stop()
        }
      },
      { scope: 'file' },
    ],
    docker: async ({ ct, dockerd }, use) => {
      ct.onEnd(() => dockerd.removeAll())
      await use(dockerd)
    },
  })
  // before the first census
  test.beforeAll(({ dockerd }) => void dockerd)
  return test
}
