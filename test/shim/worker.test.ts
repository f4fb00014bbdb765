/** The shim as the worker of a keeper: who is whose parent, what clients see, and what a death of either leaves. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { isAlive, settledLeaks } from '../support/census.ts'
import { until } from '../support/command.ts'
import { expect, test } from '../support/fake.ts'
import type { FakeContainerd, FakeShim, FakeTask } from '../support/fake-containerd.ts'
import { needs } from '../support/needs.ts'

async function started(fake: FakeContainerd): Promise<{ shim: FakeShim; task: FakeTask; pid: number }> {
  fake.env['RUNTS_KEEPER'] = '1'
  const shim = await fake.shim()
  const task = shim.task(['sleep', '1000'], undefined, 'v2', shim.id)
  const pid = await task.create()
  await task.start()
  return { shim, task, pid }
}

const parentOf = (pid: number): number =>
  Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])

/** The worker among the children of a keeper. */
function workerOf(keeper: number): number {
  const children = readFileSync(`/proc/${keeper}/task/${keeper}/children`, 'utf8').trim().split(' ').map(Number)
  const found = children.filter((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'shim-worker\n')
  expect(found).toHaveLength(1)
  return found[0] ?? 0
}

describe('a shim that is the worker of a keeper', needs('root', 'busybox'), () => {
  test('leaves its containers to the keeper, which clients take for the shim', async ({ fake }) => {
    const { shim, task, pid } = await started(fake)
    expect(parentOf(pid)).toBe(shim.pid)
    expect(parentOf(workerOf(shim.pid))).toBe(shim.pid)
    expect(readFileSync(`/proc/${shim.pid}/cmdline`, 'utf8')).toContain(`-namespace ${fake.namespace} -id ${shim.id} `)
    expect(await task.remove()).toMatchObject({ exitStatus: 137 })
  })

  test('reports at SIGUSR1, and ends in order at SIGTERM, which the keeper gets', async ({ fake }) => {
    const { shim, task } = await started(fake)
    process.kill(shim.pid, 'SIGUSR1')
    await until('a report', () => existsSync(join(shim.bundle, 'shim-report')))
    await task.remove()
    const worker = workerOf(shim.pid)
    process.kill(shim.pid, 'SIGTERM')
    await until('both to end', () => !shim.alive && !isAlive(worker))
    expect(existsSync(shim.socket)).toBe(false)
  })

  test.for(['worker', 'keeper'])('is for delete to clean up after, once the %s was killed', async (which, { fake }) => {
    const { shim, pid } = await started(fake)
    const worker = workerOf(shim.pid)
    process.kill(which === 'worker' ? worker : shim.pid, 'SIGKILL')
    await until('both to end', () => !shim.alive && !isAlive(worker))
    expect(isAlive(pid)).toBe(true)
    expect(await shim.delete()).toMatchObject({ code: 0 })
    expect(await settledLeaks(new Set(), () => fake.census([shim.id]))).toEqual([])
  })
})
