/** The streams of a process in every form that a client may ask for, and in every order of its calls. */
import { readlinkSync } from 'node:fs'
import { describe } from 'vitest'
import { makeFifos, reader, untilBlocked, writer } from '../support/client-streams.ts'
import { expect, test } from '../support/fake.ts'
import { processAny } from '../support/fake-containerd.ts'
import { gates, openGate } from '../support/fake-gates.ts'
import { needs } from '../support/needs.ts'
import { expectedSha256 } from '../support/stream.ts'

const MIB = 1024 * 1024
const SIZE = 16 * MIB
/**
 * What may lie between a writer and a reader who does not read: two pipes and a chunk in our hands, and the write
 * that is under way.
 */
const BETWEEN = 4 * 64 * 1024

const fd = (pid: number, number: number): string => readlinkSync(`/proc/${pid}/fd/${number}`)

describe('streams', needs('root', 'busybox'), () => {
  test('the init of a container writes to the client’s own fifos; an exec and an init in the host’s pid namespace have pipes', async ({
    fake,
    shim,
  }) => {
    const fifos = makeFifos(fake.folder)
    const task = shim.task(['sleep', '1000'])
    const pid = await task.create(fifos)
    await task.start()
    expect([1, 2].map((number) => fd(pid, number))).toEqual([fifos.stdout, fifos.stderr])
    expect(fd(pid, 0)).toMatch(/^pipe:/)
    const of = makeFifos(fake.folder)
    await task.exec('e', ['sleep', '1000'], of)
    const exec = await task.start('e')
    expect([0, 1, 2].map((number) => fd(exec, number).replace(/\d+/, ''))).toEqual(['pipe:[]', 'pipe:[]', 'pipe:[]'])
    await task.remove()

    const open = shim.task(['sleep', '1000'], (spec) => {
      spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'pid')
    })
    const outside = await open.create(makeFifos(fake.folder))
    await open.start()
    expect([1, 2].map((number) => fd(outside, number).replace(/\d+/, ''))).toEqual(['pipe:[]', 'pipe:[]'])
    await open.remove()
  })

  test('a container writes twice 64 KiB to a client that does not read yet, and the client loses none of it', async ({
    fake,
    shim,
  }) => {
    const bytes = 2 * 64 * 1024
    const fifos = makeFifos(fake.folder)
    const task = shim.task(['head', '-c', String(bytes), '/dev/zero'])
    await task.create(fifos)
    await task.start()
    expect(await task.wait()).toMatchObject({ exitStatus: 0 })
    expect((await reader(fifos.stdout).finished).stdout).toHaveLength(bytes)
    await task.remove()
  })

  test('what the client gave no stream for is /dev/null, each stream by itself', async ({ fake, shim }) => {
    const task = shim.task(['sleep', '1000'])
    const pid = await task.create()
    await task.start()
    expect([0, 1, 2].map((number) => fd(pid, number))).toEqual(['/dev/null', '/dev/null', '/dev/null'])
    const fifos = makeFifos(fake.folder)
    await task.exec('e', ['sh', '-c', 'cat; echo out; echo err >&2'], { stderr: fifos.stderr })
    const err = reader(fifos.stderr)
    await task.start('e')
    expect(await task.wait('e')).toMatchObject({ exitStatus: 0 })
    expect(await err.finished).toMatchObject({ stdout: 'err\n' })
    await task.remove()
  })

  test('a client that opens its end only after the exit gets everything, of an init, an exec and a terminal', async ({
    fake,
    shim,
  }) => {
    const [one, two, three] = [makeFifos(fake.folder), makeFifos(fake.folder), makeFifos(fake.folder)]
    const task = shim.task(['sh', '-c', 'echo init; read line'])
    await task.create({ stdin: one.stdin, stdout: one.stdout })
    await task.start()
    await task.exec('e', ['echo', 'exec'], { stdout: two.stdout })
    await task.exec('t', ['echo', 'terminal'], { stdout: three.stdout, terminal: true })
    for (const exec of ['e', 't']) {
      await task.start(exec)
      await task.wait(exec)
    }
    await task.closeStdin()
    expect(await task.wait()).toMatchObject({ exitStatus: 1 })
    for (const [fifos, text] of [
      [one, 'init\n'],
      [two, 'exec\n'],
      [three, 'terminal\r\n'],
    ] as const) {
      expect(await reader(fifos.stdout).finished).toMatchObject({ code: 0, stdout: text })
    }
    await task.remove()
  })

  test('a container that is deleted before it was started ends its client’s streams', async ({ fake, shim }) => {
    const fifos = makeFifos(fake.folder)
    const task = shim.task(['true'])
    const [out, err] = [reader(fifos.stdout), reader(fifos.stderr)]
    await task.create(fifos)
    await task.delete()
    expect(await out.finished).toMatchObject({ code: 0, bytes: 0 })
    expect(await err.finished).toMatchObject({ code: 0, bytes: 0 })
  })

  test('an exec that cannot be started ends its client’s streams, and so does a container that cannot be created', async ({
    fake,
    shim,
  }) => {
    const task = shim.task(['sleep', '1000'])
    await task.create()
    await task.start()
    const fifos = makeFifos(fake.folder)
    const [out, err] = [reader(fifos.stdout), reader(fifos.stderr)]
    await task.exec('e', ['/no/such/program'], fifos)
    await expect(task.start('e')).rejects.toThrow('/no/such/program')
    expect([(await out.finished).bytes, (await err.finished).bytes]).toEqual([0, 0])
    await task.delete('e')
    await task.remove()

    const broken = shim.task(['true'], (spec) => {
      spec.mounts.push({ destination: '/x', type: 'bind', source: '/no/such/source', options: ['bind'] })
    })
    const others = makeFifos(fake.folder)
    const [two, three] = [reader(others.stdout), reader(others.stderr)]
    await expect(broken.create(others)).rejects.toThrow('/no/such/source')
    expect([(await two.finished).bytes, (await three.finished).bytes]).toEqual([0, 0])
  })

  for (const kind of ['init', 'exec', 'terminal'] as const) {
    test(`a reader that stops stops the writer (${kind}), the shim keeps nothing, and nothing is lost when it goes on`, async ({
      fake,
      shim,
    }) => {
      const fifos = makeFifos(fake.folder)
      const program = ['payload', 'bytes', String(SIZE), ...(kind === 'terminal' ? ['text'] : [])]
      const task = shim.task(kind === 'init' ? program : ['sleep', '1000'])
      const out = reader(fifos.stdout, { keepOutput: false })
      out.kill('SIGSTOP')
      const streams = { stdout: fifos.stdout, terminal: kind === 'terminal' }
      let pid: number
      if (kind === 'init') {
        pid = await task.create(streams)
        await task.start()
      } else {
        await task.create()
        await task.start()
        await task.exec('e', program, streams)
        pid = await task.start('e')
      }
      expect(await untilBlocked(pid)).toBeLessThanOrEqual(BETWEEN)
      out.kill('SIGCONT')
      expect(await task.wait(kind === 'init' ? '' : 'e')).toMatchObject({ exitStatus: 0 })
      expect(await out.finished).toMatchObject(
        kind === 'terminal'
          ? { bytes: SIZE + SIZE / 64, sha256: expectedSha256(SIZE, 'terminal') }
          : { bytes: SIZE, sha256: expectedSha256(SIZE) },
      )
      await task.remove()
    })

    test(`a reader that leaves does not end the writer, and another one goes on where it stopped (${kind})`, async ({
      fake,
      shim,
    }) => {
      const fifos = makeFifos(fake.folder)
      const program = ['sh', '-c', 'echo one; read line; echo two; echo three; read line; echo four']
      const task = shim.task(kind === 'init' ? program : ['sleep', '1000'])
      const id = kind === 'init' ? '' : 'e'
      const streams = { stdin: fifos.stdin, stdout: fifos.stdout, terminal: kind === 'terminal' }
      await task.create(kind === 'init' ? streams : {})
      if (kind !== 'init') {
        await task.start()
        await task.exec('e', program, streams)
      }
      await task.start(id)
      const first = reader(fifos.stdout)
      await first.untilOutput('one')
      first.kill('SIGKILL')
      await first.finished
      const input = writer(fifos.stdin)
      input.write('\n')
      const second = reader(fifos.stdout)
      await second.untilOutput('three')
      input.write('\n')
      expect(await task.wait(id)).toMatchObject({ exitStatus: 0 })
      const { stdout } = await second.finished
      expect(
        stdout
          .replaceAll('\r', '')
          .split('\n')
          .filter((line) => line !== ''),
      ).toEqual(['two', 'three', 'four'])
      await task.remove()
    })
  }

  test('eight execs at a time each give their own client exactly their own bytes', async ({ fake, shim }) => {
    const task = shim.task(['sleep', '1000'])
    await task.create()
    await task.start()
    const results = await Promise.all(
      Array.from({ length: 8 }, async (_, i) => {
        const fifos = makeFifos(fake.folder)
        const size = (i + 1) * MIB
        const out = reader(fifos.stdout, { keepOutput: false })
        const err = reader(fifos.stderr)
        await task.exec(`e${i}`, ['sh', '-c', `payload bytes ${size}; echo ${i} >&2`], fifos)
        await task.start(`e${i}`)
        expect(await task.wait(`e${i}`)).toMatchObject({ exitStatus: 0 })
        await task.delete(`e${i}`)
        return { size, out: await out.finished, err: await err.finished }
      }),
    )
    for (const [i, { size, out, err }] of results.entries()) {
      expect(out).toMatchObject({ bytes: size, sha256: expectedSha256(size) })
      expect(err.stdout).toBe(`${i}\n`)
    }
    await task.remove()
  })

  test('a child that an exec leaves behind with its streams keeps nobody waiting: the exit is told at once, what it writes until Delete arrives, and Delete ends it', {
    timeout: 60_000,
  }, async ({ fake, shim }) => {
    const task = shim.task(['sleep', '1000'])
    await task.create()
    await task.start()
    const pipes = makeFifos(fake.folder)
    const tty = makeFifos(fake.folder)
    const script = 'trap "" HUP; (read line <$0; echo late; exec sleep 1000) & echo done'
    await gates(task, 'g1', 'g2')
    const [out, terminal] = [reader(pipes.stdout), reader(tty.stdout)]
    await task.exec('p', ['sh', '-c', script, '/dev/shm/g1'], { stdout: pipes.stdout, stderr: pipes.stderr })
    await task.exec('t', ['sh', '-c', script, '/dev/shm/g2'], { stdout: tty.stdout, terminal: true })
    await Promise.all(['p', 't'].map((id) => task.start(id)))
    for (const id of ['p', 't']) expect(await task.wait(id)).toMatchObject({ exitStatus: 0 })
    for (const gate of ['g1', 'g2']) await openGate(task, gate)
    await Promise.all([out.untilOutput('late'), terminal.untilOutput('late')])
    // a process of the container still has both: the time that Delete gives them passes, and no more
    await Promise.all(['p', 't'].map((id) => task.delete(id)))
    expect((await out.finished).stdout).toBe('done\nlate\n')
    expect((await terminal.finished).stdout).toBe('done\r\nlate\r\n')
    await task.remove()
  })

  test('a child that an init leaves behind ends with it, and so do its streams', async ({ fake, shim }) => {
    for (const ownPids of [true, false]) {
      const fifos = makeFifos(fake.folder)
      const task = shim.task(['sh', '-c', 'sleep 1000 & echo left'], (spec) => {
        if (!ownPids) spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'pid')
      })
      const out = reader(fifos.stdout)
      await task.create({ stdout: fifos.stdout })
      await task.start()
      expect(await task.wait()).toMatchObject({ exitStatus: 0 })
      expect((await out.finished).stdout).toBe('left\n')
      await task.remove()
    }
  })

  test('a user of the container may open its streams again, those of an exec too', async ({ fake, shim }) => {
    const user = { uid: 1000, gid: 1000 }
    // the second cat opens the input when it has ended
    const script = 'echo again >/dev/stdout; echo oops >/dev/stderr; cat /dev/stdin; cat /dev/stdin'
    const task = shim.task(['sh', '-c', script], (spec) => {
      spec.process.user = user
    })
    const [one, two] = [makeFifos(fake.folder), makeFifos(fake.folder)]
    const open = (fifos: typeof one) => {
      const input = writer(fifos.stdin)
      input.write('in\n')
      input.endInput()
      return [reader(fifos.stdout), reader(fifos.stderr)] as const
    }
    const [out, err] = open(one)
    await task.create(one)
    const [execOut, execErr] = open(two)
    await task.exec('e', ['sh', '-c', script], { ...two, spec: processAny(['sh', '-c', script], { user }) })
    for (const [id, output] of [
      ['e', execOut],
      ['', out],
    ] as const) {
      await task.start(id)
      // a client that had not opened its side by CloseIO would have none to write to any more
      await output.untilOutput('in')
      await task.closeStdin(id)
      expect(await task.wait(id)).toMatchObject({ exitStatus: 0 })
    }
    for (const command of [out, execOut]) expect((await command.finished).stdout).toBe('again\nin\n')
    for (const command of [err, execErr]) expect((await command.finished).stdout).toBe('oops\n')
    await task.remove()
  })
})
