/**
 * The conformance checklist, part one: how a daemon runs the shim's program, and what it finds afterwards. Runs
 * against every release of containerd that is at hand; where releases differ, the difference is what the test says.
 */
import { createHash } from 'node:crypto'
import { existsSync, lstatSync, mkdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { BootstrapParams, DeleteResponse, RuntimeInfo } from 'ttrpc-ts/containerd'
import { describe } from 'vitest'
import { startBareShim } from '../../support/bare-shim.ts'
import { startCommand, until } from '../../support/command.ts'
import { expect, test } from '../../support/containerd.ts'
import { needs } from '../../support/needs.ts'
import { BIN, IMAGE } from '../../support/places.ts'
import { RecordingRuntime } from '../../support/recorder.ts'

const NEEDS = needs('root', 'containerd', 'busybox', 'the built shim', 'our shim')
const LAUNCHER = join(BIN, 'containerd-shim-ts-v2')

/** What `linux.mountExtensions.idmap.enabled` and the rest look like in the features document. */
interface Features {
  readonly linux: { readonly namespaces: string[]; readonly mountExtensions: { readonly idmap: { enabled: boolean } } }
}

function featuresOf(info: RuntimeInfo): Features {
  return JSON.parse(Buffer.from(info.features?.value ?? []).toString())
}

describe('the command line', NEEDS, () => {
  test('start gets flags, the environment and the bundle as its folder, and answers nothing but the address', async ({
    ct,
  }) => {
    const runtime = new RecordingRuntime(ct.folder)
    const id = ct.id()
    await ct.ok('run', '-d', '--null-io', '--runtime', runtime.path, IMAGE, id, 'sleep', '1000')
    const { daemon } = ct
    const start = runtime.only('start')
    expect(start.args.slice(0, 3)).toEqual(['-namespace', daemon.namespace, '-address'])
    expect(start.args).toEqual(expect.arrayContaining(['-address', daemon.address, '-id', id, '-publish-binary']))
    expect(identity(start.cwd)).toBe(identity(ct.bundle(id)))
    if (!daemon.isAtLeast(2, 3)) expect(start.stdin).toHaveLength(0)
    else
      expect(BootstrapParams.decode(start.stdin)).toMatchObject({
        instanceId: id,
        namespace: daemon.namespace,
        containerdGrpcAddress: daemon.address,
        containerdTtrpcAddress: `${daemon.address}.ttrpc`,
        socketDir: '/run/containerd/s',
      })
    expect(start.env).toMatchObject({ TTRPC_ADDRESS: `${daemon.address}.ttrpc` })
    // how a shim could tell the releases apart, which ours has no need to
    const newer = { GRPC_ADDRESS: daemon.address, NAMESPACE: daemon.namespace, MAX_SHIM_VERSION: '2' }
    if (!daemon.isAtLeast(1, 7)) for (const name of Object.keys(newer)) expect(start.env[name]).toBeUndefined()
    else expect(start.env).toMatchObject(newer)
    expect(start).toMatchObject({ code: 0, stderr: '' })
    expect(start.stdout.toString()).toBe(`unix://${ct.socket(id)}`)
  })

  test('delete gets the bundle too, and answers with the exit that was', async ({ ct }) => {
    const runtime = new RecordingRuntime(ct.folder)
    const id = ct.id()
    const ran = await ct.ctr('run', '--rm', '--runtime', runtime.path, IMAGE, id, 'payload', 'exit', '42')
    expect(ran).toMatchObject({ code: 42 })
    const call = runtime.only('delete')
    expect(call.args).toEqual(expect.arrayContaining(['-id', id, '-bundle', ct.bundle(id)]))
    expect(call).toMatchObject({ code: 0, stderr: '' })
    const { pid, exitStatus, exitedAt } = DeleteResponse.decode(call.stdout)
    expect(exitStatus).toBe(42)
    expect(pid).toBeGreaterThan(1)
    expect(Math.abs(Number(exitedAt?.seconds) - Date.now() / 1000)).toBeLessThan(120)
  })

  test('unknown flags, and words after the action, are tolerated', async ({ ct }) => {
    const { bundle, id, close } = await startBareShim(ct, ['true'])
    const flags = ['-a-later-flag', 'its-value', '-another=1', '-namespace', ct.daemon.namespace]
    const again = ['-id', id, '-address', ct.daemon.address, '-publish-binary', 'x', 'start', 'and', 'more']
    const result = await startCommand(LAUNCHER, [...flags, ...again], { cwd: bundle }).finished
    expect(result).toMatchObject({ code: 0, stdout: readFileSync(join(bundle, 'address'), 'utf8'), stderr: '' })
    close()
  })

  test('-v tells the version', async () => {
    expect(await startCommand(LAUNCHER, ['-v']).finished).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^containerd-shim-ts-v2:\n {2}Version: +\S+\n$/),
      stderr: '',
    })
  })

  test('-info describes the runtime with its features; from 2.0 on the daemon shows them', async ({ ct }) => {
    if (!ct.daemon.isAtLeast(2, 0)) {
      const { stdoutBytes } = await startCommand(LAUNCHER, ['-info']).finished
      const info = RuntimeInfo.decode(stdoutBytes)
      expect(info.name).toBe('io.containerd.ts.v2')
      expect(featuresOf(info).linux.mountExtensions.idmap.enabled).toBe(true)
      // the answer is made by the build, and says nothing of the machine that it was built on
      expect(JSON.stringify(featuresOf(info))).not.toContain('checkpoint')
      return
    }
    const runtime = new RecordingRuntime(ct.folder)
    const { stdout } = await ct.ok('plugins', 'inspect-runtime', '--runtime', runtime.path)
    expect(runtime.only('-info')).toMatchObject({ code: 0, stderr: '' })
    const shown: { Name: string; Features: Features } = JSON.parse(stdout)
    expect(shown.Name).toBe('io.containerd.ts.v2')
    expect(shown.Features.linux.namespaces).toContain('user')
    expect(shown.Features.linux.mountExtensions.idmap.enabled).toBe(true)
  })

  test('an id-mapped mount is accepted; from 2.0 on the daemon asks -info first', async ({ ct }) => {
    const runtime = new RecordingRuntime(ct.folder)
    const source = join(ct.folder, 'volume')
    mkdirSync(source)
    const mapping = [{ containerID: 0, hostID: 4000, size: 1000 }]
    const args = ct.configArgs(['--rm'], ct.id(), ['stat', '-c', '%u', '/volume'], (spec) => {
      spec.mounts.push({
        destination: '/volume',
        type: 'bind',
        source,
        options: ['bind'],
        uidMappings: mapping,
        gidMappings: mapping,
      })
    })
    args[args.indexOf('--runtime') + 1] = runtime.path
    expect(await ct.ctr(...args)).toMatchObject({ code: 0, stdout: '4000\n' })
    const asked = runtime.calls.filter(({ action }) => action === '-info')
    expect(asked.length > 0).toBe(ct.daemon.isAtLeast(2, 0))
  })
})

describe('a started shim', NEEDS, () => {
  test('has a socket by the rule of the hash, 0600, in a folder of root alone', async ({ ct }) => {
    const id = await ct.detached()
    const { address, namespace } = ct.daemon
    const hash = createHash('sha256')
      .update(join(address, namespace, id))
      .digest('hex')
    expect(ct.socket(id)).toBe(`/run/containerd/s/${hash}`)
    expect((statSync(ct.socket(id)).mode & 0o777).toString(8)).toBe('600')
    expect(statSync(dirname(ct.socket(id))).mode & 0o066).toBe(0)
  })

  test('has left the address where each release looks for it after a restart', async ({ ct }) => {
    const id = await ct.detached()
    const address = readFileSync(join(ct.bundle(id), 'address'), 'utf8')
    expect(address).toMatch(/^unix:\/\/\/\S+$/)
    const bootstrap = join(ct.bundle(id), 'bootstrap.json')
    if (!ct.daemon.isAtLeast(2, 0)) return expect(existsSync(bootstrap)).toBe(false)
    expect(JSON.parse(readFileSync(bootstrap, 'utf8'))).toMatchObject({ version: 2, address, protocol: 'ttrpc' })
  })

  test('takes the place of a socket that a dead shim of its name has left', async ({ ct }) => {
    const id = ct.id()
    const { address, namespace } = ct.daemon
    const path = join(
      '/run/containerd/s',
      createHash('sha256')
        .update(join(address, namespace, id))
        .digest('hex'),
    )
    const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => console.log('listening'))`
    const stale = startCommand(process.execPath, ['-e', script])
    await stale.untilOutput('listening')
    stale.kill('SIGKILL')
    await stale.finished
    expect(lstatSync(path).isSocket()).toBe(true)
    expect(await ct.run([], ['payload', 'exit', '3'], { id })).toMatchObject({ code: 3 })
  })

  test('is a daemon: null input and output, the log as its errors, its own process group, one OOM point more', async ({
    ct,
  }) => {
    const id = await ct.detached()
    const pid = ct.shimPid(id)
    const fd = (number: number): string => readlinkSync(`/proc/${pid}/fd/${number}`)
    expect([fd(0), fd(1)]).toEqual(['/dev/null', '/dev/null'])
    expect(identity(fd(2))).toBe(identity(join(ct.bundle(id), 'log')))
    const groupAndSession = (of: number): string[] =>
      readFileSync(`/proc/${of}/stat`, 'utf8')
        .replace(/^.*\) /, '')
        .split(' ')
        .slice(2, 4)
    // a session whose leader is in an outer pid namespace reads as 0, for the daemon as for the shim
    expect(groupAndSession(pid)).toEqual([String(pid), groupAndSession(ct.daemon.pid)[1]])
    const score = (of: number): number => Number(readFileSync(`/proc/${of}/oom_score_adj`, 'utf8'))
    expect(score(pid)).toBe(Math.min(score(ct.daemon.pid) + 1, 1000))
    expect(readlinkSync(`/proc/${pid}/cwd`)).toBe('/')
  })

  test('writes to the log that the daemon copies, in its format', async ({ ct }) => {
    const id = ct.id()
    await ct.run([], ['true'], { id })
    await until('the lines of the shim in the daemon’s log', () =>
      ct.daemon.log
        .split('\n')
        .some((line) => /^time="[^"]+" level=info msg="container created"/.test(line) && line.includes(id)),
    )
  })
})

describe('delete', NEEDS, () => {
  test('cleans up behind a shim that was killed, answers 137, and can be repeated without folder or bundle', async ({
    ct,
  }) => {
    const shim = await startBareShim(ct, ['sleep', '1000'])
    const { pid } = await shim.task.create({ id: shim.id, bundle: shim.bundle })
    await shim.task.start({ id: shim.id })
    const shimPid = ct.shimPid(shim.id)
    shim.close()
    process.kill(shimPid, 'SIGKILL')
    const first = await shim.delete()
    expect(first).toMatchObject({ code: 0, stderr: '' })
    expect(DeleteResponse.decode(first.stdoutBytes)).toMatchObject({ pid, exitStatus: 137 })
    await until('the container to be gone', () => !existsSync(`/proc/${pid}/ns/pid`))
    expect(existsSync(shim.socket)).toBe(false)
    rmSync(shim.bundle, { recursive: true })
    const second = await shim.delete('/')
    expect(second).toMatchObject({ code: 0, stderr: '' })
    expect(DeleteResponse.decode(second.stdoutBytes)).toMatchObject({ pid: 0, exitStatus: 137 })
  })
})

/** What tells one file from another, by whatever path it is reached. */
function identity(path: string): string {
  return existsSync(path) ? `${statSync(path).dev}:${statSync(path).ino}` : path
}
