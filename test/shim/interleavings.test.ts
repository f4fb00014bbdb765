/**
 * Containers whose calls overlap at random: some are sent together, some after an answer. Each answer and each event
 * must be one that the model of a container allows, for any order in which the shim took the calls. A failure prints
 * its seed, and INTERLEAVINGS=1 SEED=N repeats it.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { Random } from '../fuzz/mutate.ts'
import { isAlive } from '../support/census.ts'
import type { SinkEvent } from '../support/event-sink.ts'
import { expect, test } from '../support/fake.ts'
import { type FakeContainerd, type FakeShim, processAny, type TaskClient } from '../support/fake-containerd.ts'
import { needs, SLOWNESS } from '../support/needs.ts'
import type { SpecChange } from '../support/spec.ts'
import { type Call, INIT, type Lives, unexplained } from './model.ts'

const COUNT = Number(process.env['INTERLEAVINGS'] ?? (process.env['MATRIX'] === 'full' ? 1000 : 400))
const SEED = Number(process.env['SEED'] ?? Date.now() % 2 ** 31)
/** Containers that are alive at the same time. */
const TOGETHER = 6
const EXECS = ['e0', 'e1', 'e2']
const NEVER_SECONDS = -62_135_596_800n
/** Nothing that is asked here may take longer, on a machine that does other things too. */
const PATIENCE_MS = 20_000 * SLOWNESS

/** What matters here is the order of calls, not what a container is made of. */
const small: SpecChange = (spec) => {
  spec.linux.namespaces = ['pid', 'mount'].map((type) => ({ type }))
  spec.mounts = spec.mounts.filter(({ destination }) => destination === '/proc' || destination === '/dev')
  delete spec.linux.maskedPaths
  delete spec.linux.readonlyPaths
}

/** How the process of a name ends by itself: the same in every life. */
const programOf = (random: Random): number | undefined => (random.below(3) === 0 ? 1 + random.below(100) : undefined)
const commandOf = (status: number | undefined): string[] =>
  status === undefined ? ['sleep', '1000'] : ['payload', 'exit', String(status)]

/** One container's calls, and what is known of it at the end. */
class Episode {
  readonly seed: number
  readonly calls: Call[] = []
  readonly #random: Random
  readonly #fake: FakeContainerd
  readonly #clients: readonly TaskClient[]
  readonly #id: string
  readonly #bundle: string
  readonly #programs: Record<string, number | undefined> = {}
  readonly #pending = new Set<Promise<void>>()
  readonly #pids = new Set<number>()
  #moment = 0
  #init = 0

  constructor(seed: number, fake: FakeContainerd, clients: readonly TaskClient[]) {
    this.seed = seed
    this.#random = new Random(seed)
    this.#fake = fake
    this.#clients = clients
    for (const name of [INIT, ...EXECS]) this.#programs[name] = programOf(this.#random)
    this.#id = fake.id()
    this.#bundle = fake.bundle(this.#id, commandOf(this.#programs[INIT]), small)
  }

  async play(): Promise<void> {
    const random = this.#random
    const { pid } = await this.#client().create({ id: this.#id, bundle: this.#bundle })
    this.#init = pid
    this.#pids.add(pid)
    for (let steps = 5 + random.below(12); steps > 0; steps--) {
      this.#step()
      // some calls meet in the shim, some follow an answer, some follow what the answers set off
      if (random.below(3) === 0) await Promise.race([...this.#pending, Promise.resolve()])
      if (random.below(4) === 0) await new Promise((resolve) => setImmediate(resolve))
      if (random.below(6) === 0) await this.#quiet()
    }
    await this.#quiet()
    await this.#end()
  }

  /** Everything that is wrong with it. */
  findings(): string[] {
    const events = this.#fake.sink.of(this.#id)
    const found = [...this.#eventFindings(events)]
    const exits: Record<string, (number | undefined)[]> = {}
    for (const { topic, exec, status } of events) {
      if (topic === '/tasks/exit') exits[exec] = [...(exits[exec] ?? []), status]
    }
    const lives: Lives = {
      program: (process) => this.#programs[process],
      exit: (process, life) => exits[process]?.[life],
    }
    const explained = unexplained(this.calls, lives)
    if (explained !== undefined) {
      const left = this.calls.filter((call) => !explained.includes(call))
      found.push(`no order explains these answers: ${JSON.stringify(left)}\n  after ${JSON.stringify(explained)}`)
    }
    for (const pid of this.#pids) if (isAlive(pid)) found.push(`process ${pid} still runs`)
    if (!existsSync(join(this.#bundle, 'shim-exit'))) found.push('there is no record of the exit')
    if (found.length > 0) found.push(`events: ${this.#fake.sink.story(this.#id).join(', ')}`)
    return found
  }

  #client(): TaskClient {
    return this.#random.pick(this.#clients)
  }

  #step(): void {
    const random = this.#random
    const exec = random.pick(EXECS)
    const process = random.below(3) === 0 ? INIT : exec
    const kinds = [
      'start',
      'start',
      'start',
      'exec',
      'exec',
      'exec',
      'kill',
      'delete',
      'state',
      'wait',
      'pids',
      'pause',
      'resume',
      'resume',
    ] as const
    // what ends the container comes rarely, so that there is something to end
    const kind = random.below(30) === 0 ? 'killAll' : random.pick(kinds)
    if (kind === 'exec') this.#call(kind, exec)
    else if (['killAll', 'pids', 'pause', 'resume'].includes(kind)) this.#call(kind, INIT)
    else if (process === INIT && (kind === 'kill' || kind === 'delete') && random.below(3) !== 0) this.#call(kind, exec)
    else this.#call(kind, process)
  }

  #call(kind: Call['kind'], process: string, signal = this.#random.below(4) === 0 ? 0 : 9): Promise<void> {
    const call: Call = { kind, process, signal, sent: ++this.#moment, answered: Number.POSITIVE_INFINITY, code: -1 }
    this.calls.push(call)
    const made = this.#make(call).then(
      (answer) => Object.assign(call, { code: 0, answered: ++this.#moment }, answer),
      (error: unknown) =>
        Object.assign(call, { code: Reflect.get(Object(error), 'code') ?? -1, answered: ++this.#moment }),
    )
    const settled = made.then(() => void this.#pending.delete(settled))
    // a Wait is answered when the process ends: nobody waits for it before the end
    if (kind !== 'wait') this.#pending.add(settled)
    return settled
  }

  async #make({ kind, process: execId, signal = 9 }: Call): Promise<Partial<Call>> {
    const client = this.#client()
    const id = this.#id
    const bound = { timeoutMs: PATIENCE_MS }
    const exitOf = ({ exitStatus, exitedAt }: { exitStatus: number; exitedAt: { seconds: bigint } | undefined }) => ({
      exit: exitedAt?.seconds === NEVER_SECONDS ? undefined : exitStatus,
    })
    switch (kind) {
      case 'start': {
        const { pid } = await client.start({ id, execId }, bound)
        this.#pids.add(pid)
        return {}
      }
      case 'exec':
        await client.exec({ id, execId, spec: processAny(commandOf(this.#programs[execId])) }, bound)
        return {}
      case 'kill':
        await client.kill({ id, execId, signal }, bound)
        return {}
      case 'killAll':
        await client.kill({ id, signal: 9, all: true }, bound)
        return {}
      case 'delete':
        return exitOf(await client.delete({ id, execId }, bound))
      case 'wait':
        return exitOf(await client.wait({ id, execId }, { timeoutMs: 3 * PATIENCE_MS }))
      case 'pause':
        await client.pause({ id }, bound)
        return {}
      case 'resume':
        await client.resume({ id }, bound)
        return {}
      case 'state':
        return { status: (await client.state({ id, execId }, bound)).status }
      case 'pids': {
        const { processes } = await client.pids({ id }, bound)
        return { hasInit: processes.some(({ pid }) => pid === this.#init) }
      }
    }
  }

  /** Until all calls are answered that need no end of a process. */
  async #quiet(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending)
  }

  /** Ends what is left, by calls that are part of the history. */
  async #end(): Promise<void> {
    await this.#call('killAll', INIT)
    await this.#call('wait', INIT)
    await this.#call('delete', INIT)
    await this.#call('state', INIT)
    await this.#fake.sink.until(
      `the delete event of ${this.#id} (seed ${this.seed})`,
      ({ container, topic }) => container === this.#id && topic === '/tasks/delete',
      PATIENCE_MS,
    )
    const late = performance.now() + PATIENCE_MS
    while (this.calls.some(({ code }) => code === -1) && performance.now() < late)
      await new Promise((resolve) => setImmediate(resolve))
  }

  #eventFindings(events: readonly SinkEvent[]): string[] {
    const found: string[] = []
    const demand = (right: boolean, what: string) => {
      if (!right) found.push(what)
    }
    const topics = events.map(({ topic, exec }) => `${topic.replace('/tasks/', '')} ${exec}`.trim())
    const own = topics.filter((topic) => !/ e\d$/.test(topic)).join(',')
    demand(/^create(,start(,paused,resumed)*(,paused)?)?,exit,delete$/.test(own), `the events of the container: ${own}`)
    demand(topics[0] === 'create' && topics.at(-2) === 'exit', 'its create first, its exit last')
    const started = this.calls.filter(({ kind, process, code }) => kind === 'start' && process === INIT && code === 0)
    demand(topics.filter((topic) => topic === 'start').length === started.length, 'one start event for each Start')
    for (const name of EXECS) {
      const own = events.filter(({ exec }) => exec === name)
      const lives = own.map(({ topic }) => topic.replace('/tasks/', '')).join(',')
      demand(/^(exec-added,?(exec-started,exit,?)?)*$/.test(lives), `the events of ${name}: ${lives}`)
      const count = (kind: Call['kind']) =>
        this.calls.filter((call) => call.kind === kind && call.process === name && call.code === 0).length
      demand(own.filter(({ topic }) => topic === '/tasks/exec-added').length === count('exec'), `Execs of ${name}`)
      demand(own.filter(({ topic }) => topic === '/tasks/exec-started').length === count('start'), `Starts of ${name}`)
    }
    const [exit, gone] = events.slice(-2)
    demand(
      exit?.status === gone?.status && exit?.exitedAt?.seconds === gone?.exitedAt?.seconds && exit?.pid === gone?.pid,
      'exit and delete tell the same',
    )
    return found
  }
}

async function playAll(fake: FakeContainerd, shim: FakeShim): Promise<string[]> {
  const clients = [shim.connect('v2'), shim.connect('v3'), shim.connect('v2')]
  const findings: string[] = []
  let next = 0
  const player = async () => {
    while (next < COUNT && findings.length === 0) {
      const episode = new Episode(SEED + next++, fake, clients)
      try {
        await episode.play()
      } catch (error) {
        findings.push(`SEED=${episode.seed}: ${error}\n  ${JSON.stringify(episode.calls)}`)
        return
      }
      const found = episode.findings()
      if (found.length > 0) findings.push(`SEED=${episode.seed}: ${found.join('\n  ')}`)
    }
  }
  await Promise.all(Array.from({ length: TOGETHER }, player))
  return findings
}

describe('interleavings', needs('root', 'busybox'), () => {
  test(
    `of ${COUNT} containers' calls, ends and deletions are answered as the model allows`,
    async ({ fake, shim }) => {
      const findings = await playAll(fake, shim)
      // whole, in the message: what a diff would show is too long for it
      if (findings.length > 0) expect.fail(findings.join('\n'))
      expect(shim.alive).toBe(true)
    },
    600_000 * SLOWNESS,
  )
})
