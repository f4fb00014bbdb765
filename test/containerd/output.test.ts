/**
 * Byte-exact output through fifos and terminals, in amounts that no buffer holds.
 * ctr closes its streams at the exit, even if it has not read everything, with every runtime.
 * So a program here waits for the client to have all its bytes. (test/shim has clients that read to the end.)
 */
import { join } from 'node:path'
import { describe } from 'vitest'
import { untilBlocked } from '../support/client-streams.ts'
import { type Command, type Finished, until } from '../support/command.ts'
import { expect, seconds, test } from '../support/containerd.ts'
import { needs, SLOWNESS } from '../support/needs.ts'
import { expectedSha256 } from '../support/stream.ts'

const MIB = 1024 * 1024
const SIZE = 64 * MIB
const ROUNDS = SLOWNESS > 1 ? 3 : 100

/** A program that ends well when its input has ended, for which ctr needs an open stdin. */
const bytesAndWait = (size: number): string[] => ['sh', '-c', `payload bytes ${size} && ! read line`]

/** Counts what arrives of a program's output: resolves when it is that much. */
function arrival({ child: { stdout }, finished }: Command, size: number): Promise<unknown> {
  let arrived = 0
  const { promise, resolve } = Promise.withResolvers<void>()
  stdout!.on('data', (chunk: Buffer) => {
    arrived += chunk.length
    if (arrived >= size) resolve()
  })
  return Promise.race([promise, finished])
}

/** The end of a client that gets so much from `bytesAndWait`. */
async function endOf(run: Command, size: number): Promise<Finished> {
  await arrival(run, size)
  run.endInput()
  return run.finished
}

describe('output', needs('root', 'containerd', 'busybox'), () => {
  test(`64 MiB of stdout arrive unchanged, ${ROUNDS} runs in a row`, { timeout: seconds(300) }, async ({ ct }) => {
    const wanted = { code: 0, bytes: SIZE, sha256: expectedSha256(SIZE) }
    for (let round = 0; round < ROUNDS; round++) {
      const run = ct.startRun([], bytesAndWait(SIZE), { keepOutput: false, input: 'open' })
      expect(await endOf(run, SIZE)).toMatchObject(wanted)
    }
  })

  test('64 MiB of an exec arrive unchanged', { timeout: seconds(60) }, async ({ ct }) => {
    const id = await ct.detached()
    const exec = ct.daemon.startCtr(['task', 'exec', '--exec-id', 'big', id, ...bytesAndWait(SIZE)], {
      keepOutput: false,
      input: 'open',
    })
    expect(await endOf(exec, SIZE)).toMatchObject({ code: 0, bytes: SIZE, sha256: expectedSha256(SIZE) })
  })

  test('64 MiB through a terminal arrive with its line ends and nothing else changed', {
    timeout: seconds(120),
  }, async ({ ct }) => {
    const id = ct.id()
    const script = `payload bytes ${SIZE} text && exec sleep 1000`
    const run = ct.startOnTerminal(ct.runArgs(['--rm', '-t'], id, ['sh', '-c', script]), {
      keepOutput: false,
      input: 'open',
    })
    const bytes = SIZE + SIZE / 64
    await arrival(run, bytes)
    await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
    expect(await run.finished).toMatchObject({ code: 137, bytes, sha256: expectedSha256(SIZE, 'terminal') })
  })

  test('64 MiB of stdin arrive unchanged', { timeout: seconds(60) }, async ({ ct }) => {
    const run = ct.startRun([], ['sh', '-c', 'echo ready; sha256sum'], { input: 'open' })
    await run.untilOutput('ready')
    const chunk = Buffer.alloc(MIB, 'stdin of a container\n')
    for (let i = 0; i < 64; i++) {
      if (!run.child.stdin!.write(chunk)) await new Promise((resolve) => run.child.stdin!.once('drain', resolve))
    }
    run.endInput()
    const { createHash } = await import('node:crypto')
    const hash = createHash('sha256')
    for (let i = 0; i < 64; i++) hash.update(chunk)
    expect((await run.finished).stdout).toBe(`ready\n${hash.digest('hex')}  -\n`)
  })

  test('stdout and stderr do not mix when both are busy', async ({ ct }) => {
    const script = 'i=0; while [ $i -lt 2000 ]; do echo "out $i"; echo "err $i" >&2; i=$((i+1)); done; read line'
    const run = ct.startRun([], ['sh', '-c', script], { input: 'open' })
    await run.untilOutput('out 1999\n')
    await until('the other one', () => run.stderr.includes('err 1999\n'))
    run.endInput()
    const { stdout, stderr } = await run.finished
    const numbers = Array.from({ length: 2000 }, (_, i) => i)
    expect(stdout).toBe(numbers.map((i) => `out ${i}\n`).join(''))
    expect(stderr).toBe(numbers.map((i) => `err ${i}\n`).join(''))
  })

  test('a container that writes 1 GiB to a reader that stops is not killed and goes on when it returns', {
    timeout: seconds(180),
  }, async ({ ct }) => {
    const size = (SLOWNESS > 1 ? 64 : 1024) * MIB
    const id = ct.id()
    const options = { id, keepOutput: false, input: 'open', timeoutMs: seconds(180) } as const
    const run = ct.startRun([], bytesAndWait(size), options)
    let arrived = 0
    const all = endOf(run, size)
    run.child.stdout!.on('data', (chunk: Buffer) => (arrived += chunk.length))
    await until('the first MiB', () => arrived > MIB)
    run.kill('SIGSTOP')
    let seen = -1
    await until('the flow to stop', async () => {
      const same = seen === arrived
      seen = arrived
      await new Promise((resolve) => setTimeout(resolve, 500))
      return same && seen === arrived
    })
    expect(await ct.task(id)).toMatchObject({ status: 'RUNNING' })
    run.kill('SIGCONT')
    expect(await all).toMatchObject({ code: 0, bytes: size, sha256: expectedSha256(size) })
  })

  test('a reader that is gone for good does not kill the container', async ({ ct }) => {
    const id = ct.id()
    const run = ct.startRun(
      [],
      ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo line $i; [ $i -gt 200000 ] && sleep 1000; done'],
      { id, keepOutput: false },
    )
    await ct.untilStatus(id, 'RUNNING')
    run.kill('SIGKILL')
    await run.finished
    // the fifo is full: a writer that got SIGPIPE would be gone
    await untilBlocked((await ct.task(id))?.pid ?? -1)
    expect(await ct.task(id)).toMatchObject({ status: 'RUNNING' })
    expect(await ct.exec(id, ['payload', 'exit', '5'])).toMatchObject({ code: 5 })
  })

  test('a client that is killed and attaches again goes on with input and output, on a terminal too', async ({
    ct,
  }) => {
    const script = 'while read line; do echo "got $line"; done'
    for (const terminal of [false, true]) {
      const id = ct.id()
      const start = (args: readonly string[]) =>
        terminal ? ct.startOnTerminal(args, { input: 'open' }) : ct.daemon.startCtr(args, { input: 'open' })
      const flags = ['-d', ...(terminal ? ['-t'] : []), '--fifo-dir', join(ct.folder, `detached-${terminal}`)]
      const run = start(ct.runArgs(flags, id, ['sh', '-c', script]))
      expect(await run.finished).toMatchObject({ code: 0 })
      for (const text of ['one', 'two']) {
        const client = start(['task', 'attach', id])
        client.write(`${text}\n`)
        await client.untilOutput(`got ${text}`)
        client.kill('SIGKILL')
        await client.finished
      }
      const last = start(['task', 'attach', id])
      last.write('three\n')
      await last.untilOutput('got three')
      await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
      expect(await last.finished).toMatchObject({ code: 137 })
    }
  })

  test('/dev/stdout and /dev/stderr can be opened again', async ({ ct }) => {
    const result = await ct.run(
      [],
      ['sh', '-c', 'echo again >/dev/stdout; echo oops >/dev/stderr; echo fd >/proc/self/fd/1'],
    )
    expect(result).toMatchObject({ code: 0, stdout: 'again\nfd\n', stderr: 'oops\n' })
  })
})
