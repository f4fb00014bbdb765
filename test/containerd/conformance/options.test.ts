/**
 * The conformance checklist, part two: runtime options in every form that a client can send through the daemon's own
 * API. The daemon hands them to `start` on stdin, and to Create. Also the bootstrap parameters of 2.3 and newer on
 * stdin.
 */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { packAny } from 'ttrpc-ts'
import { Any, BootstrapParams, LegacyCreateOptions, RuncOptions, RuntimeOptions } from 'ttrpc-ts/containerd'
import { describe } from 'vitest'
import { startBareShim } from '../../support/bare-shim.ts'
import { startCommand, until } from '../../support/command.ts'
import { type Containers, expect, test } from '../../support/containerd.ts'
import { ContainerdApi, type TaskWishes } from '../../support/containerd-api.ts'
import { isCgroup2, needs } from '../../support/needs.ts'
import { BIN, IMAGE, RUNTIME } from '../../support/places.ts'
import { optionsOf, RecordingRuntime } from '../../support/recorder.ts'
import { writeSpec } from '../../support/spec.ts'

const NEEDS = needs('root', 'containerd', 'busybox', 'the built shim', 'our shim')

/**
 * How options travel: with the container, as from the CRI, or with the task alone, as from clients that decide late.
 */
type Way = { readonly container?: Any; readonly task?: Any }

/** A container without a task; answers its id. */
async function container(
  ct: Containers,
  api: ContainerdApi,
  command: readonly string[],
  options?: Any,
  name = RUNTIME,
): Promise<string> {
  const id = ct.id()
  const runtime = options === undefined ? { name } : { name, options }
  await api.createContainer(id, runtime, readFileSync(writeSpec(ct.folder, command), 'utf8'))
  return id
}

function task(options: Any | undefined, stdout = ''): TaskWishes {
  return options === undefined ? { stdout } : { stdout, options }
}

/** Runs a command as a task with options; answers what it wrote. */
async function output(ct: Containers, command: readonly string[], way: Way): Promise<string> {
  using api = new ContainerdApi(ct.daemon)
  const id = await container(ct, api, command, way.container)
  const fifo = join(ct.folder, `${id}.out`)
  await startCommand('mkfifo', [fifo]).finished
  await api.create(id, task(way.task, fifo))
  const reader = startCommand('cat', [fifo])
  await api.start(id)
  const { stdout } = await reader.finished
  await ct.untilStatus(id, 'STOPPED')
  await ct.ok('task', 'rm', id)
  return stdout
}

/** What the daemon says when it cannot create a task with the options. */
async function refusal(ct: Containers, way: Way): Promise<string> {
  using api = new ContainerdApi(ct.daemon)
  const id = await container(ct, api, ['sleep', '1000'], way.container)
  const error: unknown = await api.create(id, task(way.task)).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(await ct.task(id)).toBeUndefined()
  return String(error)
}

const toml = (body: string): Any => packAny(RuntimeOptions, { configBody: Buffer.from(body) })

function configFile(ct: Containers, body: string): Any {
  const configPath = join(ct.folder, 'options.toml')
  writeFileSync(configPath, body)
  return packAny(RuntimeOptions, { configPath })
}

/**
 * The same wish in each form. Releases differ in the way that they let a form take, not in the forms that can arrive.
 */
const FORMS: readonly [string, (ct: Containers, uid: number) => Way][] = [
  ['containerd.runc.v1.Options', (_, ioUid) => ({ task: packAny(RuncOptions, { ioUid, ioGid: ioUid }) })],
  ['runtimeoptions.v1.Options with a body', (_, uid) => ({ container: toml(`IoUid = ${uid}\nIoGid = ${uid}\n`) })],
  ['a path', (ct, uid) => ({ container: configFile(ct, `IoUid = ${uid}\nIoGid = ${uid}\n`) })],
]
const OWNER = ['stat', '-L', '-c', '%u:%g', '/proc/self/fd/1']
const is1 = (ct: Containers): boolean => !ct.daemon.isAtLeast(2, 0)

describe('runtime options', NEEDS, () => {
  for (const [form, make] of FORMS) {
    test(`arrive as ${form}: io_uid and io_gid own the streams`, async ({ ct }) => {
      expect(await output(ct, OWNER, make(ct, 4321))).toBe('4321:4321\n')
    })
  }

  test('arrive as the legacy containerd.linux.runc.CreateOptions, which no daemon from 2.0 on lets pass', async ({
    ct,
  }) => {
    const legacy = packAny(LegacyCreateOptions, { ioUid: 4321, ioGid: 4321 })
    if (is1(ct)) expect(await output(ct, OWNER, { task: legacy })).toBe('4321:4321\n')
    else expect(await refusal(ct, { task: legacy })).toContain('CreateOptions: not found')
  })

  test('are refused with one line when their TOML is wrong, and with a warning when a key is none of ours', async ({
    ct,
  }) => {
    expect(await refusal(ct, { container: toml('IoUid = 1\nIoGid = \n') })).toMatch(
      /cannot read the runtime options, line 2, column 9: [^\n]+$/,
    )
    expect(await refusal(ct, { container: configFile(ct, 'IoUid = "root"\n') })).toContain(
      `cannot use the key "IoUid" of the runtime options "${join(ct.folder, 'options.toml')}": expected a whole number`,
    )
    const nested = toml('IoUid = 4321\nIoGid = 4321\n[runtimes.other]\nIoUid = 1\n')
    expect(await output(ct, OWNER, { container: nested })).toBe('4321:4321\n')
    expect(ct.daemon.log).toContain('ignoring the key \\"runtimes\\" of the runtime options')
  })

  test('of no form at all mean the defaults, and so do those of an unknown one', async ({ ct }) => {
    expect(await output(ct, OWNER, {})).toBe('0:0\n')
    const unknown = Any.create({ typeUrl: 'containerd.types.Mount', value: Buffer.from([]) })
    expect(await output(ct, OWNER, { container: unknown })).toBe('0:0\n')
  })

  test('arrive as those of runc when the container is of that runtime and only its path is ours', async ({ ct }) => {
    using api = new ContainerdApi(ct.daemon)
    const options = packAny(RuncOptions, { ioUid: 77, root: join(ct.folder, 'root') })
    const id = await container(ct, api, ['sleep', '1000'], options, 'io.containerd.runc.v2')
    const pid = await api.create(id, { runtimePath: join(BIN, 'containerd-shim-ts-v2') })
    expect(await api.start(id)).toBe(pid)
    expect(ct.shimPid(id)).toBeGreaterThan(1)
    expect(readdirSync(join(ct.folder, 'root', ct.daemon.namespace))).toContain(id)
    expect(await ct.exec(id, ['payload', 'exit', '5'])).toMatchObject({ code: 5 })
  })

  test('reach start on stdin as they reach Create', async ({ ct }) => {
    const runtime = new RecordingRuntime(ct.folder)
    using api = new ContainerdApi(ct.daemon)
    const id = await container(ct, api, ['sleep', '1000'], undefined, runtime.path)
    const options = packAny(RuncOptions, { ioUid: 7 })
    await api.create(id, { options })
    const { typeUrl, value } = optionsOf(runtime.only('start'))!
    expect(typeUrl).toBe(options.typeUrl)
    expect(RuncOptions.decode(value).ioUid).toBe(7)
  })

  test('of ctr: a configuration file, and --no-pivot in the form of its release', async ({ ct }) => {
    const sent = async (...flags: string[]): Promise<Any> => {
      const folder = join(ct.folder, `r${readdirSync(ct.folder).length}`)
      mkdirSync(folder)
      const runtime = new RecordingRuntime(folder)
      expect(await ct.ctr('run', '--rm', ...flags, '--runtime', runtime.path, IMAGE, ct.id(), 'true')).toMatchObject({
        code: 0,
      })
      return optionsOf(runtime.only('start'))!
    }
    const path = join(ct.folder, 'shim.toml')
    writeFileSync(path, 'NoNewKeyring = true\n')
    const file = await sent('--runtime-config-path', path)
    expect(file.typeUrl).toBe(RuntimeOptions.typeName)
    expect(RuntimeOptions.decode(file.value).configPath).toBe(path)
    const pivot = await sent('--no-pivot')
    const legacy = is1(ct)
    expect(pivot.typeUrl).toBe(legacy ? LegacyCreateOptions.typeName : RuncOptions.typeName)
    expect((legacy ? LegacyCreateOptions : RuncOptions).decode(pivot.value).noPivotRoot).toBe(true)
  })

  test('no_pivot_root leaves the root of the host’s mounts below the container’s', async ({ ct }) => {
    const mounts = ['sh', '-c', 'ls -d /bin; cat /proc/self/mountinfo | grep -c .']
    expect(await output(ct, mounts, { task: packAny(RuncOptions, { noPivotRoot: true }) })).toMatch(/^\/bin\n\d+\n$/)
  })

  test('no_new_keyring keeps the session keyring of the shim', async ({ ct }) => {
    const keyring = ['probe', 'keyring']
    expect(await output(ct, keyring, {})).toMatch(/^_ses\.t/)
    expect(await output(ct, keyring, { task: packAny(RuncOptions, { noNewKeyring: true }) })).not.toContain('_ses.t')
  })

  test('root moves the state of the container, and delete finds it there when the shim was killed', async ({ ct }) => {
    const root = join(ct.folder, 'elsewhere')
    using api = new ContainerdApi(ct.daemon)
    const id = await container(ct, api, ['sleep', '1000'])
    await api.create(id, { options: packAny(RuncOptions, { root }) })
    await api.start(id)
    const state = join(root, ct.daemon.namespace, id)
    expect(readdirSync(state)).toContain('state.json')
    process.kill(ct.shimPid(id), 'SIGKILL')
    await until('the state to be removed', () => !readdirSync(dirname(state)).includes(id))
  })

  test('shim_cgroup moves the shim, and not the container, and must exist', async ({ ct }) => {
    const hierarchy = isCgroup2() ? '/sys/fs/cgroup' : '/sys/fs/cgroup/pids'
    const shimCgroup = `/${ct.daemon.namespace}-shims`
    mkdirSync(join(hierarchy, shimCgroup))
    ct.onEnd(async () => rmdirSync(join(hierarchy, shimCgroup)))
    using api = new ContainerdApi(ct.daemon)
    const id = await container(ct, api, ['sleep', '1000'])
    const pid = await api.create(id, { options: packAny(RuncOptions, { shimCgroup }) })
    const groups = (of: number): string[] =>
      readFileSync(`/proc/${of}/cgroup`, 'utf8')
        .split('\n')
        .filter((line) => line.endsWith(`:${shimCgroup}`))
    expect(groups(ct.shimPid(id))).toHaveLength(1)
    expect(groups(pid)).toEqual([])
    await ct.ok('task', 'rm', '-f', id)
    expect(await refusal(ct, { task: packAny(RuncOptions, { shimCgroup: '/no/such/group' }) })).toContain(
      'cannot move the shim into the cgroup "/no/such/group"',
    )
  })

  test('systemd_cgroup asks for systemd, in every form that has it', needs('no systemd'), async ({ ct }) => {
    const why = 'systemd not running on this host, cannot use systemd cgroups manager'
    expect(await refusal(ct, { task: packAny(RuncOptions, { systemdCgroup: true }) })).toContain(why)
    expect(await refusal(ct, { container: toml('SystemdCgroup = true\n') })).toContain(why)
  })

  test('binary_name may name what is built in, and nothing else', async ({ ct }) => {
    expect(await refusal(ct, { task: packAny(RuncOptions, { binaryName: '/usr/bin/crun' }) })).toContain(
      'cannot use the runtime binary "/usr/bin/crun": this shim has its own runtime',
    )
    expect(await output(ct, ['echo', 'ran'], { task: packAny(RuncOptions, { binaryName: 'runc' }) })).toBe('ran\n')
  })
})

describe('bootstrap parameters on stdin', NEEDS, () => {
  test('are told from an Any, and say where the socket belongs and what the options are', async ({ ct }) => {
    const socketDir = join(ct.folder, 's')
    const shim = await startBareShim(ct, ['true'], undefined, {
      stdin: (instanceId) =>
        BootstrapParams.encode({
          instanceId,
          namespace: ct.daemon.namespace,
          logLevel: -4,
          containerdVersion: '2.3.4',
          containerdTtrpcAddress: `${ct.daemon.address}.ttrpc`,
          containerdGrpcAddress: ct.daemon.address,
          containerdBinary: '/usr/bin/containerd',
          extensions: [{ value: packAny(RuncOptions, { ioUid: 1 }) }],
          socketDir,
        }),
    })
    expect(dirname(shim.socket)).toBe(socketDir)
    expect(statSync(shim.socket).isSocket()).toBe(true)
    expect((await shim.task.connect({ id: shim.id })).shimPid).toBe(ct.shimPid(shim.id))
    expect(readFileSync(`/proc/${ct.shimPid(shim.id)}/cmdline`, 'utf8')).toContain(shim.id)
    await shim.task.shutdown({ id: shim.id })
    shim.close()
    expect(await shim.delete()).toMatchObject({ code: 0, stderr: '' })
    expect(readdirSync(socketDir)).toEqual([])
  })
})
