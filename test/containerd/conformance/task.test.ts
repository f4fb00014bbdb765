/**
 * The conformance checklist, part three: the socket, the Task service, events, streams, recovery and measurements,
 * one test per line, as the daemon of each release and its own `ctr` see them. The depth of each line is tested in
 * the files beside this folder.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { Code, createClient, FrameDecoder, TtrpcClient, TtrpcError } from 'ttrpc-ts'
import { TaskService, TaskStatus, TaskV3Service } from 'ttrpc-ts/containerd'
import { describe } from 'vitest'
import { startBareShim } from '../../support/bare-shim.ts'
import { isAlive } from '../../support/census.ts'
import { until } from '../../support/command.ts'
import { type Containers, expect, test } from '../../support/containerd.ts'
import { needs } from '../../support/needs.ts'
import { type TestMapping, writeSpec } from '../../support/spec.ts'

const NEEDS = needs('root', 'containerd', 'busybox', 'the built shim', 'our shim')
const PROCESS = 'types.containerd.io/opencontainers/runtime-spec/1/Process'
const RESOURCES = 'types.containerd.io/opencontainers/runtime-spec/1/LinuxResources'
const json = (typeUrl: string, value: unknown) => ({ typeUrl, value: new TextEncoder().encode(JSON.stringify(value)) })

/** The code of the answer, or undefined when there was no error. */
async function codeOf(call: Promise<unknown>): Promise<number | undefined> {
  try {
    await call
    return undefined
  } catch (error) {
    if (error instanceof TtrpcError) return error.code
    throw error
  }
}

describe('the socket of a shim', NEEDS, () => {
  test('answers calls while others wait, and knows both names of the service and no others', async ({ ct }) => {
    const id = await ct.detached()
    using connection = new TtrpcClient({ path: ct.socket(id) })
    const [v2, v3] = [createClient(TaskService, connection), createClient(TaskV3Service, connection)]
    const waits = [v2.wait({ id }), v3.wait({ id })]
    for (const task of [v2, v3]) expect(await task.state({ id })).toMatchObject({ id, status: TaskStatus.RUNNING })
    const { state } = TaskService.methods
    expect(await codeOf(connection.call({ service: 'no.Such', method: state }, { id }))).toBe(Code.UNIMPLEMENTED)
    expect(
      await codeOf(connection.call({ service: TaskService.typeName, method: { ...state, name: 'Fly' } }, { id })),
    ).toBe(Code.UNIMPLEMENTED)
    // what `sandboxer = "shim"` would ask for
    expect(
      await codeOf(connection.call({ service: 'containerd.runtime.sandbox.v1.Sandbox', method: state }, { id })),
    ).toBe(Code.UNIMPLEMENTED)
    await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
    for (const { exitStatus } of await Promise.all(waits)) expect(exitStatus).toBe(137)
  })

  test('refuses a message of more than 4 MiB, and goes on with the same connection', async ({ ct }) => {
    const id = await ct.detached()
    const socket = connect(ct.socket(id))
    const decoder = new FrameDecoder()
    const streams: number[] = []
    socket.on('data', (chunk) => streams.push(...decoder.push(chunk).map(({ streamId }) => streamId)))
    for (const [stream, length] of [
      [1, 4 * 1024 * 1024 + 1],
      [3, 3],
    ] as const) {
      const header = Buffer.alloc(10)
      header.writeUInt32BE(length, 0)
      header.writeUInt32BE(stream, 4)
      header.writeUInt8(1, 8)
      socket.write(Buffer.concat([header, Buffer.alloc(length)]))
    }
    await until('answers to both', () => streams.length === 2)
    expect(streams.sort()).toEqual([1, 3])
    socket.destroy()
  })

  test('is found by the ctr of the release', async ({ ct }) => {
    const id = await ct.detached()
    const { stdout } = await ct.ok('shim', '--id', id, 'state')
    expect(JSON.parse(stdout)).toMatchObject({ id, pid: (await ct.task(id))!.pid })
  })
})

describe('the Task service', NEEDS, () => {
  test('has all calls, from Create to Shutdown', async ({ ct }) => {
    const { id, bundle, task, close, delete: remove, socket } = await startBareShim(ct, ['sleep', '1000'])
    const shim = ct.shimPid(id)
    const { pid } = await task.create({ id, bundle })
    expect(await task.connect({ id })).toMatchObject({ shimPid: shim, taskPid: pid })
    expect((await task.pids({ id })).processes.map((each) => each.pid)).toEqual([pid])
    expect(await task.start({ id })).toEqual({ pid })
    await task.exec({
      id,
      execId: 'e',
      spec: json(PROCESS, { args: ['sleep', '1000'], cwd: '/', user: { uid: 0, gid: 0 } }),
    })
    const exec = await task.start({ id, execId: 'e' })
    expect(await task.state({ id, execId: 'e' })).toMatchObject({ id: 'e', pid: exec.pid, status: TaskStatus.RUNNING })
    await task.resizePty({ id, execId: 'e', width: 80, height: 24 })
    await task.closeIO({ id, execId: 'e', stdin: true })
    await task.kill({ id, execId: 'e', signal: 9 })
    expect(await task.wait({ id, execId: 'e' })).toMatchObject({ exitStatus: 137 })
    expect(await task.delete({ id, execId: 'e' })).toMatchObject({ pid: exec.pid, exitStatus: 137 })
    await task.pause({ id })
    expect(await task.state({ id })).toMatchObject({ status: TaskStatus.PAUSED })
    await task.resume({ id })
    await task.update({ id, resources: json(RESOURCES, { pids: { limit: 77 } }) })
    expect((await task.stats({ id })).stats?.typeUrl).toMatch(/^io\.containerd\.cgroups\.v[12]\.Metrics$/)
    expect(await codeOf(task.checkpoint({ id, path: 'images' }))).toBe(Code.INVALID_ARGUMENT)
    await task.kill({ id, signal: 9, all: true })
    expect(await task.wait({ id })).toMatchObject({ exitStatus: 137 })
    expect(await task.delete({ id })).toMatchObject({ pid, exitStatus: 137 })
    await task.shutdown({ id })
    close()
    await until('the shim to end', () => !isAlive(shim))
    expect(existsSync(socket)).toBe(false)
    expect(await remove()).toMatchObject({ code: 0, stderr: '' })
  })

  test('answers with the codes that clients branch on', async ({ ct }) => {
    const id = await ct.detached()
    using connection = new TtrpcClient({ path: ct.socket(id) })
    const task = createClient(TaskService, connection)
    const spec = json(PROCESS, { args: ['true'], cwd: '/', user: { uid: 0, gid: 0 } })
    expect(await codeOf(task.state({ id: 'nobody' }))).toBe(Code.NOT_FOUND)
    expect(await codeOf(task.state({ id, execId: 'nobody' }))).toBe(Code.NOT_FOUND)
    expect(await codeOf(task.delete({ id }))).toBe(Code.UNKNOWN)
    expect(await codeOf(task.start({ id }))).toBe(Code.UNKNOWN)
    await task.exec({ id, execId: 'e', spec })
    expect(await codeOf(task.exec({ id, execId: 'e', spec }))).toBe(Code.ALREADY_EXISTS)
    expect(await codeOf(task.kill({ id, execId: 'e', signal: 9 }))).toBe(Code.FAILED_PRECONDITION)
    await task.delete({ id, execId: 'e' })
    await task.kill({ id, signal: 9 })
    await task.wait({ id })
    expect(await codeOf(task.kill({ id, signal: 9 }))).toBe(Code.NOT_FOUND)
    expect(await codeOf(task.kill({ id, signal: 9, all: true }))).toBe(undefined)
    expect((await task.pids({ id })).processes).toEqual([])
    expect(await task.connect({ id: 'nobody' })).toMatchObject({ taskPid: 0, shimPid: ct.shimPid(id) })
  })

  test('serves more than one container, as the shim of a pod is asked by 2.0.0 to 2.0.5', async ({ ct }) => {
    const { id, bundle, task, close, delete: remove } = await startBareShim(ct, ['sleep', '1000'])
    const second = { id: ct.id(), bundle: join(ct.folder, 'second') }
    mkdirSync(second.bundle)
    writeSpec(second.bundle, ['sleep', '1000'])
    const shim = ct.shimPid(id)
    for (const each of [{ id, bundle }, second]) {
      await task.create(each)
      await task.start({ id: each.id })
    }
    for (const each of [id, second.id]) {
      // not the last one yet: Shutdown is for the shim that has nothing left
      await task.shutdown({ id: each })
      expect(isAlive(shim)).toBe(true)
      await task.kill({ id: each, signal: 9 })
      await task.wait({ id: each })
      expect(await task.delete({ id: each })).toMatchObject({ exitStatus: 137 })
    }
    await task.shutdown({ id })
    close()
    await until('the shim to end', () => !isAlive(shim))
    expect(await remove()).toMatchObject({ code: 0, stderr: '' })
  })
})

describe('containers of one pod', NEEDS, () => {
  for (const [kind, mappings] of [
    ['', []],
    [' in a user namespace of their own', [{ containerID: 0, hostID: 100000, size: 65536 }]],
  ] as const) {
    test(`${kind === '' ? '' : `${kind.trim()} `}have a shim each, and share the namespaces of the first by path`, async ({
      ct,
    }) => {
      const pause = await inPod(ct, 'sandbox', mappings)
      const app = await inPod(ct, 'container', mappings, (await ct.task(pause))!.pid)
      expect(ct.shimPid(app)).not.toBe(ct.shimPid(pause))
      expect(ct.socket(app)).not.toBe(ct.socket(pause))
      const namespacesOf = async (id: string): Promise<string[]> => {
        const script = 'for ns in user net ipc uts pid mnt; do readlink /proc/self/ns/$ns; done; cat /proc/self/uid_map'
        return (await ct.exec(id, ['sh', '-c', script])).stdout.trim().split('\n')
      }
      const [first, second] = [await namespacesOf(pause), await namespacesOf(app)]
      expect(second.map((line, index) => line === first[index])).toEqual([true, true, true, true, false, false, true])
    })
  }

  test('a shim starts without a config.json, as for a sandbox of its own', async ({ ct }) => {
    const shim = await startBareShim(ct, ['true'], undefined, {
      before: (bundle) => rmSync(join(bundle, 'config.json')),
    })
    await shim.task.shutdown({ id: shim.id })
    shim.close()
    expect(await shim.delete()).toMatchObject({ code: 0, stderr: '' })
  })
})

/**
 * A running container with a pod's annotations; with a pid, in the user, network, ipc and uts namespaces of that
 * process.
 */
async function inPod(
  ct: Containers,
  role: 'sandbox' | 'container',
  mappings: readonly TestMapping[],
  pid?: number,
): Promise<string> {
  const id = ct.id()
  const group = `pod-${ct.daemon.namespace}`
  const args = ct.configArgs(['-d', '--null-io'], id, ['sleep', '1000'], (spec) => {
    spec.annotations = {
      'io.kubernetes.cri.container-type': role,
      'io.kubernetes.cri.sandbox-id': group,
      'io.containerd.runc.v2.group': group,
    }
    if (mappings.length > 0) {
      spec.linux.namespaces.push({ type: 'user' })
      // the containers of a pod that join its user namespace have its maps in their spec too
      spec.linux.uidMappings = [...mappings]
      spec.linux.gidMappings = [...mappings]
    }
    if (pid === undefined) return
    const files: Readonly<Record<string, string>> = { user: 'user', network: 'net', ipc: 'ipc', uts: 'uts' }
    spec.linux.namespaces = spec.linux.namespaces.map(({ type }) => {
      const file = files[type]
      return file === undefined ? { type } : { type, path: `/proc/${pid}/ns/${file}` }
    })
  })
  await ct.ok(...args)
  return id
}

describe('events', NEEDS, () => {
  test('come in order: the exit of an exec before that of the container, and delete last', async ({ ct }) => {
    const events = await ct.daemon.events()
    const id = await ct.detached()
    await ct.execDetached(id, 'e', ['sleep', '1000'])
    await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
    await ct.untilStatus(id, 'STOPPED')
    await ct.ok('task', 'rm', id)
    const seen = await events.until(id, '/tasks/delete')
    await events.stop()
    expect(seen.map(({ topic }) => topic.slice('/tasks/'.length))).toEqual([
      'create',
      'start',
      'exec-added',
      'exec-started',
      'exit',
      'exit',
      'delete',
    ])
    expect(seen.filter(({ topic }) => topic === '/tasks/exit').map(({ body }) => body['id'])).toEqual(['e', id])
  })

  test('tell of memory that ran out, before the exit that it caused', needs('memory controller'), async ({ ct }) => {
    const events = await ct.daemon.events()
    const id = await ct.detached(['--memory-limit', '16777216'], ['payload', 'eat', '67108864'])
    const topics = (await events.until(id, '/tasks/exit')).map(({ topic }) => topic)
    await events.stop()
    expect(topics).toContain('/tasks/oom')
    expect(topics.indexOf('/tasks/oom')).toBeLessThan(topics.indexOf('/tasks/exit'))
    await ct.untilStatus(id, 'STOPPED')
  })
})

describe('streams', NEEDS, () => {
  test('are fifos: input to its end, and both outputs', async ({ ct }) => {
    // ctr forgets the end of an input that ends before the task exists
    const run = ct.startRun([], ['sh', '-c', 'echo ready; cat; echo problem >&2'], { input: 'open' })
    await run.untilOutput('ready')
    run.write('some words\n')
    run.endInput()
    const { code, stdout, stderr } = await run.finished
    // newer releases of ctr warn of version 1 of cgroups first
    expect({ code, stdout, stderr }).toEqual({
      code: 0,
      stdout: 'ready\nsome words\n',
      stderr: expect.stringMatching(/(^|\n)problem\n$/),
    })
  })

  test('are a terminal', async ({ ct }) => {
    const args = ct.runArgs(['--rm', '-t'], ct.id(), ['sh', '-c', 'tty; echo on-it'])
    const { code, stdout } = await ct.startOnTerminal(args).finished
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: expect.stringMatching(/\/dev\/(pts\/\d|console)\r\non-it\r\n/),
    })
  })

  test('are a file', async ({ ct }) => {
    const log = join(ct.folder, 'log')
    const id = ct.id()
    await ct.ok(...ct.runArgs(['-d', '--log-uri', `file://${log}`], id, ['payload', 'both', '0', 'x']))
    await ct.untilStatus(id, 'STOPPED')
    // the end of the process does not wait for its output, but Delete does
    await ct.ok('task', 'rm', id)
    expect(readFileSync(log, 'utf8').trim().split('\n').sort()).toEqual(['err:x', 'out:x'])
  })

  test('are a log program', async ({ ct }) => {
    const program = join(ct.folder, 'log-program')
    writeFileSync(
      program,
      `#!/bin/sh\nprintf x >&5; exec 5>&-; echo "$1=$2" >${program}.out; exec cat <&3 >>${program}.out\n`,
      {
        mode: 0o755,
      },
    )
    const id = ct.id()
    const uri = `binary://${program}?key=word`
    await ct.ok(...ct.runArgs(['-d', '--log-uri', uri], id, ['payload', 'both', '0', 'x']))
    await ct.untilStatus(id, 'STOPPED')
    await ct.ok('task', 'rm', id)
    expect(readFileSync(`${program}.out`, 'utf8')).toBe('key=word\nout:x\n')
  })

  test('are nothing at all', async ({ ct }) => {
    const id = await ct.detached([], ['sh', '-c', 'readlink /proc/$$/fd/0 >/tmp/fds; exec sleep 1000'])
    const read = (): Promise<{ stdout: string }> => ct.exec(id, ['cat', '/tmp/fds'])
    await until('the streams to be known', async () => (await read()).stdout.startsWith('/dev/null\n'))
  })

  test('end although a grandchild holds them', async ({ ct }) => {
    const id = await ct.detached()
    expect(await ct.exec(id, ['payload', 'background', '1000'])).toMatchObject({ code: 0, stdout: 'left a child\n' })
  })
})

describe('a daemon that was killed and started again', NEEDS, () => {
  test('finds the shim, its processes and its events', async ({ ct }) => {
    const id = await ct.detached()
    const [before, shim] = [await ct.task(id), ct.shimPid(id)]
    await ct.daemon.kill('SIGKILL')
    await ct.daemon.start()
    expect(await ct.task(id)).toEqual(before)
    expect(ct.shimPid(id)).toBe(shim)
    const events = await ct.daemon.events()
    expect(await ct.exec(id, ['payload', 'both', '11', 'after'])).toMatchObject({ code: 11, stdout: 'out:after\n' })
    await events.until(id, '/tasks/exit')
    await ct.ok('task', 'rm', '-f', id)
    await events.until(id, '/tasks/delete')
    await events.stop()
  })
})

describe('metrics', NEEDS, () => {
  test('are understood by the ctr of the release', async ({ ct }) => {
    const id = await ct.detached()
    const { stdout } = await ct.ok('task', 'metrics', id)
    expect(stdout).toMatch(/memory\.usage(_in_bytes)?\s+\d+/)
    expect(stdout).toMatch(/pids\.current\s+1/)
  })
})
