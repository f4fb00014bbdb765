/**
 * The streams of a container across a checkpoint: their other ends are outside, so the restored processes get new ones.
 */
import { spawnSync } from 'node:child_process'
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { until } from '../support/command.ts'
import { FdReceiver } from '../support/console-socket.ts'
import { COUNT, Counter, contents } from '../support/counter.ts'
import { needs } from '../support/needs.ts'
import { OCI_RUNTIME } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'

const restore = (counter: Counter, ...more: string[]): string[] => [
  'restore',
  ...more,
  '--image-path',
  counter.images,
  '-b',
  counter.bundle,
  'c',
]

/** Runs a command to its end, whose standard output is a file. */
function withOutput(runts: Runts, output: number, ...args: string[]): void {
  const log = join(runts.folder, 'log')
  const command = ['--root', runts.root, '--log', log, ...args]
  const { status } = spawnSync(OCI_RUNTIME, command, { stdio: ['ignore', output, 'ignore'] })
  expect(status, contents(log)).toBe(0)
}

describe('the streams of a restored container', needs('root', 'busybox', 'criu'), () => {
  test('in the foreground are those of the command, which ends with its exit status', async ({ runts }) => {
    const script = 'trap "echo over; exit 7" TERM; echo up; while read line; do echo "got $line"; done; wait'
    const counter = new Counter(runts, undefined, script)
    const first = runts.start(['run', '-b', counter.bundle, 'c'], { input: 'open' })
    await first.untilOutput('up')
    first.write('one\n')
    await first.untilOutput('got one')
    await runts.ok('checkpoint', '--image-path', counter.images, 'c')
    expect(await first.finished).toMatchObject({ code: 137, stderr: '' })
    const second = runts.start(restore(counter), { input: 'open' })
    second.write('two\n')
    await second.untilOutput('got two')
    second.kill('SIGTERM')
    second.write('three\n')
    expect(await second.finished).toMatchObject({
      code: 7,
      stdout: expect.stringMatching(/^got two\n(got three\n)?over\n$/),
    })
    expect((await runts.ok('list', '-q')).stdout).toBe('')
  })

  test('that was killed gives the signal', async ({ runts }) => {
    const counter = new Counter(runts)
    const first = runts.start(['run', '-b', counter.bundle, 'c'])
    await counter.goesOn()
    await runts.ok('checkpoint', '--image-path', counter.images, 'c')
    await first.finished
    const second = runts.start(restore(counter))
    await counter.goesOn()
    await runts.ok('kill', 'c', 'KILL')
    expect(await second.finished).toMatchObject({ code: 137 })
  })

  test('may be a file of the host, which grows on', async ({ runts }) => {
    const counter = new Counter(runts)
    const path = join(runts.folder, 'output')
    const run = openSync(path, 'a')
    withOutput(runts, run, 'run', '-d', '-b', counter.bundle, 'c')
    await counter.goesOn()
    await runts.ok('checkpoint', '--image-path', counter.images, 'c')
    withOutput(runts, run, ...restore(counter, '-d'))
    closeSync(run)
    await counter.goesOn()
    await runts.ok('delete', '-f', 'c')
    const lines = contents(path).split('\n').slice(0, -1)
    expect(lines).toEqual(lines.map((_, index) => `line ${index + 1}`))
    expect(lines.length).toBeGreaterThanOrEqual(4)
  })

  test('may be a fifo of the host, which keeps what was not read', async ({ runts }) => {
    const counter = new Counter(runts)
    const path = join(runts.folder, 'fifo')
    expect(spawnSync('mkfifo', [path]).status).toBe(0)
    const reader = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
    withOutput(runts, reader, 'run', '-d', '-b', counter.bundle, 'c')
    await counter.goesOn()
    await runts.ok('checkpoint', '--image-path', counter.images, 'c')
    withOutput(runts, reader, ...restore(counter, '-d'))
    await counter.goesOn()
    await runts.ok('delete', '-f', 'c')
    const buffer = Buffer.alloc(65536)
    const numbers = buffer.toString('utf8', 0, readSync(reader, buffer)).match(/\d+/g)?.map(Number) ?? []
    closeSync(reader)
    expect(new Set(numbers).size).toBeGreaterThanOrEqual(4)
    expect(Math.max(...numbers)).toBe(new Set(numbers).size)
  })

  test('may be a terminal, whose master goes to the console socket again', async ({ runts }) => {
    const counter = new Counter(runts, (spec) => Object.assign(spec.process, { terminal: true }), `${COUNT}`)
    const socket = join(runts.folder, 's')
    using receiver = new FdReceiver(socket)
    runts.leave('run', '-d', '--console-socket', socket, '-b', counter.bundle, 'c')
    const first = receiver.take()
    await counter.goesOn()
    await runts.ok('checkpoint', '--image-path', counter.images, 'c')
    first.close()
    const last = counter.count
    runts.leave(...restore(counter, '-d', '--console-socket', socket))
    using master = receiver.take()
    const buffer = Buffer.alloc(4096)
    await until('a later line on the terminal', () =>
      new RegExp(`line ${last + 2}`).test(buffer.toString('utf8', 0, readSync(master.fd, buffer))),
    )
    writeSync(master.fd, '\x03')
    await runts.untilStatus('c', 'stopped')
  })

  test('on a terminal need a console socket where the command does not wait', async ({ runts }) => {
    const counter = new Counter(runts, (spec) => Object.assign(spec.process, { terminal: true }))
    expect(await runts.run(...restore(counter, '-d'))).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('cannot allocate tty if runts will detach without setting console socket'),
    })
  })
})
