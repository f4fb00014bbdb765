/** Further processes in a running container: what they share with it, what is theirs, and where they end up. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { expect } from 'vitest'
import { isAlive } from '../support/census.ts'
import { startCommand, until } from '../support/command.ts'
import { notRunc } from '../support/needs.ts'
import { inModes, MODES } from '../support/oci.ts'

inModes(MODES, 'exec', (test) => {
  test('gives output, errors and status of the command', async ({ runts }) => {
    runts.sleeper('c')
    const { stdout, stderr, code } = await runts.run('exec', 'c', 'sh', '-c', 'echo out; echo err >&2; exit 42')
    expect({ stdout, stderr, code }).toEqual({ stdout: 'out\n', stderr: 'err\n', code: 42 })
    expect(await runts.run('exec', 'c', 'sh', '-c', 'kill -9 $$')).toMatchObject({ code: 137 })
    expect(await runts.run('exec', 'c', 'nosuch')).toMatchObject({
      code: 255,
      stderr: expect.stringContaining('executable file not found in $PATH'),
    })
  })

  test('has folder, user and variables of its own', async ({ runts }) => {
    runts.sleeper('c')
    expect(await runts.exec('--cwd', '/bin', 'c', 'pwd')).toBe('/bin\n')
    expect(await runts.exec('--user', '1000:1000', 'c', 'sh', '-c', 'id -u; id -g; echo $HOME')).toBe(
      '1000\n1000\n/home\n',
    )
    // options after the command belong to the command
    expect(await runts.exec('c', 'echo', '-e', 'a', '--user', '1')).toBe('a --user 1\n')
  })

  test('does not change whose the null device is', async ({ runts }) => {
    runts.sleeper('c')
    const owner = () => runts.exec('c', 'stat', '-c', '%u:%g', '/dev/null')
    const before = await owner()
    await runts.exec('--user', '1000:1000', 'c', 'true')
    expect(await owner()).toBe(before)
  })

  test('-d returns at once, and the pid file names the process', async ({ runts }) => {
    runts.sleeper('c')
    const pidFile = join(runts.folder, runts.isRootless ? 'user/run' : '', 'pid')
    runts.leave('exec', '-d', '--pid-file', pidFile, 'c', 'sleep', '1001')
    const pid = Number(readFileSync(pidFile, 'utf8'))
    expect(isAlive(pid)).toBe(true)
    expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toBe('sleep\x001001\x00')
    await runts.ok('kill', 'c', 'KILL')
    await until('the process to end with its container', () => !isAlive(pid))
  })

  test('may enter a folder that only its user or only root can enter', async ({ runts }) => {
    runts.sleeper('c')
    await runts.exec('c', 'sh', '-c', 'mkdir -m 700 /private /closed; mkdir /closed/deep; chown 42:42 /private')
    expect(await runts.exec('--user', '42:42', '--cwd', '/private', 'c', 'pwd')).toBe('/private\n')
    expect(await runts.exec('--user', '42:42', '--cwd', '/closed/deep', 'c', 'pwd')).toBe('/closed/deep\n')
    expect(await runts.exec('--user', '0', '--cwd', '/private', 'c', 'pwd')).toBe('/private\n')
  })

  test('gets no descriptor but the three, and those that --preserve-fds counts', async ({ runts }) => {
    runts.sleeper('c')
    expect((await runts.exec('c', 'payload', 'fds')).match(/^\d+/gm)).toEqual(['0', '1', '2'])
    const file = join(runts.folder, 'extra')
    writeFileSync(file, 'extra\n')
    const line = runts.commandOf('exec', '--preserve-fds', '1', 'c', 'cat', '/proc/self/fd/3')
    const { finished } = startCommand('sh', ['-c', 'exec "$@" 3<"$0"', file, ...line])
    expect(await finished).toMatchObject({ code: 0, stdout: 'extra\n' })
  })

  test('of a program that the kernel cannot run says so in one line', notRunc('1.1 ends with 1'), async ({ runts }) => {
    runts.sleeper('c')
    const bundle = String((await runts.state('c'))['bundle'])
    writeFileSync(join(bundle, 'rootfs/run.sh'), '#!/no/such/interpreter\n', { mode: 0o755 })
    const { code, stderr } = await runts.run('exec', 'c', '/run.sh')
    expect(code).toBe(255)
    expect(stderr).toMatch(/exec \/run\.sh: no such file or directory\n$/)
    expect(stderr.trimEnd().split('\n')).toHaveLength(1)
  })

  test('may have no new privileges where the container may', async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      spec.process.noNewPrivileges = false
    })
    const flag = ['c', 'grep', 'NoNewPrivs', '/proc/self/status']
    expect(await runts.exec(...flag)).toBe('NoNewPrivs:\t0\n')
    expect(await runts.exec('--no-new-privs', ...flag)).toBe('NoNewPrivs:\t1\n')
  })

  test('takes a whole process document', async ({ runts }) => {
    runts.sleeper('c')
    const path = join(runts.folder, 'process.json')
    writeFileSync(
      path,
      JSON.stringify({
        terminal: false,
        user: { uid: 7, gid: 8 },
        args: ['/bin/sh', '-c', 'id -u; id -g; pwd; echo $A; grep CapEff /proc/self/status'],
        env: ['PATH=/bin', 'A=b'],
        cwd: '/tmp',
      }),
    )
    expect(await runts.exec('--process', path, 'c')).toBe('7\n8\n/tmp\nb\nCapEff:\t0000000000000000\n')
  })
})

// the kernel makes no user namespace for who lives in a chroot (user_namespaces(7))
inModes(['as root'], 'exec by a runtime that lives in a chroot', (test) => {
  test.for([{ options: [] }, { options: ['--no-pivot'] }])(
    "is in the container's root and has nothing of the host's in sight, after run $options",
    notRunc('joins the root of the mount namespace, where its change of root has left the host'),
    ({ options }, { runts }) => {
      const chroot = join(runts.folder, 'chroot')
      mkdirSync(chroot)
      const enter = 'mount --rbind / "$0" && exec chroot "$0" "$@"'
      // what stays behind must not keep a pipe of ours open
      const inside = (stdout: 'pipe' | 'ignore', ...args: string[]): string => {
        const command = ['--mount', 'sh', '-c', enter, chroot, ...runts.commandOf(...args)]
        const done = spawnSync('unshare', command, { encoding: 'utf8', stdio: ['ignore', stdout, 'inherit'] })
        expect(done.status).toBe(0)
        return done.stdout ?? ''
      }
      const bundle = runts.bundle(['sleep', '1000'])
      inside('ignore', 'run', ...options, '-d', '--pid-file', join(runts.folder, 'pid'), '-b', bundle, 'c')
      expect(inside('pipe', 'exec', 'c', 'ls', '/').split('\n')).toEqual(
        readdirSync(join(bundle, 'rootfs')).sort().concat(''),
      )
      const root = inside('pipe', 'exec', 'c', 'cat', '/proc/self/mountinfo').split('\n')[0]
      expect(root?.split(' ')[4]).toBe('/')
    },
  )
})

inModes(['as root', 'in a user namespace'], 'exec into a cgroup below', (test) => {
  test(
    'takes a folder per controller on v1',
    notRunc('needs runc 1.2: one tasks file per cgroup', 'cgroup1'),
    async ({ runts }) => {
      runts.sleeper('c', (spec) => {
        spec.linux.cgroupsPath = `/${runts.name}/c`
      })
      for (const controller of ['memory', 'pids']) mkdirSync(`/sys/fs/cgroup/${controller}/${runts.name}/c/sub`)
      const own = (await runts.exec('--cgroup', 'memory,pids:sub', 'c', 'cat', '/proc/self/cgroup')).split('\n')
      expect(own.find((line) => line.includes(':memory:'))).toContain(`/${runts.name}/c/sub`)
      expect(own.find((line) => line.includes(':pids:'))).toContain(`/${runts.name}/c/sub`)
      expect(own.find((line) => line.includes(':cpu:'))).toMatch(new RegExp(`/${runts.name}/c$`))
    },
  )

  test(
    'refuses a path that leads out, one that is missing and an unknown controller',
    notRunc('1.1: other messages'),
    async ({ runts }) => {
      runts.sleeper('c')
      const refusal = async (cgroup: string): Promise<string> => {
        const { code, stderr } = await runts.run('exec', '--cgroup', cgroup, 'c', 'true')
        expect(code).toBe(255)
        return stderr
      }
      expect(await refusal('../..')).toContain('bad sub cgroup path')
      expect(await refusal('not-there')).toMatch(/no such file or directory|ENOENT/)
      expect(await refusal('imaginary:/')).toMatch(/unknown controller/)
    },
  )
})

inModes(['as root', 'in a user namespace'], 'exec into a paused container', (test) => {
  test('is refused, and with --ignore-paused waits for the thaw', async ({ runts }) => {
    runts.sleeper('c')
    await runts.ok('pause', 'c')
    expect(await runts.run('exec', 'c', 'true')).toMatchObject({
      code: 255,
      stderr: expect.stringContaining('cannot exec in a paused container'),
    })
    const waiting = runts.start(['exec', '--ignore-paused', 'c', 'echo', 'thawed'])
    await runts.ok('resume', 'c')
    expect(await waiting.finished).toMatchObject({ code: 0, stdout: 'thawed\n' })
  })
})

inModes(['as root'], 'the pid file', (test) => {
  test('may be relative to the working folder, and is whole when the command returns', async ({ runts }) => {
    const bundle = runts.bundle(['sleep', '1000'])
    const [program = '', ...args] = runts.commandOf(
      'run',
      '-d',
      '--pid-file',
      'pid',
      '-b',
      relative(bundle, bundle) || '.',
      'c',
    )
    const { finished } = startCommand('sh', ['-c', 'exec "$@" >/dev/null 2>&1', 'sh', program, ...args], {
      cwd: bundle,
    })
    expect(await finished).toMatchObject({ code: 0 })
    const pid = (await runts.state('c'))['pid']
    expect(readFileSync(join(bundle, 'pid'), 'utf8')).toBe(String(pid))
    expect(statSync(join(bundle, 'pid')).mode & 0o777).toBe(0o644)
    rmSync(join(bundle, 'pid'))
  })
})
