/** `ctr run`: what a user sees of one container from its start to its end. */
import { describe } from 'vitest'
import { isAlive } from '../support/census.ts'
import { until } from '../support/command.ts'
import { expect, test } from '../support/containerd.ts'
import { needs } from '../support/needs.ts'
import { IMAGE, RUNTIME } from '../support/places.ts'

describe('ctr run', needs('root', 'containerd', 'busybox'), () => {
  for (const status of [0, 1, 42]) {
    test(`gives stdout, stderr and exit status ${status}`, async ({ ct }) => {
      const result = await ct.run([], ['payload', 'both', String(status), 'hello'])
      expect(result).toMatchObject({ code: status, stdout: 'out:hello\n', stderr: 'err:hello\n' })
    })
  }

  test('gives 137 for a container that was killed', async ({ ct }) => {
    const id = ct.id()
    const run = ct.startRun([], ['sleep', '1000'], { id })
    await ct.untilStatus(id, 'RUNNING')
    await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
    expect(await run.finished).toMatchObject({ code: 137 })
  })

  test('gives 128 + signal for a container that died by its own signal', async ({ ct }) => {
    expect(await ct.run([], ['payload', 'crash'])).toMatchObject({ code: 132 })
  })

  test('names a program that does not exist, in one line, and leaves nothing', async ({ ct }) => {
    const result = await ct.run([], ['/no/such/program'])
    expect(result.code).not.toBe(0)
    expect(result.stderr.trim().split('\n')).toHaveLength(1)
    expect(result.stderr).toContain('/no/such/program')
    expect(result.stderr).toContain('no such file or directory')
  })

  test('names a program that may not be executed', async ({ ct }) => {
    const result = await ct.run([], ['/etc/passwd'])
    expect(result.code).not.toBe(0)
    expect(result.stderr).toContain('/etc/passwd')
    expect(result.stderr).toContain('permission denied')
  })

  test('finds a program through the PATH of its environment only', async ({ ct }) => {
    expect(await ct.run([], ['payload', 'exit', '9'])).toMatchObject({ code: 9 })
    const result = await ct.run(['--env', 'PATH=/nowhere'], ['payload', 'exit', '9'])
    expect(result.code).not.toBe(0)
    expect(result.stderr).toContain('payload')
  })

  test('passes stdin to its end', async ({ ct }) => {
    const run = ct.startRun([], ['sh', '-c', 'echo ready; cat'], { input: 'open' })
    await run.untilOutput('ready')
    run.write('first\nsecond\n')
    await run.untilOutput('second')
    run.endInput()
    expect(await run.finished).toMatchObject({ code: 0, stdout: 'ready\nfirst\nsecond\n' })
  })

  test('passes binary arguments and an empty one unchanged', async ({ ct }) => {
    const result = await ct.run([], ['sh', '-c', 'printf "[%s]" "$@"', 'sh', 'ä\tb', '', '$HOME "x"'])
    expect(result.stdout).toBe('[ä\tb][][$HOME "x"]')
  })

  test('-t gives a terminal of the right size, which follows the outer one', async ({ ct }) => {
    const run = ct.startOnTerminal(ct.runArgs(['--rm', '-t'], ct.id(), ['payload', 'winsize']), {
      input: 'open',
      rows: 33,
      columns: 99,
    })
    await run.untilOutput('tty 111')
    await run.untilOutput('size 33 99')
    await run.resizedTo(50, 132)
    run.write('\n')
    expect(await run.finished).toMatchObject({ code: 0 })
  })

  test('-t gives the exit status and makes the terminal the controlling one', async ({ ct }) => {
    const run = ct.startOnTerminal(ct.runArgs(['--rm', '-t'], ct.id(), ['sh', '-c', 'echo to-tty >/dev/tty; exit 5']))
    const result = await run.finished
    expect(result.code).toBe(5)
    expect(result.stdout).toContain('to-tty\r\n')
  })

  test('-t delivers an interrupt character as a signal', async ({ ct }) => {
    const run = ct.startOnTerminal(
      ct.runArgs(['--rm', '-t'], ct.id(), [
        'sh',
        '-c',
        'trap "echo caught; exit 3" INT; echo ready; while :; do sleep 0.1; done',
      ]),
      {
        input: 'open',
      },
    )
    await run.untilOutput('ready')
    run.write('\x03')
    await run.untilOutput('caught')
    run.endInput()
    expect(await run.finished).toMatchObject({ code: 3 })
  })

  test('-d returns at once and the container goes on', async ({ ct }) => {
    const id = await ct.detached()
    expect(await ct.task(id)).toMatchObject({ status: 'RUNNING' })
    await ct.ok('task', 'rm', '-f', id)
    expect(await ct.task(id)).toBeUndefined()
  })

  test('-d leaves a stopped task until it is deleted', async ({ ct }) => {
    const id = await ct.detached([], ['payload', 'exit', '3'])
    await ct.untilStatus(id, 'STOPPED')
    await ct.ok('task', 'rm', id)
    expect(await ct.task(id)).toBeUndefined()
  })

  test('create, start and wait work one after the other', async ({ ct }) => {
    const id = ct.id()
    await ct.ok('container', 'create', '--runtime', RUNTIME, IMAGE, id, 'payload', 'both', '6', 'late')
    const start = await ct.ctr('task', 'start', id)
    expect(start).toMatchObject({ code: 6, stdout: 'out:late\n' })
  })

  test('the same id can be used again at once', async ({ ct }) => {
    const id = ct.id()
    for (let round = 0; round < 3; round++) expect(await ct.run([], ['true'], { id })).toMatchObject({ code: 0 })
  })

  test('refuses an id that is in use and leaves the other container alone', async ({ ct }) => {
    const id = await ct.detached()
    const second = await ct.ctr(...ct.runArgs(['-d', '--null-io'], id, ['true']))
    expect(second.code).not.toBe(0)
    expect(second.stderr).toContain('already exists')
    expect(await ct.task(id)).toMatchObject({ status: 'RUNNING' })
  })

  test('a container sees only its own processes, host name and mounts', async ({ ct }) => {
    const script = 'echo $$; ls -d /proc/[0-9]* | wc -l; grep -c cts- /proc/self/mountinfo; ls /'
    const { stdout } = await ct.run([], ['sh', '-c', script])
    const [pid, count, hostMounts, ...root] = stdout.trim().split('\n')
    expect({ pid, hostMounts }).toEqual({ pid: '1', hostMounts: expect.stringMatching(/^[012]$/) })
    expect(Number(count)).toBeLessThanOrEqual(4)
    expect(root).not.toContain('boot')
  })

  test('a container inherits no descriptor but 0, 1 and 2', async ({ ct }) => {
    const { stdout } = await ct.run([], ['payload', 'fds'])
    expect(
      stdout
        .trim()
        .split('\n')
        .map((line) => line.split(' ')[0]),
    ).toEqual(['0', '1', '2'])
  })

  test('a background child of the container does not keep it alive', async ({ ct }) => {
    expect(await ct.run([], ['payload', 'background', '1000'])).toMatchObject({ code: 0, stdout: 'left a child\n' })
  })

  test('twenty containers at once all answer', async ({ ct }) => {
    const runs = Array.from({ length: 20 }, (_, i) => ct.run([], ['payload', 'both', String(i), `n${i}`]))
    const results = await Promise.all(runs)
    expect(results.map(({ code, stdout }) => [code, stdout])).toEqual(results.map((_, i) => [i, `out:n${i}\n`]))
  })

  test('the shim appears in ps as an operator expects, below init or a subreaper', async ({ ct }) => {
    const id = await ct.detached()
    const shim = ct.shimPid(id)
    expect(shim).toBeGreaterThan(1)
    await ct.ok('task', 'rm', '-f', id)
    await until('the shim to end', () => !isAlive(shim))
  })
})
