/**
 * Checkpoint, and Create from one: the options in all their types, every kind of stream, and what is left when either
 * fails. A container that is to be restored is created without a process, and Start restores it.
 */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { packAny } from 'ttrpc-ts'
import { LegacyCheckpointOptions, LegacyCreateOptions, RuncCheckpointOptions, TaskStatus } from 'ttrpc-ts/containerd'
import { describe } from 'vitest'
import { makeFifos, reader } from '../support/client-streams.ts'
import { type Command, until } from '../support/command.ts'
import { expect, test } from '../support/fake.ts'
import type { FakeContainerd, FakeShim, FakeTask } from '../support/fake-containerd.ts'
import { needs } from '../support/needs.ts'

const COUNT = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.05; done']

const numbers = ({ stdout }: Command): number[] =>
  [...stdout.matchAll(/line (\d+)/g)].map(([, number]) => Number(number))

async function untilPrinted(command: Command): Promise<void> {
  const from = numbers(command).length
  const more = (): boolean => numbers(command).length >= from + 3
  await until('the container to print on', more, () => command.describe())
}

/** Saves a container with its end, and deletes it. */
async function save(task: FakeTask, images: string): Promise<void> {
  const options = packAny(RuncCheckpointOptions, { exit: true })
  await task.client.checkpoint({ id: task.id, path: images, options })
  expect(await task.wait()).toMatchObject({ exitStatus: 137 })
  await task.delete()
}

/** What is in a folder with the names of the images. */
const names = (folder: string): string[] => (existsSync(folder) ? readdirSync(folder) : [])

async function running(shim: FakeShim, stdout: string, request: object = {}): Promise<FakeTask> {
  const task = shim.task(COUNT)
  await task.create({ stdout, ...request })
  await task.start()
  return task
}

describe('a checkpoint', needs('root', 'busybox', 'criu'), () => {
  for (const [kind, request] of [
    ['a fifo', {}],
    ['a terminal', { terminal: true }],
  ] as const) {
    test(`of a container whose output is ${kind} is restored by Start`, async ({ fake, shim }) => {
      const images = fake.path('images')
      const [before, after] = [makeFifos(fake.folder), makeFifos(fake.folder)]
      const first = reader(before.stdout)
      const task = await running(shim, before.stdout, request)
      await untilPrinted(first)
      await save(task, images)
      await first.finished
      const second = reader(after.stdout)
      const again = shim.task(COUNT, undefined, 'v2', task.id)
      expect(await again.create({ stdout: after.stdout, checkpoint: images, ...request })).toBe(0)
      expect(await again.state()).toMatchObject({ status: TaskStatus.CREATED, pid: 0 })
      const pid = await again.start()
      expect(await again.state()).toMatchObject({ status: TaskStatus.RUNNING, pid })
      await untilPrinted(second)
      const [begin = 0, ...rest] = numbers(second)
      expect(begin).toBeGreaterThan(1)
      expect(rest).toEqual(rest.map((_, index) => begin + index + 1))
      expect(await again.pids()).toContain(pid)
      await again.run('e', ['true'])
      expect(await again.wait('e')).toMatchObject({ exitStatus: 0 })
      await again.kill()
      expect(await again.wait()).toMatchObject({ exitStatus: 137 })
      await again.delete()
      await second.finished
    })
  }

  test('of a container whose output goes to a file, and without output, is restored too', async ({ fake, shim }) => {
    const [images, path] = [fake.path('images'), fake.path('file')]
    const task = await running(shim, `file://${path}`)
    const lines = (): number => readFileSync(path, 'utf8').split('\n').length
    await until('output in the file', () => existsSync(path) && lines() > 3)
    await save(task, images)
    const again = shim.task(COUNT, undefined, 'v2', task.id)
    await again.create({ stdout: `file://${path}`, checkpoint: images })
    await again.start()
    const from = lines()
    await until('more output in the file', () => lines() > from + 2)
    await save(again, `${images}-2`)
    const last = shim.task(COUNT, undefined, 'v2', task.id)
    await last.create({ checkpoint: `${images}-2` })
    await last.start()
    await last.remove()
  })

  test('leaves the container running without options, and takes the older ones', async ({ fake, shim }) => {
    const task = await shim.started(COUNT)
    await task.client.checkpoint({ id: task.id, path: fake.path('images') })
    expect(await task.state()).toMatchObject({ status: TaskStatus.RUNNING })
    await task.client.pause({ id: task.id })
    await task.client.checkpoint({ id: task.id, path: fake.path('images') })
    expect(await task.state()).toMatchObject({ status: TaskStatus.PAUSED })
    const work = fake.path('work')
    const options = packAny(LegacyCheckpointOptions, { exit: true, workPath: work })
    await task.client.checkpoint({ id: task.id, path: fake.path('images'), options })
    expect(names(work)).toContain('dump.log')
    expect(await task.wait()).toMatchObject({ exitStatus: 137 })
    await task.delete()
  })

  test('that fails keeps the log in the bundle, names it, and leaves the container running', async ({ fake, shim }) => {
    const task = await shim.started(COUNT)
    const options = packAny(RuncCheckpointOptions, { exit: true, parentPath: fake.path('none') })
    const wrong = task.client.checkpoint({ id: task.id, path: fake.path('images'), options })
    await expect(wrong).rejects.toThrow(
      /^OCI runtime checkpoint failed: cannot checkpoint container ".*": .*parent path/,
    )
    expect(await task.state()).toMatchObject({ status: TaskStatus.RUNNING })
    expect(names(task.bundle).filter((name) => name === 'criu-work')).toEqual([])
    await task.remove()
  })
})

/** A container that was saved, and its images. */
async function saved(fake: FakeContainerd, shim: FakeShim): Promise<{ id: string; images: string }> {
  const images = fake.path('images')
  const task = await shim.started(COUNT)
  await save(task, images)
  return { id: task.id, images }
}

describe('a container that is to be restored', needs('root', 'busybox', 'criu'), () => {
  test('ends with a SIGKILL, as a created container does, and no other signal', async ({ fake, shim }) => {
    const { id, images } = await saved(fake, shim)
    const task = shim.task(COUNT, undefined, 'v2', id)
    await task.create({ checkpoint: images })
    await task.kill(15)
    expect(await task.state()).toMatchObject({ status: TaskStatus.CREATED })
    const waiting = task.wait()
    await task.kill(9, '', true)
    expect(await waiting).toMatchObject({ exitStatus: 137 })
    expect(await task.state()).toMatchObject({ status: TaskStatus.STOPPED, pid: 0 })
    expect(await task.delete()).toMatchObject({ exitStatus: 137 })
    await until('its last events', () => task.story.at(-1) === 'delete')
    expect(task.story.slice(-2)).toEqual(['exit 137', 'delete'])
  })

  test('has nothing to pause or to execute in, and Delete removes it', async ({ fake, shim }) => {
    const { id, images } = await saved(fake, shim)
    const task = shim.task(COUNT, undefined, 'v2', id)
    await task.create({ checkpoint: images, options: packAny(LegacyCreateOptions, { openTcp: true }) })
    await expect(task.client.pause({ id })).rejects.toThrow('cannot pause a created container')
    await expect(task.run('e', ['true'])).rejects.toThrow('not restored yet')
    expect(await task.pids()).toEqual([])
    const waiting = task.wait()
    expect(await task.delete()).toMatchObject({ pid: 0, exitStatus: 0 })
    expect(await waiting).toMatchObject({ exitStatus: 0 })
  })

  test('is as before when its Start fails, and the error has the end of the log', async ({ fake, shim }) => {
    const { id, images } = await saved(fake, shim)
    rmSync(join(images, 'core-1.img'))
    const task = shim.task(COUNT, undefined, 'v2', id)
    await task.create({ checkpoint: images })
    await expect(task.start()).rejects.toThrow(
      /^OCI runtime restore failed: cannot restore container ".*": criu restore: criu failed: Error .*Restoring FAILED\..* \(all of it in .*restore\.log\)/,
    )
    expect(await task.state()).toMatchObject({ status: TaskStatus.CREATED })
    expect(await task.delete()).toMatchObject({ pid: 0 })
  })

  test('needs images that are there', async ({ fake, shim }) => {
    const task = shim.task(COUNT)
    await expect(task.create({ checkpoint: 'images' })).rejects.toThrow('is not an absolute path')
    await task.create({ checkpoint: fake.path('none') })
    await expect(task.start()).rejects.toThrow(
      /OCI runtime restore failed: cannot open the folder ".*none-\d+": ENOENT/,
    )
    await task.delete()
  })
})
