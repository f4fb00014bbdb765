/** What an operator sees of a shim: its lines in containerd's log, and its answer to SIGUSR1. */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { until } from '../support/command.ts'
import { type Containers, expect, test } from '../support/containerd.ts'
import { needs } from '../support/needs.ts'

/** The lines of the daemon's log about one container, once there is one that matches. */
async function lines(ct: Containers, id: string, wanted: RegExp): Promise<string[]> {
  const about = (): string[] => ct.daemon.log.split('\n').filter((line) => line.includes(`id=${id} `))
  await until(`a line ${wanted}`, () => about().some((line) => wanted.test(line)))
  return about().filter((line) => wanted.test(line))
}

describe("a shim's log", needs('root', 'containerd', 'busybox', 'our shim'), () => {
  test('has a line for each call, as containerd writes lines, with the container, the exec and the duration', async ({
    ct,
  }) => {
    const id = await ct.detached()
    const execId = ct.id()
    await ct.ok('task', 'exec', '--exec-id', execId, id, 'true')
    const head = 'time="\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d+Z" level=debug msg=call namespace=\\S+'
    const [create] = await lines(ct, id, /msg=call .*op=Create/)
    expect(create).toMatch(new RegExp(`^${head} id=${id} op=Create container=${id} durationMs=\\d+(\\.\\d)?$`))
    const [start] = await lines(ct, id, /msg=call .*op=Start .*exec=/)
    expect(start).toMatch(new RegExp(`^${head} id=${id} op=Start container=${id} exec=${execId} durationMs=[\\d.]+$`))
    // the container's own side says whose it is too
    const executes = await lines(ct, id, /msg="init: executes its program"/)
    expect(executes.some((line) => line.includes(`container=${id} exec=${execId} pid=`))).toBe(true)
  })

  test('names the reason, the call and its duration when one fails', async ({ ct }) => {
    const id = await ct.detached()
    expect((await ct.exec(id, ['/no/such/program'])).code).not.toBe(0)
    const [failed] = await lines(ct, id, /op=Start .*code=/)
    expect(failed).toMatch(/op=Start container=\S+ exec=\S+ durationMs=[\d.]+ code=\w+ error=".*no such file/)
  })
})

describe('SIGUSR1', needs('root', 'containerd', 'busybox', 'our shim'), () => {
  test('has a shim report its calls, memory, files and processes, in the bundle and in the log', async ({ ct }) => {
    // a client that stays waits for the init
    const id = ct.id()
    const client = ct.startRun([], ['sleep', '1000'], { id })
    await ct.untilStatus(id, 'RUNNING')
    const execId = ct.id()
    await ct.execDetached(id, execId, ['sleep', '1000'])
    const shim = ct.shimPid(id)
    const path = join(ct.bundle(id), 'shim-report')
    // the daemon may answer its client before it has taken all events
    await until('a report with every event delivered', () => {
      process.kill(shim, 'SIGUSR1')
      return existsSync(path) && JSON.parse(readFileSync(path, 'utf8')).shim.queuedEvents === 0
    })
    expect(statSync(path).mode & 0o777).toBe(0o600)
    const report = JSON.parse(readFileSync(path, 'utf8'))
    const { pid } = (await ct.task(id))!
    expect(report).toMatchObject({
      shim: { pid: shim, version: expect.stringMatching(/^\d+\./), queuedEvents: 0, creating: 0 },
      memory: { anonymous: expect.any(Number), pageTables: expect.any(Number), threads: expect.any(Number) },
      calls: expect.arrayContaining([{ op: 'Wait', container: id, durationMs: expect.any(Number) }]),
      containers: [{ container: id, bundle: ct.bundle(id), processes: 2, oomKills: 0 }],
      processes: [
        { container: id, pid, state: 'running', launching: false, kernel: 'S', streams: '2 direct' },
        { container: id, exec: execId, state: 'running', kernel: 'S', streams: expect.stringContaining('relayed') },
      ],
    })
    expect(report.files).toContainEqual({ what: 'socket', count: expect.any(Number) })
    const [line] = await lines(ct, id, /msg="report: processes".*exec=/)
    expect(line).toContain(`level=warning msg="report: processes" namespace=`)
    // it goes on serving
    expect(await ct.exec(id, ['echo', 'hello'])).toMatchObject({ code: 0, stdout: 'hello\n' })
    await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
    await client.finished
  })

  test('tells of a container that is still being created, too', async ({ ct }) => {
    const id = ct.id()
    const [began, go] = [join(ct.folder, 'began'), join(ct.folder, 'go')]
    const hook = {
      path: '/bin/sh',
      args: ['sh', '-c', `: >${began}; until [ -e ${go} ]; do sleep 0.02; done`],
      env: ['PATH=/bin:/usr/bin'],
    }
    const args = ct.configArgs(['--rm'], id, ['true'], (spec) =>
      Object.assign(spec, { hooks: { createRuntime: [hook] } }),
    )
    const client = ct.daemon.startCtr(args)
    await until('the hook', () => existsSync(began))
    const path = join(ct.bundle(id), 'shim-report')
    process.kill(ct.shimPid(id), 'SIGUSR1')
    await until('the report', () => existsSync(path))
    expect(JSON.parse(readFileSync(path, 'utf8'))).toMatchObject({
      shim: { creating: 1 },
      calls: [{ op: 'Create', container: id }],
      containers: [],
    })
    writeFileSync(go, '')
    expect(await client.finished).toMatchObject({ code: 0 })
  })
})
