/**
 * Calls that overlap because one of them is held at a gate (together.test.ts has those that only meet). What is seen
 * orders them, never time. Each test is a fault that a shim once had.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient } from 'ttrpc-ts'
import { TaskService, TaskStatus } from 'ttrpc-ts/containerd'
import { describe } from 'vitest'
import { cgroupsOf, isAlive } from '../support/census.ts'
import { type Command, startCommand, until } from '../support/command.ts'
import { expect, test } from '../support/fake.ts'
import type { FakeContainerd, FakeTask, Gate } from '../support/fake-containerd.ts'
import { needs } from '../support/needs.ts'
import { PROBE } from '../support/places.ts'
import type { SpecChange } from '../support/spec.ts'
import { codeOf, hostPids, NEVER } from './overlap.ts'

const MANY = 100

/** A hook of that kind waits at the gate. */
const hookAt =
  (kind: string, gate: Gate): SpecChange =>
  (spec) => {
    const [path = '', ...args] = gate.command
    spec.hooks = { [kind]: [{ path, args: [path, ...args] }] }
  }

/** An agent whose permission each execve of the container needs; stopped, it holds them up. */
async function execAgent(fake: FakeContainerd): Promise<AsyncDisposable & { change: SpecChange; command: Command }> {
  const socket = fake.path('agent')
  const command = startCommand(PROBE, ['agent', socket, '0'])
  await command.untilOutput('listening')
  const change: SpecChange = (spec) => {
    const syscalls = [{ names: ['execve'], action: 'SCMP_ACT_NOTIFY' }]
    spec.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', listenerPath: socket, syscalls }
  }
  return {
    change,
    command,
    async [Symbol.asyncDispose]() {
      command.kill('SIGKILL')
      await command.finished
    },
  }
}

describe('while a Create is held up,', needs('root', 'busybox'), () => {
  test('its container is not there yet, and every other goes through its whole life', async ({ fake, shim }) => {
    await using gate = fake.gate()
    const task = shim.task(['sleep', '1000'], hookAt('createRuntime', gate))
    const creating = task.create()
    await gate.reached()
    const { client, id } = task
    const early = await Promise.all([task.kill(), task.pids(), task.start()].map(codeOf))
    expect(early).toEqual([5, 5, 5])
    expect(await client.connect({ id })).toMatchObject({ shimPid: shim.pid, taskPid: 0 })
    expect(await codeOf(task.create())).toBe(6)
    await (await shim.started()).remove()
    await gate.pass()
    expect(await creating).toBe((await task.state()).pid)
    await task.remove()
  })

  test('State, Wait and CloseIO wait for it: input that has ended by then ends for the process', async ({
    fake,
    shim,
  }) => {
    await using gate = fake.gate()
    const task = shim.task(['cat'], hookAt('createRuntime', gate))
    const stdin = fake.path('stdin')
    const { client, id } = task
    await startCommand('mkfifo', [stdin]).finished
    const creating = task.create({ stdin })
    // the reader is there before the answer is
    const input = await startCommand('sh', ['-c', `echo words >${stdin}`]).finished
    expect(input.code).toBe(0)
    await gate.reached()
    const ended = task.wait()
    const asked = Promise.all([task.state(), client.closeIO({ id, execId: '', stdin: true })])
    await gate.pass()
    const pid = await creating
    expect((await asked)[0]).toMatchObject({ pid, status: TaskStatus.CREATED })
    await task.start()
    expect(await ended).toMatchObject({ exitStatus: 0 })
    await task.remove()
  })

  test('Delete takes it back', async ({ fake, shim }) => {
    await using gate = fake.gate()
    const task = shim.task(['sleep', '1000'], hookAt('createRuntime', gate))
    const creating = codeOf(task.create())
    await gate.reached()
    expect(await codeOf(task.delete())).toBe(5)
    expect(await creating).toBe(1)
    expect(await codeOf(task.state())).toBe(5)
    expect(task.story).toEqual([])
    const again = shim.task(['sleep', '1000'], undefined, 'v2', task.id)
    await again.create()
    await again.remove()
  })

  test('Shutdown takes it back, and the shim ends', async ({ fake, shim }) => {
    await using gate = fake.gate()
    const task = shim.task(['sleep', '1000'], hookAt('createRuntime', gate))
    const creating = codeOf(task.create())
    await gate.reached()
    await task.client.shutdown({ id: task.id })
    expect(await creating).toBe(1)
    await until('the shim to end', () => !shim.alive)
  })

  // that its caller may go, and what then happens: recovery.test.ts
})

describe('while a Start is held up,', needs('root', 'busybox'), () => {
  test('State, Wait, Kill, Pids, Stats and Connect answer, and the exit is told after the start', async ({
    fake,
    shim,
  }) => {
    await using gate = fake.gate()
    const task = shim.task(['sleep', '1000'], hookAt('poststart', gate))
    const { client, id } = task
    const pid = await task.create()
    const waiting = task.wait()
    const starting = task.start()
    await gate.reached()
    expect(await task.state()).toMatchObject({ pid, status: TaskStatus.CREATED })
    expect(await task.pids()).toEqual([pid])
    expect(await client.connect({ id })).toMatchObject({ taskPid: pid })
    expect((await client.stats({ id })).stats).toBeDefined()
    await task.kill(9)
    await until('the init to die', () => !isAlive(pid))
    expect(task.story.filter((line) => line !== 'create')).toEqual([])
    await gate.pass()
    expect(await starting).toBe(pid)
    expect(await waiting).toMatchObject({ exitStatus: 137 })
    await task.remove()
    expect(task.story).toEqual(['create', 'start', 'exit 137', 'delete'])
  })

  test('a second one waits, and then finds the process running', async ({ fake, shim }) => {
    await using gate = fake.gate()
    const task = shim.task(['sleep', '1000'], hookAt('poststart', gate))
    await task.create()
    const answers = [codeOf(task.start()), codeOf(task.start())]
    await gate.reached()
    await gate.pass()
    expect(await Promise.all(answers)).toEqual([0, 2])
    await task.remove()
    expect(task.story).toEqual(['create', 'start', 'exit 137', 'delete'])
  })

  test('a Delete waits, and then finds the process running', async ({ fake, shim }) => {
    await using gate = fake.gate()
    const task = shim.task(['sleep', '1000'], hookAt('poststart', gate))
    await task.create()
    const starting = task.start()
    await gate.reached()
    const deleting = codeOf(task.delete())
    await gate.pass()
    await starting
    expect(await deleting).toBe(2)
    await task.remove()
  })

  test('and its hook then fails, the container is destroyed, and its exit and deletion follow', async ({
    fake,
    shim,
  }) => {
    await using gate = fake.gate()
    const notes = fake.path('notes')
    const task = shim.task(['sleep', '1000'], (spec) => {
      const [path = '', ...args] = gate.command
      const [script = ''] = args.slice(-1)
      const failing = `${script}; echo why it failed >&2; exit 4`
      spec.hooks = {
        poststart: [{ path, args: [path, ...args.slice(0, -1), failing] }],
        poststop: [{ path: '/bin/sh', args: ['sh', '-c', `echo poststop >>${notes}`] }],
      }
    })
    const pid = await task.create()
    const waiting = task.wait()
    const failure = task.start().then(
      () => '',
      (error: unknown) => String(error),
    )
    await gate.reached()
    await gate.pass()
    expect(await failure).toContain('error running poststart hook #0: exit status 4, stdout: , stderr: why it failed')
    expect(readFileSync(notes, 'utf8')).toBe('poststop\n')
    const cgroups = cgroupsOf(fake.namespace).filter((path) => path.endsWith(`/${task.id}`))
    expect({ alive: isAlive(pid), cgroups }).toEqual({ alive: false, cgroups: [] })
    expect(await task.state()).toMatchObject({ pid, status: TaskStatus.STOPPED, exitStatus: 137 })
    expect(await waiting).toMatchObject({ exitStatus: 137 })
    expect(await task.pids()).toEqual([])
    expect(await task.delete()).toMatchObject({ pid, exitStatus: 137 })
    expect(readFileSync(notes, 'utf8')).toBe('poststop\n')
    await until('the delete event', () => task.story.includes('delete'))
    expect(task.story).toEqual(['create', 'exit 137', 'delete'])
  })

  test('of an exec, everything else answers', async ({ fake, shim }) => {
    await using agent = await execAgent(fake)
    const task = await shim.started(['sleep', '1000'], agent.change)
    const { pid } = await task.state()
    await task.exec('e1', ['true'])
    agent.command.kill('SIGSTOP')
    const starting = task.start('e1')
    await until('the exec to join', async () => (await task.pids()).length === 2)
    expect(await task.state('e1')).toMatchObject({ pid: 0, status: TaskStatus.CREATED })
    expect(await task.state()).toMatchObject({ pid, status: TaskStatus.RUNNING })
    expect(await codeOf(task.kill(9, 'e1'))).toBe(9)
    expect(await codeOf(task.exec('e2', ['true']))).toBe(0)
    expect(await codeOf(task.exec('e1', ['true']))).toBe(6)
    agent.command.kill('SIGCONT')
    await starting
    expect(await task.wait('e1')).toMatchObject({ exitStatus: 0 })
    await task.remove()
  })

  test('of an exec, the death of the init ends it, and the exits come in order', async ({ fake, shim }) => {
    await using agent = await execAgent(fake)
    const task = await shim.started(['sleep', '1000'], agent.change)
    await task.exec('e1', ['sleep', '1000'])
    agent.command.kill('SIGSTOP')
    const starting = codeOf(task.start('e1'))
    await until('the exec to join', async () => (await task.pids()).length === 2)
    await task.kill(9)
    const started = await starting
    expect([0, 9]).toContain(started)
    expect(await task.wait('e1')).toMatchObject(started === 0 ? { exitStatus: 137 } : { exitedAt: NEVER })
    await task.remove()
    const exec = started === 0 ? ['exec-started e1', 'exit e1 137'] : []
    expect(task.story).toEqual(['create', 'start', 'exec-added e1', ...exec, 'exit 137', 'delete'])
  })
})

describe('an exit', needs('root', 'busybox'), () => {
  test('that is reaped before Start has returned is told after the start', async ({ fake, shim }) => {
    await using gate = fake.gate()
    const task = shim.task(['payload', 'exit', '3'], hookAt('poststart', gate))
    const pid = await task.create()
    const waiting = task.wait()
    const starting = task.start()
    await gate.reached()
    await until('the init to be reaped', () => !isAlive(pid))
    expect(task.story.filter((line) => line !== 'create')).toEqual([])
    await gate.pass()
    expect(await starting).toBe(pid)
    expect(await waiting).toMatchObject({ exitStatus: 3 })
    await task.remove()
    expect(task.story).toEqual(['create', 'start', 'exit 3', 'delete'])
  })

  test('of a hundred execs at once: each has one, after its start and with its own status', async ({ shim }) => {
    const task = await shim.started()
    const ids = Array.from({ length: MANY }, (_, i) => `e${i}`)
    const waits = await Promise.all(
      ids.map(async (id, i) => {
        await task.exec(id, ['payload', 'exit', String(i)])
        const waiting = task.wait(id)
        await task.start(id)
        return (await waiting).exitStatus
      }),
    )
    expect(waits).toEqual(ids.map((_, i) => i))
    await task.remove()
    for (const [i, id] of ids.entries()) {
      const own = task.story.filter((line) => line.split(' ')[1] === id)
      expect(own).toEqual([`exec-added ${id}`, `exec-started ${id}`, `exit ${id} ${i}`])
    }
    expect(task.story.slice(-2)).toEqual(['exit 137', 'delete'])
  })

  test.for([
    ['with a pid namespace', undefined],
    ["in the host's pid namespace", hostPids],
  ] as const)('of the init %s comes after those of all its execs', async ([, change], { shim }) => {
    const task = await shim.started(['sleep', '1000'], change)
    for (let i = 0; i < 10; i++) await task.run(`e${i}`, ['sleep', '1000'])
    const waits = Promise.all(Array.from({ length: 10 }, (_, i) => task.wait(`e${i}`)))
    await task.kill(9)
    expect(await task.wait()).toMatchObject({ exitStatus: 137 })
    expect((await waits).map(({ exitStatus }) => exitStatus)).toEqual(Array(10).fill(137))
    await task.remove()
    const exits = task.story.filter((line) => line.startsWith('exit'))
    expect(exits).toHaveLength(11)
    expect(exits.at(-1)).toBe('exit 137')
  })

  test('is told to a hundred who wait, before and after, in the same words', async ({ shim }) => {
    const task = await shim.started()
    const before = Array.from({ length: MANY }, () => task.wait())
    await task.kill(9)
    const answers = await Promise.all([...before, ...Array.from({ length: MANY }, () => task.wait())])
    expect(answers).toEqual(Array(2 * MANY).fill(answers[0]))
    const { exitStatus, exitedAt } = await task.state()
    expect(answers[0]).toEqual({ exitStatus, exitedAt })
    await task.remove()
  })

  test('is told by Wait also when another connection that waited has gone', async ({ shim }) => {
    const task = await shim.started()
    const connection = shim.connection()
    const client = createClient(TaskService, connection)
    const lost = codeOf(client.wait({ id: task.id }))
    const waiting = task.wait()
    await client.state({ id: task.id })
    connection.close()
    expect(await lost).toBe(14)
    await task.kill(9)
    expect(await waiting).toMatchObject({ exitStatus: 137 })
    await task.remove()
  })

  test('does not wait for output that a child of the process still holds', async ({ fake, shim }) => {
    const task = await shim.started()
    const stdout = join(fake.folder, `${task.id}-out`)
    await task.run('e1', ['sh', '-c', 'sleep 1000 & echo started'], { stdout: `file://${stdout}` })
    expect(await task.wait('e1')).toMatchObject({ exitStatus: 0 })
    await until('the exit event', () => task.story.at(-1) === 'exit e1 0')
    expect(await task.pids()).toHaveLength(2)
    await task.remove()
  })
})

describe('while a Delete waits for output,', needs('root', 'busybox'), () => {
  async function held(fake: FakeContainerd, task: FakeTask): Promise<{ holder: number }> {
    const { pid } = await task.state()
    await task.run('e1', ['sh', '-c', 'sleep 1000 & echo started'], { stdout: `file://${fake.folder}/${task.id}-out` })
    await task.wait('e1')
    const holder = (await task.pids()).find((each) => each !== pid)
    expect(holder).toBeDefined()
    return { holder: holder! }
  }

  test('State, Wait, Kill, Pids and Connect answer, a second Delete finds nothing left', async ({ fake, shim }) => {
    const task = await shim.started()
    const { holder } = await held(fake, task)
    const deletes = [task.delete('e1'), task.delete('e1')] as const
    const second = codeOf(deletes[1])
    expect(await task.state('e1')).toMatchObject({ status: TaskStatus.STOPPED })
    expect(await task.wait('e1')).toMatchObject({ exitStatus: 0 })
    expect(await codeOf(task.kill(9, 'e1'))).toBe(5)
    expect(await task.pids()).toContain(holder)
    expect(await task.run('e2', ['true'])).toBeGreaterThan(1)
    process.kill(holder, 'SIGKILL')
    expect(await deletes[0]).toMatchObject({ exitStatus: 0 })
    expect(await second).toBe(5)
    await task.remove()
  })

  test('its caller may go: it is completed', async ({ fake, shim }) => {
    const task = await shim.started()
    const { holder } = await held(fake, task)
    const connection = shim.connection()
    const client = createClient(TaskService, connection)
    const lost = codeOf(client.delete({ id: task.id, execId: 'e1' }))
    // what is sent later on one connection is answered when what came before has begun
    await client.state({ id: task.id })
    connection.close()
    expect(await lost).toBe(14)
    process.kill(holder, 'SIGKILL')
    await until('the exec to be gone', async () => (await codeOf(task.state('e1'))) === 5)
    await task.remove()
  })
})

describe('when the daemon', needs('root', 'busybox'), () => {
  test('is slow to take events, no call waits for it, and none is lost or overtaken', async ({ fake, shim }) => {
    const release = fake.sink.hold()
    const task = await shim.started()
    await task.run('e1', ['true'])
    await task.wait('e1')
    await task.kill()
    await task.wait()
    await task.delete()
    expect(task.story.length).toBeLessThan(2)
    release()
    await until('its last event', () => task.story.at(-1) === 'delete')
    expect(task.story).toEqual([
      'create',
      'start',
      'exec-added e1',
      'exec-started e1',
      'exit e1 0',
      'exit 137',
      'delete',
    ])
  })

  test('sends Shutdown while events wait, they are delivered before the shim ends', async ({ fake, shim }) => {
    const release = fake.sink.hold()
    const task = await shim.started(['true'])
    await task.wait()
    await task.delete()
    await task.client.shutdown({ id: task.id })
    expect(shim.alive).toBe(true)
    release()
    await until('the shim to end', () => !shim.alive)
    expect(task.story).toEqual(['create', 'start', 'exit 0', 'delete'])
  })
})
