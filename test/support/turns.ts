/**
 * How long each call of containerd holds a shim's event loop. The fake containerd makes a large container and calls
 * one after the other. The test build of the shim notes the longest turn of each call (runtime/turns.ts says what
 * counts).
 */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { defaultProfile } from '../unit/seccomp/profile.ts'
import { until } from './command.ts'
import { type FakeContainerd, processAny } from './fake-containerd.ts'
import type { SpecChange } from './spec.ts'

const SIGCONT = 18
/** The work of a call goes on for a moment after its answer: relays, reaping, garbage collection. */
const AFTERWARDS_MS = 20
const CROWD_BOUND_MS = 60_000

/** What the container is made of. */
export interface Crowd {
  readonly processes: number
  readonly mounts: number
  readonly change?: SpecChange
}

/** The longest turn of a call, and the place that the shim had passed last. */
export interface Turn {
  readonly heldMs: number
  readonly place: string
}

/** Plays the life of one such container. Answers the longest turn of each call, by name. */
export async function longestTurns(
  fake: FakeContainerd,
  { processes, mounts, change }: Crowd,
): Promise<Map<string, Turn>> {
  const file = fake.path('turns')
  writeFileSync(file, '')
  fake.env['RUNTS_TURNS'] = file
  const found = new Map<string, Turn>()
  const during = async (name: string, work: () => Promise<unknown>): Promise<void> => {
    await delay(AFTERWARDS_MS)
    truncateSync(file)
    await work()
    await delay(AFTERWARDS_MS)
    found.set(name, longest(readFileSync(file, 'utf8')))
  }
  const command = ['sh', '-c', `i=0; while [ $i -lt ${processes} ]; do sleep 100000 & i=$((i+1)); done; wait`]
  const crowd: SpecChange = (spec) => {
    change?.(spec)
    spec.root = { path: 'rootfs' }
    spec.linux.seccomp = defaultProfile()
    for (let i = 0; i < mounts; i++)
      spec.mounts.push({ destination: `/dev/shm/${i}`, type: 'tmpfs', source: 'tmpfs', options: ['size=4k'] })
  }
  const shim = await fake.shim(undefined, command, crowd)
  const task = shim.task(command, crowd, 'v2', shim.id)
  const { client, id } = task
  await during('Create', () =>
    task.create({ rootfs: [{ type: 'bind', source: fake.rootfs, options: ['rbind', 'rw'] }] }),
  )
  await during('Start', () => task.start())
  await until(
    'all processes',
    async () => (await task.pids()).length > processes,
    () => '',
    CROWD_BOUND_MS,
  )
  await during('State', () => task.state())
  await during('Pids', () => task.pids())
  await during('Stats', () => client.stats({ id }))
  await during('Exec', () => client.exec({ id, execId: 'e', spec: processAny(['true']) }))
  await during('Start of an exec, and its exit', async () => {
    await task.start('e')
    await task.wait('e')
  })
  await during('Delete of an exec', () => task.delete('e'))
  const resources = { typeUrl: '', value: Buffer.from('{"cpu":{"shares":512}}') }
  await during('Update', () => client.update({ id, resources }))
  await during('Pause', () => client.pause({ id }))
  await during('Resume', () => client.resume({ id }))
  await during('Kill of all, SIGCONT', () => task.kill(SIGCONT, '', true))
  await during('Kill of all, SIGKILL, and the exits', async () => {
    await task.kill(undefined, '', true)
    await task.wait()
  })
  await during('Delete', () => task.delete())
  return found
}

function longest(lines: string): Turn {
  let most: Turn = { heldMs: 0, place: '-' }
  for (const line of lines.split('\n').filter((each) => each !== '')) {
    const [held = '', place = ''] = line.split(' ')
    if (Number(held) > most.heldMs) most = { heldMs: Number(held), place }
  }
  return most
}

/** The best of several rounds for each call: other work of the machine can only make a turn longer. */
export function bestTurns(rounds: readonly ReadonlyMap<string, Turn>[]): Map<string, Turn> {
  const best = new Map<string, Turn>()
  for (const round of rounds) {
    for (const [call, turn] of round) {
      const before = best.get(call)
      if (before === undefined || turn.heldMs < before.heldMs) best.set(call, turn)
    }
  }
  return best
}

/** What differs between the containers that are measured. */
export const CROWD_CHANGES: Readonly<Record<string, SpecChange>> = {
  'with a pid namespace': () => undefined,
  "in the host's pid namespace": (spec) => {
    spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'pid')
  },
}
