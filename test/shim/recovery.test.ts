/**
 * `delete` of the shim's program in every situation: the shim lives, hangs or is gone, and the bundle is there or not.
 * The state is of another version or of another boot, or cannot be read.
 * Also a new start of a container that left something behind.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { createClient } from 'ttrpc-ts'
import { DeleteResponse, TaskService, TaskStatus } from 'ttrpc-ts/containerd'
import { afterAll, beforeAll, describe } from 'vitest'
import { cgroupsOf, isAlive, settledLeaks } from '../support/census.ts'
import { type Finished, startCommand, until } from '../support/command.ts'
import { expect, test } from '../support/fake.ts'
import type { FakeContainerd, FakeShim, FakeTask } from '../support/fake-containerd.ts'
import { buildFailing, StopFile } from '../support/kill-points.ts'
import { needs } from '../support/needs.ts'
import { BUSYBOX, FAILING_SHIM } from '../support/places.ts'
import type { SpecChange } from '../support/spec.ts'

const NEEDS = needs('root', 'busybox')
/** What is a long time for a shim of the test build. */
const LONG_TIME_MS = 500

/** A container that runs, in a shim of its own. */
async function started(
  fake: FakeContainerd,
  change?: SpecChange,
): Promise<{ shim: FakeShim; task: FakeTask; pid: number }> {
  const shim = await fake.shim()
  const task = shim.task(['sleep', '1000'], change, 'v2', shim.id)
  const pid = await task.create()
  await task.start()
  return { shim, task, pid }
}

async function kill(shim: FakeShim): Promise<void> {
  process.kill(shim.pid, 'SIGKILL')
  await until('the shim to end', () => !shim.alive)
  // its first thread may have ended before the others, which still hold the socket
  await until('nobody to listen', () => refuses(shim.socket))
}

function refuses(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.once('error', () => resolve(true)).once('connect', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}

/** Hooks of these kinds that note their name and the status that they were told. */
function noting(fake: FakeContainerd, ...kinds: string[]): SpecChange {
  return (spec) => {
    spec.hooks = Object.fromEntries(
      kinds.map((kind) => {
        const script = `echo "${kind} $(${BUSYBOX} sed 's/.*"status":"\\([a-z]*\\)".*/\\1/')" >>${notesPath(fake)}`
        return [kind, [{ path: BUSYBOX, args: ['sh', '-c', script] }]]
      }),
    )
  }
}

const notesPath = (fake: FakeContainerd): string => join(fake.folder, 'notes')

function takeNotes(fake: FakeContainerd): string[] {
  const path = notesPath(fake)
  if (!existsSync(path)) return []
  const text = readFileSync(path, 'utf8')
  rmSync(path)
  return text.trimEnd().split('\n')
}

/** What `delete` answered. */
function answerOf({ code, stdoutBytes, stderr }: Finished): { pid: number; exitStatus: number } {
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  return DeleteResponse.decode(stdoutBytes)
}

const stateFolder = (fake: FakeContainerd, id: string): string => join(fake.folder, 'ts', fake.namespace, id)

async function expectNothingLeft(fake: FakeContainerd, { id }: FakeShim): Promise<void> {
  expect(await settledLeaks(new Set(), () => fake.census([id]))).toEqual([])
}

/** What a container leaves on a disk that outlives a reboot: its state, and nothing else. */
async function reboot(fake: FakeContainerd, shim: FakeShim, task: FakeTask): Promise<void> {
  const folder = stateFolder(fake, shim.id)
  cpSync(folder, `${folder}-copy`, { recursive: true, filter: (path) => !path.endsWith('fifo') })
  await task.remove()
  await kill(shim)
  renameSync(`${folder}-copy`, folder)
  rewriteState(fake, shim.id, (state) => Object.assign(state, { boot_id: 'another-boot' }))
  rmSync(join(shim.bundle, 'shim-exit'))
  takeNotes(fake)
}

/** A shim for an id that had one before. */
function shimAgain(fake: FakeContainerd, { id, bundle }: FakeShim): Promise<FakeShim> {
  rmSync(join(bundle, 'log'))
  return fake.shim(id)
}

/** What may have become of a state file; salvage.test.ts of the command line has more. */
const DAMAGES: Readonly<Record<string, (path: string) => void>> = {
  'is empty': (path) => writeFileSync(path, ''),
  'is garbage': (path) => writeFileSync(path, 'garbage'),
  'is a gigabyte of zeros': (path) => truncateSync(path, 2 ** 30),
  'is missing': (path) => rmSync(path),
}

/** Changes the saved state of a container. */
function rewriteState(fake: FakeContainerd, id: string, change: (state: Record<string, unknown>) => void): void {
  const path = join(stateFolder(fake, id), 'state.json')
  const state: Record<string, unknown> = JSON.parse(readFileSync(path, 'utf8'))
  change(state)
  writeFileSync(path, JSON.stringify(state))
}

describe('delete behind a killed shim', NEEDS, () => {
  test('kills the container, answers 137 with its pid, and frees cgroup, state, mount and socket', async ({ fake }) => {
    const { shim, pid } = await started(fake)
    await kill(shim)
    expect(isAlive(pid)).toBe(true)
    expect(answerOf(await shim.delete())).toMatchObject({ exitStatus: 137 })
    expect(isAlive(pid)).toBe(false)
    await expectNothingLeft(fake, shim)
  })

  test('may be called twice, and at the same time', async ({ fake }) => {
    const { shim } = await started(fake)
    await kill(shim)
    for (const result of await Promise.all([shim.delete(), shim.delete()])) expect(result).toMatchObject({ code: 0 })
    expect(answerOf(await shim.delete())).toMatchObject({ exitStatus: 137 })
    await expectNothingLeft(fake, shim)
  })

  test('needs no bundle: the state says where it was', async ({ fake }) => {
    const { shim, pid } = await started(fake)
    await kill(shim)
    const away = join(fake.folder, 'away')
    renameSync(shim.bundle, away)
    const result = await startCommand(
      fake.program,
      ['-namespace', fake.namespace, '-address', fake.address, '-id', shim.id, '-bundle', shim.bundle, 'delete'],
      { cwd: '/', env: { CONTAINERD_SHIM_TS_ROOT: join(fake.folder, 'ts') } },
    ).finished
    renameSync(away, shim.bundle)
    expect(answerOf(result)).toMatchObject({ exitStatus: 137 })
    expect(isAlive(pid)).toBe(false)
  })

  test('needs no current folder and no -bundle either', async ({ fake }) => {
    const { shim, pid } = await started(fake)
    await kill(shim)
    const gone = join(fake.folder, 'gone')
    mkdirSync(gone)
    const script = `cd ${gone} && rmdir ${gone} && exec ${fake.program} -namespace ${fake.namespace} -address ${fake.address} -id ${shim.id} delete`
    const env = { CONTAINERD_SHIM_TS_ROOT: join(fake.folder, 'ts') }
    expect(answerOf(await startCommand('sh', ['-c', script], { env }).finished)).toMatchObject({ exitStatus: 137 })
    expect(isAlive(pid)).toBe(false)
  })

  test('runs the poststop hooks, once', async ({ fake }) => {
    const { shim } = await started(fake, noting(fake, 'createRuntime', 'poststop'))
    await kill(shim)
    await shim.delete()
    await shim.delete()
    expect(takeNotes(fake)).toEqual(['createRuntime creating', 'poststop stopped'])
  })

  test('tells how the container ended when the shim had seen it', async ({ fake }) => {
    const shim = await fake.shim()
    const task = shim.task(['sh', '-c', 'exit 7'], undefined, 'v2', shim.id)
    const pid = await task.create()
    await task.start()
    const { exitedAt } = await task.wait()
    await kill(shim)
    const answer = DeleteResponse.decode((await shim.delete()).stdoutBytes)
    // to the nanosecond
    expect(answer).toEqual({ pid, exitStatus: 7, exitedAt })
  })
})

describe('delete of a state', NEEDS, () => {
  test('of a later version kills what it names', async ({ fake }) => {
    const { shim, pid } = await started(fake, noting(fake, 'poststop'))
    await kill(shim)
    rewriteState(fake, shim.id, (state) =>
      Object.assign(state, { version: 99, news: ['of', { a: 'later' }, 'version'] }),
    )
    expect(answerOf(await shim.delete())).toMatchObject({ pid, exitStatus: 137 })
    expect(isAlive(pid)).toBe(false)
    expect(takeNotes(fake)).toEqual(['poststop stopped'])
  })

  test('without a spec, or that is torn, removes what it still names', async ({ fake }) => {
    for (const tear of [
      (folder: string) => rmSync(join(folder, 'config.json')),
      (folder: string) => writeFileSync(join(folder, 'config.json'), '{'),
    ]) {
      const { shim, pid } = await started(fake, noting(fake, 'poststop'))
      await kill(shim)
      tear(stateFolder(fake, shim.id))
      expect(answerOf(await shim.delete())).toMatchObject({ pid, exitStatus: 137 })
      expect(existsSync(stateFolder(fake, shim.id))).toBe(false)
      // the bundle knows the hooks too
      expect(takeNotes(fake)).toEqual(['poststop stopped'])
    }
  })

  for (const [how, damage] of Object.entries(DAMAGES)) {
    test(`that ${how} removes the container with all that is its own, by the launcher's delete`, async ({ fake }) => {
      const { shim, pid } = await started(fake, noting(fake, 'poststop'))
      await kill(shim)
      damage(join(stateFolder(fake, shim.id), 'state.json'))
      expect(answerOf(await shim.delete())).toMatchObject({ pid, exitStatus: 137 })
      expect(isAlive(pid)).toBe(false)
      expect(existsSync(stateFolder(fake, shim.id))).toBe(false)
      await expectNothingLeft(fake, shim)
      expect(takeNotes(fake)).toEqual(['poststop stopped'])
    })

    test(`that ${how} while the shim lives is no obstacle to Delete, nor to a Create behind a shim that was killed`, async ({
      fake,
    }) => {
      const first = await started(fake, noting(fake, 'poststop'))
      damage(join(stateFolder(fake, first.shim.id), 'state.json'))
      await first.task.remove()
      expect(existsSync(stateFolder(fake, first.shim.id))).toBe(false)
      expect(cgroupsOf(fake.namespace).filter((path) => path.endsWith(`/${first.shim.id}`))).toEqual([])
      const second = await started(fake, noting(fake, 'poststop'))
      await kill(second.shim)
      damage(join(stateFolder(fake, second.shim.id), 'state.json'))
      const again = await shimAgain(fake, second.shim)
      const task = again.task(['sleep', '1000'], undefined, 'v2', again.id)
      await task.create()
      expect(isAlive(second.pid)).toBe(false)
      await task.remove()
      expect(takeNotes(fake)).toEqual(['poststop stopped', 'poststop stopped'])
    })
  }

  test('that the loss of power left empty removes it', async ({ fake }) => {
    const { shim, task } = await started(fake)
    await reboot(fake, shim, task)
    writeFileSync(join(stateFolder(fake, shim.id), 'state.json'), '')
    expect((await shim.delete()).code).toBe(0)
    expect(existsSync(stateFolder(fake, shim.id))).toBe(false)
  })

  test('of an earlier boot signals nobody, even if the pid is somebody’s now', async ({ fake }) => {
    const { shim, task } = await started(fake, noting(fake, 'poststop'))
    const other = await started(fake)
    await reboot(fake, shim, task)
    rewriteState(fake, shim.id, (state) => {
      const path = join(stateFolder(fake, other.shim.id), 'state.json')
      const { init_process_pid, init_process_start, cgroup_paths } = JSON.parse(readFileSync(path, 'utf8'))
      Object.assign(state, { init_process_pid, init_process_start, cgroup_paths })
    })
    expect((await shim.delete()).code).toBe(0)
    expect(existsSync(stateFolder(fake, shim.id))).toBe(false)
    expect(isAlive(other.pid)).toBe(true)
    expect(await other.task.pids()).toEqual([other.pid])
    expect(takeNotes(fake)).toEqual(['poststop stopped'])
    await other.task.remove()
  })
})

describe('delete while the shim lives', NEEDS, () => {
  test('lets it end its container and itself, with hooks and events', async ({ fake }) => {
    const { shim, task, pid } = await started(fake, noting(fake, 'poststop'))
    expect(answerOf(await shim.delete())).toMatchObject({ pid, exitStatus: 137 })
    await until('the shim to leave', () => !shim.alive)
    expect(task.story).toEqual(['create', 'start', 'exit 137', 'delete'])
    expect(takeNotes(fake)).toEqual(['poststop stopped'])
    expect(existsSync(shim.socket)).toBe(false)
  })

  test('that has no container yet ends it', async ({ fake, shim }) => {
    expect(answerOf(await shim.delete())).toMatchObject({ pid: 0, exitStatus: 137 })
    await until('the shim to leave', () => !shim.alive)
    await expectNothingLeft(fake, shim)
  })

  test('but hangs kills it, and then the container', async ({ fake }) => {
    const { shim, pid } = await started(fake)
    process.kill(shim.pid, 'SIGSTOP')
    expect(answerOf(await shim.delete())).toMatchObject({ exitStatus: 137 })
    await until('the shim to be gone', () => !shim.alive)
    expect(isAlive(pid)).toBe(false)
    await expectNothingLeft(fake, shim)
  })

  test('leaves a shim alone that has other containers', async ({ fake }) => {
    const { shim, pid } = await started(fake)
    const second = shim.task(['sleep', '1000'])
    await second.create()
    await second.start()
    await shim.delete()
    expect(isAlive(pid)).toBe(false)
    expect(shim.alive).toBe(true)
    expect(await second.state()).toMatchObject({ status: TaskStatus.RUNNING })
    await second.remove()
  })
})

describe('a container that begins where one has left something', NEEDS, () => {
  test('of an earlier boot is created all the same', async ({ fake }) => {
    const { shim, task } = await started(fake)
    await reboot(fake, shim, task)
    rewriteState(fake, shim.id, (state) => Object.assign(state, { bundle: '/elsewhere' }))
    const again = await shimAgain(fake, shim)
    const next = again.task(['sleep', '1000'], undefined, 'v2', shim.id)
    await next.create()
    await next.start()
    await next.remove()
  })

  test('of the same bundle, alive or not, replaces it', async ({ fake }) => {
    const { shim, pid } = await started(fake)
    await kill(shim)
    const again = await shimAgain(fake, shim)
    const next = again.task(['sleep', '1000'], undefined, 'v2', shim.id)
    expect(await next.create()).not.toBe(pid)
    expect(isAlive(pid)).toBe(false)
    await next.remove()
  })

  test('of another bundle is refused: it is somebody else’s', async ({ fake }) => {
    const { shim, pid } = await started(fake)
    await kill(shim)
    rewriteState(fake, shim.id, (state) => Object.assign(state, { bundle: '/elsewhere' }))
    const again = await shimAgain(fake, shim)
    await expect(again.task(['true'], undefined, 'v2', shim.id).create()).rejects.toThrow('already exists')
    // nor does the delete that follows touch it
    expect((await again.delete()).code).toBe(0)
    expect(isAlive(pid)).toBe(true)
    rewriteState(fake, shim.id, (state) => Object.assign(state, { bundle: shim.bundle }))
  })

  test('and a failed try before it is deleted as it is, not as the try was', async ({ shim }) => {
    const task = shim.task(['/no/such/program'], undefined, 'v2', shim.id)
    await expect(task.create()).rejects.toThrow('no such file')
    shim.task(['sleep', '1000'], undefined, 'v2', shim.id)
    const pid = await task.create()
    await kill(shim)
    expect(answerOf(await shim.delete())).toMatchObject({ exitStatus: 137 })
    expect(isAlive(pid)).toBe(false)
  })
})

describe('a container whose creator has gone', NEEDS, () => {
  test('is not created: its hooks are undone, and the shim waits for the next', async ({ fake, shim }) => {
    await using gate = fake.gate()
    const task = shim.task(
      ['sleep', '1000'],
      (spec) => {
        noting(fake, 'poststop')(spec)
        Object.assign(spec.hooks ?? {}, { createRuntime: [{ path: BUSYBOX, args: gate.command }] })
      },
      'v2',
      shim.id,
    )
    const connection = shim.connection()
    const created = createClient(TaskService, connection).create({ id: task.id, bundle: task.bundle })
    const failed = expect(created).rejects.toThrow('closed')
    await gate.reached()
    connection.close()
    await failed
    await until('the create to be undone', () => !existsSync(stateFolder(fake, shim.id)))
    // the file is there before what is said in it
    await until('the hooks to have run', () => existsSync(notesPath(fake)) && statSync(notesPath(fake)).size > 0)
    expect(takeNotes(fake)).toEqual(['poststop stopped'])
    await expect(task.state()).rejects.toThrow('not found')
    shim.task(['sleep', '1000'], undefined, 'v2', shim.id)
    await task.create()
    await task.remove()
  })
})

describe('a socket', NEEDS, () => {
  test('that nobody listens on any more is replaced by the next start', async ({ fake }) => {
    const first = await fake.shim()
    await kill(first)
    expect(existsSync(first.socket)).toBe(true)
    const second = await shimAgain(fake, first)
    expect(second.socket).toBe(first.socket)
    expect(second.pid).not.toBe(first.pid)
  })

  test('is free for the next start once Shutdown was answered, and the one that leaves does not take it along', async ({
    fake,
    shim,
  }) => {
    const release = fake.sink.hold()
    const task = await shim.started(['true'])
    await task.wait()
    await task.delete()
    await task.client.shutdown({ id: task.id })
    expect(existsSync(shim.socket)).toBe(false)
    const second = await shimAgain(fake, shim)
    expect(second.pid).not.toBe(shim.pid)
    expect(shim.alive).toBe(true)
    release()
    await until('the first to end', () => !shim.alive)
    expect(existsSync(second.socket)).toBe(true)
  })

  test('of somebody else at the path of ours is no reason to kill him', async ({ shim }) => {
    await kill(shim)
    rmSync(shim.socket)
    const server = createServer((socket) => socket.resume())
    await new Promise<void>((resolve) => server.listen(shim.socket, resolve))
    await shim.delete()
    // it is this very process that listens there
    await new Promise((resolve) => server.close(resolve))
  })
})

describe('a shim that nobody knows', needs('root', 'busybox', 'gcc', 'make'), () => {
  const stop = new StopFile(LONG_TIME_MS)

  beforeAll(buildFailing, 120_000)
  afterAll(() => stop.remove())

  test('since its start was all that ever happened, leaves and takes its socket along', async ({ fake }) => {
    fake.program = FAILING_SHIM
    const shim = await fake.shim()
    await until('the shim to leave', () => !shim.alive)
    expect(existsSync(shim.socket)).toBe(false)
  })

  test.for(['launch:socket', 'launch:address', 'launch:spawned'])(
    'since its start was killed at %s, stands in nobody’s way, and leaves',
    async (place, { fake }) => {
      fake.program = FAILING_SHIM
      const id = fake.id()
      fake.bundle(id, ['sleep', '1000'])
      process.env['RUNTS_FAIL_AT'] = place
      const killed = await fake.launch(id, 'start')
      delete process.env['RUNTS_FAIL_AT']
      expect(killed).toMatchObject({ signal: 'SIGKILL', stdout: '', stderr: '' })
      const shim = await fake.shim(id)
      const task = shim.task(['sleep', '1000'], undefined, 'v2', id)
      await task.create()
      await task.start()
      await task.remove()
      await until('the shim to leave', () => !shim.alive)
      expect(existsSync(shim.socket)).toBe(false)
    },
  )

  test('since its bundle was removed, ends its container and leaves', async ({ fake }) => {
    fake.program = FAILING_SHIM
    const { shim, task, pid } = await started(fake, noting(fake, 'poststop'))
    const away = join(fake.folder, 'away')
    renameSync(shim.bundle, away)
    await until('the shim to leave', () => !shim.alive)
    renameSync(away, shim.bundle)
    expect(isAlive(pid)).toBe(false)
    expect(task.story).toEqual(['create', 'start', 'exit 137', 'delete'])
    expect(takeNotes(fake)).toEqual(['poststop stopped'])
  })

  test('since its create was interrupted, has its hooks undone by delete', async ({ fake }) => {
    fake.program = FAILING_SHIM
    const shim = await fake.shim()
    const task = shim.task(['sleep', '1000'], noting(fake, 'createRuntime', 'poststop'), 'v2', shim.id)
    stop.order('create:ready')
    const created = task.create().catch((error: Error) => error.message)
    await until('the shim to stop', () => /^State:\tT/m.test(readFileSync(`/proc/${shim.pid}/status`, 'utf8')))
    await kill(shim)
    expect(await created).toContain('closed')
    expect(answerOf(await shim.delete())).toMatchObject({ exitStatus: 137 })
    expect(takeNotes(fake)).toEqual(['createRuntime creating', 'poststop stopped'])
  })
})
