/** Looking at processes: who is found by the name of its input, and by whom. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { runProgram } from '../../runtime/container/program.ts'
import { groupLeadersReading, killGroup, processStat } from '../../runtime/sys/process.ts'
import { Reaper } from '../../runtime/sys/reaper.ts'
import { needs } from '../support/needs.ts'
import { ROOT } from '../support/places.ts'

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
    import { groupLeadersReading } from '${join(ROOT, 'runtime/sys/process.ts')}'
    console.log(groupLeadersReading('none'))`
  const enter = 'mount -t proc -o hidepid=1 proc /proc && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"'
  const command = [process.execPath, '--input-type=module', '-e', source]
  const { status, stdout, stderr } = spawnSync('unshare', ['-m', 'sh', '-c', enter, 'sh', ...command], {
    encoding: 'utf8',
  })
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: '[]\n', stderr: '' })
})
