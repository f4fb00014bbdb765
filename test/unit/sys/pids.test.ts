/** Looking at processes: who is found by the name of its input, and by whom; and which of a list get a signal. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { runProgram } from '../../../runtime/peers/program.ts'
import { syscallError } from '../../../runtime/sys/errno.ts'
import { groupLeadersReading, killGroup, processStat, signalListed } from '../../../runtime/sys/pids.ts'
import { Reaper } from '../../../runtime/sys/reaper.ts'
import { needs } from '../../support/needs.ts'
import { ROOT } from '../../support/places.ts'

/** A program that has the named input and runs until it is killed, and a child of it that has the input too. */
async function sleeper(inputName: string, onStart: (pid: number) => void): Promise<void> {
  using lease = Reaper.lease()
  const argv = ['sh', '-c', 'sleep 600 <&0 & sleep 600']
  const env = ['PATH=/bin:/usr/bin']
  const { reaper } = lease
  await runProgram({ reaper, path: '/bin/sh', argv, env, cwd: '/', input: '', inputName, outputBytes: 9, onStart })
}

test('a program is found by the name of its input, as the leader of its group', async () => {
  const name = `test-${process.pid}`
  let pid = 0
  const ended = sleeper(name, (started) => {
    pid = started
  })
  const startTime = processStat(pid)?.startTime ?? -1n
  expect(groupLeadersReading(name)).toEqual([{ pid, startTime }])
  expect(groupLeadersReading(`${name}0`)).toEqual([])
  expect(killGroup(pid, startTime)).toBe(true)
  await ended
  expect(groupLeadersReading(name)).toEqual([])
})

test('whoever may not look at the processes of others finds none', needs('root', 'setpriv'), () => {
  const source = `
    import { groupLeadersReading } from '${join(ROOT, 'runtime/sys/pids.ts')}'
    console.log(groupLeadersReading('none'))`
  const enter = 'mount -t proc -o hidepid=1 proc /proc && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"'
  const command = [process.execPath, '--input-type=module', '-e', source]
  const { status, stdout, stderr } = spawnSync('unshare', ['-m', 'sh', '-c', enter, 'sh', ...command], {
    encoding: 'utf8',
  })
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: '[]\n', stderr: '' })
})

describe('a signal to a list of processes', () => {
  const SIGTERM = 15
  const children: ChildProcess[] = []
  const sleepers = (count: number): ChildProcess[] => {
    const made = Array.from({ length: count }, () => spawn('sleep', ['600'], { stdio: 'ignore' }))
    children.push(...made)
    return made
  }
  const pidsOf = (list: readonly ChildProcess[]): number[] => list.map(({ pid }) => pid!)
  const ended = (list: readonly ChildProcess[]): Promise<unknown[]> =>
    Promise.all(list.map(async (child) => child.signalCode ?? (await once(child, 'exit'))[1]))
  const tooManyFiles = (): never => {
    throw syscallError('cannot open the list', { call: 'open', errno: 24 })
  }

  afterEach(async () => {
    const left = children.splice(0).filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null)
    for (const child of left) child.kill('SIGKILL')
    await ended(left)
  })

  test('reaches those who are still in it when their numbers are held', async () => {
    const [stays, leaves] = [sleepers(2), sleepers(2)]
    const lists = [[...pidsOf(stays), ...pidsOf(leaves)], pidsOf(stays)]
    expect(await signalListed(() => lists.shift() ?? [], SIGTERM)).toBe(4)
    expect(await ended(stays)).toEqual(['SIGTERM', 'SIGTERM'])
    // a SIGTERM would have come first
    for (const child of leaves) child.kill('SIGINT')
    expect(await ended(leaves)).toEqual(['SIGINT', 'SIGINT'])
  })

  test('passes over the numbers of those who have ended, and of threads', async () => {
    const gone = sleepers(1)
    gone[0]?.kill('SIGKILL')
    await ended(gone)
    const thread = readdirSync('/proc/self/task')
      .map(Number)
      .find((tid) => tid !== process.pid)
    const left = sleepers(1)
    const list = [...pidsOf(gone), thread!, ...pidsOf(left)]
    await signalListed(() => list, SIGTERM)
    expect(await ended(left)).toEqual(['SIGTERM'])
  })

  test('goes on with fewer at once where no more files can be opened', async () => {
    const all = sleepers(7)
    const answers = [pidsOf, tooManyFiles, pidsOf, tooManyFiles]
    await signalListed(() => (answers.shift() ?? pidsOf)(all), SIGTERM)
    expect(await ended(all)).toEqual(Array.from(all, () => 'SIGTERM'))
  })

  test('fails where not even one can be held, or nobody may be asked', async () => {
    const all = sleepers(3)
    const answers = [pidsOf]
    const signalled = signalListed(() => (answers.shift() ?? tooManyFiles)(all), SIGTERM)
    await expect(signalled).rejects.toMatchObject({ code: 'ResourceExhausted' })
    await expect(signalListed(tooManyFiles, SIGTERM)).rejects.toMatchObject({ code: 'ResourceExhausted' })
  })

  test('lets others have their turns while it goes through many', async () => {
    const many = Array.from({ length: 2000 }, () => process.pid)
    let turns = 0
    const signalled = signalListed(() => many, 0).then(() => -1)
    while ((await Promise.race([signalled, nextTurn()])) !== -1) turns++
    expect(turns).toBeGreaterThan(5)
  })
})
