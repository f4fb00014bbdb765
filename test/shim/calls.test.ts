/**
 * Every call of the Task service, under both of its names, on containers that run: what it answers and what it does.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { packAny } from 'ttrpc-ts'
import {
  CgroupV1Metrics,
  CgroupV2Metrics,
  LegacyCheckpointOptions,
  ProcessDetails,
  RuncCheckpointOptions,
  TaskStatus,
} from 'ttrpc-ts/containerd'
import { describe } from 'vitest'
import { until } from '../support/command.ts'
import { expect, test } from '../support/fake.ts'
import type { FakeTask, TaskVersion } from '../support/fake-containerd.ts'
import { isCgroup2, needs } from '../support/needs.ts'

const NEVER = { seconds: -62_135_596_800n, nanos: 0 }
const RESOURCES = 'types.containerd.io/opencontainers/runtime-spec/1/LinuxResources'
const FREEZER = isCgroup2() ? 'cgroup.freeze' : 'freezer.state'

const json = (value: unknown, typeUrl = RESOURCES) => ({ typeUrl, value: Buffer.from(JSON.stringify(value)) })

function cgroupFile(
  task: FakeTask,
  namespace: string,
  [controller, v1, v2]: readonly [string, string, string],
): string {
  const path = isCgroup2()
    ? ['/sys/fs/cgroup', namespace, task.id, v2]
    : ['/sys/fs/cgroup', controller, namespace, task.id, v1]
  return readFileSync(join(...path), 'utf8').trim()
}

describe.for<TaskVersion>(['v2', 'v3'])('under the name containerd.task.%s.Task,', (version) => {
  describe('a container', needs('root', 'busybox'), () => {
    test('is created, started, killed, waited for and deleted, and the shim then ends', async ({ fake, shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      const { client, id, bundle } = task
      const pid = await task.create()
      expect(await task.state()).toEqual({
        id,
        bundle,
        pid,
        status: TaskStatus.CREATED,
        stdin: '',
        stdout: '',
        stderr: '',
        terminal: false,
        exitStatus: 0,
        exitedAt: NEVER,
        execId: '',
      })
      expect(await client.connect({ id })).toEqual({ shimPid: shim.pid, taskPid: pid, version: '' })
      expect(await task.pids()).toEqual([pid])
      const [waiting, again] = [task.wait(), task.wait()]
      expect(await task.start()).toBe(pid)
      expect(await task.state()).toMatchObject({ pid, status: TaskStatus.RUNNING })
      // asked while there is a container: nothing happens
      await client.shutdown({ id })
      await task.kill(0)
      await task.kill(9)
      const exit = await waiting
      expect(exit.exitStatus).toBe(137)
      expect([await again, await task.wait()]).toEqual([exit, exit])
      expect(await task.state()).toMatchObject({ pid, status: TaskStatus.STOPPED, ...exit })
      expect(await task.delete()).toEqual({ pid, ...exit })
      expect(await client.connect({ id })).toEqual({ shimPid: shim.pid, taskPid: 0, version: '' })
      await client.shutdown({ id, now: true })
      await until('the shim to end', () => !shim.alive)
      expect(task.story).toEqual(['create', 'start', 'exit 137', 'delete'])
      const [created, ...rest] = fake.sink.of(id)
      expect(created).toMatchObject({ pid, caller: [fake.namespace], namespace: fake.namespace, message: { bundle } })
      expect(rest.map((event) => event.pid)).toEqual([pid, pid, pid])
      expect(rest.slice(1).map(({ status, exitedAt }) => ({ exitStatus: status, exitedAt }))).toEqual([exit, exit])
    })

    test('runs execs that are told apart', async ({ shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      const init = await task.create()
      await task.start()
      await task.exec('e1', ['sleep', '1000'])
      expect(await task.state('e1')).toMatchObject({ id: 'e1', pid: 0, status: TaskStatus.CREATED, exitedAt: NEVER })
      const pid = await task.start('e1')
      expect(await task.state('e1')).toMatchObject({ id: 'e1', pid, status: TaskStatus.RUNNING, bundle: task.bundle })
      const { processes } = await task.client.pids({ id: task.id })
      const details = processes.map(({ pid, info }) => [pid, info && ProcessDetails.decode(info.value).execId])
      expect(details).toEqual(
        expect.arrayContaining([
          [init, undefined],
          [pid, 'e1'],
        ]),
      )
      expect(details).toHaveLength(2)
      await task.kill(15, 'e1')
      expect(await task.wait('e1')).toMatchObject({ exitStatus: 143 })
      expect(await task.state('e1')).toMatchObject({ pid, status: TaskStatus.STOPPED, exitStatus: 143 })
      expect(await task.state()).toMatchObject({ status: TaskStatus.RUNNING })
      expect(await task.delete('e1')).toMatchObject({ pid, exitStatus: 143 })
      await task.remove()
      expect(task.story).toEqual([
        'create',
        'start',
        'exec-added e1',
        'exec-started e1',
        'exit e1 143',
        'exit 137',
        'delete',
      ])
    })

    test('is paused and resumed, its execs with it', async ({ fake, shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      await task.create()
      await task.start()
      await task.run('e1', ['sleep', '1000'])
      await task.client.pause({ id: task.id })
      expect(cgroupFile(task, fake.namespace, ['freezer', FREEZER, FREEZER])).toBe(isCgroup2() ? '1' : 'FROZEN')
      expect(await task.state()).toMatchObject({ status: TaskStatus.PAUSED })
      expect(await task.state('e1')).toMatchObject({ status: TaskStatus.PAUSED })
      await task.client.resume({ id: task.id })
      expect(await task.state()).toMatchObject({ status: TaskStatus.RUNNING })
      expect(await task.state('e1')).toMatchObject({ status: TaskStatus.RUNNING })
      await task.remove()
      expect(task.story.slice(4, 6)).toEqual(['paused', 'resumed'])
    })

    test('has its limits changed; annotations are taken, and nothing at all is no change', async ({ fake, shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      await task.create()
      const { id } = task
      const limit = () => cgroupFile(task, fake.namespace, ['pids', 'pids.max', 'pids.max'])
      await task.client.update({ id, resources: json({ pids: { limit: 77 } }) })
      expect(limit()).toBe('77')
      await task.start()
      await task.client.update({ id, resources: json({ pids: { limit: 78 } }), annotations: { 'a.b/c': 'd' } })
      expect(limit()).toBe('78')
      await task.client.update({ id, annotations: { 'a.b/c': 'd' } })
      await task.client.update({ id, resources: json({}, '') })
      expect(limit()).toBe('78')
      await expect(task.client.update({ id, resources: json({ pids: { limit: 'many' } }) })).rejects.toMatchObject({
        code: 2,
        message: expect.stringContaining('/pids/limit'),
      })
      await task.remove()
    })

    test("tells its counters in the message of the host's cgroups", async ({ shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      await task.create()
      await task.start()
      const { stats } = await task.client.stats({ id: task.id })
      const [type, other] = isCgroup2() ? [CgroupV2Metrics, CgroupV1Metrics] : [CgroupV1Metrics, CgroupV2Metrics]
      expect(stats?.typeUrl).toBe(type.typeName)
      expect(stats?.typeUrl).not.toBe(other.typeName)
      expect(type.decode(stats!.value)).toMatchObject({ pids: { current: 1n }, cpu: {}, memory: {} })
      await task.kill()
      await task.wait()
      expect((await task.client.stats({ id: task.id })).stats?.typeUrl).toBe(type.typeName)
      await task.delete()
    })

    test('with a terminal has its size set, and one without ignores that', async ({ fake, shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      const { client, id } = task
      await task.create()
      await task.start()
      await client.resizePty({ id, width: 80, height: 24 })
      const stdout = join(fake.folder, `${id}-tty`)
      await task.exec('tty', ['sh', '-c', 'until stty size | grep -q "41 121"; do sleep 0.01; done; exit 5'], {
        terminal: true,
        stdout: `file://${stdout}`,
      })
      await client.resizePty({ id, execId: 'tty', width: 1, height: 1 })
      await task.start('tty')
      await client.resizePty({ id, execId: 'tty', width: 0, height: 0 })
      await client.resizePty({ id, execId: 'tty', width: 121, height: 41 })
      expect(await task.wait('tty')).toMatchObject({ exitStatus: 5 })
      await task.remove()
    })

    test('sees the end of its input when CloseIO is called, however early and often', async ({ fake, shim }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      const { client, id } = task
      await task.create()
      await task.start()
      await using gate = fake.gate()
      await task.exec('cat', ['cat'], { stdin: gate.path })
      await client.closeIO({ id, execId: 'cat', stdin: true })
      await task.start('cat')
      expect(await task.wait('cat')).toMatchObject({ exitStatus: 0 })
      await client.closeIO({ id, execId: 'cat', stdin: true })
      await client.closeIO({ id, stdin: true })
      await task.remove()
    })

    test('a Checkpoint that makes no sense, or cannot be taken, is refused, and the container goes on', async ({
      fake,
      shim,
    }) => {
      const task = shim.task(['sleep', '1000'], undefined, version)
      const { client, id } = task
      await task.create()
      // no folder: with CRIU and without it, nothing can be saved there
      const path = fake.path('images')
      writeFileSync(path, '')
      const refusal = async (request: object) => {
        try {
          await client.checkpoint({ id, path, ...request })
        } catch (error) {
          return error
        }
        throw new Error('it was not refused')
      }
      expect(await refusal({})).toMatchObject({ code: 2, message: 'cannot checkpoint a created container' })
      await task.start()
      const failed =
        /^OCI runtime checkpoint failed: cannot checkpoint container ".*": cannot (open the folder|find the program)/
      expect(await refusal({})).toMatchObject({ code: 2, message: expect.stringMatching(failed) })
      expect(await refusal({ path: 'images' })).toMatchObject({ code: 3 })
      for (const type of [RuncCheckpointOptions, LegacyCheckpointOptions]) {
        const options = { typeUrl: type.typeName, value: type.encode({}) }
        expect(await refusal({ options }), type.typeName).toMatchObject({ code: 2 })
      }
      expect(await refusal({ options: packAny(CgroupV1Metrics, {}) })).toMatchObject({ code: 3 })
      const relative = packAny(RuncCheckpointOptions, { workPath: 'work' })
      expect(await refusal({ options: relative })).toMatchObject({
        code: 3,
        message: expect.stringContaining('work_path'),
      })
      expect(await task.state()).toMatchObject({ status: TaskStatus.RUNNING })
      await task.remove()
    })
  })
})
