/**
 * What each call is answered when it cannot be done: codes and texts that clients branch on, in every state, under
 * both service names.
 */
import { packAny } from 'ttrpc-ts'
import { RuncOptions, RuntimeOptions, TaskService, TaskStatus, TaskV3Service } from 'ttrpc-ts/containerd'
import { describe } from 'vitest'
import { expect, test } from '../support/fake.ts'
import { type FakeTask, processAny, type TaskClient, type TaskVersion } from '../support/fake-containerd.ts'
import { needs } from '../support/needs.ts'
import { RawPeer, requestFrame } from '../wire/raw-peer.ts'

const NEVER = { seconds: -62_135_596_800n, nanos: 0 }
const RESOURCES = { typeUrl: 'r', value: Buffer.from('{}') }
const UNKNOWN_CONTAINER = { code: 5, message: 'container not created: not found' }

type Name = keyof TaskClient
type Requests = Readonly<Record<Name, object>>

/** A sound request of each kind for one process; `more` is what is different. */
function requests(id: string, execId = '', more: object = {}): Requests {
  const container = { id, ...more }
  const process = { id, execId, ...more }
  return {
    state: process,
    create: { ...container, bundle: '/no/such/bundle' },
    start: process,
    delete: process,
    pids: container,
    pause: container,
    resume: container,
    checkpoint: { ...container, path: '/images' },
    kill: { ...process, signal: 15 },
    exec: { id, execId: 'other', spec: processAny(['true']), ...more },
    resizePty: { ...process, width: 80, height: 24 },
    closeIO: { ...process, stdin: true },
    update: { ...container, resources: RESOURCES },
    wait: process,
    stats: container,
    connect: container,
    shutdown: container,
  }
}

/** Makes a call whose request has been checked to be of its kind by its name alone. */
function call(client: TaskClient, name: Name, request: object): Promise<object> {
  const method: (request: object) => Promise<object> = client[name]
  return method(request)
}

/** The code and message of a refusal, or undefined when there was none. */
async function refusal(answer: Promise<unknown>): Promise<{ code: unknown; message: string } | undefined> {
  try {
    await answer
    return undefined
  } catch (error) {
    if (!(error instanceof Error)) throw error
    return { code: Reflect.get(error, 'code'), message: error.message }
  }
}

/** What the calls of that name are answered for a process: the code, 0 for success. */
async function codes(task: FakeTask, names: readonly Name[], execId = ''): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {}
  for (const name of names) {
    found[name] = (await refusal(call(task.client, name, requests(task.id, execId)[name])))?.code ?? 0
  }
  return found
}

const OF_A_CONTAINER: readonly Name[] = [
  'state',
  'start',
  'delete',
  'pids',
  'pause',
  'resume',
  'checkpoint',
  'kill',
  'exec',
  'resizePty',
  'closeIO',
  'update',
  'wait',
  'stats',
]
const OF_A_PROCESS: readonly Name[] = ['state', 'wait', 'kill', 'start', 'delete', 'resizePty', 'closeIO']

describe.for<TaskVersion>(['v2', 'v3'])('under the name containerd.task.%s.Task,', (version) => {
  describe('a refusal', needs('root', 'busybox'), () => {
    test('of all calls about a container that is not there is NotFound', async ({ shim }) => {
      const client = shim.client(version)
      for (const name of OF_A_CONTAINER) {
        expect(await refusal(call(client, name, requests('ghost')[name])), name).toEqual(UNKNOWN_CONTAINER)
      }
      expect(await client.connect({ id: 'ghost' })).toMatchObject({ shimPid: shim.pid, taskPid: 0 })
    })

    test('of all calls about an exec that is not there is NotFound', async ({ shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      await task.create()
      for (const name of OF_A_PROCESS) {
        const answer = await refusal(call(task.client, name, requests(task.id, 'e9')[name]))
        expect(answer, name).toEqual({ code: 5, message: 'process does not exist e9: not found' })
      }
      await task.remove()
    })

    test('of a Create names what is wrong with it, and leaves the id free', async ({ shim }) => {
      const task = shim.task(['/no/such/program'], undefined, version)
      const failed = await refusal(task.create())
      expect(failed?.code).toBe(2)
      expect(failed?.message).toMatch(
        /^OCI runtime create failed: .*exec: "\/no\/such\/program": .*no such file or directory$/,
      )
      const { id, bundle, client } = task
      for (const [request, code, words] of [
        [{ id: '../up' }, 3, '"../up"'],
        [{ id: '' }, 3, '""'],
        [{ id: 'a'.repeat(77) }, 3, 'a'.repeat(76)],
        [{ bundle: 'bundle' }, 3, '"bundle"'],
        [{ bundle: '/no/such/bundle' }, 2, '/no/such/bundle/config.json'],
        [{ stdout: 'gopher://x/y' }, 2, 'gopher'],
        [{ stdout: 'relative' }, 2, 'relative'],
        [{ stdin: '/no/such/fifo' }, 2, '/no/such/fifo'],
        [{ stdin: 'file:///no/such/file' }, 2, '/no/such/file'],
        [{ options: { typeUrl: RuncOptions.typeName, value: Buffer.alloc(3, 0xff) } }, 2, RuncOptions.typeName],
        [{ options: packAny(RuntimeOptions, { configPath: '/dev/zero' }) }, 2, '/dev/zero'],
        [{ options: packAny(RuncOptions, { binaryName: '/opt/other' }) }, 2, '/opt/other'],
        [{ bundle: '/no/such/bundle', rootfs: [{ type: 'tmpfs', source: 'tmpfs' }] }, 2, '/no/such/bundle/config.json'],
        [{ rootfs: [{ type: 'bind', source: '/no/such/layer', options: ['rbind'] }] }, 2, '/no/such/layer'],
      ] as const) {
        const answer = await refusal(client.create({ id, bundle, ...request }))
        expect(answer, JSON.stringify(request)).toMatchObject({ code, message: expect.stringContaining(words) })
      }
      expect(await refusal(task.delete())).toEqual(UNKNOWN_CONTAINER)
      expect(task.story).toEqual([])
      const good = shim.task(['sleep', '1000'], undefined, version, id)
      await good.create()
      await good.remove()
    })

    test('of a Create whose id is taken is AlreadyExists, until that is deleted', async ({ shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      await task.create()
      const again = async () => (await refusal(task.create()))?.code
      expect(await again()).toBe(6)
      await task.start()
      expect(await again()).toBe(6)
      await task.kill()
      await task.wait()
      expect(await again()).toBe(6)
      await task.delete()
      await task.create()
      await task.remove()
    })

    test('depends on the state of the container: created', async ({ shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      await task.create()
      expect(await codes(task, ['pause', 'resume', 'checkpoint'])).toEqual({ pause: 2, resume: 2, checkpoint: 2 })
      const answers = await codes(task, ['state', 'pids', 'exec', 'resizePty', 'closeIO', 'update', 'stats'])
      expect(new Set(Object.values(answers))).toEqual(new Set([0]))
      await task.remove()
    })

    test('depends on the state of the container: running', async ({ shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      await task.create()
      await task.start()
      const { client, id } = task
      expect(await refusal(task.start())).toEqual({ code: 2, message: 'cannot start a running process' })
      expect(await refusal(task.delete())).toEqual({ code: 2, message: 'cannot delete a running process' })
      expect(await refusal(client.resume({ id }))).toEqual({ code: 2, message: 'cannot resume a running container' })
      expect(await refusal(task.kill(65))).toEqual({ code: 2, message: 'invalid signal 65' })
      expect(await refusal(task.kill(0))).toBeUndefined()
      await task.remove()
    })

    test('depends on the state of the container: paused', async ({ shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      await task.create()
      await task.start()
      await task.exec('e1', ['true'])
      const { client, id } = task
      await client.pause({ id })
      expect(await refusal(client.pause({ id }))).toEqual({ code: 2, message: 'cannot pause a paused container' })
      expect(await refusal(task.exec('e2', ['true']))).toEqual({ code: 2, message: 'cannot exec in a paused state' })
      expect(await refusal(task.start('e1'))).toEqual({ code: 2, message: 'cannot exec in a paused state' })
      expect(await refusal(task.delete())).toEqual({ code: 2, message: 'cannot delete a paused process' })
      expect(await codes(task, ['state', 'pids', 'resizePty', 'closeIO', 'update', 'stats'])).toEqual({
        state: 0,
        pids: 0,
        resizePty: 0,
        closeIO: 0,
        update: 0,
        stats: 0,
      })
      await task.remove()
    })

    test('depends on the state of the container: stopped', async ({ shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      await task.create()
      await task.start()
      await task.exec('e1', ['true'])
      await task.kill()
      await task.wait()
      const { client, id } = task
      expect(await refusal(task.start())).toEqual({ code: 2, message: 'cannot start a stopped process' })
      const refused = await codes(task, ['pause', 'resume', 'exec', 'update', 'checkpoint'])
      expect(refused).toEqual({ pause: 2, resume: 2, exec: 2, update: 2, checkpoint: 2 })
      expect(await refusal(task.kill())).toEqual({ code: 5, message: 'process already finished: not found' })
      expect(await refusal(task.kill(9, '', true))).toBeUndefined()
      expect(await refusal(task.start('e1'))).toEqual({
        code: 9,
        message: `container ${id} init process is not running: failed precondition`,
      })
      expect(await task.wait('e1')).toEqual({ exitStatus: 0, exitedAt: NEVER })
      expect(await codes(task, ['state', 'pids', 'stats', 'resizePty', 'closeIO', 'wait'])).toEqual({
        state: 0,
        pids: 0,
        stats: 0,
        resizePty: 0,
        closeIO: 0,
        wait: 0,
      })
      expect(await client.pids({ id })).toEqual({ processes: [] })
      await task.delete()
      expect(await refusal(task.delete())).toEqual(UNKNOWN_CONTAINER)
    })

    test('of an Exec: id taken, no sound id, no sound process; the id stays free', async ({ shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      await task.create()
      await task.start()
      await task.exec('e1', ['true'])
      expect(await refusal(task.exec('e1', ['true']))).toEqual({ code: 6, message: 'id e1: already exists' })
      for (const id of ['', '../x', 'a b', '-a', 'a.', 'x'.repeat(77)]) {
        expect(await refusal(task.exec(id, ['true'])), id).toMatchObject({ code: 3 })
      }
      for (const text of ['', '{', '[]', '{}', '{"args":[]}', '{"args":["true"],"cwd":"relative"}']) {
        const spec = { typeUrl: 'p', value: Buffer.from(text) }
        expect(await refusal(task.exec('e2', [], { spec })), text).toMatchObject({ code: 2 })
      }
      expect(await refusal(task.client.exec({ id: task.id, execId: 'e2' }))).toMatchObject({ code: 2 })
      await task.exec('e2', ['true'])
      await task.remove()
      expect(task.story).toEqual(['create', 'start', 'exec-added e1', 'exec-added e2', 'exit 137', 'delete'])
    })

    test('of a Start of an exec whose program is missing leaves it created', async ({ shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      await task.create()
      await task.start()
      await task.exec('e1', ['/no/such/program'])
      const waiting = task.wait('e1')
      const failed = await refusal(task.start('e1'))
      expect(failed?.code).toBe(2)
      expect(failed?.message).toMatch(
        /^OCI runtime exec failed: exec failed: .*"\/no\/such\/program".*no such file or directory$/,
      )
      expect([await waiting, await task.wait('e1')]).toEqual(Array(2).fill({ exitStatus: 0, exitedAt: NEVER }))
      expect(await task.state('e1')).toMatchObject({ status: TaskStatus.CREATED, pid: 0 })
      expect(await refusal(task.kill(9, 'e1'))).toEqual({
        code: 9,
        message: 'process not created: failed precondition',
      })
      // it may be tried again, and fails again
      expect((await refusal(task.start('e1')))?.code).toBe(2)
      expect(await task.delete('e1')).toEqual({ pid: 0, exitStatus: 0, exitedAt: NEVER })
      expect((await refusal(task.delete('e1')))?.code).toBe(5)
      await task.remove()
      expect(task.story).toEqual(['create', 'start', 'exec-added e1', 'exit 137', 'delete'])
    })

    test('depends on the state of an exec', async ({ shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      await task.create()
      await task.start()
      await task.exec('e1', ['sleep', '1000'])
      expect((await refusal(task.kill(9, 'e1')))?.code).toBe(9)
      await task.start('e1')
      expect(await refusal(task.start('e1'))).toEqual({ code: 2, message: 'cannot start a running process' })
      expect(await refusal(task.delete('e1'))).toEqual({ code: 2, message: 'cannot delete a running process' })
      expect((await refusal(task.exec('e1', ['true'])))?.code).toBe(6)
      await task.kill(9, 'e1')
      await task.wait('e1')
      expect(await refusal(task.kill(9, 'e1'))).toEqual({ code: 5, message: 'process already finished: not found' })
      expect(await refusal(task.start('e1'))).toEqual({ code: 2, message: 'cannot start a stopped process' })
      const { client, id } = task
      const size = { id, execId: 'e1', width: 80, height: 24 }
      expect(await refusal(client.resizePty(size))).toEqual({ code: 2, message: 'cannot resize a stopped container' })
      expect(await refusal(client.closeIO({ id, execId: 'e1', stdin: true }))).toBeUndefined()
      expect((await refusal(task.exec('e1', ['true'])))?.code).toBe(6)
      expect(await task.delete('e1')).toMatchObject({ exitStatus: 137 })
      expect((await refusal(task.state('e1')))?.code).toBe(5)
      await task.exec('e1', ['true'])
      await task.remove()
    })

    test('of a request that is none names what is wrong, and the connection goes on', async ({ shim }) => {
      const service = (version === 'v2' ? TaskService : TaskV3Service).typeName
      using peer = await RawPeer.connect(shim.socket)
      let stream = -1
      const answer = async (name: string, payload: Uint8Array, extra: object = {}) => {
        stream += 2
        const frame = requestFrame(stream, service, name, TaskService.methods.state.input, {}, { payload, ...extra })
        peer.send(frame)
        const { streamId, code, message } = await peer.response()
        expect(streamId).toBe(stream)
        return { code, message }
      }
      for (const { name } of Object.values(TaskService.methods)) {
        expect(await answer(name, Buffer.alloc(8, 0xff)), name).toMatchObject({ code: 13 })
      }
      const empty = Buffer.alloc(0)
      expect(await answer('Steal', empty)).toEqual({ code: 12, message: 'method Steal' })
      expect(await answer('State', empty, { service: 'a.Thief' })).toEqual({ code: 12, message: 'service a.Thief' })
      expect(await answer('State', empty)).toEqual(UNKNOWN_CONTAINER)
      const task = shim.task(['sleep', '1000'], undefined, version)
      await task.create()
      const { input } = TaskService.methods.wait
      expect(await answer('Wait', input.encode({ id: task.id }), { timeoutNano: 1_000_000n })).toMatchObject({
        code: 4,
      })
      await task.remove()
    })
  })
})
