/**
 * Hooks that ts-init runs itself: what they are given, when they run, and what is left of those that fail, hang or
 * talk too much.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { LIMITS, type Op } from '../../proto/init-plan.ts'
import { needs } from '../support/needs.ts'
import { filterOf, RETURN } from './filter.ts'
import { containerPlan, make, type Parts, Rootfs, Run, TS_INIT } from './run.ts'

const ENOENT = 2
const EACCES = 13
type Hook = Extract<Op, { op: 'hook' }>

/** A hook of the host's shell, before the root is changed. */
function hook(script: string, change: Partial<Hook> = {}): Hook {
  return {
    op: 'hook',
    name: 'createContainer',
    index: 0,
    path: '/bin/sh',
    args: ['sh', '-c', script],
    env: [],
    timeout: 0,
    stateHead: '',
    stateTail: '',
    ...change,
  }
}

/** A hook of the image's shell, right before the program. */
const startHook = (script: string, change: Partial<Hook> = {}): Hook =>
  hook(script, { name: 'startContainer', path: '/bin/busybox', env: ['PATH=/bin'], ...change })

describe('a hook', needs('root', 'busybox', 'make', 'gcc'), () => {
  let rootfs: Rootfs
  beforeAll(() => {
    make(TS_INIT)
    rootfs = new Rootfs()
  }, 120_000)
  afterAll(() => rootfs[Symbol.dispose]())

  /** Runs a container to its end; returns what the program printed. */
  async function output(parts: Partial<Parts>): Promise<string> {
    using run = new Run(containerPlan(rootfs, { args: ['/bin/busybox', 'echo', 'program'], ...parts }))
    await run.ended
    if (run.find('failed')) throw new Error(JSON.stringify(run.records))
    expect(await run.stderr).toBe('')
    return await run.stdout
  }

  /** Runs a container whose hook fails; returns the failure, and asserts that the program never ran. */
  async function failure(parts: Partial<Parts>) {
    using run = new Run(containerPlan(rootfs, { args: ['/bin/busybox', 'echo', 'program'], ...parts }))
    await run.ended
    expect(await run.stdout).toBe('')
    expect(await run.stderr).toBe('')
    expect(run.find('executing')).toBeUndefined()
    return run.find('failed')
  }

  test('before the pivot sees the paths of the host and has the root file system as its directory', async () => {
    const seen = join(rootfs.folder, 'seen')
    const script = `{ pwd -P; ls -d '${rootfs.folder}'; } > '${seen}'`
    expect(await output({ outside: [hook(script)] })).toBe('program\n')
    expect(readFileSync(seen, 'utf8')).toBe(`${rootfs.path}\n${rootfs.folder}\n`)
  })

  test('behind the chdir runs where the program will, as its user, in its root', async () => {
    const script = 'echo "$(busybox pwd) $(busybox id -u) $0" >&2; exit 3'
    const late = [startHook(script)]
    expect((await failure({ uid: 1000, late }))?.text).toMatch(/stderr: \/srv\/here 1000 sh$/)
  })

  test('reads its state on stdin, with the pid as the container sees it', async () => {
    const seen = join(rootfs.folder, 'state')
    const state = { stateHead: '{"pid":', stateTail: ',"status":"creating"}' }
    await output({ outside: [hook(`cat > '${seen}'`, state)] })
    expect(JSON.parse(readFileSync(seen, 'utf8'))).toEqual({ pid: 1, status: 'creating' })
  })

  test('reads a state that is larger than a pipe', async () => {
    const tail = 'x'.repeat(LIMITS.STRING_MAX_BYTES)
    const seen = join(rootfs.folder, 'size')
    await output({ outside: [hook(`wc -c > '${seen}'`, { stateTail: tail })] })
    expect(readFileSync(seen, 'utf8')).toBe(`${tail.length + 1}\n`)
  })

  test('need not read its state', async () => {
    const tail = 'x'.repeat(LIMITS.STRING_MAX_BYTES)
    expect(await output({ outside: [hook('exec <&-; sleep 0.1', { stateTail: tail }), hook('true')] })).toBe(
      'program\n',
    )
  })

  test('has exactly the arguments and the environment that were given', async () => {
    const seen = join(rootfs.folder, 'env')
    const script = `tr '\\0' '|' < /proc/self/environ > '${seen}'; echo "$0 $1" >> '${seen}'`
    const args = ['odd name', '-c', script, 'zero', 'one']
    await output({ outside: [hook('', { args, env: ['A=1', 'PATH=/usr/bin:/bin', 'A=2'] })] })
    expect(readFileSync(seen, 'utf8')).toMatch(/^A=1\|PATH=\/usr\/bin:\/bin\|A=2\|zero one\n$/)
    await output({
      outside: [hook('', { args: ['sh', '-c', `/usr/bin/tr '\\0' '|' < /proc/self/environ > '${seen}'`] })],
    })
    expect(readFileSync(seen, 'utf8')).toBe('')
  })

  test('without arguments is given its path as the only one', async () => {
    const failed = await failure({ outside: [hook('', { path: '/bin/false', args: [] })] })
    expect(failed?.text).toBe('error running createContainer hook #0: exit status 1, stdout: , stderr: ')
  })

  test("may have the program's own environment, with the HOME that was found for it", async () => {
    const late = [startHook('echo $FROM $HOME; exit 1', { env: [''] })]
    const failed = await failure({ uid: 1000, env: ['PATH=/bin', 'FROM=program'], late })
    expect(failed?.text).toMatch(/stdout: program \/home\/user, stderr: $/)
  })

  test("cannot have the program's environment before there is one", async () => {
    const failed = await failure({ outside: [hook('true', { env: [''] })] })
    expect(failed?.text).toBe('error running createContainer hook #0: invalid argument')
  })

  test('has no fd but its three, default signals, none of them blocked, and a group of its own', async () => {
    const script =
      'busybox ls /proc/$$/fd; busybox grep -E "^Sig(Blk|Ign|Cgt)" /proc/self/status; busybox ps -o pid,pgid | busybox grep " sh$"; exit 1'
    const failed = await failure({ late: [startHook(`${script}`)] })
    const none = '0000000000000000'
    expect(failed?.text).toContain(
      `stdout: 0\\x0a1\\x0a2\\x0aSigBlk:\\x09${none}\\x0aSigIgn:\\x09${none}\\x0aSigCgt:\\x09${none}`,
    )
  })

  test('leaves the program its default signals, none of them blocked', async () => {
    const args = ['/bin/busybox', 'grep', '-E', '^Sig(Blk|Cgt)', '/proc/self/status']
    const text = await output({ args, late: [startHook('true')] })
    expect(text).toBe('SigBlk:\t0000000000000000\nSigCgt:\t0000000000000000\n')
  })

  test('that fails ends the container with its status and its output', async () => {
    const outside = [hook('true'), hook('echo to stdout; echo to stderr >&2; exit 7', { index: 1 })]
    expect((await failure({ outside }))?.text).toBe(
      'error running createContainer hook #1: exit status 7, stdout: to stdout, stderr: to stderr',
    )
  })

  test('that is killed is told as such, with control characters escaped', async () => {
    const failed = await failure({ outside: [hook("printf 'a\\033[31mb\\0c'; kill -9 $$")] })
    expect(failed?.text).toBe('error running createContainer hook #0: signal: killed, stdout: a\\x1b[31mb c, stderr: ')
  })

  test('that is missing or not executable is told as such', async () => {
    const gone = await failure({ outside: [hook('', { path: '/no/such/hook' })] })
    expect(gone).toMatchObject({
      errno: ENOENT,
      text: 'error running createContainer hook #0: exec /no/such/hook: no such file or directory',
    })
    const plain = await failure({ outside: [hook('', { path: '/etc/passwd' })] })
    expect(plain).toMatchObject({ errno: EACCES })
  })

  test('cannot be one of our own fds', async () => {
    for (const fd of [3, 4, 6, 7, 8, 9]) {
      const failed = await failure({ outside: [hook('', { path: `/proc/self/fd/${fd}` })] })
      expect(failed?.text).toMatch(/^error running createContainer hook #0: exec \/proc\/self\/fd\/\d: /)
    }
  })

  test('that takes too long is killed with its group', async () => {
    const started = performance.now()
    const failed = await failure({ outside: [hook('echo begun; sleep 77 & wait', { timeout: 1 })] })
    expect(failed?.text).toBe('error running createContainer hook #0: timed out after 1 s, stdout: begun, stderr: ')
    expect(performance.now() - started).toBeGreaterThan(990)
  })

  test('that ends in time is not waited for any longer', async () => {
    const started = performance.now()
    expect(await output({ outside: [hook('true', { timeout: 600 })] })).toBe('program\n')
    expect(performance.now() - started).toBeLessThan(60_000)
  })

  test('may leave a process behind that holds its pipes and fills them', async () => {
    const noisy = '(while :; do echo still here; done) & exit 0'
    expect(await output({ late: [startHook('busybox sleep 600 & exit 0'), startHook(noisy)] })).toBe('program\n')
  })

  test('may close its output and go on', async () => {
    const late = [startHook('exec >&- 2>&-; busybox sleep 0.2; exit 5')]
    expect((await failure({ late }))?.text).toMatch(/exit status 5, stdout: , stderr: $/)
  })

  test('that prints without end costs a fixed amount of memory, and its last words are kept', async () => {
    const script =
      'busybox yes 0123456789abcdef | busybox head -c 100000000; echo the end; busybox grep VmHWM /proc/1/status >&2; exit 1'
    const text = (await failure({ late: [startHook(script)] }))?.text ?? ''
    const [, stdout = '', memory = ''] = text.match(/stdout: (.*), stderr: VmHWM:.*?(\d+) kB$/) ?? []
    expect(stdout).toMatch(/cdef\\x0a0123456789abcdefthe end$/)
    expect(stdout.length).toBeGreaterThan(LIMITS.HOOK_OUTPUT_MAX_BYTES - 64)
    if (process.env['SANITIZE'] !== '1') expect(Number(memory)).toBeLessThan(2048)
  }, 60_000)

  test('runs behind the filter of the program', async () => {
    const filter = filterOf({ uname: RETURN.errno + EACCES, pidfd_open: RETURN.kill, clone3: RETURN.errno + 38 })
    const late: Op[] = [{ op: 'seccomp', flags: 0, filter }, startHook('busybox uname; exit 1')]
    expect((await failure({ late }))?.text).toMatch(/exit status 1, stdout: , stderr: /)
  })
})
