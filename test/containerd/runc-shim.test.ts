/**
 * runts in runc's place below the shim of others: containerd's runc shim calls it with runc's command line, for every
 * call of a task.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { type Containers, expect, test } from '../support/containerd.ts'
import { needs } from '../support/needs.ts'
import { BIN, IMAGE } from '../support/places.ts'

const SLEEP = ['sleep', '1000']

/** `ctr run` with the runc shim, which then runs our command. */
function run(ct: Containers, flags: readonly string[], id: string, command: readonly string[]) {
  return ct.ctr(
    'run',
    ...[
      '--runtime',
      'io.containerd.runc.v2',
      '--runc-binary',
      join(BIN, 'runts'),
      '--runc-root',
      join(ct.folder, 'runts'),
    ],
    ...[...flags, IMAGE, id, ...command],
  )
}

describe('runts below the runc shim', needs('root', 'containerd', 'busybox', 'our shim', 'the runc shim'), () => {
  test('runs a container to its exit status, with its output', async ({ ct }) => {
    expect(await run(ct, ['--rm'], ct.id(), ['sh', '-c', 'echo out; echo err >&2; exit 7'])).toMatchObject({
      code: 7,
      stdout: 'out\n',
      stderr: expect.stringContaining('err\n'),
    })
  })

  test('execs, pauses, lists and kills, and hears of every exit', async ({ ct }) => {
    const id = ct.id()
    expect(await run(ct, ['-d', '--null-io', '--memory-limit', '67108864'], id, SLEEP)).toMatchObject({ code: 0 })
    // the shim is told of an exit by the kernel alone, also where the program was faster than the command that ran it
    for (const status of [0, 1, 2, 3, 4, 5, 6, 7]) {
      const program = ['sh', '-c', `echo hello; exit ${status}`]
      expect(await ct.exec(id, program)).toMatchObject({ code: status, stdout: 'hello\n' })
    }
    await ct.ok('task', 'pause', id)
    expect(await ct.task(id)).toMatchObject({ status: 'PAUSED' })
    await ct.ok('task', 'resume', id)
    const task = await ct.task(id)
    expect((await ct.ok('task', 'ps', id)).stdout.trim().split('\n').at(-1)).toMatch(new RegExp(`^${task?.pid}\\b`))
    expect(readFileSync(`/proc/${task?.pid}/cmdline`, 'utf8')).toBe('sleep\x001000\x00')
    await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
    await ct.untilStatus(id, 'STOPPED')
    await ct.ok('task', 'delete', id)
  })

  test('gives the client the reason of a failure, from the last line of its log', async ({ ct }) => {
    const failed = await run(ct, ['--rm'], ct.id(), ['/no/such/program'])
    expect(failed.code).toBe(1)
    expect(failed.stderr).toContain('exec: "/no/such/program": stat /no/such/program: no such file or directory')
    const id = ct.id()
    expect(await run(ct, ['-d', '--null-io'], id, SLEEP)).toMatchObject({ code: 0 })
    const { stderr } = await ct.exec(id, ['nosuch'])
    expect(stderr).toContain('exec: "nosuch": executable file not found in $PATH')
  })

  test('gives a terminal', async ({ ct }) => {
    const id = ct.id()
    const command = ct.startOnTerminal(
      [
        'run',
        ...['--rm', '-t', '--runtime', 'io.containerd.runc.v2', '--runc-binary', join(BIN, 'runts')],
        ...['--runc-root', join(ct.folder, 'runts'), IMAGE, id, 'sh', '-c', 'tty; stty size'],
      ],
      {},
    )
    const { stdout } = await command.finished
    expect(stdout).toContain('/dev/pts/0')
  })
})
