/**
 * Programs in a pod's containers and their streams, as probes and as `kubectl exec`, `attach`, `cp` and `port-forward`.
 * They go over the streaming server of containerd's CRI, or are one call that waits for the end.
 */
import { createHash } from 'node:crypto'
import { describe } from 'vitest'
import { until } from '../support/command.ts'
import { ContainerState, type Cri, NamespaceMode } from '../support/cri.ts'
import { Channel, type CriStream, PortChannel } from '../support/cri-stream.ts'
import { needs } from '../support/needs.ts'
import { expect, podTest } from '../support/pods.ts'

const SLEEP = ['sleep', '1000']
/** What the CRI keeps of a stream for the caller that waits for the end. */
const KEPT = 16 << 20
/** The code of gRPC for what took too long. */
const DEADLINE_EXCEEDED = 4

const test = podTest()
const NEEDS = needs('root', 'containerd', 'busybox', 'the built shim', 'CNI plugins', 'iproute2')

/** A container in a pod of its own. */
async function container(cri: Cri, command: readonly string[] = SLEEP, config = {}): Promise<string> {
  return await cri.runContainer(await cri.runPod(), command, { config })
}

describe('a program that the caller waits for', NEEDS, () => {
  test('gives its output and its status, whatever that is', async ({ cri }) => {
    const id = await container(cri)
    expect(await cri.execSync(id, ['payload', 'both', '3', 'x'])).toEqual({
      exitCode: 3,
      stdout: 'out:x\n',
      stderr: 'err:x\n',
    })
    expect((await cri.execSync(id, ['sh', '-c', 'kill -KILL $$'])).exitCode).toBe(137)
    await expect(cri.execSync(id, ['no-such-program'])).rejects.toMatchObject({
      details: expect.stringMatching(/no-such-program.*(executable file not found|no such file)/),
    })
  })

  test('is ended when it takes too long, alone', async ({ cri }) => {
    const id = await container(cri)
    await expect(cri.execSync(id, ['sleep', '4567'], 1)).rejects.toMatchObject({ code: DEADLINE_EXCEEDED })
    expect(await cri.sh(id, 'ps -o args')).not.toMatch(/^sleep 4567$/m)
    expect((await cri.status(id)).state).toBe(ContainerState.RUNNING)
  })

  test('may write more than the CRI keeps, and is not held up by it', async ({ cri }) => {
    const id = await container(cri)
    expect((await cri.execSync(id, ['payload', 'bytes', String(KEPT / 2), 'text'])).stdout.length).toBe(KEPT / 2)
    // what is kept does not always fit the answer
    await cri.sh(id, `payload bytes ${KEPT * 2} text; echo $? >/tmp/status`).catch(() => '')
    expect(await cri.sh(id, 'cat /tmp/status')).toBe('0')
  })

  test('may run beside many others, as probes do, again and again', async ({ cri }) => {
    const pod = await cri.runPod()
    const ids = await Promise.all([1, 2].map(() => cri.runContainer(pod, SLEEP)))
    for (let round = 0; round < 5; round++) {
      const probes = ids.flatMap((id) => [0, 1, 2, 3].map((n) => cri.execSync(id, ['payload', 'both', String(n), 'p'])))
      expect((await Promise.all(probes)).map(({ exitCode }) => exitCode)).toEqual([0, 1, 2, 3, 0, 1, 2, 3])
    }
    for (const id of ids) expect((await cri.sh(id, 'ls -d /proc/[0-9]*')).split('\n')).toHaveLength(2)
  })
})

describe('a program with its streams', NEEDS, () => {
  test('tells its output apart, and its status at the end', async ({ cri }) => {
    const id = await container(cri)
    using stream = await cri.exec(id, ['payload', 'both', '3', 'x'])
    expect(await stream.result()).toMatchObject({ status: 'Failure', exitCode: 3 })
    expect(stream).toMatchObject({ stdout: 'out:x\n', stderr: 'err:x\n' })
    using fine = await cri.exec(id, ['true'])
    expect(await fine.result()).toEqual({ status: 'Success', exitCode: undefined })
  })

  test('that does not exist is told as such', async ({ cri }) => {
    const id = await container(cri)
    using stream = await cri.exec(id, ['no-such-program'])
    const { status, message } = await stream.result()
    expect(status).not.toBe('Success')
    expect(`${message}`).toContain('no-such-program')
  })

  test('reads what is written to it, and its end', async ({ cri }) => {
    const id = await container(cri)
    using stream = await cri.exec(id, ['sh', '-c', 'read line; echo "got $line"; cat; echo end'], { stdin: true })
    stream.write(Channel.STDIN, 'one\n')
    await stream.untilOutput('got one\n')
    stream.write(Channel.STDIN, 'two\n')
    await stream.untilOutput('two\n')
    // before version 5 of the protocol, the end of input is only told by leaving
    if (stream.canEndInput) {
      stream.endInput()
      expect(await stream.result()).toMatchObject({ status: 'Success' })
      expect(stream.stdout).toBe('got one\ntwo\nend\n')
    } else {
      stream[Symbol.dispose]()
      await until('cat to be gone', async () => !/^cat$/m.test(await cri.sh(id, 'ps -o args')))
    }
  })

  test('carries bytes of any kind both ways, as a copy of files does', async ({ cri }) => {
    const id = await container(cri)
    const size = 5_000_003
    using out = await cri.exec(id, ['payload', 'bytes', String(size)])
    expect(await out.result()).toMatchObject({ status: 'Success' })
    const sent = out.bytes(Channel.STDOUT)
    expect(sent.length).toBe(size)
    const digest = createHash('sha256').update(sent).digest('hex')
    expect(await cri.sh(id, `payload bytes ${size} | sha256sum`)).toBe(`${digest}  -`)
    using back = await cri.exec(id, ['sh', '-c', `head -c ${size} | sha256sum`], { stdin: true })
    for (let at = 0; at < size; at += 32_000) back.write(Channel.STDIN, sent.subarray(at, at + 32_000))
    expect(await back.result()).toMatchObject({ status: 'Success' })
    expect(back.stdout).toBe(`${digest}  -\n`)
  })

  test('has a terminal of the client’s size where that is asked for', async ({ cri }) => {
    const id = await container(cri)
    using stream = await cri.exec(id, ['sh', '-c', 'tty; payload winsize; echo over'], { stdin: true, tty: true })
    await stream.untilOutput('/dev/pts/')
    stream.resize(33, 99)
    await stream.untilOutput('size 33 99')
    stream.write(Channel.STDIN, '\r')
    expect(await stream.result()).toMatchObject({ status: 'Success' })
    expect(stream.stdout).toContain('over\r\n')
  })

  test('is interrupted from its terminal', async ({ cri }) => {
    const id = await container(cri)
    using stream = await cri.exec(id, ['sh', '-c', 'echo ready; sleep 4567'], { stdin: true, tty: true })
    await stream.untilOutput('ready')
    stream.write(Channel.STDIN, '\x03')
    expect(await stream.result()).toMatchObject({ status: 'Failure', exitCode: 130 })
  })
})

describe('whoever attaches to a container', NEEDS, () => {
  test('sees what it prints from then on, and so do others and its log', async ({ cri }) => {
    const id = await container(cri, ['payload', 'trap'])
    await until('the trap to be set', () => cri.logOf(id).length > 0)
    using one = await cri.attach(id)
    using two = await cri.attach(id)
    await untilAttached(cri, id, 'kill -USR1 1', [one, two], 'signal 10\n')
    one[Symbol.dispose]()
    await one.closed
    await cri.sh(id, 'kill -USR2 1')
    await two.untilOutput('signal 12\n')
    await cri.stopContainer(id, 10)
    await two.closed
    expect(two.stdout.endsWith('signal 15\n')).toBe(true)
    expect(one.stdout).not.toContain('signal 12')
    expect(cri.logOf(id).at(-1)).toMatchObject({ stream: 'stdout', text: 'signal 15' })
  })

  test('writes to it, leaves it, and comes back', async ({ cri }) => {
    const id = await container(cri, ['cat'], { stdin: true })
    for (const text of ['first\n', 'second\n']) {
      using stream = await cri.attach(id, { stdin: true })
      stream.write(Channel.STDIN, text)
      await stream.untilOutput(text)
    }
    expect((await cri.status(id)).state).toBe(ContainerState.RUNNING)
    expect(cri.logOf(id).map(({ text }) => text)).toEqual(['first', 'second'])
  })

  test('ends its input by leaving where it reads but once', async ({ cri }) => {
    const id = await container(cri, ['cat'], { stdin: true, stdinOnce: true })
    using stream = await cri.attach(id, { stdin: true })
    stream.write(Channel.STDIN, 'only\n')
    await stream.untilOutput('only\n')
    stream[Symbol.dispose]()
    await until('cat to end', async () => (await cri.status(id)).state === ContainerState.EXITED)
    expect((await cri.status(id)).exitCode).toBe(0)
  })

  test('has its terminal', async ({ cri }) => {
    const id = await container(cri, ['sh'], { stdin: true, tty: true })
    using stream = await cri.attach(id, { stdin: true, tty: true })
    stream.write(Channel.STDIN, 'tty; echo $((20 + 3))\n')
    await stream.untilOutput(/\/dev\/(pts\/0|console)\r\n23\r\n/)
    stream.resize(33, 99)
    await until('the size', async () => {
      stream.write(Channel.STDIN, 'stty size\n')
      return stream.stdout.includes('33 99\r\n')
    })
    stream.write(Channel.STDIN, 'exit 4\n')
    await stream.closed
    await until('the end', async () => (await cri.status(id)).exitCode === 4)
  })
})

describe('a port of a pod', NEEDS, () => {
  test('is reached from outside through the daemon, also one that only the pod itself could', async ({ cri }) => {
    const pod = await cri.runPod({ namespaces: { network: NamespaceMode.POD } })
    const id = await cri.runContainer(pod, ['httpd', '-f', '-p', '127.0.0.1:8080', '-h', '/etc'])
    await until('the server to listen', async () => (await cri.sh(id, 'netstat -ltn')).includes('127.0.0.1:8080'))
    using stream = await cri.portForward(pod, 8080)
    stream.write(PortChannel.DATA, 'GET /passwd HTTP/1.0\r\n\r\n')
    await stream.untilOutput('worker', PortChannel.DATA)
    // each channel begins with the port, low byte first
    for (const channel of [PortChannel.DATA, PortChannel.ERROR]) {
      expect(stream.bytes(channel).subarray(0, 2)).toEqual(Buffer.of(8080 & 0xff, 8080 >> 8))
    }
    using nobody = await cri.portForward(pod, 8081)
    await nobody.untilOutput('refused', PortChannel.ERROR)
  })
})

/** Has a signal's line printed until all of them have seen it: an attach is answered before it reads. */
async function untilAttached(
  cri: Cri,
  id: string,
  script: string,
  streams: readonly CriStream[],
  text: string,
): Promise<void> {
  await until('all to see it', async () => {
    await cri.sh(id, script)
    return streams.every(({ stdout }) => stdout.includes(text))
  })
}
