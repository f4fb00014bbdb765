/**
 * Fuzzes the socket of a live shim. It needs root.
 * To any input the shim answers an error or closes that connection, and it goes on serving the others.
 * It logs no bug, and keeps neither memory nor descriptors for the input. An input follows from a seed and its number:
 *    node test/fuzz/socket.ts [--seconds N] [--seed N] [--only NUMBER]
 * What the shim does may depend on the inputs before. --only is for inputs that fail alone.
 * The shim runs in a mount namespace in which all but its own folders is read-only, since an input may name any path.
 */
import { once } from 'node:events'
import { mkdirSync, readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { encodeFrame, FrameDecoder, FrameType, TtrpcError } from 'ttrpc-ts'
import { TaskService, TaskStatus, TtrpcRequest, TtrpcResponse } from 'ttrpc-ts/containerd'
import { mkfifo } from '../../runtime/sys/libc.ts'
import { FakeContainerd, type FakeShim, type FakeTask, processAny, residentKib } from '../support/fake-containerd.ts'
import { setup } from '../support/global-setup.ts'
import { makeInput, type Pool } from './frames.ts'
import { Random } from './mutate.ts'

/** No honest call may take longer, on a machine that does other things too. */
const HONEST_MS = 20_000
/** How long an input's connection is listened to, once it was sent, if its last word is not answered. */
const LISTEN_MS = 100
const LAST_STREAM = 0xffff_ffff
/** After so many inputs what they made is removed, and everything is looked at. */
const ROUND = 128
/** Connections at the same time. */
const TOGETHER = 8
/**
 * What may be left after all inputs, beyond what was left after the first rounds: a heap that has room for the
 * largest of them, no more.
 */
const GROWTH_KIB = 96 * 1024
const WARM_ROUNDS = 6
const SOCKETS = '/run/containerd/s'
const IDS = ['fuzz-a', 'fuzz-b']

interface Task {
  readonly seconds: number
  readonly seed: number
  readonly only: number | undefined
}

/** Everything but the folder and the sockets is read-only for what the command line starts. */
function fenced(folder: string): string[] {
  const script = [
    `mount --bind ${folder} ${folder}`,
    `mount --bind ${SOCKETS} ${SOCKETS}`,
    'mount -o remount,bind,ro /',
    // the folder as it is mounted now
    'cd "$PWD"',
    'exec "$@"',
  ].join(' && ')
  return ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script, 'fenced']
}

/** The other containers and files that inputs may name. */
function makePool(fake: FakeContainerd): Pool {
  const bundles = IDS.map((id) => {
    fake.ids.push(id)
    return fake.bundle(id, id === 'fuzz-a' ? ['sleep', '1000'] : ['payload', 'exit', '3'])
  })
  const fifos = ['in', 'out'].map((name) => join(fake.folder, `fuzz-${name}`))
  for (const fifo of fifos) mkfifo(fifo, 0o600)
  const files = [`file://${fake.folder}/fuzz-file`, join(fake.folder, 'fuzz-none'), 'binary:///no/such/logger']
  return { containers: IDS, execs: ['x1', 'x2'], bundles: [...bundles, fake.folder], streams: [...fifos, ...files] }
}

/** Sends an input, and reads what comes back for a moment. @throws Error when that is no answer of a ttrpc server */
async function send(path: string, pieces: readonly Buffer[], random: Random): Promise<void> {
  const socket = connect(path)
  const decoder = new FrameDecoder()
  let wrong: string | undefined
  socket.on('error', () => undefined)
  socket.on('data', (chunk) => {
    for (const { type, streamId, data } of decoder.push(chunk)) {
      if (streamId === LAST_STREAM) socket.end()
      else if (type !== FrameType.RESPONSE) wrong = `a frame of type ${type} on stream ${streamId}`
      else TtrpcResponse.decode(data)
    }
  })
  const closed = once(socket, 'close')
  await once(socket, 'connect')
  for (const piece of pieces) {
    socket.write(piece)
    if (pieces.length > 1) await new Promise((resolve) => setImmediate(resolve))
  }
  // most say a last sound word and wait for its answer, which does not come when the input ended inside a frame; some
  // vanish at once
  const manner = random.below(8)
  if (manner > 1) socket.write(lastWord())
  else if (manner === 1) socket.end()
  const timer = setTimeout(() => socket.destroy(), manner === 0 ? 0 : LISTEN_MS)
  await closed
  clearTimeout(timer)
  if (wrong !== undefined) throw new Error(wrong)
}

function lastWord(): Buffer {
  const payload = TaskService.methods.connect.input.encode({ id: IDS[0] })
  const data = TtrpcRequest.encode({ service: TaskService.typeName, method: 'Connect', payload })
  return encodeFrame({ streamId: LAST_STREAM, type: FrameType.REQUEST, data })
}

/** Makes what inputs can be about: a container that runs and has an exec, and one that was not started. */
async function prepare(shim: FakeShim, { bundles }: Pool): Promise<void> {
  const client = shim.client()
  const bound = { timeoutMs: HONEST_MS }
  for (const [i, id] of IDS.entries()) await client.create({ id, bundle: bundles[i] }, bound)
  const [id] = IDS
  await client.start({ id }, bound)
  await client.exec({ id, execId: 'x1', spec: processAny(['sleep', '1000']) }, bound)
  await client.start({ id, execId: 'x1' }, bound)
}

/** Removes what inputs have made. */
async function clean(shim: FakeShim): Promise<void> {
  const client = shim.client()
  const bound = { timeoutMs: HONEST_MS }
  for (const id of IDS) {
    try {
      await client.kill({ id, signal: 9, all: true }, bound)
      await client.wait({ id }, bound)
      await client.delete({ id }, bound)
    } catch (error) {
      if (!(error instanceof TtrpcError) || error.code !== 5) throw error
    }
  }
}

const descriptors = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length

/** What an honest client on a connection of its own sees. @throws Error when that is not right */
async function look(shim: FakeShim, honest: FakeTask): Promise<void> {
  const bound = { timeoutMs: HONEST_MS }
  const connection = shim.connection()
  try {
    const { status, pid } = await shim.client().state({ id: honest.id }, bound)
    if (status !== TaskStatus.RUNNING) throw new Error(`the honest container has status ${status}`)
    const execId = 'honest'
    await honest.client.exec({ id: honest.id, execId, spec: processAny(['payload', 'exit', '7']) }, bound)
    const waiting = honest.client.wait({ id: honest.id, execId }, bound)
    await honest.client.start({ id: honest.id, execId }, bound)
    const { exitStatus } = await waiting
    await honest.client.delete({ id: honest.id, execId }, bound)
    if (exitStatus !== 7) throw new Error(`an honest exec ended with ${exitStatus}`)
    const pids = await honest.pids()
    if (!pids.includes(pid)) throw new Error('the honest container has lost its init')
  } finally {
    connection.close()
  }
  if (!shim.alive) throw new Error('the shim has ended')
  const bug = shim
    .log()
    .split('\n')
    .find((line) => line.includes('this is a bug'))
  if (bug !== undefined) throw new Error(`the shim logged: ${bug}`)
}

async function run(fake: FakeContainerd, { seconds, seed, only }: Task): Promise<{ inputs: number; growth: number }> {
  const shim = await fake.shim()
  const honest = await shim.started()
  const pool = makePool(fake)
  const until = performance.now() + seconds * 1000
  let warm: { kib: number; fds: number } | undefined
  let rounds = 0
  let number = only ?? 0
  const round = async (): Promise<{ kib: number; fds: number }> => {
    await clean(shim)
    await look(shim, honest)
    // nobody reads them here
    fake.sink.events.length = 0
    return { kib: residentKib(shim.pid), fds: descriptors(shim.pid) }
  }
  const attempt = async (at: number): Promise<void> => {
    const random = new Random(Math.imul(seed, 0x9e3779b1) ^ Math.imul(at + 1, 0x85ebca77))
    await send(shim.socket, makeInput(random, pool), random)
  }
  await prepare(shim, pool)
  for (; performance.now() < until; number += TOGETHER) {
    const together = Array.from({ length: only === undefined ? TOGETHER : 1 }, (_, i) => number + i)
    try {
      await Promise.all(together.map(attempt))
      if ((number + TOGETHER) % ROUND === 0) {
        const now = await round()
        if (++rounds === WARM_ROUNDS) warm = now
        await prepare(shim, pool)
      }
    } catch (error) {
      throw new Error(`after input ${number}: ${error instanceof Error ? error.message : error}`, { cause: error })
    }
    if (only !== undefined) break
  }
  const last = await round()
  const growth = warm === undefined ? 0 : last.kib - warm.kib
  if (growth > GROWTH_KIB) throw new Error(`the shim grew by ${growth} KiB over ${number} inputs`)
  if (warm !== undefined && last.fds > warm.fds + 4) throw new Error(`descriptors: ${warm.fds}, and then ${last.fds}`)
  await honest.remove()
  return { inputs: number, growth }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '15' },
      seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
      only: { type: 'string' },
    },
  })
  const seed = Number(values.seed)
  const only = values.only === undefined ? undefined : Number(values.only)
  const say = (text: string) => process.stdout.write(`socket: ${text}\n`)
  say(`${values.seconds} s, seed ${seed}`)
  setup()
  mkdirSync(SOCKETS, { recursive: true, mode: 0o711 })
  const fake = new FakeContainerd()
  fake.prefix = fenced(fake.folder)
  await fake.start()
  try {
    const { inputs, growth } = await run(fake, { seconds: Number(values.seconds), seed, only })
    say(`${inputs} inputs, the shim grew by ${growth} KiB: nothing found`)
  } catch (error) {
    say(`${error instanceof Error ? error.message : error}\nagain with: --seed ${seed}`)
    process.exitCode = 1
  } finally {
    await fake.stop()
  }
}

await main()
