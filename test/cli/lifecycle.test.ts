/** runts kill, pause, resume and delete: what happens to a container that is there. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { isAlive } from '../support/census.ts'
import { needs } from '../support/needs.ts'
import { test } from '../support/runts.ts'

const SLEEP = ['sleep', '1000']

describe('runts kill, pause and delete', needs('root', 'busybox'), () => {
  test('kill sends the signal that was named, and then says that nothing runs', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    await runts.ok('kill', 'c', 'KILL')
    await runts.untilStatus('c', 'stopped')
    expect(await runts.run('kill', 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('container not running'),
    })
    expect(await runts.run('kill', 'c', 'NOPE')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('unknown signal "NOPE"'),
    })
  })

  test('pause freezes and resume thaws', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    await runts.ok('pause', 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'paused' })
    expect(await runts.run('exec', 'c', 'true')).toMatchObject({ code: 255, stderr: expect.stringContaining('paused') })
    await runts.ok('resume', 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
  })

  test('delete refuses a running container and takes it with --force', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const { pid } = await runts.state('c')
    expect(await runts.run('delete', 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('not stopped: running'),
    })
    await runts.ok('delete', '--force', 'c')
    expect(isAlive(Number(pid))).toBe(false)
  })

  test('delete takes a created container', async ({ runts }) => {
    runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
    await runts.ok('delete', 'c')
  })

  test('delete of one that is not there fails, and succeeds with --force', async ({ runts }) => {
    expect(await runts.run('delete', 'ghost')).toMatchObject({ code: 1 })
    await runts.ok('delete', '--force', 'ghost')
  })

  test('delete ends what outlived an init in the host pid namespace', async ({ runts }) => {
    const bundle = runts.bundle(['sh', '-c', 'sleep 1000 & exit 0'], (spec) => {
      spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'pid')
      spec.mounts = spec.mounts.filter(({ destination }) => destination !== '/proc')
      spec.linux.maskedPaths = []
      spec.linux.readonlyPaths = []
    })
    runts.leave('run', '-d', '-b', bundle, 'c')
    await runts.untilStatus('c', 'stopped')
    await runts.ok('delete', 'c')
  })

  test('kill takes names in any form, numbers and real-time signals', async ({ runts }) => {
    const traps = ['usr1', 'usr2', 'term', 'rtmin+3'].map((name) => (name === 'rtmin+3' ? 37 : name.toUpperCase()))
    const script = `${traps.map((name) => `trap 'echo ${name}' ${name}`).join('; ')}; echo up; while :; do sleep 0.05; done`
    const command = runts.start(['run', '-b', runts.bundle(['sh', '-c', script]), 'c'])
    await command.untilOutput('up')
    for (const [signal, name] of [
      ['SIGUSR1', 'USR1'],
      ['usr2', 'USR2'],
      ['15', 'TERM'],
      ['RTMIN+3', '37'],
    ] as const) {
      await runts.ok('kill', 'c', signal)
      await command.untilOutput(name)
    }
    await runts.ok('kill', '-a', 'c', 'KILL')
    expect(await command.finished).toMatchObject({ code: 137 })
  })
})

describe('runts update', needs('root', 'busybox', 'cgroup1'), () => {
  test('changes the limits that its document names', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP, (spec) => Object.assign(spec.linux.resources ?? {}, { pids: { limit: 50 } }))
    runts.leave('run', '-d', '-b', bundle, 'c')
    const pid = Number((await runts.state('c'))['pid'])
    const path = /:pids:(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1]
    const limit = (): string => readFileSync(`/sys/fs/cgroup/pids${path}/pids.max`, 'utf8').trim()
    const document = join(runts.folder, 'limits.json')
    writeFileSync(document, '{"pids":{"limit":30}}')
    await runts.ok('update', '--resources', document, 'c')
    expect(limit()).toBe('30')
    const fromInput = runts.start(['update', '-r', '-', 'c'], { input: '{"pids":{"limit":31}}' })
    expect(await fromInput.finished).toMatchObject({ code: 0, stderr: '' })
    expect(limit()).toBe('31')
    writeFileSync(document, '{"pids":{"limit":"many"}}')
    expect(await runts.run('update', '-r', document, 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('/pids/limit'),
    })
  })
})
