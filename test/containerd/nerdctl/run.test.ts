/** `nerdctl run`, `exec` and `attach`: streams, terminals, and how a process's end reaches the user. */
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { until } from '../../support/command.ts'
import { needs } from '../../support/needs.ts'
import { expect, NERDCTL_NEEDS, test } from '../../support/nerdctl.ts'
import { expectedSha256 } from '../../support/stream.ts'

/** What a user types to leave a container alone. */
const DETACH = '\x10\x11'
const SIZE = 16 * 1024 * 1024

describe('`nerdctl run`', needs(...NERDCTL_NEEDS), () => {
  test('keeps stdout and stderr apart and ends with the status of the process', async ({ nerd }) => {
    expect(await nerd.once([], ['payload', 'both', '3', 'words'])).toMatchObject({
      code: 3,
      stdout: 'out:words\n',
      stderr: 'err:words\n',
    })
  })

  test('-i gives the process its input, and its end', async ({ nerd }) => {
    const result = await nerd.once(['-i'], ['sh', '-c', 'cat; echo the end'], { input: 'one\ntwo\n' })
    expect(result).toMatchObject({ code: 0, stdout: 'one\ntwo\nthe end\n' })
  })

  test('loses nothing of a process that says much', async ({ nerd }) => {
    // without a log: nerdctl waits for ever for its log program, which has left with the container
    const result = await nerd.once(['--log-driver', 'none'], ['payload', 'bytes', String(SIZE)], { keepOutput: false })
    expect(result).toMatchObject({ code: 0, sha256: expectedSha256(SIZE) })
  })

  test("-it gives the process a terminal of the size of the user's, follows it, and ends with its status", async ({
    nerd,
  }) => {
    const run = nerd.startOnTerminal(nerd.runArgs(['--rm', '-it'], ['sh', '-c', 'tty; payload winsize; exit 4']), {
      rows: 33,
      columns: 77,
    })
    await run.untilOutput('33 77')
    expect(run.stdout).toContain('/dev/pts/0')
    await run.resizedTo(20, 51)
    run.write('\x03')
    expect(await run.finished).toMatchObject({ code: 130 })
  })

  test('leaves a terminal at its keys for that, and `attach` comes back to it', async ({ nerd }) => {
    const name = nerd.name()
    const run = nerd.startOnTerminal(
      nerd.runArgs(['-it', '--name', name], ['sh', '-c', 'while read l; do echo "<$l>"; done; exit 6']),
    )
    await until('the container', async () => (await nerd.run('inspect', name)).code === 0)
    run.write('first\n')
    await run.untilOutput('<first>')
    run.write(DETACH)
    expect(await run.finished).toMatchObject({ code: 0 })
    expect(await nerd.inspect(name, '{{.State.Status}}')).toBe('running')
    const attach = nerd.startOnTerminal(['attach', name])
    attach.write('second\n')
    await attach.untilOutput('<second>')
    attach.write('\x04')
    expect(await attach.finished).toMatchObject({ code: 6 })
    expect(await nerd.inspect(name, '{{.State.Status}} {{.State.ExitCode}}')).toBe('exited 6')
  })

  test('passes signals on to the process', async ({ nerd }) => {
    const script = 'trap "echo heard; exit 9" USR1; echo ready; while :; do sleep 0.05; done'
    const run = nerd.start(nerd.runArgs(['--rm'], ['sh', '-c', script]))
    await run.untilOutput('ready')
    // not before it listens, and that nobody can see from outside
    await until('the signal', () => run.kill('SIGUSR1') ?? run.stdout.includes('heard'))
    expect(await run.finished).toMatchObject({ code: 9, stdout: 'ready\nheard\n' })
  })

  test('says why a program cannot be started, and leaves nothing', async ({ nerd }) => {
    const result = await nerd.once([], ['/no/such/program'])
    expect(result.code).not.toBe(0)
    expect(result.stderr).toMatch(/\/no\/such\/program.*no such file or directory/)
  })
})

describe('`nerdctl exec`', needs(...NERDCTL_NEEDS), () => {
  test('runs a process with streams, user, folder and environment of its own, and tells how it ended', async ({
    nerd,
  }) => {
    const name = await nerd.detached()
    expect(await nerd.ok('exec', name, 'payload', 'both', '0', 'words')).toBe('out:words\n')
    const failed = await nerd.run('exec', name, 'sh', '-c', 'echo why >&2; exit 5')
    expect(failed.stderr).toMatch(/^why\n/)
    expect(failed.stderr).toContain('exit code 5')
    const flags = ['-u', 'worker', '-w', '/tmp', '-e', 'GREETING=hello']
    expect(await nerd.ok('exec', ...flags, name, 'sh', '-c', 'id -un; pwd; echo $GREETING')).toBe(
      'worker\n/tmp\nhello\n',
    )
    const input = nerd.start(['exec', '-i', name, 'cat'], { input: 'to the process' })
    expect(await input.finished).toMatchObject({ code: 0, stdout: 'to the process' })
  })

  test('--privileged gives a process what the container has not', async ({ nerd }) => {
    const name = await nerd.detached()
    const effective = ['sh', '-c', 'grep CapEff /proc/self/status']
    const usual = await nerd.ok('exec', name, ...effective)
    expect(BigInt(`0x${words(await nerd.ok('exec', '--privileged', name, ...effective))}`)).toBeGreaterThan(
      BigInt(`0x${words(usual)}`),
    )
  })

  test('-it has a terminal of its own', async ({ nerd }) => {
    const name = await nerd.detached()
    const exec = nerd.startOnTerminal(['exec', '-it', name, 'sh', '-c', 'tty; payload winsize'], {
      rows: 21,
      columns: 43,
    })
    await exec.untilOutput('21 43')
    expect(exec.stdout).toContain('/dev/pts/')
    await exec.resizedTo(20, 51)
    exec.write('\x03')
    await exec.finished
  })

  test('-d leaves the process to itself', async ({ nerd }) => {
    const name = await nerd.detached(['-v', `${nerd.folder}:/shared`])
    await nerd.execDetached(name, ['touch', '/shared/file'])
    await until('what the process writes', () => existsSync(join(nerd.folder, 'file')))
  })

  test('in a container that has ended is refused', async ({ nerd }) => {
    const name = await nerd.detached([], ['true'])
    await nerd.untilStatus(name, 'exited')
    const result = await nerd.run('exec', name, 'true')
    expect(result.code).not.toBe(0)
    expect(result.stderr).toMatch(/cannot exec in a stopped|not running|stopped/)
  })
})

describe('an image', needs(...NERDCTL_NEEDS), () => {
  test('is made of a container by `nerdctl commit`, and runs', async ({ nerd }) => {
    const name = await nerd.detached([], ['sh', '-c', 'echo kept >/file; exec sleep 1000'])
    await until('the file', async () => (await nerd.run('exec', name, 'cat', '/file')).stdout === 'kept\n')
    await nerd.ok('commit', name, 'test.local/committed:1')
    const args = nerd.runArgs(['--rm'], []).slice(0, -1)
    expect(await nerd.ok(...args, 'test.local/committed:1', 'cat', '/file')).toBe('kept\n')
    await nerd.ok('rmi', '-f', 'test.local/committed:1')
  })

  test('has files copied into and out of its container by `nerdctl cp`', async ({ nerd }) => {
    const name = await nerd.detached()
    writeFileSync(join(nerd.folder, 'from'), 'content\n')
    await nerd.ok('cp', join(nerd.folder, 'from'), `${name}:/tmp/file`)
    expect(await nerd.ok('exec', name, 'cat', '/tmp/file')).toBe('content\n')
    await nerd.ok('exec', name, 'mkdir', '/made')
    await nerd.ok('exec', name, 'touch', '/made/here')
    await nerd.ok('cp', `${name}:/made`, nerd.folder)
    expect(existsSync(join(nerd.folder, 'made/here'))).toBe(true)
  })
})

/** The hexadecimal number of a line of /proc/PID/status. */
function words(line: string): string {
  return line.trim().split(/\s+/)[1]!
}
