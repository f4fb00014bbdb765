/**
 * kill -9 at every step: of `runts` at the places that runtime/failpoint.ts names, of the init helper before and
 * after each operation of its plan. What is left then must be gone after one `delete --force`: no process, no cgroup,
 * no state, no mount.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect } from 'vitest'
import { FAILPOINTS } from '../../runtime/failpoint.ts'
import { cgroupsOf, isAlive } from '../support/census.ts'
import { until } from '../support/command.ts'
import { buildFailing } from '../support/kill-points.ts'
import { isCgroup2, needs } from '../support/needs.ts'
import { BIN, FAILING_RUNTS } from '../support/places.ts'
import { type Ended, type Runts, test } from '../support/runts.ts'
import type { SpecChange } from '../support/spec.ts'

const SLEEP = ['sleep', '1000']
const VARIABLE = 'RUNTS_FAIL_AT'

beforeAll(buildFailing, 120_000)

/** Most of what a plan can hold. */
const rich: SpecChange = (spec) => {
  const host = [{ containerID: 0, hostID: 0, size: 65_536 }]
  const hook = [{ path: '/bin/true' }]
  spec.hostname = 'rich'
  spec.root = { path: 'rootfs', readonly: true }
  spec.process.rlimits = [{ type: 'RLIMIT_NOFILE', soft: 100, hard: 100 }]
  spec.process.noNewPrivileges = false
  for (const type of ['user', 'cgroup', 'time']) spec.linux.namespaces.push({ type })
  Object.assign(spec, { hooks: { createRuntime: hook, createContainer: hook, startContainer: hook } })
  Object.assign(spec.linux, {
    uidMappings: host,
    gidMappings: host,
    timeOffsets: { monotonic: { secs: 1, nanosecs: 0 } },
    sysctl: { 'net.ipv4.ip_forward': '1' },
    seccomp: { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['acct'], action: 'SCMP_ACT_ERRNO' }] },
  })
}

/** What the plan of an exec into such a container holds; one that it does not hold would be seen to end well. */
const EXEC_OPERATIONS = [
  'raise_rlimit',
  isCgroup2() ? 'cgroup_dir' : 'cgroup_tasks',
  'join_process',
  'clone',
  'session',
  'keyring',
  'reopen_null',
  'umask',
  'rlimit',
  'wait_cgroup',
  'affinity',
  'seccomp',
  'chdir',
  'credentials',
  'program',
  'exec',
]

/** The places of one command. */
function placesOf(command: string): string[] {
  return FAILPOINTS.filter((name) => name.startsWith(`${command}:`))
}

/** Runs a command of the test build that kills itself at `place`. */
function crash(runts: Runts, place: string, ...args: string[]): Promise<Ended> {
  return runts.leaving(args, { program: FAILING_RUNTS, env: { [VARIABLE]: place } })
}

/** Helpers of the test build that still run: all of them carry the variable. */
function helpers(): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`${VARIABLE}=`)
    } catch {
      // gone meanwhile, or not for us to read: a zombie
      return false
    }
  })
}

/** `delete --force` succeeds, and then nothing of the container is there. */
async function expectRemoved(runts: Runts, place: string): Promise<void> {
  const { code, stderr } = await runts.run('delete', '--force', 'c')
  expect({ place, code, stderr }).toEqual({ place, code: 0, stderr: '' })
  expect(existsSync(join(runts.root, 'c')), `${place}: the state folder`).toBe(false)
  const cgroups = cgroupsOf(runts.name).filter((path) => !path.endsWith(runts.name))
  expect(cgroups, `${place}: cgroups`).toEqual([])
  expect(readFileSync('/proc/self/mountinfo', 'utf8'), `${place}: mounts`).not.toContain(runts.folder)
  await until(`${place}: no helper left`, () => helpers().length === 0)
}

describe('kill -9 of runts', needs('root', 'busybox', 'gcc', 'make'), () => {
  test.for(placesOf('create'))('at %s: delete --force removes what create left', async (place, { runts }) => {
    const bundle = runts.bundle(SLEEP)
    expect(await crash(runts, place, 'create', '-b', bundle, 'c')).toMatchObject({ signal: 'SIGKILL' })
    await expectRemoved(runts, place)
  })

  test.for([...placesOf('create'), ...placesOf('start'), ...placesOf('delete')])(
    'at %s: delete --force removes what run left',
    async (place, { runts }) => {
      const bundle = runts.bundle(['true'])
      expect(await crash(runts, place, 'run', '-b', bundle, 'c')).toMatchObject({ signal: 'SIGKILL' })
      await expectRemoved(runts, place)
    },
  )

  test.for(placesOf('start'))('at %s: delete --force removes the container', async (place, { runts }) => {
    runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
    expect(await crash(runts, place, 'start', 'c')).toMatchObject({ signal: 'SIGKILL' })
    await expectRemoved(runts, place)
  })

  test.for(placesOf('exec'))('at %s: the process of the exec goes with the container', async (place, { runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    expect(await crash(runts, place, 'exec', 'c', ...SLEEP)).toMatchObject({ signal: 'SIGKILL' })
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
    await expectRemoved(runts, place)
  })

  test.for(placesOf('delete'))('at %s: a second delete --force ends what the first began', async (place, { runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    expect(await crash(runts, place, 'delete', '-f', 'c')).toMatchObject({ signal: 'SIGKILL' })
    await expectRemoved(runts, place)
  })

  test('of the process that run has just made fails the command, which leaves nothing', async ({ runts }) => {
    const order = join(runts.folder, 'order')
    writeFileSync(order, 'create:saved')
    const args = ['run', '-b', runts.bundle(SLEEP), 'c']
    const ended = runts.leaving(args, { program: FAILING_RUNTS, env: { RUNTS_STOP_FILE: order } })
    await until('the command to stop', () => !existsSync(order))
    const { pid, monitorPid } = await runts.state('c')
    process.kill(Number(pid), 'SIGKILL')
    await until('its process to be gone', async () => (await runts.state('c'))['status'] === 'stopped')
    process.kill(Number(monitorPid), 'SIGCONT')
    const stderr = expect.stringMatching(
      /^runts: error: (container process ended before|cannot start a container that has).*\n$/,
    )
    expect(await ended).toMatchObject({ code: 1, stderr })
    expect(existsSync(join(runts.root, 'c'))).toBe(false)
  })

  test('in a create leaves an id that list passes over, and that delete without force explains', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP)
    await crash(runts, 'create:child', 'create', '-b', bundle, 'c')
    const explained = 'its create was interrupted; `delete --force c` removes what it left'
    expect(await runts.run('list', '-q')).toMatchObject({ code: 0, stdout: '' })
    const { code, stdout, stderr } = await runts.run('list')
    expect({ code, rows: stdout.trimEnd().split('\n').length, stderr }).toEqual({
      code: 0,
      rows: 1,
      stderr: `runts: error: load container c: container does not exist: "c": ${explained}\n`,
    })
    expect(await runts.run('delete', 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(explained),
    })
    expect(await runts.run('create', '-b', bundle, 'c')).toMatchObject({ code: 1 })
    await expectRemoved(runts, 'create:child')
    await runts.ok('run', '-b', runts.bundle(['true']), 'c')
  })

  test('while a hook runs: delete --force ends the hook too, and what that has started', async ({ runts }) => {
    const pids = join(runts.folder, 'pids')
    const bundle = runts.bundle(SLEEP, (spec) => {
      const script = `sleep 1000 & echo $$ $! > ${pids}; wait`
      spec.hooks = { createRuntime: [{ path: '/bin/sh', args: ['sh', '-c', script], env: ['PATH=/bin:/usr/bin'] }] }
    })
    const create = runts.start(['create', '-b', bundle, 'c'])
    const written = (): string => (existsSync(pids) ? readFileSync(pids, 'utf8') : '')
    await until('the hook', () => written().endsWith('\n'))
    const hooks = written().trim().split(' ').map(Number)
    create.kill('SIGKILL')
    await create.finished
    expect(hooks.map(isAlive)).toEqual([true, true])
    await expectRemoved(runts, 'hook')
    await until('the end of the hook', () => !hooks.some(isAlive))
  })

  test('at hook:spawned, before the hook is recorded: delete --force ends the hook all the same', async ({ runts }) => {
    const pids = join(runts.folder, 'pids')
    const bundle = runts.bundle(SLEEP, (spec) => {
      const script = `echo $$ > ${pids}; exec sleep 1000`
      spec.hooks = { createRuntime: [{ path: '/bin/sh', args: ['sh', '-c', script], env: ['PATH=/bin:/usr/bin'] }] }
    })
    expect(await crash(runts, 'hook:spawned', 'create', '-b', bundle, 'c')).toMatchObject({ signal: 'SIGKILL' })
    await until('the hook', () => existsSync(pids) && readFileSync(pids, 'utf8').endsWith('\n'))
    const hook = Number(readFileSync(pids, 'utf8'))
    expect(isAlive(hook)).toBe(true)
    await expectRemoved(runts, 'hook:spawned')
    await until('the end of the hook', () => !isAlive(hook))
  })

  test('while a hook runs that is not recorded yet: it may itself delete what was left', async ({ runts }) => {
    const status = join(runts.folder, 'status')
    const bundle = runts.bundle(SLEEP, (spec) => {
      const remove = `${join(BIN, 'runts')} --root ${runts.root} delete --force c`
      // who reads what the hook says is gone with the runtime
      const script = `exec > /dev/null 2>&1; while kill -0 $PPID; do sleep 0.01; done; ${remove}; echo $? > ${status}`
      spec.hooks = { createRuntime: [{ path: '/bin/sh', args: ['sh', '-c', script], env: ['PATH=/bin:/usr/bin'] }] }
    })
    expect(await crash(runts, 'hook:spawned', 'create', '-b', bundle, 'c')).toMatchObject({ signal: 'SIGKILL' })
    await until('its end', () => existsSync(status) && readFileSync(status, 'utf8') !== '')
    expect(readFileSync(status, 'utf8')).toBe('0\n')
    await expectRemoved(runts, 'hook:spawned')
  })

  test('after a hook: what that has left behind goes on', async ({ runts }) => {
    const pids = join(runts.folder, 'pids')
    const bundle = runts.bundle(SLEEP, (spec) => {
      // a leader of its own group that has the hook's input
      const script = `setsid -f sh -c 'echo $$ > ${pids}; exec sleep 1000' > /dev/null 2>&1; until [ -s ${pids} ]; do sleep 0.01; done`
      spec.hooks = { createRuntime: [{ path: '/bin/sh', args: ['sh', '-c', script], env: ['PATH=/bin:/usr/bin'] }] }
    })
    expect(await crash(runts, 'create:ready', 'create', '-b', bundle, 'c')).toMatchObject({ signal: 'SIGKILL' })
    const daemon = Number(readFileSync(pids, 'utf8'))
    await expectRemoved(runts, 'create:ready')
    expect(isAlive(daemon)).toBe(true)
    process.kill(daemon)
    await until('the end of the daemon', () => !isAlive(daemon))
  })

  test('in a start that the program has survived: it runs, and a second start says so', async ({ runts }) => {
    runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
    await crash(runts, 'start:executed', 'start', 'c')
    expect(existsSync(join(runts.root, 'c/exec.fifo'))).toBe(true)
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
    expect(await runts.run('start', 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('cannot start an already running container'),
    })
    expect(await runts.run('delete', 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('cannot delete container "c" that is not stopped: running'),
    })
    await expectRemoved(runts, 'start:executed')
  })

  test('never touches a cgroup that was there before', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'other')
    const taken = runts.bundle(SLEEP, (spec) => {
      spec.linux.cgroupsPath = `/${runts.name}/1`
    })
    await crash(runts, 'create:recorded', 'create', '-b', taken, 'c')
    await runts.ok('delete', '--force', 'c')
    expect(await runts.state('other')).toMatchObject({ status: 'running' })
  })
})

describe('kill -9 of the init helper', { ...needs('root', 'busybox', 'gcc', 'make'), timeout: 90_000 }, () => {
  test.for(['', '+'])(
    'at every operation%s: create fails in one line, or delete removes it',
    async (past, { runts }) => {
      const bundle = runts.bundle(SLEEP, rich)
      const { stdout } = await runts.ok('plan', bundle)
      const operations = new Set([...stdout.matchAll(/^ *\d+ (\w+)/gm)].map(([, name]) => name))
      expect(operations.size).toBeGreaterThan(30)
      for (const name of operations) {
        const place = `init:${name}${past}`
        const created = await crash(runts, place, 'create', '-b', bundle, 'c')
        if (created.code === 0) {
          // it died, or will die, behind the fifo
          const started = await crash(runts, place, 'start', 'c')
          expect({ place, code: started.code }).not.toEqual({ place, code: null })
        } else {
          expect({ place, code: created.code, lines: created.stderr.trimEnd().split('\n').length }).toEqual({
            place,
            code: 1,
            lines: 1,
          })
          expect(existsSync(join(runts.root, 'c')), place).toBe(false)
        }
        await expectRemoved(runts, place)
      }
    },
  )

  test.for(['', '+'])(
    'at every operation%s of an exec is an error of the exec, and the container goes on',
    async (past, { runts }) => {
      runts.leave('run', '-d', '-b', runts.bundle(SLEEP, rich), 'c')
      for (const name of EXEC_OPERATIONS) {
        const place = `init:${name}${past}`
        // past the last one there is no helper any more
        if (place === 'init:exec+') continue
        const { code, stderr } = await crash(runts, place, 'exec', 'c', 'true')
        expect({ place, code, lines: stderr.trimEnd().split('\n').length }).toEqual({ place, code: 255, lines: 1 })
      }
      await until('no helper left', () => helpers().length === 0)
      expect(await runts.state('c')).toMatchObject({ status: 'running' })
      expect(await runts.run('exec', 'c', 'true')).toMatchObject({ code: 0 })
      await expectRemoved(runts, 'exec')
    },
  )
})

test('the product has no such places', needs('gcc'), () => {
  const lib = join(BIN, '../lib/containerd-shim-ts')
  const bundles = readdirSync(lib).filter((file) => file.endsWith('.js'))
  for (const file of ['ts-init', ...bundles]) {
    expect(readFileSync(join(lib, file), 'latin1'), file).not.toMatch(/RUNTS_(FAIL_AT|STOP_FILE|LONG_TIME_MS)/)
  }
})
