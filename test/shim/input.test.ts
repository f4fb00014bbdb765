/** Input of a process: every byte of it, at the program's pace, and its end when the client says so and not before. */
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { makeFifos, reader, untilBlocked, writer } from '../support/client-streams.ts'
import { expect, test } from '../support/fake.ts'
import type { FakeContainerd, FakeShim } from '../support/fake-containerd.ts'
import { needs } from '../support/needs.ts'

const MIB = 1024 * 1024
/**
 * What may lie between a writer and a program that does not read: a fifo, a pipe and a chunk in our hands, and the
 * write that is under way.
 */
const BETWEEN = 4 * 64 * 1024
const SIGCONT = 18
const SIGSTOP = 19

describe('input', needs('root', 'busybox'), () => {
  for (const kind of ['init', 'exec'] as const) {
    const begin = async (fake: FakeContainerd, shim: FakeShim, started: boolean) => {
      const fifos = makeFifos(fake.folder)
      const program = ['sh', '-c', 'echo begun; cat; echo end']
      const task = shim.task(kind === 'init' ? program : ['sleep', '1000'])
      const out = reader(fifos.stdout)
      const id = kind === 'init' ? '' : 'e'
      await task.create(kind === 'init' ? fifos : {})
      if (kind === 'exec') {
        await task.start()
        await task.exec('e', program, fifos)
      }
      if (started) await task.start(id)
      return { fifos, task, out, id }
    }

    test(`CloseIO before Start gives a program without input its end (${kind})`, async ({ fake, shim }) => {
      const { task, out, id } = await begin(fake, shim, false)
      await task.closeStdin(id)
      await task.closeStdin(id)
      await task.start(id)
      expect(await task.wait(id)).toMatchObject({ exitStatus: 0 })
      expect((await out.finished).stdout).toBe('begun\nend\n')
      await task.remove()
    })

    test(`CloseIO while the client still writes takes nothing away (${kind})`, async ({ fake, shim }) => {
      const { fifos, task, out, id } = await begin(fake, shim, true)
      const input = writer(fifos.stdin)
      input.write('before\n')
      await out.untilOutput('before')
      await task.closeStdin(id)
      input.write('after\n')
      await out.untilOutput('after')
      input.endInput()
      expect(await task.wait(id)).toMatchObject({ exitStatus: 0 })
      expect((await out.finished).stdout).toBe('begun\nbefore\nafter\nend\n')
      // a process that has ended takes a late CloseIO as well
      await task.closeStdin(id)
      await task.remove()
    })

    test(`clients that come and go are not the end of input, until CloseIO (${kind})`, async ({ fake, shim }) => {
      const { fifos, task, out, id } = await begin(fake, shim, true)
      for (const text of ['first', 'second']) {
        const input = writer(fifos.stdin)
        input.write(`${text}\n`)
        await out.untilOutput(text)
        input.endInput()
        await input.finished
      }
      await task.closeStdin(id)
      expect(await task.wait(id)).toMatchObject({ exitStatus: 0 })
      expect((await out.finished).stdout).toBe('begun\nfirst\nsecond\nend\n')
      await task.remove()
    })

    test(`a file as input arrives whole, and is none that the process could write to (${kind})`, async ({
      fake,
      shim,
    }) => {
      const fifos = makeFifos(fake.folder)
      const file = join(fake.folder, 'host.conf')
      const content = 'secret\n'.repeat(100_000)
      writeFileSync(file, content)
      const streams = { ...fifos, stdin: file }
      const program = ['sh', '-c', 'cat | wc -c; echo evil >/proc/self/fd/0; echo end']
      const task = shim.task(kind === 'init' ? program : ['sleep', '1000'])
      const out = reader(fifos.stdout)
      const id = kind === 'init' ? '' : 'e'
      await task.create(kind === 'init' ? streams : {})
      if (kind === 'exec') {
        await task.start()
        await task.exec('e', program, streams)
      }
      await task.start(id)
      expect(await task.wait(id)).toMatchObject({ exitStatus: 0 })
      expect((await out.finished).stdout).toBe(`${content.length}\nend\n`)
      expect(readFileSync(file, 'utf8')).toBe(content)
      await task.remove()
    })

    test(`a client that writes to a program which reads nothing learns of its end (${kind})`, async ({
      fake,
      shim,
    }) => {
      const fifos = makeFifos(fake.folder)
      const program = ['sh', '-c', 'echo begun; exec sleep 1000']
      const task = shim.task(kind === 'init' ? program : ['sleep', '1000'])
      const id = kind === 'init' ? '' : 'e'
      await task.create(kind === 'init' ? { stdin: fifos.stdin } : {})
      if (kind === 'exec') {
        await task.start()
        await task.exec('e', program, { stdin: fifos.stdin })
      }
      await task.start(id)
      const input = writer(fifos.stdin)
      input.write('x'.repeat(2 * MIB))
      await untilBlocked(input.pid)
      await task.kill(9, id)
      expect(await task.wait(id)).toMatchObject({ exitStatus: 137 })
      expect((await input.finished).signal).toBe('SIGPIPE')
      await task.remove()
    })
  }

  for (const kind of ['init', 'exec'] as const) {
    test(`a program that takes its input late gets all of it, and its client waits meanwhile (${kind})`, async ({
      fake,
      shim,
    }) => {
      const fifos = makeFifos(fake.folder)
      const out = reader(fifos.stdout)
      const task = shim.task(kind === 'init' ? ['sha256sum'] : ['sleep', '1000'])
      const id = kind === 'init' ? '' : 'e'
      await task.create(kind === 'init' ? fifos : {})
      if (kind === 'exec') {
        await task.start()
        await task.exec(id, ['sha256sum'], fifos)
      }
      await task.start(id)
      await task.kill(SIGSTOP, id)
      const text = 'input of a container\n'.repeat(MIB / 2)
      const input = writer(fifos.stdin)
      input.write(text)
      input.endInput()
      expect(await untilBlocked(input.pid)).toBeLessThanOrEqual(BETWEEN)
      await task.closeStdin(id)
      await task.kill(SIGCONT, id)
      expect(await task.wait(id)).toMatchObject({ exitStatus: 0 })
      expect((await out.finished).stdout).toBe(`${createHash('sha256').update(text).digest('hex')}  -\n`)
      await task.remove()
    })
  }

  test('CloseIO of what is not there is refused, and that of an exec that was never started is kept for its start', async ({
    shim,
  }) => {
    const task = shim.task(['sleep', '1000'])
    await task.create()
    await task.closeStdin()
    await expect(task.closeStdin('nobody')).rejects.toThrow('process does not exist nobody')
    await task.start()
    await task.exec('e', ['cat'])
    await task.closeStdin('e')
    await task.delete('e')
    await task.remove()
  })
})
