/**
 * Fuzzes the way from a config.json to the bytes of a plan.
 * For any text, the answer is a plan or a RuntimeError of one line. It comes soon, and no memory is kept for it.
 * An input follows from a seed and its number alone, so each can be made again:
 *    node test/fuzz/config.ts [--seconds N] [--seed N] [--only NUMBER] [--plans FOLDER]
 * The inputs are tried on a thread, so that one that never ends can be named.
 * With --plans some plans are left in that folder, for the helper's own reader.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { RuntimeError } from '../../runtime/errors.ts'
import { describePlan } from '../../runtime/plan/describe.ts'
import { encodePlan } from '../../runtime/plan/encode.ts'
import { parseSpec } from '../../runtime/spec/load.ts'
import { createPlan, execPlan, FILTER } from '../unit/plan/support.ts'
import { SEEDS } from './configs.ts'
import { mutate, Random, toNode } from './mutate.ts'

/** No input of a few megabytes may take longer, on a machine that does other things too. */
const INPUT_MS = 10_000
/** What may be left after all inputs, beyond what was left after the first ones. */
const GROWTH_BYTES = 16 * 1024 * 1024
const WARM_INPUTS = 500
const KEPT_PLANS = 200
const SHOWN_CHARACTERS = 2000

interface Task {
  readonly seconds: number
  readonly seed: number
  readonly only: number | undefined
  readonly plans: string | undefined
  /** what the thread is at: the number of the input */
  readonly at: Int32Array
}

interface Result {
  readonly inputs: number
  readonly planned: number
  readonly finding: string | undefined
}

const DOCUMENTS = SEEDS.map(({ document }) => toNode(document))

function input(seed: number, number: number): { text: string; from: (typeof SEEDS)[number] } {
  const random = new Random(Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca77))
  const which = random.below(SEEDS.length)
  const document = DOCUMENTS[which]
  const from = SEEDS[which]
  if (document === undefined || from === undefined) throw new Error('no seeds')
  return {
    text: number < SEEDS.length ? JSON.stringify(SEEDS[number]?.document) : mutate(random, document, DOCUMENTS),
    from,
  }
}

/** The plan of one input, or undefined when it is refused as it should be. @throws what the runtime should not */
function attempt({ text, from: { host, cgroup } }: ReturnType<typeof input>): Uint8Array | undefined {
  try {
    const spec = parseSpec(text, 'the input')
    const ops = createPlan(undefined, { spec, host, cgroup, seccomp: FILTER })
    const plan = encodePlan(ops)
    if (describePlan(ops) === '') throw new Error('a plan without a description')
    encodePlan(execPlan({}, undefined, { spec, process: spec.process, host, cgroup }))
    return plan
  } catch (error) {
    if (!(error instanceof RuntimeError)) throw error
    if (/[\n\r\0]/.test(error.message))
      throw new Error(`an error of more than one line: ${JSON.stringify(error.message)}`)
    return undefined
  }
}

function heap(): number {
  setFlagsFromString('--expose-gc')
  const collect: unknown = runInNewContext('gc')
  if (typeof collect === 'function') collect()
  return process.memoryUsage().heapUsed
}

function run({ seconds, seed, only, plans, at }: Task): Result {
  const until = performance.now() + seconds * 1000
  let planned = 0
  let warm = 0
  let number = only ?? 0
  for (; performance.now() < until; number++) {
    Atomics.store(at, 0, number)
    const made = input(seed, number)
    try {
      const plan = attempt(made)
      if (plan !== undefined && planned++ < KEPT_PLANS && plans !== undefined)
        writeFileSync(join(plans, `${number}`), plan)
    } catch (error) {
      const text = made.text.length > SHOWN_CHARACTERS ? `${made.text.slice(0, SHOWN_CHARACTERS)}…` : made.text
      const finding = error instanceof Error ? (error.stack ?? error.message) : String(error)
      return { inputs: number, planned, finding: `input ${number}: ${finding}\n${text}` }
    }
    if (number === WARM_INPUTS) warm = heap()
    if (only !== undefined) break
  }
  const growth = warm === 0 ? 0 : heap() - warm
  const finding = growth > GROWTH_BYTES ? `the heap grew by ${growth} bytes over ${number} inputs` : undefined
  return { inputs: number, planned, finding }
}

function main(): void {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '15' },
      seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
      only: { type: 'string' },
      plans: { type: 'string' },
    },
  })
  if (values.plans !== undefined) mkdirSync(values.plans, { recursive: true })
  const at = new Int32Array(new SharedArrayBuffer(4))
  const task: Task = {
    seconds: Number(values.seconds),
    seed: Number(values.seed),
    only: values.only === undefined ? undefined : Number(values.only),
    plans: values.plans,
    at,
  }
  const say = (text: string) => process.stdout.write(`config: ${text}\n`)
  const again = `again with: --seed ${task.seed}`
  say(`${task.seconds} s, seed ${task.seed}`)
  const worker = new Worker(import.meta.filename, {
    workerData: task,
    resourceLimits: { maxOldGenerationSizeMb: 1024 },
  })
  let seen = -1
  let since = performance.now()
  const watch = setInterval(() => {
    const now = Atomics.load(at, 0)
    if (now !== seen) {
      seen = now
      since = performance.now()
    } else if (performance.now() - since > INPUT_MS) {
      say(`input ${now} does not end (${again} --only ${now})`)
      process.exit(1)
    }
  }, 250)
  worker.once('error', (error) => {
    say(`input ${Atomics.load(at, 0)} ended the thread: ${error} (${again} --only ${Atomics.load(at, 0)})`)
    process.exit(1)
  })
  worker.once('message', ({ inputs, planned, finding }: Result) => {
    clearInterval(watch)
    if (finding !== undefined) say(`${finding}\n${again}${finding.startsWith('input') ? ` --only ${inputs}` : ''}`)
    else say(`${inputs} inputs, ${planned} became plans: nothing found`)
    process.exitCode = finding === undefined ? 0 : 1
  })
}

if (isMainThread) main()
else parentPort?.postMessage(run(workerData as Task))
