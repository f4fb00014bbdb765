/**
 * Descriptors of the shim: none is left behind, whatever a client's streams are and however their process's start
 * ends.
 */
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { describe } from 'vitest'
import { errnoOf } from '../../runtime/internal.ts'
import { errnoName } from '../../runtime/sys/errno.ts'
import { makeFifos, reader } from '../support/client-streams.ts'
import { until } from '../support/command.ts'
import { expect, test } from '../support/fake.ts'
import { logProgram } from '../support/log-program.ts'
import { needs } from '../support/needs.ts'

/** What a process has open, each as "NUMBER:FILE", without what it closes while we look. */
function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((name) => {
    try {
      return [`${name}:${readlinkSync(`/proc/${pid}/fd/${name}`)}`]
    } catch (error) {
      if (errnoName(errnoOf(error)) === 'ENOENT') return []
      throw error
    }
  })
}

describe('descriptors', needs('root', 'busybox'), () => {
  test('have a large table from the start: a process with threads waits for the kernel to enlarge one', ({ shim }) => {
    const status = readFileSync(`/proc/${shim.pid}/status`, 'latin1')
    expect(Number(/^FDSize:\s*(\d+)$/m.exec(status)?.[1])).toBeGreaterThanOrEqual(512)
  })

  test('execs with streams of every form leave no descriptors behind in the shim', async ({ fake, shim }) => {
    const task = await shim.started(['sleep', '1000'])
    const descriptors = () => openFiles(shim.pid)
    const round = async (name: string): Promise<void> => {
      const [fifos, tty] = [makeFifos(fake.folder), makeFifos(fake.folder)]
      const clients = [fifos.stdout, fifos.stderr, tty.stdout].map((path) => reader(path))
      const program = logProgram(fake.folder, 'echo ready >&5; exec cat <&3 >/dev/null')
      const forms: [string, Parameters<typeof task.exec>[2], string[]][] = [
        ['fifos', fifos, ['echo', 'x']],
        ['null', {}, ['echo', 'x']],
        ['terminal', { stdin: tty.stdin, stdout: tty.stdout, terminal: true }, ['echo', 'x']],
        ['file', { stdout: `file://${fake.folder}/log` }, ['echo', 'x']],
        ['program', { stdout: program.uri }, ['echo', 'x']],
        ['program on a terminal', { stdout: program.uri, terminal: true }, ['echo', 'x']],
        ['nothing to run', makeFifos(fake.folder), ['/no/such/program']],
        ['no folder', { stdout: '/no/such/folder/fifo' }, ['echo', 'x']],
      ]
      for (const [form, streams, args] of forms) {
        const id = `${name}-${form.replaceAll(' ', '-')}`
        await task.exec(id, args, streams)
        const started = await task.start(id).then(
          () => true,
          () => false,
        )
        expect(started, form).toBe(!form.startsWith('no'))
        if (started) await task.wait(id)
        await task.delete(id)
      }
      for (const client of clients) await client.finished
    }
    // what is opened once and kept
    await round('first')
    const before = descriptors()
    const rounds = ['a', 'b', 'c', 'd']
    for (const name of rounds) await round(name)
    // a form that leaves one leaves it each time; what the shim itself opens late for good is less
    await until(
      'the descriptors to be closed',
      () => descriptors().length < before.length + rounds.length,
      () => `${descriptors().join(' ')} and not ${before.join(' ')}`,
    )
    await task.remove()
  })

  for (const form of ['fifos', 'terminal', 'program', 'file'] as const) {
    test(
      `an exec for which too few are left is refused, wherever that shows, and leaves none behind (${form})`,
      needs('prlimit'),
      async ({ fake, shim }) => {
        const program = logProgram(fake.folder, 'echo ready >&5; exec cat <&3 >/dev/null')
        const limit = (count: number) => execFileSync('prlimit', [`--pid=${shim.pid}`, `--nofile=${count}:`])
        const task = await shim.started()
        const attempt = async (id: string, bound: number): Promise<string> => {
          const { stdin, stdout } = makeFifos(fake.folder)
          const streams = {
            fifos: { stdin, stdout },
            terminal: { stdin, stdout, terminal: true },
            program: { stdin, stdout: program.uri },
            file: { stdin, stdout: `file://${fake.folder}/log` },
          }[form]
          const client = reader(stdout)
          await task.exec(id, ['echo', 'said'], streams)
          limit(bound)
          const failure = await task.start(id).then(
            () => '',
            (error: Error) => error.message,
          )
          limit(1024)
          if (failure === '') expect(await task.wait(id)).toMatchObject({ exitStatus: 0 })
          await task.delete(id)
          if (failure === '' && streams.stdout === stdout) expect((await client.finished).stdout).toContain('said')
          client.kill('SIGKILL')
          await client.finished
          return failure
        }
        // what is opened once and kept
        expect(await attempt('first', 1024)).toBe('')
        const before = openFiles(shim.pid)
        let failures = 0
        for (let more = 0; ; more++) {
          const failure = await attempt(`e${more}`, before.length + more)
          await until(
            'the descriptors to be closed',
            () => openFiles(shim.pid).every((file) => before.includes(file) || file.includes('eventfd')),
            () => `${failure}: ${openFiles(shim.pid).join(' ')} and not ${before.join(' ')}`,
          )
          if (failure === '') break
          expect(failure).toContain('EMFILE')
          failures++
        }
        // the streams of the helper, and those of the process
        expect(failures).toBeGreaterThan(5)
        await task.remove()
      },
    )
  }
})
