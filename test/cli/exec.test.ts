/** runts exec: a further process in a container, its options, its exit status. */
import { spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { needs } from '../support/needs.ts'
import { BIN } from '../support/places.ts'
import { test } from '../support/runts.ts'

const SLEEP = ['sleep', '1000']

describe('runts exec', needs('root', 'busybox'), () => {
  test('runs a command in the container with its own output and exit status', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const { stdout, code } = await runts.run(
      'exec',
      '-e',
      'A=b c',
      '--cwd',
      '/tmp',
      '--user',
      '1000:7',
      'c',
      'sh',
      '-c',
      'echo $A; pwd; id -u; id -g; exit 9',
    )
    expect({ stdout, code }).toEqual({ stdout: 'b c\n/tmp\n1000\n7\n', code: 9 })
  })

  test('stays in the root of a container without a mount namespace', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP, (spec) => {
      spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'mount')
      spec.mounts = []
      spec.linux.maskedPaths = []
      spec.linux.readonlyPaths = []
    })
    writeFileSync(join(bundle, 'rootfs/mark'), 'of the container\n')
    runts.leave('run', '-d', '-b', bundle, 'c')
    expect(await runts.run('exec', 'c', 'cat', '/mark')).toMatchObject({ code: 0, stdout: 'of the container\n' })
  })

  test('gets the null device of the container, and fails where that is none', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    runts.leave('exec', 'c', 'sh', '-c', 'stat -Lc %d /proc/self/fd/0 > /tmp/number')
    const bundle = String((await runts.state('c'))['bundle'])
    const number = Number(readFileSync(join(bundle, 'rootfs/tmp/number'), 'utf8'))
    expect(number).toBeGreaterThan(0)
    expect(number).not.toBe(statSync('/dev/null').dev)
    await runts.ok('exec', 'c', 'rm', '/dev/null')
    const fd = openSync('/dev/null', 'r')
    const { status, stderr } = spawnSync(join(BIN, 'runts'), ['--root', runts.root, 'exec', 'c', 'true'], {
      stdio: [fd, 'pipe', 'pipe'],
      encoding: 'utf8',
    })
    closeSync(fd)
    expect(status).toBe(255)
    expect(stderr).toContain("open the container's /dev/null for fd 0")
  })

  test('ends with 255 and names a command that is not there', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    expect(await runts.run('exec', 'c', 'nosuch')).toMatchObject({
      code: 255,
      stderr: 'runts: error: exec: "nosuch": executable file not found in $PATH\n',
    })
  })

  test('ends with 255 for a file that the kernel refuses to execute', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP)
    writeFileSync(join(bundle, 'rootfs/garbage'), 'no program', { mode: 0o755 })
    runts.leave('run', '-d', '-b', bundle, 'c')
    expect(await runts.run('exec', 'c', '/garbage')).toMatchObject({
      code: 255,
      stderr: 'runts: error: exec /garbage: exec format error\n',
    })
  })

  test('refuses a user that is no number, a stopped container and one that is not there', async ({ runts }) => {
    await runts.ok('run', '--keep', '-b', runts.bundle(['true']), 'stopped')
    expect(await runts.run('exec', '--user', '0abc', 'stopped', 'id')).toMatchObject({
      code: 255,
      stderr: expect.stringContaining('"0abc"'),
    })
    expect(await runts.run('exec', 'stopped', 'id')).toMatchObject({
      code: 255,
      stderr: expect.stringContaining('cannot exec in a stopped container'),
    })
    expect(await runts.run('exec', 'ghost', 'id')).toMatchObject({
      code: 255,
      stderr: expect.stringContaining('container does not exist: "ghost"'),
    })
  })

  test('changes of the process what the options say, and nothing else', async ({ runts }) => {
    const bundle = runts.bundle(SLEEP, (spec) => {
      spec.process.user = { uid: 5, gid: 6, additionalGids: [7] }
      spec.process.env.push('KEPT=1', 'A=old')
    })
    runts.leave('run', '-d', '-b', bundle, 'c')
    const script = 'id -u; id -g; id -G; echo $KEPT $A; pwd'
    const { stdout } = await runts.ok(
      'exec',
      '-u',
      '8',
      '-g',
      '9',
      '-g',
      '10',
      '-e',
      'A=new',
      '--env=B=2',
      'c',
      'sh',
      '-c',
      script,
    )
    expect(stdout).toBe('8\n6\n6 7 9 10\n1 new\n/\n')
  })

  test('leaves what follows the id to the command, so that nobody can add options to the call of a tool', async ({
    runts,
  }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    expect((await runts.ok('exec', 'c', 'echo', '--cwd', '/tmp', '--', '-u')).stdout).toBe('--cwd /tmp -- -u\n')
    for (const word of ['--', '-u', '--help']) {
      expect(await runts.run('exec', 'c', word, '5', 'true')).toMatchObject({
        code: 255,
        stderr: `runts: error: exec: "${word}": executable file not found in $PATH\n`,
      })
    }
  })

  test('takes the process from a file, and not the template then', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const file = join(runts.folder, 'process.json')
    const target = {
      user: { uid: 3, gid: 4 },
      args: ['sh', '-c', 'id -u; echo $X'],
      env: ['PATH=/bin', 'X=y'],
      cwd: '/',
    }
    writeFileSync(file, JSON.stringify(target))
    expect((await runts.ok('exec', '-p', file, 'c')).stdout).toBe('3\ny\n')
    expect(await runts.run('exec', '-p', join(runts.folder, 'none'), 'c')).toMatchObject({
      code: 255,
      stderr: expect.stringContaining('ENOENT'),
    })
  })

  test('--cap adds to bounding, effective and permitted, never to inheritable, and to ambient what is inheritable', async ({
    runts,
  }) => {
    const sets = async (...options: string[]): Promise<Record<string, string>> => {
      const { stdout } = await runts.ok('exec', ...options, 'c', 'grep', '^Cap', '/proc/self/status')
      return Object.fromEntries([...stdout.matchAll(/^Cap(\w+):\s+0*(\w+)$/gm)].map(([, name, set]) => [name, set]))
    }
    const bundle = runts.bundle(SLEEP, (spec) => {
      const kill = ['CAP_KILL']
      const both = ['CAP_CHOWN', ...kill]
      spec.process.capabilities = { bounding: both, effective: kill, permitted: both, inheritable: ['CAP_CHOWN'] }
    })
    runts.leave('run', '-d', '-b', bundle, 'c')
    expect(await sets()).toEqual({ Inh: '1', Prm: '21', Eff: '21', Bnd: '21', Amb: '0' })
    expect(await sets('--cap', 'CAP_SYS_ADMIN')).toEqual({
      Inh: '1',
      Prm: '200021',
      Eff: '200021',
      Bnd: '200021',
      Amb: '0',
    })
    expect(await sets('-c', 'CAP_CHOWN')).toEqual({ Inh: '1', Prm: '21', Eff: '21', Bnd: '21', Amb: '1' })
  })

  test('-d returns while the command runs, with its pid in a file that is named from the working directory', async ({
    runts,
  }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const cwd = join(runts.folder, 'place')
    mkdirSync(cwd)
    const { status } = spawnSync(
      join(BIN, 'runts'),
      ['--root', runts.root, 'exec', '-d', '--pid-file', 'pid', 'c', 'sleep', '900'],
      { stdio: 'ignore', cwd },
    )
    expect(status).toBe(0)
    const pid = Number(readFileSync(join(cwd, 'pid'), 'utf8'))
    expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toBe('sleep\x00900\x00')
  })

  test('ends what it has started when the pid file cannot be written', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const { status, stderr } = spawnSync(
      join(BIN, 'runts'),
      ['--root', runts.root, 'exec', '-d', '--pid-file', '/no/such/pid', 'c', 'sleep', '900'],
      { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' },
    )
    // one that has ended by itself meanwhile is no other case
    expect((await runts.run('exec', '--pid-file', '/no/such/pid', 'c', 'true')).stderr).toBe(stderr)
    expect({ status, stderr }).toEqual({
      status: 255,
      stderr: 'runts: error: cannot write the pid file "/no/such/pid": ENOENT: no such file or directory\n',
    })
    expect(JSON.parse((await runts.ok('ps', '-f', 'json', 'c')).stdout)).toHaveLength(1)
  })

  test('refuses users, groups and sub-cgroups that are not what they should be', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    const wrong: [string[], RegExp][] = [
      ...['1000:', ':5', '1e3', ' 1', '4294967295', '4294967296', '-1', '1:2:3', '0x1'].map(
        (user): [string[], RegExp] => [['-u', user], /exec: invalid --user "/],
      ),
      [['-g', 'wheel'], /invalid --additional-gids "wheel"/],
      [['--cgroup', 'a', '--cgroup', 'b'], /invalid --cgroup "a": missing <controller>: prefix/],
      [['--cgroup', ',pids:a'], /invalid --cgroup ",pids:a": empty <controller> prefix/],
      [['--cgroup', 'pids:a', '--cgroup', 'cpu,pids:b'], /duplicate "pids"/],
      [['--console-socket', '/x'], /cannot use console socket if runts will not detach or allocate tty/],
      [['-d', '-t'], /cannot allocate tty if runts will detach without setting console socket/],
      [['--cwd', 'tmp'], /cwd/i],
      [['-e', '=x'], /env/i],
    ]
    for (const [options, message] of wrong) {
      const { code, stderr } = await runts.run('exec', ...options, 'c', 'true')
      expect({ code, lines: stderr.split('\n').length }, options.join(' ')).toEqual({ code: 255, lines: 2 })
      expect(stderr).toMatch(message)
    }
  })
})
