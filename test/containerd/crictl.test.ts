/**
 * crictl, as an operator types it on a node: a pod, its containers, commands in them, logs, figures, and the end of
 * each. The same session with runc's shim must look the same, word for word, but for ids and figures.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { isAlive } from '../support/census.ts'
import { type StartOptions, startCommand, until } from '../support/command.ts'
import type { Cri } from '../support/cri.ts'
import type { Daemon } from '../support/daemon.ts'
import { needs } from '../support/needs.ts'
import { CRICTL } from '../support/places.ts'
import { expect, POD_IMAGE, pidOf, podTest } from '../support/pods.ts'

const test = podTest(
  () => `[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\n  runtime_type = "io.containerd.runc.v2"\n`,
)
const NEEDS = needs('root', 'containerd', 'busybox', 'our shim', 'the runc shim', 'CNI plugins', 'iproute2', 'crictl')

/** Says something on both streams, and ends with 7 once it is told to. */
const WORKER = 'echo started; echo oops >&2; until [ -e /tmp/go ]; do sleep 0.05; done; echo ending; exit 7'

const LIMIT = 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null'

/** What a session showed, command by command. */
class Session {
  readonly shown: { command: string; code: number | null; stdout: string; stderr: string }[] = []
  readonly #daemon: Daemon
  readonly #cri: Cri
  readonly #folder: string
  readonly #names = new Map<string, string>()

  constructor(daemon: Daemon, cri: Cri, handler: string) {
    this.#daemon = daemon
    this.#cri = cri
    this.#folder = join(daemon.folder, `session-${handler}`)
    mkdirSync(this.#folder)
    this.#names.set(handler, 'HANDLER').set(this.#folder, 'FOLDER').set(POD_IMAGE, 'IMAGE')
  }

  get folder(): string {
    return this.#folder
  }

  file(name: string, content: unknown): string {
    const path = join(this.#folder, name)
    writeFileSync(path, JSON.stringify(content))
    return path
  }

  /** Runs crictl; answers what it printed, which is not shown. */
  async quietly(args: readonly string[], options: StartOptions = {}) {
    const endpoint = `unix://${this.#daemon.address}`
    const config = join(this.#folder, 'none.yaml')
    writeFileSync(config, '')
    const words = ['--config', config, '--runtime-endpoint', endpoint, '--timeout', '60s', ...args]
    const { code, stdout, stderr } = await startCommand(CRICTL, words, options).finished
    return { code, stdout, stderr }
  }

  /** Runs crictl as a part of what is compared; answers what it printed. */
  async crictl(args: readonly string[], options: StartOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.quietly(args, options)
    const plain = (text: string): string => {
      let told = text
      for (const [word, name] of this.#names) told = told.replaceAll(word, name)
      return told.replaceAll(/^E\d{4} [\d:.]+ +\d+ /gm, 'E ').replaceAll(/[0-9a-f]{64}/g, 'ANOTHER')
    }
    this.shown.push({ command: plain(args.join(' ')), code, stdout: plain(stdout), stderr: plain(stderr) })
    return stdout
  }

  /** Runs a command of crictl's that makes something and prints its id, which is called `name` from then on. */
  async making(name: string, ...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.quietly(args)
    expect({ args, code, stderr }).toMatchObject({ code: 0 })
    const id = stdout.trim()
    this.#cri.ids.push(id)
    this.#names.set(id, name).set(id.slice(0, 13), name)
    return id
  }
}

/** What an operator does on a node on a day. */
async function session(daemon: Daemon, cri: Cri, handler: string): Promise<Session['shown']> {
  const told = new Session(daemon, cri, handler)
  const pod = told.file('pod.json', {
    metadata: { name: 'session', uid: handler, namespace: 'tests' },
    log_directory: told.folder,
    linux: { cgroup_parent: `/${daemon.namespace}`, security_context: { seccomp: {} } },
  })
  const container = (name: string, command: readonly string[]): string =>
    told.file(`${name}.json`, {
      metadata: { name },
      image: { image: POD_IMAGE },
      command,
      log_path: `${name}.log`,
      linux: { resources: { memory_limit_in_bytes: 67_108_864 }, security_context: { seccomp: {} } },
    })
  const podId = await told.making('POD', 'runp', '--runtime', handler, pod)
  const worker = await told.making('WORKER', 'create', podId, container('worker', ['sh', '-c', WORKER]), pod)
  await told.crictl(['start', worker])
  await told.crictl(['pods', '-q', '--state', 'ready'])
  await told.crictl(['ps', '-q', '--state', 'running'])
  // one that fails to begin, and the way back
  const missing = await told.making('MISSING', 'create', podId, container('missing', ['no-such-program']), pod)
  const { code, stderr } = await told.quietly(['start', missing])
  expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringContaining('no-such-program') })
  await told.crictl(['inspect', '-o', 'go-template', '--template', '{{.status.state}} {{.status.exitCode}}', missing])
  await told.crictl(['rm', missing])
  // commands in it: together, and as streams
  await told.crictl(['exec', '-s', worker, 'sh', '-c', 'echo out; echo err >&2; exit 3'])
  await told.crictl(['exec', '-s', '--timeout', '1', worker, 'sleep', '100'])
  await told.crictl(['exec', worker, 'sh', '-c', 'echo out; echo err >&2'])
  await told.crictl(['exec', worker, 'sh', '-c', 'exit 4'])
  await told.crictl(['exec', '-i', worker, 'md5sum'], { input: 'x'.repeat(300_000) })
  await told.crictl(['exec', '-s', worker, 'sh', '-c', LIMIT])
  await told.crictl(['update', '--memory', '100663296', worker])
  await told.crictl(['exec', '-s', worker, 'sh', '-c', LIMIT])
  const logged = (...parts: readonly string[]) =>
    until(`${parts} in the log`, async () => {
      const { stdout, stderr } = await told.quietly(['logs', worker])
      return parts.every((part) => (stdout + stderr).includes(part))
    })
  await logged('started', 'oops')
  await told.crictl(['logs', worker])
  const stats = JSON.parse((await told.quietly(['stats', '-o', 'json', '--id', worker])).stdout)
  expect(Number(stats.stats[0].memory.workingSetBytes.value)).toBeGreaterThan(0)
  // what runs is not removed without force; what has ended is, at once
  await told.crictl(['rm', worker])
  const pid = await pidOf(daemon, worker)
  await told.crictl(['exec', worker, 'touch', '/tmp/go'])
  await until('the worker to end', () => !isAlive(pid))
  await until('the daemon to know', async () => {
    const words = ['inspect', '-o', 'go-template', '--template', '{{.status.state}}', worker]
    return (await told.quietly(words)).stdout.includes('EXITED')
  })
  await told.crictl(['inspect', '-o', 'go-template', '--template', '{{.status.exitCode}} {{.status.reason}}', worker])
  await logged('ending')
  await told.crictl(['logs', worker])
  await told.crictl(['exec', '-s', worker, 'true'])
  await told.crictl(['rm', worker])
  // one that does not listen, ended with its pod
  const deaf = ['sh', '-c', 'trap "" TERM; echo deaf; while :; do sleep 0.05; done']
  const stubborn = await told.making('STUBBORN', 'create', podId, container('stubborn', deaf), pod)
  await told.crictl(['start', stubborn])
  await told.crictl(['stop', '--timeout', '1', stubborn])
  await told.crictl(['inspect', '-o', 'go-template', '--template', '{{.status.exitCode}} {{.status.reason}}', stubborn])
  const last = await told.making('LAST', 'create', podId, container('last', deaf), pod)
  await told.crictl(['start', last])
  await told.crictl(['stopp', podId])
  await told.crictl(['inspect', '-o', 'go-template', '--template', '{{.status.state}} {{.status.exitCode}}', last])
  await told.crictl(['rmp', podId])
  await told.crictl(['ps', '-aq'])
  await told.crictl(['pods', '-q'])
  return told.shown
}

describe('a session with crictl', { ...NEEDS, timeout: 120_000 }, () => {
  test('shows what one with runc does', async ({ daemon, cri }) => {
    const ours = await session(daemon, cri, 'ts')
    expect(ours).toEqual(await session(daemon, cri, 'runc'))
    const codes = Object.fromEntries(ours.map(({ command, code }) => [command, code]))
    expect(codes).toMatchObject({ 'start WORKER': 0, 'exec WORKER sh -c exit 4': 1, 'rmp POD': 0 })
    expect(ours.at(-1)).toMatchObject({ command: 'pods -q', code: 0, stdout: '' })
  })
})
