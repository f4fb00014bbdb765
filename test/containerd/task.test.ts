/**
 * `ctr task …`: everything that is done to a container which already runs, and our own client for what ctr cannot do.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { descendants, isAlive } from '../support/census.ts'
import { startCommand, until } from '../support/command.ts'
import { type Containers, expect, test } from '../support/containerd.ts'
import { isCgroup2, needs } from '../support/needs.ts'
import { IS_OURS } from '../support/places.ts'
import type { SpecChange } from '../support/spec.ts'
import { shimClient } from '../support/task-client.ts'

/** The states of a container's own processes, as `ps` letters, read from the host. */
async function pidsOf(ct: Containers, id: string): Promise<number[]> {
  const { stdout } = await ct.ok('task', 'ps', id)
  return stdout
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => Number(line.split(/\s+/)[0]))
}

/**
 * No pid namespace of its own: the kernel does not end the other processes with the first, and orphans are the
 * shim's.
 */
const hostPids: SpecChange = (spec) => {
  spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'pid')
}

describe('ctr task', needs('root', 'containerd', 'busybox'), () => {
  test('ls shows id, pid and status', async ({ ct }) => {
    const id = await ct.detached()
    const task = await ct.task(id)
    expect(task).toEqual({ pid: expect.any(Number), status: 'RUNNING' })
    expect(readFileSync(`/proc/${task!.pid}/cmdline`, 'utf8')).toBe('sleep\x001000\x00')
  })

  test('ps lists every process of the container and names the execs', async ({ ct }) => {
    const id = await ct.detached([], ['sh', '-c', 'sleep 500 & sleep 501 & wait'])
    await until('three processes', async () => (await pidsOf(ct, id)).length === 3)
    const { pid } = (await ct.task(id))!
    expect(await pidsOf(ct, id)).toContain(pid)
    await ct.execDetached(id, 'named', ['sleep', '502'])
    const { stdout } = await ct.ok('task', 'ps', id)
    expect(stdout).toContain('named')
    expect(stdout.trim().split('\n')).toHaveLength(5)
  })

  test('exec gives stdout, stderr and the exit status', async ({ ct }) => {
    const id = await ct.detached()
    expect(await ct.exec(id, ['payload', 'both', '0', 'a'])).toMatchObject({
      code: 0,
      stdout: 'out:a\n',
      stderr: 'err:a\n',
    })
    expect(await ct.exec(id, ['payload', 'both', '42', 'b'])).toMatchObject({
      code: 42,
      stdout: 'out:b\n',
      stderr: 'err:b\n',
    })
    expect(await ct.exec(id, ['sh', '-c', 'kill -9 $$'])).toMatchObject({ code: 137 })
  })

  test('exec runs in the namespaces, the cgroup and with the limits of the container', async ({ ct }) => {
    const id = await ct.detached(['--cap-drop', 'CAP_CHOWN'])
    const { pid } = (await ct.task(id))!
    const script =
      'for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; grep CapEff /proc/1/status /proc/self/status | cut -d: -f3; cat /proc/1/cgroup; echo --; cat /proc/self/cgroup'
    const { stdout } = await ct.exec(id, ['sh', '-c', script])
    const lines = stdout.trim().split('\n')
    const host = await startCommand(
      'readlink',
      ['mnt', 'pid', 'net', 'ipc', 'uts', 'cgroup'].map((n) => `/proc/${pid}/ns/${n}`),
    ).finished
    expect(lines.slice(0, 6)).toEqual(host.stdout.trim().split('\n'))
    expect(lines[6]).toBe(lines[7])
    const [own, theirs] = lines.slice(8).join('\n').split('\n--\n')
    expect(own).toBe(theirs)
  })

  test('exec applies --cwd and --user', async ({ ct }) => {
    const id = await ct.detached()
    const { stdout, code, stderr } = await ct.exec(
      id,
      ['sh', '-c', 'pwd; id -u; id -g'],
      ['--cwd', '/home', '--user', '1000:1000'],
    )
    expect(code, stderr).toBe(0)
    expect(stdout).toBe('/home\n1000\n1000\n')
  })

  test('exec names a program that does not exist and the container goes on', async ({ ct }) => {
    const id = await ct.detached()
    const result = await ct.exec(id, ['/no/such/program'])
    expect(result.code).not.toBe(0)
    expect(result.stderr.trim().split('\n')).toHaveLength(1)
    expect(result.stderr).toContain('/no/such/program')
    expect(await ct.task(id)).toMatchObject({ status: 'RUNNING' })
    expect(await ct.exec(id, ['payload', 'exit', '3'])).toMatchObject({ code: 3 })
  })

  test('exec passes stdin to its end', async ({ ct }) => {
    const id = await ct.detached()
    const exec = ct.daemon.startCtr(['task', 'exec', '--exec-id', 'cat', id, 'sh', '-c', 'echo ready; cat'], {
      input: 'open',
    })
    await exec.untilOutput('ready')
    exec.write('through\n')
    await exec.untilOutput('through')
    exec.endInput()
    expect(await exec.finished).toMatchObject({ code: 0, stdout: 'ready\nthrough\n' })
  })

  test('exec -t gives a terminal that follows the size of the outer one', async ({ ct }) => {
    const id = await ct.detached()
    const exec = ct.startOnTerminal(['task', 'exec', '-t', '--exec-id', 'tty', id, 'payload', 'winsize'], {
      input: 'open',
      rows: 20,
      columns: 70,
    })
    await exec.untilOutput('tty 111')
    await exec.untilOutput('size 20 70')
    await exec.resizedTo(41, 121)
    exec.write('\n')
    expect(await exec.finished).toMatchObject({ code: 0 })
  })

  test('forty execs at once all answer', async ({ ct }) => {
    const id = await ct.detached()
    const results = await Promise.all(
      Array.from({ length: 40 }, (_, i) => ct.exec(id, ['payload', 'both', String(i), `n${i}`])),
    )
    expect(results.map(({ code, stdout }) => [code, stdout])).toEqual(results.map((_, i) => [i, `out:n${i}\n`]))
  })

  test('an exec id is free again after its process was deleted, and taken before', async ({ ct }) => {
    const id = await ct.detached()
    for (let round = 0; round < 3; round++) {
      expect(await ct.ctr('task', 'exec', '--exec-id', 'same', id, 'true')).toMatchObject({ code: 0 })
    }
    await ct.execDetached(id, 'same', ['sleep', '1000'])
    const second = await ct.ctr('task', 'exec', '--exec-id', 'same', id, 'true')
    expect(second.code).not.toBe(0)
    expect(second.stderr).toContain('already exists')
  })

  test('kill sends the signal to the first process only', async ({ ct }) => {
    const id = ct.id()
    const run = ct.startRun([], ['payload', 'trap'], { id })
    await run.untilOutput('ready')
    await ct.ok('task', 'kill', '-s', 'SIGUSR1', id)
    await run.untilOutput('signal 10')
    await ct.ok('task', 'kill', id)
    expect(await run.finished).toMatchObject({ code: 7, stdout: 'ready\nsignal 10\nsignal 15\n' })
  })

  test('kill --exec-id reaches that process', async ({ ct }) => {
    const id = await ct.detached()
    const exec = ct.daemon.startCtr(['task', 'exec', '--exec-id', 'trap', id, 'payload', 'trap'])
    await exec.untilOutput('ready')
    await ct.ok('task', 'kill', '--exec-id', 'trap', '-s', 'SIGTERM', id)
    expect(await exec.finished).toMatchObject({ code: 7 })
    expect(await ct.task(id)).toMatchObject({ status: 'RUNNING' })
  })

  test('kill -a reaches every process of the container', async ({ ct }) => {
    const id = await ct.detached([], ['sh', '-c', 'trap : TERM; sleep 500 & sleep 501 & wait; wait; sleep 502'])
    await until('three processes', async () => (await pidsOf(ct, id)).length === 3)
    const before = await pidsOf(ct, id)
    await ct.ok('task', 'kill', '-a', '-s', 'SIGKILL', id)
    await ct.untilStatus(id, 'STOPPED')
    await until('all of them to be gone', () => !before.some(isAlive))
  })

  test('kill of a stopped task says that it is finished', async ({ ct }) => {
    const id = await ct.detached([], ['true'])
    await ct.untilStatus(id, 'STOPPED')
    const result = await ct.ctr('task', 'kill', id)
    expect(result.code).not.toBe(0)
    expect(result.stderr).toContain('process already finished')
  })

  test('a created container can be killed before it was started', async ({ ct }) => {
    const id = await ct.detached()
    const client = await shimClient(ct, id)
    await ct.execDetached(id, 'e', ['sleep', '1000'])
    await ct.ok('task', 'kill', '-s', 'SIGKILL', '--exec-id', 'e', id)
    await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
    await ct.untilStatus(id, 'STOPPED')
    client.close()
  })

  test('pause stops every process, refuses exec, and resume lets them go on', async ({ ct }) => {
    const id = ct.id()
    const run = ct.startRun([], ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done'], { id })
    await run.untilOutput('\n5\n')
    await ct.ok('task', 'pause', id)
    expect(await ct.task(id)).toMatchObject({ status: 'PAUSED' })
    // what was already on its way arrives; then nothing more does
    let seen = ''
    await until('the output to stop', async () => {
      const same = seen === run.stdout
      seen = run.stdout
      await new Promise((resolve) => setTimeout(resolve, 200))
      return same && seen === run.stdout
    })
    const refused = await ct.exec(id, ['true'])
    expect(refused.code).not.toBe(0)
    expect(refused.stderr).toContain('paused')
    await ct.ok('task', 'resume', id)
    await until('the output to go on', () => run.stdout.length > seen.length)
    expect(await ct.task(id)).toMatchObject({ status: 'RUNNING' })
    await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
    expect(await run.finished).toMatchObject({ code: 137 })
  })

  test('pause of a paused and resume of a running container are refused', async ({ ct }) => {
    const id = await ct.detached()
    expect((await ct.ctr('task', 'resume', id)).code).not.toBe(0)
    await ct.ok('task', 'pause', id)
    expect((await ct.ctr('task', 'pause', id)).code).not.toBe(0)
    await ct.ok('task', 'resume', id)
  })

  test('a paused container can be removed by force', async ({ ct }) => {
    const id = await ct.detached()
    await ct.ok('task', 'pause', id)
    await ct.ok('task', 'resume', id)
    await ct.ok('task', 'pause', id)
    const { pid } = (await ct.task(id))!
    await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
    if (!isCgroup2()) await ct.ctr('task', 'resume', id)
    await ct.untilStatus(id, 'STOPPED')
    expect(() => readFileSync(`/proc/${pid}/cmdline`)).toThrow()
  })

  test('metrics show memory, cpu and processes', needs('memory controller'), async ({ ct }) => {
    const id = await ct.detached([], ['sh', '-c', 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000'])
    await until('some work', async () => (await ct.exec(id, ['sh', '-c', 'ps | grep -c "sleep 1000"'])).code === 0)
    const { stdout } = await ct.ok('task', 'metrics', '--format', 'json', id)
    const metrics: Record<string, Record<string, unknown>> = JSON.parse(stdout)
    expect(metrics['pids']).toMatchObject({ current: expect.any(Number) })
    const memory = metrics['memory']
    const usage = Number(
      memory?.['usage'] instanceof Object ? Reflect.get(memory['usage'], 'usage') : memory?.['usage'],
    )
    expect(usage).toBeGreaterThan(50_000)
    const table = await ct.ok('task', 'metrics', id)
    expect(table.stdout).toContain(id)
  })

  test('delete refuses a running task and takes it with -f', async ({ ct }) => {
    const id = await ct.detached()
    const refused = await ct.ctr('task', 'delete', id)
    expect(refused.stderr).toContain('running')
    expect(await ct.task(id)).toMatchObject({ status: 'RUNNING' })
    await ct.ctr('task', 'delete', '-f', id)
    expect(await ct.task(id)).toBeUndefined()
  })

  test('attach gets the output of a running container and its exit status', async ({ ct }) => {
    const id = ct.id()
    await ct.ok(
      ...ct.runArgs(['-d', '--fifo-dir', join(ct.folder, 'detached')], id, [
        'sh',
        '-c',
        'while [ ! -e /go ]; do sleep 0.02; done; echo attached; exit 4',
      ]),
    )
    const attach = ct.daemon.startCtr(['task', 'attach', id], { input: 'open' })
    // detached: the task may be gone before an attentive client could clean up after its exec
    await ct.execDetached(id, 'go', ['touch', '/go'])
    expect(await attach.finished).toMatchObject({ code: 4, stdout: 'attached\n' })
  })

  test('a container in the host pid namespace leaves no zombie behind', async ({ ct }) => {
    const id = ct.id()
    const run = ct.daemon.startCtr(ct.configArgs(['--rm'], id, ['payload', 'orphans', '1000'], hostPids), {
      input: 'open',
    })
    await run.untilOutput('done')
    const shim = ct.shimPid(id)
    await until('the shim to reap', () => !descendants(shim).some(({ state }) => state === 'Z'))
    run.endInput()
    expect(await run.finished).toMatchObject({ code: 0 })
  })

  test('an exec that orphans 1,000 children leaves no zombie', async ({ ct }) => {
    const id = ct.id()
    await ct.ok(...ct.configArgs(['-d', '--null-io'], id, ['sleep', '1000'], hostPids))
    const exec = ct.daemon.startCtr(['task', 'exec', '--exec-id', 'z', id, 'payload', 'orphans', '1000'], {
      input: 'open',
    })
    await exec.untilOutput('done')
    const shim = ct.shimPid(id)
    await until('the shim to reap', () => !descendants(shim).some(({ state }) => state === 'Z'))
    exec.endInput()
    expect(await exec.finished).toMatchObject({ code: 0 })
  })

  test('when a container without a pid namespace ends, its other processes end too', async ({ ct }) => {
    const id = ct.id()
    const script = 'trap "exit 0" TERM; sleep 777 & sleep 778 & wait'
    await ct.ok(...ct.configArgs(['-d', '--null-io'], id, ['sh', '-c', script], hostPids))
    const { pid } = (await ct.task(id))!
    await until('its children', () => descendants(pid).length >= 2)
    const below = descendants(pid).map((child) => child.pid)
    await ct.ok('task', 'kill', '-s', 'SIGTERM', id)
    await ct.untilStatus(id, 'STOPPED')
    await until('all to be gone', () => !below.some(isAlive))
  })

  test('the shim ends within 100 ms of the answer to Shutdown', needs('our shim'), async ({ ct }) => {
    const id = await ct.detached()
    const shim = ct.shimPid(id)
    const client = await shimClient(ct, id)
    await client.kill(9)
    await client.waitExit()
    await client.deleteTask()
    const answered = await client.shutdown()
    await until('the shim to end', () => !isAlive(shim))
    const took = performance.now() - answered
    client.close()
    expect(took).toBeLessThan(process.env['TESTVM'] === '1' ? 5000 : 100)
  })

  test('Update changes the limits of a running container', needs('memory controller', 'our shim'), async ({ ct }) => {
    const id = await ct.detached(['--memory-limit', '67108864'])
    const client = await shimClient(ct, id)
    await client.update({ memory: { limit: 134217728 }, pids: { limit: 77 }, cpu: { shares: 512 } })
    const { daemon } = ct
    const file = (controller: string, v1: string, v2: string): string =>
      readFileSync(
        isCgroup2()
          ? join('/sys/fs/cgroup', daemon.namespace, id, v2)
          : join('/sys/fs/cgroup', controller, daemon.namespace, id, v1),
        'utf8',
      ).trim()
    expect([
      file('memory', 'memory.limit_in_bytes', 'memory.max'),
      file('pids', 'pids.max', 'pids.max'),
      file('cpu', 'cpu.shares', 'cpu.weight'),
    ]).toEqual(['134217728', '77', isCgroup2() ? '59' : '512'])
    await expect(client.update({ memory: { limit: 'much' } })).rejects.toThrow()
    client.close()
  })

  test('the second service name answers as the first does', needs('our shim'), async ({ ct }) => {
    const id = await ct.detached()
    const [v2, v3] = [await shimClient(ct, id), await shimClient(ct, id, 'v3')]
    expect(await v3.state()).toEqual(await v2.state())
    expect((await v3.connectPid()).shimPid).toBe(ct.shimPid(id))
    v2.close()
    v3.close()
  })

  test('unknown containers and processes are reported as such', needs('our shim'), async ({ ct }) => {
    const id = await ct.detached()
    const client = await shimClient(ct, id)
    await expect(client.state('ghost')).rejects.toMatchObject({ code: 5 })
    await expect(client.kill(9, 'ghost')).rejects.toMatchObject({ code: 5 })
    client.close()
    expect(IS_OURS).toBe(true)
  })
})
