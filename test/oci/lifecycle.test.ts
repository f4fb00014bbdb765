/**
 * A container's life on the command line: create, start, state, list, ps, pause, kill, delete, and the files that are
 * left beside it.
 */
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { isAlive } from '../support/census.ts'
import { startCommand, until } from '../support/command.ts'
import { notRunc } from '../support/needs.ts'
import { BY_ROOT, inModes, MODES } from '../support/oci.ts'
import { PAYLOAD, PROBE } from '../support/places.ts'

inModes(MODES, 'a container', (test) => {
  test('is created, started, stopped and gone, and says so', async ({ runts }) => {
    const bundle = runts.bundle(['sleep', '1000'], (spec) => {
      spec.annotations = { 'org.example.key': 'a value' }
    })
    expect(await runts.run('state', 'c')).toMatchObject({ code: 1, stderr: expect.stringContaining('does not exist') })
    runts.leave('create', '-b', bundle, 'c')
    const created = await runts.state('c')
    expect(created).toMatchObject({ id: 'c', status: 'created', bundle, annotations: { 'org.example.key': 'a value' } })
    expect(isAlive(Number(created['pid']))).toBe(true)
    expect(await runts.exec('c', 'echo', 'also before start')).toBe('also before start\n')
    await runts.ok('start', 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'running', pid: created['pid'] })
    await runts.ok('kill', 'c', 'KILL')
    await runts.untilStatus('c', 'stopped')
    expect(await runts.state('c')).toMatchObject({ status: 'stopped', pid: 0 })
    expect(await runts.run('kill', 'c', 'KILL')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('container not running'),
    })
    // the old option for all processes has never minded that there are none
    await runts.ok('kill', '-a', 'c', 'KILL')
    expect(await runts.run('start', 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/cannot start a container that has stopped/),
    })
    await runts.ok('delete', 'c')
    expect(await runts.run('state', 'c')).toMatchObject({ code: 1, stderr: expect.stringContaining('does not exist') })
  })

  test('that waits for its start holds nothing of the host: its streams, its fifo, its runtime', async ({ runts }) => {
    runts.leave('create', '-b', runts.bundle(['sleep', '1000']), 'c')
    const proc = `/proc/${(await runts.state('c'))['pid']}`
    const own = new Set(readFileSync(`${proc}/mountinfo`, 'utf8').match(/^\d+/gm))
    const foreign = readdirSync(`${proc}/fd`).filter((fd) => {
      if (Number(fd) < 3) return false
      const mount = /mnt_id:\t(\d+)/.exec(readFileSync(`${proc}/fdinfo/${fd}`, 'utf8'))?.[1]
      return !own.has(String(mount))
    })
    // what is not a file of the container's own mounts
    for (const fd of foreign)
      expect(readlinkSync(`${proc}/fd/${fd}`), fd).toMatch(
        /^(\/dev\/null|(socket|pipe|anon_inode):.*|.*\/c\/exec\.fifo)$/,
      )
    await runts.ok('start', 'c')
    expect(readdirSync(`${proc}/fd`).sort()).toEqual(['0', '1', '2'])
  })

  test('in the foreground takes input, gives output and status, and leaves nothing', async ({ runts }) => {
    const bundle = runts.bundle(['sh', '-c', 'cat; echo err >&2; tty; exit 42'])
    const { finished } = runts.start(['run', '-b', bundle, 'c'], { input: 'in\n' })
    expect(await finished).toMatchObject({ code: 42, stdout: 'in\nnot a tty\n', stderr: 'err\n' })
    expect(existsSync(join(runts.root, 'c'))).toBe(false)
  })

  test('may run a program that only its owner may run where a capability says so, and else says why not', async ({
    runts,
  }) => {
    const bundleWith = (capability: string): string => {
      const bundle = runts.bundle(['/bin/private', 'exit', '0'], (spec) => {
        spec.process.user = { uid: 1000, gid: 1000 }
        const sets = ['bounding', 'effective', 'permitted', 'inheritable', 'ambient']
        spec.process.capabilities = Object.fromEntries(sets.map((set) => [set, [capability]]))
      })
      const program = join(bundle, 'rootfs/bin/private')
      copyFileSync(PAYLOAD, program)
      chownSync(program, runts.owner, runts.owner)
      chmodSync(program, 0o700)
      return bundle
    }
    await runts.ok('run', '-b', bundleWith('CAP_DAC_OVERRIDE'), 'c')
    const { code, stderr } = await runts.run('run', '-b', bundleWith('CAP_CHOWN'), 'c')
    expect(code).not.toBe(0)
    expect(stderr).toMatch(/\/bin\/private.*permission denied/i)
  })

  test('whose program the kernel cannot run says so in one line', async ({ runts }) => {
    const bundle = runts.bundle(['/run.sh'])
    writeFileSync(join(bundle, 'rootfs/run.sh'), '#!/no/such/interpreter\n', { mode: 0o755 })
    const { code, stderr } = await runts.run('run', '-b', bundle, 'c')
    expect(code).not.toBe(0)
    expect(stderr).toMatch(/exec \/run\.sh: no such file or directory\n$/)
    expect(stderr.match(/exec \/run\.sh/g)).toHaveLength(1)
  })

  test(
    'stays with its state after its end where that is asked for',
    notRunc('needs runc 1.1 with --keep fixed'),
    async ({ runts }) => {
      await runts.ok('run', '--keep', '-b', runts.bundle(['true']), 'c')
      expect(await runts.state('c')).toMatchObject({ status: 'stopped' })
      await runts.ok('delete', 'c')
    },
  )

  test('is listed as a table, as ids and as JSON, and each root has its own', async ({ runts }) => {
    runts.sleeper('one')
    runts.leave('create', '-b', runts.bundle(['true']), 'two')
    const [header = '', ...rows] = (await runts.ok('list')).stdout.trimEnd().split('\n')
    expect(header).toMatch(/^ID +PID +STATUS +BUNDLE +CREATED/)
    expect(rows.map((row) => row.split(/ +/)).map(([id, , status]) => [id, status])).toEqual([
      ['one', 'running'],
      ['two', 'created'],
    ])
    expect((await runts.ok('list', '--quiet')).stdout).toBe('one\ntwo\n')
    const json = JSON.parse((await runts.ok('list', '--format', 'json')).stdout)
    expect(json).toMatchObject([
      { id: 'one', status: 'running' },
      { id: 'two', status: 'created' },
    ])
    const otherRoot = join(runts.folder, runts.isRootless ? 'user/run' : '', 'other')
    const [program = '', ...line] = runts
      .commandOf('list', '-q')
      .map((word) => (word === runts.root ? otherRoot : word))
    expect((await startCommand(program, line).finished).stdout).toBe('')
  })

  test('gets the signal that was named', async ({ runts }) => {
    const command = runts.start(['run', '-b', runts.bundle(['payload', 'trap']), 'c'])
    await command.untilOutput('ready')
    await runts.ok('kill', 'c', 'USR1')
    await command.untilOutput('signal 10')
    await runts.ok('kill', 'c', '12')
    await command.untilOutput('signal 12')
    await runts.ok('kill', 'c')
    expect(await command.finished).toMatchObject({ code: 7 })
  })

  test('that is created ends by a signal that ends processes', async ({ runts }) => {
    runts.leave('create', '-b', runts.bundle(['sleep', '1000']), 'c')
    await runts.ok('kill', 'c', 'TERM')
    await runts.untilStatus('c', 'stopped')
  })

  test("has a session keyring of its own, unless it keeps the caller's", async ({ runts }) => {
    expect(await runts.inside('probe keyring')).toMatch(/^_ses\.inside \d+\n$/)
    const bundle = runts.bundle(['probe', 'keyring'])
    expect((await runts.run('run', '--no-new-keyring', '-b', bundle, 'c')).stdout).not.toContain('_ses.c')
  })

  test('is named in the log, as text or as JSON, and --debug says more', async ({ runts }) => {
    const log = join(runts.folder, runts.isRootless ? 'user/run' : '', 'log')
    await runts.run('--log', log, 'state', 'ghost')
    expect(readFileSync(log, 'utf8')).toMatch(/^time="[^"]+" level=error msg=".*does not exist.*"/m)
    await runts.run('--log', `${log}.json`, '--log-format', 'json', 'state', 'ghost')
    expect(JSON.parse(readFileSync(`${log}.json`, 'utf8').split('\n')[0] ?? '')).toMatchObject({
      level: 'error',
      msg: expect.stringContaining('does not exist'),
      time: expect.any(String),
    })
    await runts.ok('--debug', '--log', `${log}.debug`, 'run', '-b', runts.bundle(['true']), 'c')
    const told = readFileSync(`${log}.debug`, 'utf8')
    expect(told).toContain('level=debug')
    // also what the container's side is at
    expect(told).toMatch(/level=debug msg="?(init: set up|nsexec.*init|child process in init)/)
  })

  test(
    'hands its pidfd to who asks for it, by create and by exec',
    notRunc('needs runc 1.2: --pidfd-socket'),
    async ({ runts }) => {
      const receive = async (name: string, ...args: string[]): Promise<number> => {
        const socket = join(runts.folder, name)
        const peer = startCommand(PROBE, ['pidfd', socket])
        await peer.untilOutput('listening')
        runts.leave(...args.map((word) => (word === '@' ? socket : word)))
        return Number(/pid (\d+)/.exec((await peer.finished).stdout)?.[1])
      }
      const bundle = runts.bundle(['sleep', '1000'])
      const pid = await receive('create.sock', 'create', '--pidfd-socket', '@', '-b', bundle, 'c')
      expect(pid).toBe((await runts.state('c'))['pid'])
      await runts.ok('start', 'c')
      const further = await receive('exec.sock', 'exec', '-d', '--pidfd-socket', '@', 'c', 'sleep', '1001')
      expect(readFileSync(`/proc/${further}/cmdline`, 'utf8')).toBe('sleep\x001001\x00')
    },
  )

  test('that was never there cannot be deleted, unless by force', async ({ runts }) => {
    expect(await runts.run('delete', 'ghost')).toMatchObject({ code: 1 })
    await runts.ok('delete', '--force', 'ghost')
  })
})

inModes(BY_ROOT, 'a container with a cgroup', (test) => {
  test('shows its processes, and after its end an empty table', async ({ runts }) => {
    runts.sleeper('c')
    const { pid } = await runts.state('c')
    const table = (await runts.ok('ps', 'c')).stdout
    expect(table).toMatch(/^UID +PID /)
    expect(table).toContain(` ${pid} `)
    expect(JSON.parse((await runts.ok('ps', '-f', 'json', 'c')).stdout)).toEqual([pid])
    expect((await runts.ok('ps', 'c', '-e')).stdout).toMatch(new RegExp(`^ *${pid} `, 'm'))
    await runts.ok('kill', 'c', 'KILL')
    await runts.untilStatus('c', 'stopped')
    expect((await runts.ok('ps', 'c')).stdout).toMatch(/^UID +PID [^\n]*\n$/)
  })

  test('is paused and resumed, and deleted by force while paused', async ({ runts }) => {
    runts.sleeper('c')
    await runts.ok('pause', 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'paused' })
    await runts.ok('resume', 'c')
    expect(await runts.state('c')).toMatchObject({ status: 'running' })
    await runts.ok('pause', 'c')
    await runts.ok('delete', '--force', 'c')
    expect(await runts.run('pause', 'c')).toMatchObject({ code: 1, stderr: expect.stringContaining('does not exist') })
  })

  test('is deleted with the cgroups that were made below its own', async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      spec.mounts.push({ destination: '/sys/fs/cgroup', source: 'cgroup', type: 'cgroup', options: ['rw', 'nosuid'] })
      for (const set of Object.values(spec.process.capabilities!)) set.push('CAP_SYS_ADMIN')
    })
    // where its root may write; the census of the test's end looks for what would be left
    await runts.run(
      'exec',
      'c',
      'sh',
      '-c',
      'for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir -p $d/below/deep; done',
    )
    await runts.ok('delete', '--force', 'c')
  })
})

inModes(['as root'], "a container in the host's pid namespace", (test) => {
  for (const how of [[], ['--force']])
    test(`leaves nobody behind when it is deleted${how.length === 0 ? '' : ' by force'} after its first process has ended`, async ({
      runts,
    }) => {
      const bundle = runts.bundle(['sh', '-c', 'sleep 1000 & echo $! > /tmp/pid'], (spec) => {
        spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'pid')
        spec.mounts = spec.mounts.filter(({ destination }) => destination !== '/proc')
        spec.mounts.push({ destination: '/proc', source: '/proc', type: 'bind', options: ['rbind'] })
        spec.linux.maskedPaths = []
        spec.linux.readonlyPaths = []
      })
      runts.leave('run', '-d', '-b', bundle, 'c')
      await runts.untilStatus('c', 'stopped')
      const pid = Number(readFileSync(join(bundle, 'rootfs/tmp/pid'), 'utf8'))
      expect(isAlive(pid)).toBe(true)
      await runts.ok('delete', ...how, 'c')
      await until('the other process to end', () => !isAlive(pid))
    })
})
