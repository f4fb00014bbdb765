/** Fifos in a container of the fake containerd, at which its processes wait until a test lets them through. */
import { expect } from 'vitest'
import type { FakeTask } from './fake-containerd.ts'

/** Makes fifos in a container, for its processes to wait at. */
export async function gates(task: FakeTask, ...names: string[]): Promise<void> {
  await task.run('gates', ['mkfifo', ...names.map((name) => `/dev/shm/${name}`)])
  expect(await task.wait('gates')).toMatchObject({ exitStatus: 0 })
  await task.delete('gates')
}

/** Opens a gate for the process that waits there, or for the next that comes. */
export async function openGate(task: FakeTask, name: string): Promise<void> {
  const id = `open-${name}`
  await task.run(id, ['sh', '-c', `echo >/dev/shm/${name}`])
  expect(await task.wait(id)).toMatchObject({ exitStatus: 0 })
  await task.delete(id)
}

/** Waits until a process has come to a gate to write into it. */
export async function untilAtGate(task: FakeTask, name: string): Promise<void> {
  const id = `at-${name}`
  await task.run(id, ['sh', '-c', `read line </dev/shm/${name}`])
  expect(await task.wait(id)).toMatchObject({ exitStatus: 0 })
  await task.delete(id)
}
