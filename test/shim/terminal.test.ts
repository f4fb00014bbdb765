/** Terminals: all of their output, at their pace, for as long as their process lives. */
import { createHash } from 'node:crypto'
import { describe } from 'vitest'
import { fillFifo, makeFifos, reader, untilBlocked, untilIdle, writer } from '../support/client-streams.ts'
import { expect, test } from '../support/fake.ts'
import { gates, openGate, untilAtGate } from '../support/fake-gates.ts'
import { needs } from '../support/needs.ts'
import { expectedSha256 } from '../support/stream.ts'

const MIB = 1024 * 1024

describe('a terminal', needs('root', 'busybox'), () => {
  test('a process whose terminal nobody reads goes on', async ({ shim }) => {
    const task = shim.task(['payload', 'bytes', String(16 * MIB), 'text'])
    await task.create({ terminal: true })
    await task.start()
    expect(await task.wait()).toMatchObject({ exitStatus: 0 })
    await task.remove()
  })

  test('what a terminal still holds when its process has ended arrives, however late its client reads', async ({
    fake,
    shim,
  }) => {
    // more than one read takes out of a terminal, and less than it holds
    const size = 9 * 1024
    const program = ['payload', 'bytes', String(size), 'text']
    const task = shim.task(program)
    const clients = ['', 'e'].map((id) => ({ id, ...makeFifos(fake.folder) }))
    // no room for a single byte: all of it is in the terminal, and in the shim's hands
    const fillings = clients.map(({ stdout }) => fillFifo(stdout))
    const [init, exec] = clients.map(({ stdout }) => ({ stdout, terminal: true }))
    await task.create(init)
    await task.exec('e', program, exec)
    for (const { id } of clients.toReversed()) {
      await task.start(id)
      expect(await task.wait(id)).toMatchObject({ exitStatus: 0 })
    }
    for (const [i, { stdout }] of clients.entries()) {
      const client = reader(stdout)
      const filling = fillings[i]!
      filling.letGo()
      const output = (await client.finished).stdoutBytes.subarray(filling.bytes)
      expect(output.length).toBe(size + size / 64)
      expect(createHash('sha256').update(output).digest('hex')).toBe(expectedSha256(size, 'terminal'))
    }
    await task.remove()
  })

  test('what a terminal still holds arrives also when its process has left input unread, and meanwhile the shim sleeps', async ({
    fake,
    shim,
  }) => {
    const size = 9 * 1024
    const fifos = makeFifos(fake.folder)
    const filling = fillFifo(fifos.stdout)
    const task = await shim.started()
    await gates(task, 'ready', 'g')
    const script = `stty raw -echo; echo >/dev/shm/ready; read line </dev/shm/g; payload bytes ${size} text`
    await task.run('e', ['sh', '-c', script], { stdin: fifos.stdin, stdout: fifos.stdout, terminal: true })
    await untilAtGate(task, 'ready')
    const input = writer(fifos.stdin)
    input.write('x'.repeat(MIB))
    await untilBlocked(input.pid)
    await openGate(task, 'g')
    expect(await task.wait('e')).toMatchObject({ exitStatus: 0 })
    await untilIdle(shim.pid)
    const client = reader(fifos.stdout)
    filling.letGo()
    const output = (await client.finished).stdoutBytes.subarray(filling.bytes)
    expect(output.length).toBe(size)
    expect(createHash('sha256').update(output).digest('hex')).toBe(expectedSha256(size, 'text'))
    await task.remove()
  })

  test('a terminal stays while its process has let go of it, and is there when it comes back', async ({
    fake,
    shim,
  }) => {
    const fifos = makeFifos(fake.folder)
    const leave = 'exec </dev/null >/dev/null 2>&1'
    const back = 'read line </dev/console; echo "back with $line" >/dev/console'
    const task = shim.task(['sh', '-c', `echo here; ${leave}; read line </dev/shm/init; ${back}`])
    await task.create({ stdin: fifos.stdin, stdout: fifos.stdout, terminal: true })
    await gates(task, 'init', 'exec')
    const out = reader(fifos.stdout)
    await task.start()
    const detached = makeFifos(fake.folder)
    const alone = ['sh', '-c', `${leave}; read line </dev/shm/exec; exit 7`]
    await task.run('e', alone, { stdout: detached.stdout, terminal: true })
    await out.untilOutput('here')
    for (const gate of ['exec', 'init']) await openGate(task, gate)
    // nobody had the terminal of the exec open, and nothing hung up on it
    expect(await task.wait('e')).toMatchObject({ exitStatus: 7 })
    writer(fifos.stdin).write('input\n')
    expect(await task.wait()).toMatchObject({ exitStatus: 0 })
    expect((await out.finished).stdout).toBe('here\r\ninput\r\nback with input\r\n')
    await task.remove()
  })

  test('a terminal goes on when its input has been closed', async ({ fake, shim }) => {
    const fifos = makeFifos(fake.folder)
    const task = shim.task(['sh', '-c', 'read line; echo "got $line"; sleep 1000'])
    const out = reader(fifos.stdout)
    await task.create({ stdin: fifos.stdin, stdout: fifos.stdout, terminal: true })
    await task.start()
    const input = writer(fifos.stdin)
    input.write('typed\n')
    await out.untilOutput('got typed')
    await task.closeStdin()
    input.endInput()
    await input.finished
    await task.exec('e', ['true'])
    await task.start('e')
    await task.wait('e')
    expect(await task.state()).toMatchObject({ status: 2 })
    await task.remove()
    expect((await out.finished).stdout).toBe('typed\r\ngot typed\r\n')
  })

  test('can be resized from Create to the end, an exec’s from its start on', async ({ fake, shim }) => {
    const [one, two] = [makeFifos(fake.folder), makeFifos(fake.folder)]
    const [out, execOut] = [reader(one.stdout), reader(two.stdout)]
    const task = shim.task(['payload', 'winsize'])
    const { id, client } = task
    const resize = (execId: string, width: number, height: number) => client.resizePty({ id, execId, width, height })
    await task.create({ stdin: one.stdin, stdout: one.stdout, terminal: true })
    await resize('', 90, 30)
    await task.start()
    await out.untilOutput('size 30 90')
    await resize('', 91, 31)
    await out.untilOutput('size 31 91')

    await task.exec('e', ['payload', 'winsize'], { stdin: two.stdin, stdout: two.stdout, terminal: true })
    // there is no terminal yet, and clients ask all the same
    await resize('e', 92, 32)
    await task.start('e')
    await execOut.untilOutput('size 0 0')
    await resize('e', 93, 33)
    await execOut.untilOutput('size 33 93')
    await expect(resize('nobody', 80, 24)).rejects.toThrow('process does not exist nobody')

    for (const [fifos, execId] of [
      [two, 'e'],
      [one, ''],
    ] as const) {
      writer(fifos.stdin).write('x\n')
      expect(await task.wait(execId)).toMatchObject({ exitStatus: 0 })
    }
    await expect(resize('e', 80, 24)).rejects.toThrow('cannot resize a stopped container')
    await resize('', 80, 24)
    await task.remove()
    await expect(resize('', 80, 24)).rejects.toThrow('not created')
  })
})
