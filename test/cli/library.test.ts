/**
 * The runtime as a library in a warm Node: one container from create to destroy, and everything that a process of it
 * can be given.
 */
import { closeSync, cpSync, existsSync, mkdirSync, openSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect } from 'vitest'
import { Container, type ExecOptions, RuntimeError } from '../../runtime/index.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { ioctl } from '../../runtime/sys/libc.ts'
import { pollReadable } from '../../runtime/sys/pids.ts'
import { startCommand, until } from '../support/command.ts'
import { FdListener, Library, Streams } from '../support/library.ts'
import { needs } from '../support/needs.ts'
import { ROOT } from '../support/places.ts'
import { test } from '../support/runts.ts'

const library = new Library()
afterAll(() => library[Symbol.dispose]())

function exec(container: Container, streams: Streams, args: readonly string[], more: Partial<ExecOptions> = {}) {
  const process = { ...container.spec.process, args }
  return container.exec({ process, stdio: streams.stdio, reaper: library.reaper, ...more })
}

describe('a container as an object', needs('root'), () => {
  test('is created, started, joined by a process, signalled, waited for and destroyed', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const container = await Container.create(
      library.options(runts, 'c1', streams, ['sh', '-c', 'echo up; exec sleep 100']),
    )
    expect(container.status()).toBe('created')
    expect(container.ociState()).toMatchObject({ id: 'c1', status: 'created', pid: container.init.pid, owner: 'root' })
    await container.start()
    await until('its output', () => streams.text === 'up\n')
    using output = new Streams(runts.folder, 'exec')
    const process = await exec(container, output, ['sh', '-c', 'echo in; exit 7'])
    expect(await process.wait()).toEqual({ exitCode: 7, oomKilled: false })
    expect(output.text).toBe('in\n')
    expect(container.processes()).toContain(container.init.pid)
    await container.pause()
    expect(container.status()).toBe('paused')
    await container.resume()
    await container.signal(9)
    expect(await container.init.wait()).toEqual({ exitCode: 137, signal: 9, oomKilled: false })
    expect(container.ociState()).toMatchObject({ status: 'stopped', pid: 0 })
    await container.destroy()
    await container.destroy()
    expect(Container.list(runts.root)).toEqual([])
  })

  test('that was let go can be loaded and started by somebody else', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    {
      await using container = await Container.create(library.options(runts, 'c1', streams, ['sleep', '100']))
      expect(container.status()).toBe('created')
    }
    const loaded = Container.load(runts.root, 'c1')
    await loaded.start()
    expect(loaded.status()).toBe('running')
    await loaded.destroy({ force: true })
  })

  test('run is create and start, and leaves nothing when the program cannot be started', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const container = await Container.run(library.options(runts, 'c1', streams, ['true']))
    expect((await container.init.wait()).exitCode).toBe(0)
    await container.destroy()
    await expect(Container.run(library.options(runts, 'c2', streams, ['no-such-program']))).rejects.toThrow(
      'executable file not found',
    )
    expect(Container.list(runts.root)).toEqual([])
  })

  test('its operations do not interleave, whoever calls them when', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const container = await Container.create(library.options(runts, 'c1', streams, ['sleep', '100']))
    const [first, second] = await Promise.allSettled([container.start(), container.start()])
    expect(first.status).toBe('fulfilled')
    expect(second.status === 'rejected' && second.reason).toMatchObject({ code: 'FailedPrecondition' })
    const pauses = await Promise.allSettled([container.pause(), container.pause()])
    expect(pauses.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    await container.resume()
    using output = new Streams(runts.folder, 'exec')
    const running = Array.from({ length: 4 }, () => exec(container, output, ['sleep', '100']))
    const results = Promise.allSettled(running)
    await Promise.all([container.destroy({ force: true }), container.destroy({ force: true })])
    for (const result of await results) if (result.status === 'fulfilled') await result.value.wait()
  })

  test('a process that was killed for want of memory says so', needs('memory controller'), async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const container = await Container.run(
      library.options(runts, 'c1', streams, ['sleep', '100'], (spec) => {
        spec.linux.resources = { memory: { limit: 16 << 20, swap: 16 << 20 } }
      }),
    )
    using output = new Streams(runts.folder, 'exec')
    // the kernel may look for a second victim while the first still gives its memory back: not the container's own
    // process
    const eat = (args: readonly string[]) =>
      container.exec({
        process: { ...container.spec.process, args, oomScoreAdj: 1000 },
        stdio: output.stdio,
        reaper: library.reaper,
      })
    const hungry = await eat(['sh', '-c', 'head -c 100000000 /dev/zero | tail'])
    await hungry.wait()
    const fat = await eat(['tail', '/dev/zero'])
    expect(await fat.wait()).toEqual({ exitCode: 137, signal: 9, oomKilled: true })
    const killed = await exec(container, output, ['sleep', '100'])
    killed.signal(9)
    await container.destroy({ force: true })
  })
})

/** A project of its own, in whose node_modules lies what `npm pack` would take along, and nothing else. */
function freshProject(folder: string): string {
  const project = join(folder, 'project')
  const home = join(project, 'node_modules/containerd-shim-ts')
  const { files } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  for (const name of ['package.json', ...files]) cpSync(join(ROOT, name), join(home, name), { recursive: true })
  return project
}

test(
  'the example of the README runs as it stands, and has types, in a project of its own',
  needs('root'),
  async ({ runts }) => {
    const project = freshProject(runts.folder)
    const example = /```ts\n([\s\S]*?)```/.exec(readFileSync(join(ROOT, 'runtime/README.md'), 'utf8'))?.[1] ?? ''
    const script = join(project, 'example.mts')
    writeFileSync(script, example.replace('/tmp/r', runts.root))
    // its own library is found from where it lies, not from what the tests use
    const env = { BUNDLE: runts.bundle(['sleep', '100']), SHIM_TS_LIB: '' }
    const result = await startCommand(process.execPath, [script], { env }).finished
    expect(result, result.stderr).toMatchObject({ code: 0, stdout: 'hello\n0\n' })
    const settings = { module: 'nodenext', target: 'es2024', lib: ['esnext'], strict: true, noEmit: true }
    const types = { types: ['node'], typeRoots: [join(ROOT, 'node_modules/@types')] }
    const compilerOptions = { ...settings, ...types, exactOptionalPropertyTypes: true }
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['example.mts'] }))
    const tsc = join(ROOT, 'node_modules/typescript/bin/tsc')
    const checked = await startCommand(process.execPath, [tsc, '-p', project]).finished
    expect(checked).toMatchObject({ code: 0, stdout: '' })
  },
)

describe('a process', needs('root'), () => {
  test('gets the fds that it is given, from 3 upwards, and no other', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const path = join(runts.folder, 'extra')
    writeFileSync(path, 'extra')
    const extra = openSync(path, 'r')
    const list = 'cat <&4; ls /proc/self/fd | tr "\\n" " "'
    try {
      const options = library.options(runts, 'c1', streams, ['sh', '-c', `${list}; exec sleep 100`])
      const container = await Container.run({ ...options, extraFds: [0, extra] })
      await until('its output', () => streams.text.includes('\n') || streams.text.includes('4 5'))
      // 5 is the folder that ls reads
      expect(streams.text).toBe('extra0 1 2 3 4 5 ')
      using output = new Streams(runts.folder, 'exec')
      const process = await exec(container, output, ['sh', '-c', 'ls /proc/self/fd | tr "\\n" " "'], {
        extraFds: [extra],
      })
      expect((await process.wait()).exitCode).toBe(0)
      expect(output.text).toBe('0 1 2 3 4 ')
      await container.destroy({ force: true })
    } finally {
      closeSync(extra)
    }
  })

  test('sends its pidfd to who asks for it', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    await using forInit = await FdListener.open(join(runts.folder, 'init.sock'))
    const options = library.options(runts, 'c1', streams, ['sleep', '100'])
    const container = await Container.run({ ...options, pidfdSocket: forInit.path })
    const pidOf = (fd: number): number =>
      Number(/^Pid:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1])
    using ofInit = await forInit.receive()
    expect(ofInit.text).toBe('standard')
    expect(pidOf(ofInit.fd.fd)).toBe(container.init.pid)
    await using forExec = await FdListener.open(join(runts.folder, 'exec.sock'))
    const process = await exec(container, streams, ['sleep', '100'], { pidfdSocket: forExec.path })
    using ofExec = await forExec.receive()
    expect(ofExec.text).toBe('setns')
    expect(pidOf(ofExec.fd.fd)).toBe(process.pid)
    await expect(exec(container, streams, ['true'], { pidfdSocket: `${runts.folder}/none` })).rejects.toThrow(
      'cannot use the pidfd socket',
    )
    await container.destroy({ force: true })
  })

  test('joins a sub-cgroup by controller, or one for all', needs('cgroup1'), async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const container = await Container.run(library.options(runts, 'c1', streams, ['sleep', '100']))
    const { pids = '', cpu = '' } = container.cgroup.paths
    mkdirSync(join(pids, 'sub'))
    const cgroups = async (subCgroups: Record<string, string>): Promise<string> => {
      using output = new Streams(runts.folder, 'exec')
      const process = await exec(container, output, ['cat', '/proc/self/cgroup'], { subCgroups })
      await process.wait()
      return output.text
    }
    const own = `/${runts.name}/1`
    const text = await cgroups({ pids: 'sub' })
    expect(text).toMatch(new RegExp(`^\\d+:pids:${own}/sub$`, 'm'))
    expect(text).toMatch(new RegExp(`^\\d+:cpu:${own}$`, 'm'))
    await expect(cgroups({ '': 'sub' })).rejects.toThrow(/adding pid to cgroups: open .*no such file or directory/)
    await expect(cgroups({ pids: '../..' })).rejects.toThrow('bad sub cgroup path: ../..')
    await expect(cgroups({ nonsense: 'sub' })).rejects.toThrow('unknown controller nonsense')
    expect(existsSync(cpu)).toBe(true)
    rmdirSync(join(pids, 'sub'))
    await container.destroy({ force: true })
  })

  test('is free of what a feature gate takes away, and each gate is a warning', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const command = ['sh', '-c', 'grep -E "CapEff|^Seccomp:" /proc/self/status; mkdir /made && echo made']
    const profile = {
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO' }],
    }
    const options = library.options(runts, 'c1', streams, command, (spec) =>
      Object.assign(spec.linux, { seccomp: profile }),
    )
    const warnings: unknown[] = []
    const container = await Container.run({
      ...options,
      gates: { seccomp: false, capabilities: false },
      logger: { ...silentLogger, warn: (fields) => void warnings.push(fields['feature']) },
    })
    await container.init.wait()
    const own = /^CapEff:\s+(\w+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
    expect(streams.text).toMatch(new RegExp(`^CapEff:\\s+${own}\nSeccomp:\\s+0\nmade\n$`))
    expect(warnings).toEqual(['seccomp', 'capabilities'])
    await container.destroy()
  })
})

/** struct seccomp_notif and its answer (seccomp_unotify(2)): the call is told to have failed with this errno. */
async function answer(listener: number, errno: number): Promise<void> {
  await pollReadable([listener], 10_000)
  const call = Buffer.alloc(80)
  ioctl(listener, 0xc0502100, call)
  const reply = Buffer.alloc(24)
  call.copy(reply, 0, 0, 8)
  reply.writeInt32LE(-errno, 16)
  ioctl(listener, 0xc0182101, reply)
}

describe('a seccomp agent', needs('root'), () => {
  const profile = (listenerPath: string) => ({
    defaultAction: 'SCMP_ACT_ALLOW',
    listenerPath,
    listenerMetadata: 'for the agent',
    syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_NOTIFY' }],
  })

  for (const noNewPrivileges of [true, false]) {
    test(`gets the listener with the state of the container, noNewPrivileges ${noNewPrivileges}`, async ({ runts }) => {
      using streams = new Streams(runts.folder, 'init')
      await using agent = await FdListener.open(join(runts.folder, 'agent.sock'))
      const options = library.options(runts, 'c1', streams, ['sh', '-c', 'mkdir /x; exec sleep 100'], (spec) => {
        spec.process.noNewPrivileges = noNewPrivileges
        Object.assign(spec, { annotations: { long: 'x'.repeat(10_000) } })
        Object.assign(spec.linux, { seccomp: profile(agent.path) })
      })
      const container = await Container.create(options)
      using message = await agent.receive()
      const { pid } = container.init
      expect(JSON.parse(message.text)).toMatchObject({
        ociVersion: '1.0.2',
        fds: ['seccompFd'],
        pid,
        metadata: 'for the agent',
        state: { id: 'c1', status: 'creating', pid, bundle: container.bundle },
      })
      await container.start()
      await answer(message.fd.fd, 122)
      await until('the message of mkdir', () => streams.text.includes('\n'))
      expect(streams.text).toMatch(/mkdir: .*Disk quota exceeded/i)
      await container.destroy({ force: true })
    })
  }

  test('is told of an exec in a running container', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const path = join(runts.folder, 'agent.sock')
    let container: Container
    {
      await using agent = await FdListener.open(path)
      const options = library.options(runts, 'c1', streams, ['sleep', '100'], (spec) =>
        Object.assign(spec.linux, { seccomp: profile(path) }),
      )
      container = await Container.run(options)
      using _message = await agent.receive()
    }
    await expect(exec(container, streams, ['true'])).rejects.toThrow('failed to connect with seccomp agent')
    await using agent = await FdListener.open(path)
    using output = new Streams(runts.folder, 'exec')
    const process = await exec(container, output, ['mkdir', '/x'])
    using message = await agent.receive()
    expect(JSON.parse(message.text)).toMatchObject({
      pid: process.pid,
      state: { status: 'running', pid: container.init.pid },
    })
    await answer(message.fd.fd, 1)
    expect((await process.wait()).exitCode).toBe(1)
    await container.destroy({ force: true })
  })

  test('that is not there fails the create before anything is made', async ({ runts }) => {
    using streams = new Streams(runts.folder, 'init')
    const options = library.options(runts, 'c1', streams, ['true'], (spec) =>
      Object.assign(spec.linux, { seccomp: profile('/no/agent') }),
    )
    const failure = await Container.create(options).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(RuntimeError)
    expect(failure).toMatchObject({ code: 'InvalidArgument' })
    expect(String(failure)).toContain('failed to connect with seccomp agent "/no/agent"')
  })
})
