/**
 * Checkpoints by a client of containerd: the images go into its store, and a container is made from them again. It is
 * another shim that restores, and the restored process goes on with its output where the saved one stopped.
 */
import { readdirSync } from 'node:fs'
import { describe } from 'vitest'
import { type Command, until } from '../support/command.ts'
import { type Containers, expect, test } from '../support/containerd.ts'
import { needs } from '../support/needs.ts'

const COUNT = 'i=0; while :; do i=$((i+1)); echo "line $i"; echo $i >/count.new; mv /count.new /count; sleep 0.05; done'

/** The numbers that a container has printed so far. */
const numbers = ({ stdout }: Command): number[] =>
  [...stdout.matchAll(/line (\d+)/g)].map(([, number]) => Number(number))

async function untilPrinted(command: Command): Promise<void> {
  const from = numbers(command).length
  const more = (): boolean => numbers(command).length >= from + 3
  await until('the container to print on', more, () => command.describe())
}

/** The number that a container has reached. */
async function countOf(ct: Containers, id: string): Promise<number> {
  return Number((await ct.exec(id, ['cat', '/count'])).stdout)
}

async function untilCounted(ct: Containers, id: string): Promise<void> {
  const from = await countOf(ct, id)
  await until('the container to count on', async () => (await countOf(ct, id)) > from)
}

/** Saves a container and its files as an image, and removes it. Its client sees the end of it. */
async function save(ct: Containers, id: string, client: Command): Promise<string> {
  const image = `test.local/saved-${id}:1`
  await ct.ok('c', 'checkpoint', '--rw', '--task', id, image)
  await ct.ok('task', 'kill', '-s', 'KILL', id)
  await client.finished
  return image
}

describe('a checkpoint', needs('root', 'containerd', 'busybox', 'criu', 'our shim'), () => {
  test('is restored by another shim, and the container counts on', async ({ ct }) => {
    const id = ct.id()
    const first = ct.startRun([], ['sh', '-c', COUNT], { id })
    await untilPrinted(first)
    const image = await save(ct, id, first)
    const last = Math.max(...numbers(first))
    // without a terminal the client ends when the container runs
    await ct.ok('c', 'restore', '--rw', '--live', id, image)
    expect(await ct.task(id)).toMatchObject({ status: 'RUNNING' })
    expect(await countOf(ct, id)).toBeGreaterThan(1)
    expect(await countOf(ct, id)).toBeLessThan(last + 200)
    await untilCounted(ct, id)
    await ct.ok('task', 'pause', id)
    await ct.ok('task', 'resume', id)
    await ct.ok('task', 'kill', '-s', 'KILL', id)
    await ct.untilStatus(id, 'STOPPED')
    await ct.ok('task', 'rm', id)
    await ct.ok('c', 'rm', id)
    await ct.ok('image', 'rm', image)
  })

  test('leaves the container running, and nothing in its bundle', async ({ ct }) => {
    const id = ct.id()
    const client = ct.startRun([], ['sh', '-c', COUNT], { id })
    await untilPrinted(client)
    const image = `test.local/saved-${id}:1`
    await ct.ok('c', 'checkpoint', '--task', id, image)
    await untilPrinted(client)
    const all = numbers(client)
    expect(all).toEqual(all.map((_, index) => index + 1))
    expect(readdirSync(ct.bundle(id)).filter((name) => name.includes('criu'))).toEqual([])
    await ct.ok('task', 'kill', '-s', 'KILL', id)
    await client.finished
    await ct.ok('image', 'rm', image)
  })
})
