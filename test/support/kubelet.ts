/**
 * vitest fixtures over a real kubelet without an API server: it makes the pods whose descriptions lie in a folder. It
 * has a mount namespace of its own, so nothing of it reaches the machine. After the file's last test the descriptions
 * are removed, and then nothing may be left of any pod.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test as base, expect } from 'vitest'
import { settledLeaks } from './census.ts'
import { type Command, startCommand, until } from './command.ts'
import { CRI_NAMESPACE, valueAt } from './cri.ts'
import type { Daemon } from './daemon.ts'
import { isCgroup2, SLOWNESS } from './needs.ts'
import { BIN, CONTAINERD_RELEASE, IS_OURS, KUBELET } from './places.ts'
import { POD_IMAGE, podCensus, startPodDaemon, stopPodDaemon } from './pods.ts'

/** A field of Kubernetes' API, as JSON. */
export type Json = Readonly<Record<string, unknown>>

/** The name that the kubelet gives to its machine, and appends to the names of pods. */
const NODE = 'node'
const NAMESPACE = 'tests'
/** A kubelet of today asks the CRI for its cgroup driver, which containerd tells since 2.0. */
const RELEASE = CONTAINERD_RELEASE === '' ? '2' : CONTAINERD_RELEASE
/**
 * The handler of all pods, since only an API server knows RuntimeClasses. containerd 2 tells the kubelet what a handler
 * of this type can do; of other types it does so since 2.2.7 and 2.3.4.
 */
const HANDLER = `
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ours]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = "${BIN}/containerd-shim-ts-v2"
`
/** The kubelet runs longer than any test file. */
const FOR_EVER_MS = 3_600_000
/** It collects what is left of removed pods once in a minute. */
const COLLECTED_MS = 180_000 * SLOWNESS

/** What the kubelet wants of the kernel. It sees these values, so it does not change the machine's. */
const TUNABLES = {
  'vm/overcommit_memory': 1,
  'vm/panic_on_oom': 0,
  'kernel/panic': 10,
  'kernel/panic_on_oops': 1,
  'kernel/keys/root_maxkeys': 1_000_000,
  'kernel/keys/root_maxbytes': 25_000_000,
} as const

/** What may stay: the cgroups of the kubelet's classes of pods, and, where the runc shim is tested, a socket of it. */
const ALLOWED = [/^cgroup .*\/kubepods(\/besteffort|\/burstable)?$/, ...(IS_OURS ? [] : [/^socket /])]

/** One container of a pod, as the kubelet's own API tells it. */
export interface ContainerStatus {
  readonly name: string
  readonly ready: boolean
  readonly restartCount: number
  readonly containerID: string
  readonly state: Json
  readonly lastState: Json
}

/** A kubelet on one daemon. */
export class Kubelet {
  readonly daemon: Daemon
  readonly folder: string
  readonly #port: number
  #command: Command | undefined

  private constructor(daemon: Daemon, port: number) {
    this.daemon = daemon
    this.folder = join(daemon.folder, 'kubelet')
    this.#port = port
    for (const name of ['manifests', 'tunables', 'logs', 'shared'])
      mkdirSync(join(this.folder, name), { recursive: true })
    // volumes that the kubelet mounts have to appear where containerd is
    execFileSync('mount', ['--bind', this.folder, this.folder])
    execFileSync('mount', ['--make-shared', this.folder])
    for (const [name, value] of Object.entries(TUNABLES)) writeFileSync(this.#tunable(name), `${value}\n`)
    writeFileSync(join(this.folder, 'config.json'), JSON.stringify(this.#config()))
    makeCgroups(daemon.namespace)
  }

  /** Prepares a kubelet for a daemon, and starts it. */
  static async open(daemon: Daemon): Promise<Kubelet> {
    const kubelet = new Kubelet(daemon, await freePort())
    try {
      await kubelet.start()
      return kubelet
    } catch (error) {
      await kubelet.close()
      throw error
    }
  }

  #config(): Json {
    return {
      apiVersion: 'kubelet.config.k8s.io/v1beta1',
      kind: 'KubeletConfiguration',
      address: '127.0.0.1',
      port: this.#port,
      healthzPort: 0,
      authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
      authorization: { mode: 'AlwaysAllow' },
      staticPodPath: join(this.folder, 'manifests'),
      podLogsDir: join(this.folder, 'logs'),
      volumePluginDir: join(this.folder, 'plugins'),
      containerRuntimeEndpoint: `unix://${this.daemon.address}`,
      fileCheckFrequency: '200ms',
      syncFrequency: '1s',
      cgroupDriver: 'cgroupfs',
      cgroupRoot: `/${this.daemon.namespace}`,
      failCgroupV1: false,
      failSwapOn: false,
      makeIPTablesUtilChains: false,
      localStorageCapacityIsolation: false,
      enforceNodeAllocatable: [],
      imageMaximumGCAge: '0s',
      imageGCHighThresholdPercent: 100,
      // a full disk of a test machine is no reason to end its pods
      evictionHard: { 'memory.available': '1Mi' },
    }
  }

  /** Starts the kubelet, and waits until it answers. */
  async start(): Promise<void> {
    const binds = Object.keys(TUNABLES).map((name) => `mount --bind ${this.#tunable(name)} /proc/sys/${name}`)
    const script = [
      'set -e',
      // all but the kubelet's own folder is private here
      `while read -r _ _ _ _ at _; do [ "$at" = ${this.folder} ] || mount --make-private "$at" || :; done </proc/self/mountinfo`,
      ...binds,
      'mount -t tmpfs kubelet /var/lib',
      'mount -t tmpfs kubelet /var/log',
      `exec ${KUBELET} --config ${this.folder}/config.json --root-dir ${this.folder}/root --cert-dir ${this.folder}/pki --hostname-override ${NODE} --v 2`,
    ].join('\n')
    const words = ['--mount', '--propagation', 'unchanged', 'sh', '-c', script]
    this.#command = startCommand('unshare', words, { timeoutMs: FOR_EVER_MS })
    this.daemon.residents.add(this.#command.pid)
    await until(
      'the kubelet to answer',
      () =>
        this.get('/healthz')
          .then((answer) => answer === 'ok')
          .catch(() => false),
      () => this.#command?.describe() ?? '',
    )
  }

  /** Ends the kubelet as a crash would; its pods stay. */
  async kill(): Promise<void> {
    this.#command?.kill('SIGKILL')
    await this.#command?.finished
  }

  /** What the kubelet logged. */
  get log(): string {
    return this.#command?.stderr ?? ''
  }

  /** A folder on the machine whose mounts are shared with the containers that ask for it. */
  get shared(): string {
    return join(this.folder, 'shared')
  }

  /** Describes a pod, which the kubelet then makes. The host's network is what a pod has by default. */
  apply(name: string, spec: Json): void {
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: NAMESPACE },
      spec: { hostNetwork: true, terminationGracePeriodSeconds: 1, ...spec },
    }
    writeFileSync(this.#manifest(name), JSON.stringify(pod))
  }

  /** Removes the description of a pod, which the kubelet then ends. */
  withdraw(name: string): void {
    rmSync(this.#manifest(name), { force: true })
  }

  /** Removes all descriptions, and waits until nothing of the pods is known to the kubelet or to containerd. */
  async withdrawAll(): Promise<void> {
    for (const name of readdirSync(join(this.folder, 'manifests'))) rmSync(join(this.folder, 'manifests', name))
    await until(
      'the end of all pods',
      async () => {
        const { stdout } = await this.daemon.ctr(['--namespace', CRI_NAMESPACE, 'container', 'ls', '-q'])
        return stdout.trim() === '' && readdirSync(join(this.folder, 'root/pods')).length === 0
      },
      () => this.log.slice(-4000),
      COLLECTED_MS,
    )
  }

  /** The status of a pod; undefined when the kubelet does not know it. */
  async status(name: string): Promise<Json | undefined> {
    const pods = valueAt(JSON.parse(await this.get('/pods')), 'items')
    const found = Array.isArray(pods)
      ? pods.find((pod) => valueAt(pod, 'metadata', 'name') === `${name}-${NODE}`)
      : undefined
    const status = valueAt(found, 'status')
    return isJson(status) ? status : undefined
  }

  /** The status of one container of a pod; undefined before the kubelet has one. */
  async container(pod: string, name: string): Promise<ContainerStatus | undefined> {
    const status = await this.status(pod)
    const lists = [status?.['containerStatuses'], status?.['initContainerStatuses']]
    const found: unknown = lists
      .flatMap((list) => (Array.isArray(list) ? list : []))
      .find((each) => valueAt(each, 'name') === name)
    if (!isJson(found)) return undefined
    const { ready, restartCount, containerID = '', state = {}, lastState = {} } = found
    return {
      name,
      ready: ready === true,
      restartCount: Number(restartCount),
      containerID: String(containerID).replace('containerd://', ''),
      state: isJson(state) ? state : {},
      lastState: isJson(lastState) ? lastState : {},
    }
  }

  /** Waits until a container ("pod/name") is as the test wants it; answers its status. */
  async until(
    what: string,
    container: `${string}/${string}`,
    isIt: (status: ContainerStatus) => boolean,
  ): Promise<ContainerStatus> {
    const [pod = '', name = ''] = container.split('/')
    let last: ContainerStatus | undefined
    await until(
      `${what} of ${container}`,
      async () => {
        last = await this.container(pod, name)
        return last !== undefined && isIt(last)
      },
      () => `${JSON.stringify(last)}\n${this.log.slice(-4000)}`,
    )
    if (last === undefined) throw new Error('the kubelet lost the container')
    return last
  }

  /** The output of all runs of a container so far, without the stamps of the log. */
  output(pod: string, name: string): string {
    const folder = join(this.folder, 'logs')
    const log = readdirSync(folder).find((each) => each.startsWith(`${NAMESPACE}_${pod}-${NODE}_`))
    if (log === undefined) return ''
    const files = join(folder, log, name)
    const lines = list(files)
      .sort()
      .flatMap((file) => readFileSync(join(files, file), 'utf8').split('\n'))
    return lines.map((line) => line.replace(/^\S+ (stdout|stderr) [FP] /, '')).join('\n')
  }

  /** Asks the kubelet's own server. @throws when it does not answer, or not with 200 */
  get(path: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const asked = request(
        { host: '127.0.0.1', port: this.#port, path, rejectUnauthorized: false, timeout: 10_000 * SLOWNESS },
        (answer) => {
          const chunks: Buffer[] = []
          answer.on('data', (chunk: Buffer) => chunks.push(chunk))
          answer.on('end', () => {
            const text = Buffer.concat(chunks).toString()
            if (answer.statusCode === 200) resolve(text)
            else reject(new Error(`${path}: ${answer.statusCode}: ${text}`))
          })
        },
      )
      asked.on('timeout', () => asked.destroy(new Error(`${path}: no answer`)))
      asked.on('error', reject).end()
    })
  }

  /** Ends the kubelet and takes its folder out of the table of mounts. */
  async close(): Promise<void> {
    await this.kill()
    execFileSync('umount', ['--recursive', this.folder])
  }

  #manifest(name: string): string {
    return join(this.folder, 'manifests', `${name}.json`)
  }

  #tunable(name: string): string {
    return join(this.folder, 'tunables', name.replaceAll('/', '.'))
  }
}

/** Makes the cgroup of all pods, which the kubelet expects in each hierarchy; the daemon's end removes it. */
function makeCgroups(name: string): void {
  const roots = isCgroup2() ? ['/sys/fs/cgroup'] : readdirSync('/sys/fs/cgroup').map((each) => `/sys/fs/cgroup/${each}`)
  for (const root of roots) {
    mkdirSync(join(root, name), { recursive: true })
    // without these, which v1 does not inherit, no process can join
    for (const file of ['cpuset.cpus', 'cpuset.mems']) {
      if (!isCgroup2() && existsSync(join(root, file)))
        writeFileSync(join(root, name, file), readFileSync(join(root, file)))
    }
  }
}

function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    // the container has not run yet
    return []
  }
}

/** A port of the loopback address that is free. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}

/** vitest's test with one kubelet on one containerd for all of a file. */
export const kubeletTest = base.extend<{ $file: { kubelet: Kubelet } }>({
  kubelet: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixture's needs from this pattern
    async ({}, use) => {
      const daemon = await startPodDaemon(() => HANDLER, { release: RELEASE, first: IS_OURS ? 'ours' : 'ts' })
      try {
        const kubelet = await Kubelet.open(daemon)
        const before = podCensus(daemon, [])
        try {
          await use(kubelet)
          await kubelet.withdrawAll()
          const left = await settledLeaks(before, () => podCensus(daemon, []))
          expect(
            left.filter((item) => !ALLOWED.some((each) => each.test(item))),
            'left behind by the pods',
          ).toEqual([])
        } finally {
          await kubelet.close()
        }
      } finally {
        await stopPodDaemon(daemon)
      }
    },
    { scope: 'file' },
  ],
})

export { expect, POD_IMAGE }
