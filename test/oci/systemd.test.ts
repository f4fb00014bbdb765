/**
 * Containers whose cgroups systemd makes, on a real systemd: what it and the kernel say, and that nothing is left. The
 * tests hold on v2 and, where the kernel still has the controllers, on a hybrid host.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished } from 'vitest'
import { startCommand, until } from '../support/command.ts'
import { Counter } from '../support/counter.ts'
import { FakeSystemd } from '../support/fake-systemd.ts'
import { isCgroup2, needs } from '../support/needs.ts'
import { OCI_RUNTIME } from '../support/places.ts'
import type { TestSpec } from '../support/spec.ts'
import { type SystemdHost, shown, systemctl, test } from '../support/systemd.ts'

const V2 = isCgroup2()
const NEEDS = needs('root', 'busybox', 'systemd', 'our shim', 'the OCI runtime')

function limits(resources: Record<string, unknown>) {
  return (spec: TestSpec): void => {
    spec.linux.resources = resources
  }
}

async function update(runts: SystemdHost, id: string, resources: Record<string, unknown>) {
  const file = join(runts.folder, 'limits.json')
  writeFileSync(file, JSON.stringify(resources))
  return runts.run('update', '-r', file, id)
}

/** The files that systemd could write, as they are. */
function kernelFiles(runts: SystemdHost, stem: string): Record<string, string> {
  const names = V2
    ? ['memory.max', 'memory.low', 'memory.high', 'memory.swap.max', 'cpu.weight', 'cpuset.cpus', 'pids.max']
    : ['pids.max', 'cpu.shares']
  return Object.fromEntries(names.map((name) => [name, runts.file(stem, name)]))
}

describe('a scope', NEEDS, () => {
  test('has the limits of the container, in the files of the kernel and in the words of systemd', async ({ runts }) => {
    runts.sleeper('c', limits({ pids: { limit: 50 }, cpu: { shares: 512, quota: 25_000, period: 50_000 } }))
    expect(await shown(runts.unit('c'), 'ActiveState', 'Slice', 'Delegate', 'Description', 'TasksMax')).toEqual({
      ActiveState: 'active',
      Slice: 'system.slice',
      Delegate: 'yes',
      Description: 'container c',
      TasksMax: '50',
    })
    expect(await shown(runts.unit('c'), 'CPUQuotaPerSecUSec', 'CPUQuotaPeriodUSec')).toEqual({
      CPUQuotaPerSecUSec: '500ms',
      CPUQuotaPeriodUSec: '50ms',
    })
    expect(runts.file('c', 'pids.max')).toBe('50')
    expect(V2 ? runts.file('c', 'cpu.max') : runts.file('c', 'cpu.cfs_quota_us')).toMatch(/^25000\b/)
    const { pid } = await runts.state('c')
    const places = readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n')
    // on a hybrid host, in every hierarchy
    expect(places.filter((line) => !line.endsWith(`:/system.slice/${runts.unit('c')}`))).toEqual([])
    await runts.ok('delete', '-f', 'c')
    expect(runts.exists('c')).toBe(false)
    expect(await runts.units()).toEqual([])
  })

  test('lies in the slices that the name of its slice says, and is named after the id by default', async ({
    runts,
  }) => {
    const slice = `${runts.name}-a.slice`
    const bundle = runts.bundle(['sleep', '1000'], (spec) => {
      spec.linux.cgroupsPath = `${slice}:p:c`
    })
    runts.leave('run', '-d', '-b', bundle, 'c')
    const name = runts.name.split('-')[1]
    expect(await shown('p-c.scope', 'ControlGroup')).toEqual({
      ControlGroup: `/runts.slice/runts-${name}.slice/runts-${name}-a.slice/p-c.scope`,
    })
    await runts.ok('delete', '-f', 'c')
    // systemd keeps a slice until it is stopped
    await systemctl('stop', slice, `${runts.name}.slice`, 'runts.slice')
    const plain = runts.bundle(['sleep', '1000'], (spec) => {
      delete spec.linux.cgroupsPath
    })
    runts.leave('run', '-d', '-b', plain, runts.name)
    expect(await shown(`runts-${runts.name}.scope`, 'ActiveState', 'Slice')).toEqual({
      ActiveState: 'active',
      Slice: 'system.slice',
    })
    await runts.ok('delete', '-f', runts.name)
    expect(await systemctl('list-units', '--all', `runts-${runts.name}.scope`, 'p-c.scope')).toBe('')
  })

  test('takes the processes of an exec, in sub-cgroups too', async ({ runts }) => {
    runts.sleeper('c')
    const pidFile = join(runts.folder, 'pid')
    runts.leave('exec', '-d', '--pid-file', pidFile, 'c', 'sleep', '1000')
    const placeOf = () => readFileSync(`/proc/${readFileSync(pidFile, 'utf8')}/cgroup`, 'utf8')
    expect(placeOf()).toContain(`/system.slice/${runts.unit('c')}\n`)
    spawnSync('mkdir', [`${runts.dir('c', 'pids')}/sub`])
    runts.leave('exec', '-d', '--pid-file', pidFile, '--cgroup', V2 ? 'sub' : 'pids:sub', 'c', 'sleep', '1000')
    expect(placeOf()).toContain(`/system.slice/${runts.unit('c')}/sub\n`)
  })

  test('is made for a restored container, too', needs('criu'), async ({ runts }) => {
    const counter = new Counter(runts, (spec) => {
      spec.linux.cgroupsPath = `:${runts.name}:c`
      spec.linux.resources = { pids: { limit: 50 } }
    })
    runts.leave('run', '-d', '-b', counter.bundle, 'c')
    await counter.goesOn()
    await runts.ok('checkpoint', '--image-path', counter.images, 'c')
    expect(await runts.units()).toEqual([])
    runts.leave('restore', '-d', '-b', counter.bundle, '--image-path', counter.images, 'c')
    await counter.goesOn()
    expect(counter.repeats).toBe(false)
    expect(await shown(runts.unit('c'), 'ActiveState', 'TasksMax')).toEqual({ ActiveState: 'active', TasksMax: '50' })
    const { pid } = await runts.state('c')
    expect(readFileSync(`/proc/${pid}/cgroup`, 'utf8')).toContain(`/system.slice/${runts.unit('c')}\n`)
    await runts.ok('delete', '-f', 'c')
    expect(await runts.units()).toEqual([])
  })

  test('pauses and goes on', async ({ runts }) => {
    runts.sleeper('c')
    await runts.ok('pause', 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'paused' })
    await runts.ok('resume', 'c')
    await runts.ok('pause', 'c')
    await runts.ok('delete', '-f', 'c')
    expect(await runts.units()).toEqual([])
  })

  test('allows the devices of the container and no others, also after systemd reads its units again', async ({
    runts,
  }) => {
    runts.sleeper('c', (spec) => {
      spec.linux.resources = {
        devices: [
          { allow: false, access: 'rwm' },
          { allow: true, type: 'c', major: 1, minor: 11, access: 'r' },
        ],
      }
      // the kernel's log needs a capability of its own, besides the rule
      const capabilities = ['CAP_MKNOD', 'CAP_SYSLOG']
      spec.process.capabilities = { bounding: capabilities, effective: capabilities, permitted: capabilities }
    })
    const tries = `cd /dev; mknod kmsg c 1 11; mknod mem c 1 1
      (: <kmsg) && echo kmsg; (: >kmsg) && echo kmsg write; (: <mem) && echo mem; (: </dev/null) && echo null`
    const inside = async () => (await runts.run('exec', 'c', 'sh', '-c', `${tries}; rm kmsg mem`)).stdout
    expect(await inside()).toBe('kmsg\nnull\n')
    await systemctl('daemon-reload')
    expect(await inside()).toBe('kmsg\nnull\n')
    expect(await update(runts, 'c', { devices: [{ allow: false, access: 'rwm' }] })).toMatchObject({ code: 0 })
    expect(await inside()).toBe('null\n')
    await systemctl('daemon-reload')
    expect(await inside()).toBe('null\n')
  })

  test('keeps, whatever is updated, what systemd writes again: both know the same limits', async ({ runts }) => {
    runts.sleeper('c')
    // a generator of its own, so that a failure can be repeated
    let seed = 7
    const any = (from: number, to: number): number => {
      seed = (seed * 48_271) % 2_147_483_647
      return from + (seed % (to - from + 1))
    }
    for (let round = 0; round < 6; round++) {
      const memory = any(16, 512) * 1024 * 1024
      const resources = {
        pids: { limit: any(10, 1000) },
        cpu: { shares: any(2, 10_000), ...(V2 ? { cpus: '0' } : {}) },
        ...(V2 ? { memory: { limit: memory, swap: memory * any(1, 3), reservation: any(1, 8) * 1024 * 1024 } } : {}),
        ...(V2 ? { unified: { 'memory.high': String(any(8, 512) * 1024 * 1024) } } : {}),
      }
      expect(await update(runts, 'c', resources), JSON.stringify(resources)).toMatchObject({ code: 0, stderr: '' })
      const before = kernelFiles(runts, 'c')
      expect(before['pids.max']).toBe(String(resources.pids.limit))
      await systemctl('daemon-reload')
      // a change of another property makes systemd write all that it knows
      await systemctl('set-property', '--runtime', runts.unit('c'), `Description=round ${round}`)
      expect(kernelFiles(runts, 'c'), JSON.stringify(resources)).toEqual(before)
    }
  })

  test('has its old limits, in both, after an update that the kernel refuses', async ({ runts }) => {
    runts.sleeper('c', limits({ pids: { limit: 50 } }))
    const refused = await update(runts, 'c', { pids: { limit: 60 }, cpu: { quota: 1 } })
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('EINVAL') })
    expect(runts.file('c', 'pids.max')).toBe('50')
    expect(await shown(runts.unit('c'), 'TasksMax')).toEqual({ TasksMax: '50' })
  })

  test('has the further properties of annotations', async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      spec.annotations = {
        'org.systemd.property.TimeoutStopSec': 'uint64 7',
        'org.systemd.property.CollectMode': "'inactive-or-failed'",
      }
    })
    expect(await shown(runts.unit('c'), 'TimeoutStopUSec', 'CollectMode')).toEqual({
      TimeoutStopUSec: '7s',
      CollectMode: 'inactive-or-failed',
    })
  })

  test('is not made with a property that systemd does not know', async ({ runts }) => {
    const bundle = runts.bundleOf('c', ['true'], (spec) => {
      spec.annotations = { 'org.systemd.property.NoSuchThing': 'true' }
    })
    expect(await runts.run('run', '-b', bundle, 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(
        /^runts: error: cannot create systemd unit "[^"]+": systemd refuses it: .*NoSuchThing.*\n$/,
      ),
    })
    expect(await runts.units()).toEqual([])
  })

  test('goes with the container when systemd stops it', async ({ runts }) => {
    runts.sleeper('c')
    await systemctl('kill', '--signal=KILL', runts.unit('c'))
    await runts.untilStatus('c', 'stopped')
    await runts.ok('delete', 'c')
    expect(await runts.units()).toEqual([])
  })

  test('goes when the container ends by itself, and a run leaves nothing', async ({ runts }) => {
    await runts.ok('run', '-b', runts.bundleOf('c', ['true']), 'c')
    expect(await runts.units()).toEqual([])
    expect(runts.exists('c')).toBe(false)
  })

  test(
    'outlives the death of one process for lack of memory',
    needs('cgroup2', 'memory controller'),
    async ({ runts }) => {
      runts.sleeper('c', limits({ memory: { limit: 32 * 1024 * 1024, swap: 32 * 1024 * 1024 } }))
      const hungry = await runts.run('exec', 'c', 'sh', '-c', 'head -c 100000000 /dev/zero | tail')
      expect(hungry.code).not.toBe(0)
      expect(runts.file('c', 'memory.events')).toMatch(/^oom_kill [1-9]/m)
      expect(await runts.state('c')).toMatchObject({ status: 'running' })
    },
  )
})

describe('a unit of the same name', NEEDS, () => {
  test('that lives is left alone, and the error says what ends it', async ({ runts }) => {
    const unit = runts.unit('c')
    const other = startCommand('systemd-run', ['--scope', '--quiet', '--unit', unit, 'sleep', '1000'])
    onTestFinished(async () => {
      await systemctl('stop', unit)
      await other.finished
    })
    await until(`${unit} to be active`, async () => (await shown(unit, 'ActiveState'))['ActiveState'] === 'active')
    const { code, stderr } = await runts.run('run', '-b', runts.bundleOf('c'), 'c')
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: `runts: error: cannot create systemd unit "${unit}": a systemd unit of that name exists already (active); \`systemctl stop ${unit}\` ends it\n`,
    })
    expect(await shown(unit, 'ActiveState')).toEqual({ ActiveState: 'active' })
    await systemctl('stop', unit)
  })

  test('that has failed is forgotten', async ({ runts }) => {
    const unit = runts.unit('c')
    await startCommand('systemd-run', [
      '--scope',
      '--quiet',
      `--unit=${unit}`,
      '-p',
      'RuntimeMaxSec=1',
      'sleep',
      '1000',
    ]).finished
    await until(`${unit} to have failed`, async () => (await shown(unit, 'ActiveState'))['ActiveState'] === 'failed')
    runts.sleeper('c')
    expect(await shown(unit, 'ActiveState')).toEqual({ ActiveState: 'active' })
  })
})

describe('a container with a unit', NEEDS, () => {
  test('whose state is damaged is deleted by force, and its unit with it', async ({ runts }) => {
    runts.sleeper('c')
    writeFileSync(join(runts.root, 'c/state.json'), '')
    await runts.ok('delete', '-f', 'c')
    expect(await runts.units()).toEqual([])
    expect(runts.exists('c')).toBe(false)
  })

  test('that has lost all records but its spec is deleted by force too', async ({ runts }) => {
    runts.sleeper('c')
    for (const name of ['state.json', 'made']) writeFileSync(join(runts.root, 'c', name), '')
    await runts.ok('delete', '-f', 'c')
    expect(runts.exists('c')).toBe(false)
    await until('systemd to drop the empty unit', async () => (await runts.units()).length === 0)
  })

  test('is known to commands without the option: the container says who made it', async ({ runts }) => {
    runts.sleeper('c')
    const words = ['--root', runts.root, 'update', '-r', '-', 'c']
    const { stderr } = await startCommand(OCI_RUNTIME, words, { input: '{"pids":{"limit":33}}' }).finished
    expect(stderr).toBe('')
    expect(await shown(runts.unit('c'), 'TasksMax')).toEqual({ TasksMax: '33' })
    await startCommand(OCI_RUNTIME, ['--root', runts.root, 'delete', '-f', 'c']).finished
    expect(await runts.units()).toEqual([])
  })

  test('is made, changed and deleted while systemd starts itself anew', async ({ runts }) => {
    let goes = true
    const restarts = (async () => {
      while (goes) await systemctl('daemon-reexec')
    })()
    for (let round = 0; round < 4; round++) {
      runts.sleeper(`c${round}`)
      expect(await update(runts, `c${round}`, { pids: { limit: 44 } })).toMatchObject({ code: 0, stderr: '' })
      await runts.ok('delete', '-f', `c${round}`)
    }
    goes = false
    await restarts
    expect(await runts.units()).toEqual([])
  })

  test('leaves no unit, one after the other and together', async ({ runts }) => {
    const count = process.env['FULL'] === '1' ? 200 : 40
    const bundles = ['a', 'b', 'c', 'd'].map((stem) => runts.bundleOf(stem, ['true']))
    const { outcomes } = await runts.startMany(bundles, count / bundles.length, true)
    expect(outcomes.map(({ outcome }) => outcome)).toEqual(['0 ', '0 ', '0 ', '0 '])
    expect(await runts.units()).toEqual([])
    expect(await systemctl('list-units', '--failed', '*.scope')).toBe('')
  }, 600_000)
})

describe('a bus', NEEDS, () => {
  async function over(runts: SystemdHost, answer: Parameters<typeof FakeSystemd.at>[1]) {
    const path = join(runts.folder, 'bus')
    await using fake = await FakeSystemd.at(path, answer)
    const args = ['run', '-d', '-b', runts.bundleOf('c'), 'c']
    const ended = await runts.leaving(args, { env: { DBUS_SYSTEM_BUS_ADDRESS: fake.address.address } })
    expect(existsSync(join(runts.root, 'c'))).toBe(false)
    return ended
  }

  test('that does not answer ends a create within its bound, with nothing left', async ({ runts }) => {
    const { code, stderr } = await over(runts, () => 'silence')
    expect(code).toBe(1)
    expect(stderr).toMatch(
      /^runts: error: cannot create systemd unit "[^"]+": systemd did not answer within 30 s at \S+\n$/,
    )
  }, 600_000)

  test('that denies ends a create at once, with its own words', async ({ runts }) => {
    const { code, stderr } = await over(runts, ({ member }) => {
      if (member === 'Hello') return { reply: [['s', ':1.7']] }
      if (member === 'Get') return { reply: [['v', '257']] }
      return { error: 'org.freedesktop.DBus.Error.AccessDenied', message: 'Access denied' }
    })
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: `runts: error: cannot create systemd unit "${runts.unit('c')}": systemd refuses it: Access denied\n`,
    })
  })

  test('is the system bus where the own socket of systemd is not asked', async ({ runts }) => {
    const env = { DBUS_SYSTEM_BUS_ADDRESS: 'unix:path=/run/dbus/system_bus_socket' }
    expect(await runts.leaving(['run', '-d', '-b', runts.bundleOf('c'), 'c'], { env })).toMatchObject({ stderr: '' })
    expect(await shown(runts.unit('c'), 'ActiveState')).toEqual({ ActiveState: 'active' })
    expect(await runts.leaving(['delete', '-f', 'c'], { env })).toMatchObject({ code: 0, stderr: '' })
  })
})

describe('one layout, two runtimes:', needs('root', 'busybox', 'systemd', 'the runc shim', 'our shim'), () => {
  function runc(runts: SystemdHost, ...args: string[]) {
    const { status } = spawnSync('runc', ['--root', runts.root, '--systemd-cgroup', ...args], { stdio: 'ignore' })
    return status
  }

  test('a unit that runc has made is deleted with its container', async ({ runts }) => {
    expect(runc(runts, 'run', '-d', '-b', runts.bundleOf('c'), 'c')).toBe(0)
    expect(await runts.units()).toEqual([runts.unit('c')])
    await runts.ok('delete', '-f', 'c')
    expect(await runts.units()).toEqual([])
  })

  test('runc deletes a container and its unit', async ({ runts }) => {
    runts.sleeper('c')
    expect(runc(runts, 'delete', '-f', 'c')).toBe(0)
    expect(await runts.units()).toEqual([])
  })
})

describe("a user's own systemd", needs('root', 'busybox', 'systemd', 'cgroup2', 'uidmap', 'the user tester'), () => {
  const [, , uid = '1000', gid = '1000'] =
    /^tester:.*$/m.exec(readFileSync('/etc/passwd', 'utf8'))?.[0].split(':') ?? []
  const run = `/run/user/${uid}`

  function byUser(...words: readonly string[]) {
    const as = ['--reuid', uid, '--regid', gid, '--init-groups', 'env', `XDG_RUNTIME_DIR=${run}`, 'HOME=/tmp']
    return startCommand('setpriv', [...as, ...words]).finished
  }

  test('makes the scope of a container without privileges, whose limits hold, and takes its execs', async ({
    runts,
  }) => {
    await startCommand('loginctl', ['enable-linger', 'tester']).finished
    onTestFinished(async () => {
      await startCommand('loginctl', ['disable-linger', 'tester']).finished
    })
    await until('the manager of the user', () => existsSync(`${run}/systemd/private`))
    const bundle = runts.bundleOf('c', ['sleep', '1000'], (spec) => {
      spec.linux.namespaces.push({ type: 'user' })
      spec.linux.uidMappings = [{ containerID: 0, hostID: Number(uid), size: 1 }]
      spec.linux.gidMappings = [{ containerID: 0, hostID: Number(gid), size: 1 }]
      for (const { type, options = [] } of spec.mounts)
        if (type === 'devpts') options.splice(0, options.length, ...options.filter((option) => option !== 'gid=5'))
      spec.linux.resources = { memory: { limit: 67_108_864 }, pids: { limit: 50 } }
    })
    const folder = join(runts.folder, 'user')
    for (const words of [
      ['mkdir', folder],
      ['chmod', '755', runts.folder],
      ['chown', '-R', `${uid}:${gid}`, folder, bundle],
    ])
      await startCommand(words[0] ?? '', words.slice(1)).finished
    const runtime = [OCI_RUNTIME, '--root', folder, '--systemd-cgroup']
    const quiet = ['sh', '-c', '"$@" </dev/null >/dev/null 2>"$0"', join(folder, 'stderr')]
    const started = await byUser(...quiet, ...runtime, 'run', '-d', '-b', bundle, 'c')
    expect(started, readFileSync(join(folder, 'stderr'), 'utf8')).toMatchObject({ code: 0 })
    const { pid } = JSON.parse((await byUser(...runtime, 'state', 'c')).stdout)
    const place = readFileSync(`/proc/${pid}/cgroup`, 'utf8').slice('0::'.length).trim()
    expect(place).toMatch(new RegExp(`/user@${uid}\\.service/user\\.slice/${runts.unit('c')}$`))
    const limit = (name: string) => readFileSync(`/sys/fs/cgroup${place}/${name}`, 'utf8').trim()
    expect([limit('memory.max'), limit('pids.max')]).toEqual(['67108864', '50'])
    const pidFile = join(folder, 'pid')
    await byUser(...quiet, ...runtime, 'exec', '-d', '--pid-file', pidFile, 'c', 'sleep', '1000')
    expect(readFileSync(`/proc/${readFileSync(pidFile, 'utf8')}/cgroup`, 'utf8')).toBe(`0::${place}\n`)
    expect(await byUser(...runtime, 'delete', '-f', 'c')).toMatchObject({ code: 0, stderr: '' })
    expect(existsSync(`/sys/fs/cgroup${place}`)).toBe(false)
    expect(
      (await byUser('systemctl', '--user', '--plain', '--no-legend', 'list-units', '--all', `${runts.name}*`)).stdout,
    ).toBe('')
    rmSync(folder, { recursive: true })
  })
})
