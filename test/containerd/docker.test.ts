/**
 * Docker with our shim: dockerd is a client of containerd that brings its own fifos, hooks, options and way to come
 * back after a crash. (`docker run --runtime io.containerd.ts.v2`, or an entry of `runtimes` in its daemon.json.)
 */
import { mkdirSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { RuntimeOptions } from 'ttrpc-ts/containerd'
import { describe } from 'vitest'
import { isAlive } from '../support/census.ts'
import { startCommand, until } from '../support/command.ts'
import { expect, seconds } from '../support/containerd.ts'
import { dockerTest } from '../support/docker.ts'
import { needs } from '../support/needs.ts'
import { BIN } from '../support/places.ts'
import { optionsOf, RecordingRuntime } from '../support/recorder.ts'

// each container's root is a copy of the image
const NEEDS = {
  ...needs('root', 'containerd', 'busybox', 'the built shim', 'our shim', 'docker'),
  timeout: seconds(90),
}
const OWNER = ['stat', '-L', '-c', '%u', '/proc/self/fd/1']

const recorder = (folder: string): string => join(folder, 'docker/recorder')
const test = dockerTest((folder) => ({
  runtimes: {
    'with-a-file': { runtimeType: 'io.containerd.ts.v2', options: { ConfigPath: join(folder, 'shim.toml') } },
    'by-path': { path: join(BIN, 'runts') },
    'with-a-key': {
      runtimeType: 'io.containerd.ts.v2',
      options: { ConfigPath: join(folder, 'shim.toml'), Colour: 'blue' },
    },
    'runc-with-a-key': { runtimeType: 'io.containerd.runc.v2', options: { Colour: 'blue' } },
    recorded: {
      runtimeType: join(recorder(folder), 'containerd-shim-recorded-v2'),
      options: { TypeUrl: 'example.com/options', ConfigPath: join(folder, 'shim.toml') },
    },
  },
}))

describe('docker run', NEEDS, () => {
  test('takes the shim by its name and as an entry of daemon.json, whose options may name a file', async ({
    ct,
    docker,
  }) => {
    expect(await docker.run(['--runtime=io.containerd.ts.v2'], OWNER)).toMatchObject({ code: 0, stdout: '0\n' })
    expect(await docker.run(['--runtime=ts'], OWNER)).toMatchObject({ code: 0, stdout: '0\n' })
    writeFileSync(join(ct.daemon.folder, 'shim.toml'), 'IoUid = 4321\n')
    expect(await docker.run(['--runtime=with-a-file'], OWNER)).toMatchObject({ code: 0, stdout: '4321\n' })
    writeFileSync(join(ct.daemon.folder, 'shim.toml'), 'IoUid = \n')
    const wrong = await docker.run(['--runtime=with-a-file'], ['true'])
    expect(wrong.code).toBe(125)
    expect(wrong.stderr).toContain('shim.toml", line 1, column 9')
  })

  test(
    'with a runtime or an option that nobody knows ends as with runc, and leaves nothing',
    needs('the runc shim'),
    async ({ ct, docker }) => {
      const told = async (runtime: string) => {
        const { code, stdout, stderr } = await docker.run([`--runtime=${runtime}`], ['sh', '-c', 'echo said; exit 5'])
        return { code, stdout, stderr: stderr.replaceAll(/\b(ts|runc)(?=[.-]v9)/g, 'NAME') }
      }
      const unknown = await told('io.containerd.ts.v9')
      expect(unknown).toMatchObject({
        code: 125,
        stdout: '',
        stderr: expect.stringContaining('"containerd-shim-NAME-v9"'),
      })
      expect(unknown).toEqual(await told('io.containerd.runc.v9'))
      // a key that daemon.json has not
      expect(await told('ts2')).toMatchObject({ code: 125, stderr: expect.stringContaining('runtime name: ts2') })
      writeFileSync(join(ct.daemon.folder, 'shim.toml'), 'Colour = "blue"\n')
      const known = await told('with-a-key')
      expect(known).toEqual({ code: 5, stdout: 'said\n', stderr: '' })
      expect(known).toEqual(await told('runc-with-a-key'))
      await until('the warning', () => /ignoring the key \\"Colour\\" of the runtime options/.test(ct.daemon.log))
      expect(await docker.ok('ps', '-aq')).toBe('')
    },
  )

  test('sends the options of daemon.json as runtimeoptions.v1.Options, to start and to Create', async ({ docker }) => {
    const runtime = new RecordingRuntime(recorder(join(docker.folder, '..')))
    writeFileSync(join(docker.folder, '../shim.toml'), 'IoUid = 7\n')
    expect(await docker.run(['--runtime=recorded'], ['true'])).toMatchObject({ code: 0 })
    const { typeUrl, value } = optionsOf(runtime.only('start'))!
    expect(typeUrl).toBe(RuntimeOptions.typeName)
    expect(RuntimeOptions.decode(value).configPath).toBe(join(docker.folder, '../shim.toml'))
  })

  test('tells stdout from stderr, and brings stdin, its end and the status of the exit', async ({ docker }) => {
    expect(await docker.run([], ['payload', 'both', '11', 'x'])).toMatchObject({
      code: 11,
      stdout: 'out:x\n',
      stderr: 'err:x\n',
    })
    const input = 'line\n'.repeat(50_000)
    expect(await docker.run(['-i'], ['md5sum'], { input: 'a\n' })).toMatchObject({
      stdout: '60b725f10c9c85c70d97880dfe8191b3  -\n',
    })
    expect(await docker.run(['-i'], ['wc', '-c'], { input })).toMatchObject({ stdout: '250000\n' })
    expect(await docker.run([], ['/no/such/program'])).toMatchObject({ code: 127 })
    expect(await docker.run([], ['/etc'])).toMatchObject({ code: 126 })
  })

  test('gives the container its network namespace through the hook that is dockerd itself', async ({ ct, docker }) => {
    const id = await docker.detached()
    const key = await docker.inspect(id, '{{.NetworkSettings.SandboxKey}}')
    const pid = await docker.inspect(id, '{{.State.Pid}}')
    expect(statSync(key).ino).toBe(statSync(`/proc/${pid}/ns/net`).ino)
    expect(await docker.ok('exec', id, 'ip', 'link', 'show', 'lo')).toContain('LOOPBACK,UP')
    // another container in it
    expect(await docker.run([`--network=container:${id}`], ['readlink', '/proc/self/ns/net'])).toMatchObject({
      stdout: `${await docker.ok('exec', id, 'readlink', '/proc/self/ns/net')}\n`,
    })
    expect(ct.shimPid(id)).toBeGreaterThan(1)
  })

  test('takes the words that a user may say about the process and its limits', async ({ ct, docker }) => {
    const flags = ['--user=1000:1001', '--env=A=b c', '--workdir=/tmp', '--hostname=box', '--ulimit=nofile=100:200']
    const script = 'id -u; id -g; echo $A; pwd; hostname; ulimit -n; ulimit -Hn; grep -c . /proc/net/dev'
    expect(await docker.run(flags, ['sh', '-c', script])).toMatchObject({
      code: 0,
      stdout: '1000\n1001\nb c\n/tmp\nbox\n100\n200\n3\n',
    })
    const isolation = ['--read-only', '--tmpfs=/scratch:size=1m,mode=1777', `--volume=${ct.folder}:/host:ro`, '--init']
    const look = 'touch /x || echo ro; touch /host/x || echo ro; touch /scratch/x && echo rw; readlink /proc/1/exe'
    const { stdout } = await docker.run([...isolation, '--cap-drop=ALL'], ['sh', '-c', look])
    expect(stdout).toBe('ro\nro\nrw\n/sbin/docker-init\n')
    const own = (ns: string): string => readlinkSync(`/proc/self/ns/${ns}`)
    const privileged = ['--privileged', '--pid=host', '--ipc=host', '--uts=host', '--cgroupns=host']
    const links = ['sh', '-c', 'for ns in pid ipc uts; do readlink /proc/self/ns/$ns; done']
    expect(await docker.run(privileged, links)).toMatchObject({
      stdout: `${own('pid')}\n${own('ipc')}\n${own('uts')}\n`,
    })
  })

  test(
    '-v X:Y:ro is read-only below X as with runc for an entry with a path or the option RecursiveReadOnly: dockerd asks no other for its features',
    needs('the runc shim'),
    async ({ ct, docker }) => {
      const below = join(ct.folder, 'shared/below')
      mkdirSync(below, { recursive: true })
      expect(await startCommand('mount', ['-t', 'tmpfs', 'below', below]).finished).toMatchObject({ code: 0 })
      try {
        const write = ['sh', '-c', 'touch /y/file 2>/dev/null || echo ro; touch /y/below/file 2>/dev/null || echo ro']
        const written = async (runtime: string, ...flags: string[]) =>
          (await docker.run([`--runtime=${runtime}`, ...flags], write)).stdout
        const volume = `--volume=${join(ct.folder, 'shared')}:/y:ro`
        expect(await written('runc', volume)).toBe('ro\nro\n')
        expect(await written('by-path', volume)).toBe('ro\nro\n')
        // README says so, in bold
        expect(await written('ts', volume)).toBe('ro\n')
        expect(await written('io.containerd.ts.v2', volume)).toBe('ro\n')
        writeFileSync(join(ct.daemon.folder, 'shim.toml'), 'RecursiveReadOnly = true\n')
        expect(await written('with-a-file', volume)).toBe('ro\nro\n')
        const writable = `--volume=${join(ct.folder, 'shared')}:/y`
        expect(await written('with-a-file', writable)).toBe('')
        // the two words that are safe with any runtime
        const mount = `--mount=type=bind,source=${join(ct.folder, 'shared')},target=/y,readonly,bind-recursive=`
        expect(await written('ts', `${mount}disabled`)).toBe('ro\nro\n')
        const refused = await docker.run(['--runtime=ts', `${mount}readonly,bind-propagation=rprivate`], write)
        expect(refused).toMatchObject({
          code: 125,
          stdout: '',
          stderr: expect.stringContaining('rro is not supported'),
        })
      } finally {
        await startCommand('umount', [below]).finished
      }
    },
  )

  test('-it has a terminal that has the size of the user’s, also when that changes', async ({ docker }) => {
    const command = docker.startOnTerminal(docker.runArgs(['--rm', '-it'], ['payload', 'winsize']), 30, 100)
    await command.untilOutput('tty 111')
    await command.untilOutput('size 30 100')
    await command.resizedTo(41, 83)
    command.write('\n')
    expect((await command.finished).code).toBe(0)
  })
})

describe('a container of docker', NEEDS, () => {
  test('takes execs: with a user, an environment, stdin, a terminal, in the background', async ({ docker }) => {
    const id = await docker.detached()
    expect(await docker.docker('exec', id, 'payload', 'both', '5', 'x')).toMatchObject({
      code: 5,
      stdout: 'out:x\n',
      stderr: 'err:x\n',
    })
    const words = ['--user=worker', '--env=A=b', '--workdir=/tmp', id, 'sh', '-c', 'id -un; echo $A; pwd']
    expect(await docker.ok('exec', ...words)).toBe('worker\nb\n/tmp')
    const piped = docker.startDocker(['exec', '-i', id, 'wc', '-c'], { input: 'x'.repeat(200_000) })
    expect(await piped.finished).toMatchObject({ code: 0, stdout: '200000\n' })
    const terminal = docker.startOnTerminal(['exec', '-it', id, 'payload', 'winsize'], 20, 60)
    await terminal.untilOutput('size 20 60')
    await terminal.resizedTo(21, 61)
    terminal.write('\n')
    expect((await terminal.finished).code).toBe(0)
    await docker.ok('exec', '-d', id, 'touch', '/made')
    await until('the file', async () => (await docker.docker('exec', id, 'test', '-e', '/made')).code === 0)
    // as with runc: dockerd's own word for it, 127 since Docker 28
    expect([126, 127]).toContain((await docker.docker('exec', id, '/no/such/program')).code)
  })

  test('is shown, measured, updated, paused and resumed', async ({ docker }) => {
    const id = await docker.detached(['--memory=64m', '--name=shown'])
    expect(await docker.ok('top', 'shown')).toMatch(/sleep 1000$/)
    const stats = JSON.parse(await docker.ok('stats', '--no-stream', '--format={{json .}}', id))
    expect(stats).toMatchObject({ PIDs: '1', MemUsage: expect.stringMatching(/ \/ 64MiB$/) })
    await docker.ok('update', '--memory=96m', '--memory-swap=128m', id)
    const limit = 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null'
    expect(await docker.docker('exec', id, 'sh', '-c', limit)).toMatchObject({ stdout: `${96 * 1024 * 1024}\n` })
    await docker.ok('pause', id)
    expect(await docker.inspect(id, '{{.State.Status}}')).toBe('paused')
    expect(await docker.docker('exec', id, 'true')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('is paused'),
    })
    await docker.ok('unpause', id)
    expect(await docker.ok('exec', id, 'echo', 'back')).toBe('back')
  })

  test('is stopped, killed, started again and restarted, each time with its status', async ({ docker }) => {
    const script = 'trap "exit 9" TERM; echo up; while :; do sleep 0.1; done'
    const id = await docker.detached([], ['sh', '-c', script])
    await until('the trap', async () => (await docker.ok('logs', id)) === 'up')
    await docker.ok('stop', id)
    expect(await docker.inspect(id, '{{.State.Status}} {{.State.ExitCode}}')).toBe('exited 9')
    await docker.ok('start', id)
    expect(await docker.inspect(id, '{{.State.Status}}')).toBe('running')
    await docker.ok('kill', id)
    expect(await docker.ok('wait', id)).toBe('137')
    await docker.ok('restart', id)
    await until('the last life', async () => (await docker.ok('logs', id)).endsWith('up\nup\nup'))
  })

  test('comes again as its restart policy says', async ({ docker }) => {
    const id = await docker.detached(['--restart=on-failure:2'], ['sh', '-c', 'echo try; exit 6'])
    await until('all attempts', async () => (await docker.inspect(id, '{{.State.Status}}')) === 'exited')
    expect(await docker.inspect(id, '{{.RestartCount}} {{.State.ExitCode}}')).toBe('2 6')
    expect(await docker.ok('logs', id)).toBe('try\ntry\ntry')
  })

  test('that runs out of memory is called so', needs('memory controller'), async ({ docker }) => {
    const id = await docker.detached(['--memory=16m', '--memory-swap=16m'], ['payload', 'eat', '67108864'])
    expect(await docker.ok('wait', id)).toBe('137')
    expect(await docker.inspect(id, '{{.State.OOMKilled}}')).toBe('true')
  })

  // docker tells only runtimes of runc's names that the container should end with it
  test('is saved while it runs, and starts again from there', needs('criu'), async ({ docker }) => {
    const id = await docker.detached([], ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done'])
    const numbers = async (): Promise<number[]> => (await docker.ok('logs', id)).split('\n').map(Number)
    await until('some numbers', async () => (await numbers()).length > 3)
    const stored = await docker.stored()
    await docker.ok('checkpoint', 'create', id, 'one')
    expect(await docker.inspect(id, '{{.State.Running}}')).toBe('true')
    await docker.ok('kill', id)
    const before = await numbers()
    // docker copies the images out of containerd's store; it cannot put them back while they are still there
    await until('the store to forget the images', async () => (await docker.stored()) === stored)
    await docker.ok('start', '--checkpoint', 'one', id)
    await until('more numbers', async () => (await numbers()).length > before.length + 3)
    const [first = 0] = (await numbers()).slice(before.length)
    expect(first).toBeGreaterThan(3)
    expect(first).toBeLessThanOrEqual(before.length + 1)
    expect(await docker.ok('exec', id, 'echo', 'alive')).toBe('alive')
  })
})

describe('live-restore: dockerd is killed and comes back', NEEDS, () => {
  test('and a container goes on with its output, its execs, its terminal and its stop', async ({ docker }) => {
    const counts = 'i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done'
    const writer = await docker.detached([], ['sh', '-c', counts])
    const echo = await docker.detached(['-i'], ['cat'])
    const screen = await docker.detached(['-it'], ['payload', 'winsize'])
    const pid = Number(await docker.inspect(writer, '{{.State.Pid}}'))
    await docker.kill()
    expect(isAlive(pid)).toBe(true)
    await docker.start()
    const lines = async (): Promise<number> => (await docker.ok('logs', writer)).split('\n').length
    const before = await lines()
    await until('more output', async () => (await lines()) > before + 5)
    // none of what was read is out of order, whatever was on its way when dockerd died
    const numbers = (await docker.ok('logs', writer)).split('\n').map((line) => Number(line.slice(5)))
    expect(numbers).toEqual(numbers.toSorted((a, b) => a - b))
    const attached = docker.startDocker(['attach', '--sig-proxy=false', echo], { input: 'open' })
    attached.write('said after\n')
    await attached.untilOutput('said after')
    attached.kill('SIGKILL')
    await attached.finished
    const terminal = docker.startOnTerminal(['attach', screen], 33, 99)
    await terminal.untilOutput('size 33 99')
    terminal.write('\n')
    expect((await terminal.finished).code).toBe(0)
    expect(await docker.ok('exec', writer, 'echo', 'exec')).toBe('exec')
    await docker.ok('stop', '-t', '0', writer)
    expect(await docker.inspect(writer, '{{.State.ExitCode}}')).toBe('137')
  })

  test('and an exit that happened meanwhile has its status', async ({ ct, docker }) => {
    const flags = [`--volume=${ct.folder}:/host`]
    const waits = await docker.detached(flags, ['sh', '-c', 'until [ -e /host/go ]; do sleep 0.05; done; exit 21'])
    const pid = Number(await docker.inspect(waits, '{{.State.Pid}}'))
    await docker.kill()
    writeFileSync(join(ct.folder, 'go'), '')
    await until('the container to end', () => !isAlive(pid))
    await docker.start()
    await until('dockerd to know', async () => (await docker.inspect(waits, '{{.State.Status}}')) === 'exited')
    expect(await docker.inspect(waits, '{{.State.ExitCode}}')).toBe('21')
  })

  test('and so does containerd', async ({ ct, docker }) => {
    const id = await docker.detached(['-i'], ['cat'])
    await ct.daemon.kill()
    await ct.daemon.start()
    await until('dockerd to be connected again', async () => (await docker.docker('exec', id, 'true')).code === 0)
    await docker.ok('kill', id)
    expect(await docker.ok('wait', id)).toBe('137')
  })
})
