/**
 * Every call of containerd in every phase of the Delete of a container.
 * The test build stops itself at the phase, the calls are put into its sockets, and it goes on.
 * Until the container is gone, each answer is that it has stopped. An answer that there is no container would be wrong:
 * containerd would then believe that the container never stopped.
 */
import { setImmediate as turn } from 'node:timers/promises'
import { TaskStatus } from 'ttrpc-ts/containerd'
import { afterAll, beforeAll, describe } from 'vitest'
import { until } from '../support/command.ts'
import { expect, test } from '../support/fake.ts'
import type { FakeTask } from '../support/fake-containerd.ts'
import { buildFailing, hasStopped, StopFile } from '../support/kill-points.ts'
import { needs } from '../support/needs.ts'
import { FAILING_SHIM } from '../support/places.ts'

const LONG_TIME_MS = 60_000
const [UNKNOWN, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION] = [2, 5, 6, 9]
/** Whatever the answer says: it is no error. */
const OK = {}

/** In their order; after the last one nothing but the answer is left. */
const PHASES = [
  'task:drained',
  'delete:locked',
  'delete:killed',
  'delete:cgroup',
  'delete:done',
  'task:unmounted',
  'task:recorded',
] as const

type Ask = (task: FakeTask) => Promise<unknown>

/** What a call answers, whatever the phase: a code, or more of the answer. */
const CALLS: Readonly<Record<string, readonly [Ask, number | object]>> = {
  State: [(task) => task.state(), { status: TaskStatus.STOPPED, exitStatus: 137 }],
  Wait: [(task) => task.wait(), { exitStatus: 137 }],
  Pids: [(task) => task.pids(), []],
  Stats: [(task) => task.client.stats({ id: task.id }), OK],
  Connect: [(task) => task.client.connect({ id: task.id }), OK],
  'Kill of the init': [(task) => task.kill(9), NOT_FOUND],
  'Kill of all': [(task) => task.kill(9, '', true), OK],
  'Kill of all with signal 0': [(task) => task.kill(0, '', true), OK],
  CloseIO: [(task) => task.closeStdin(), OK],
  ResizePty: [(task) => task.client.resizePty({ id: task.id, width: 80, height: 25 }), OK],
  Exec: [(task) => task.exec('late', ['true']), UNKNOWN],
  Update: [
    (task) => task.client.update({ id: task.id, resources: { typeUrl: '', value: Buffer.from('{}') } }),
    UNKNOWN,
  ],
  Create: [(task) => task.create(), ALREADY_EXISTS],
  // these wait for the Delete
  Start: [(task) => task.start(), NOT_FOUND],
  Pause: [(task) => task.client.pause({ id: task.id }), NOT_FOUND],
  Resume: [(task) => task.client.resume({ id: task.id }), NOT_FOUND],
  Checkpoint: [(task) => task.client.checkpoint({ id: task.id, path: '/nowhere' }), NOT_FOUND],
  Delete: [(task) => task.delete(), NOT_FOUND],
  'State of an exec that has ended': [(task) => task.state('ended'), { status: TaskStatus.STOPPED, exitStatus: 3 }],
  'Wait for an exec that has ended': [(task) => task.wait('ended'), { exitStatus: 3 }],
  'Kill of an exec that has ended': [(task) => task.kill(9, 'ended'), NOT_FOUND],
  'Delete of an exec that has ended': [(task) => task.delete('ended'), { exitStatus: 3 }],
  'State of an exec that never ran': [(task) => task.state('never'), { status: TaskStatus.CREATED }],
  'Kill of an exec that never ran': [(task) => task.kill(9, 'never'), FAILED_PRECONDITION],
  'Start of an exec that never ran': [(task) => task.start('never'), FAILED_PRECONDITION],
  'Wait for an exec that never ran': [(task) => task.wait('never'), { exitStatus: 0 }],
  'Shutdown, which is ignored': [(task) => task.client.shutdown({ id: task.id }), OK],
}

const order = new StopFile(LONG_TIME_MS)
beforeAll(buildFailing, 120_000)
afterAll(() => order.remove())

async function outcomeOf(answer: Promise<unknown>): Promise<unknown> {
  try {
    return (await answer) ?? OK
  } catch (error) {
    return Reflect.get(Object(error), 'code')
  }
}

describe('a call that meets the Delete of its container', needs('root', 'busybox'), () => {
  test.for(PHASES)('at %s is answered as for one that has stopped, until it is gone', async (phase, { fake }) => {
    fake.program = FAILING_SHIM
    fake.env['RUNTS_STOP_FILE'] = order.path
    const shim = await fake.shim()
    const task = await shim.started()
    await task.run('ended', ['payload', 'exit', '3'])
    await task.wait('ended')
    await task.exec('never', ['true'])
    await task.kill(9)
    await task.wait()
    order.order(phase)
    const deleted = task.delete()
    await until(`the shim to stop at ${phase}`, () => !order.pending && hasStopped(shim.pid))
    const asked = Object.entries(CALLS).map(async ([name, [ask]]) => [name, await outcomeOf(ask(task))] as const)
    // the requests are in the socket
    await turn()
    process.kill(shim.pid, 'SIGCONT')
    expect(await deleted).toMatchObject({ exitStatus: 137 })
    const answers = Object.fromEntries(await Promise.all(asked))
    expect(answers).toMatchObject(Object.fromEntries(Object.entries(CALLS).map(([name, [, answer]]) => [name, answer])))
    expect(await outcomeOf(task.state())).toBe(NOT_FOUND)
    expect(shim.alive).toBe(true)
    await until('its last event', () => task.story.at(-1) === 'delete')
    expect(task.story.slice(-2)).toEqual(['exit 137', 'delete'])
  })
})
