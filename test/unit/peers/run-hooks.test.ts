/**
 * Host hooks as real programs: what they get, how their failures read, and that none of them can hang or bloat the
 * runtime.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type LogFields, silentLogger } from '../../../runtime/logger.ts'
import { type HostHookName, runHooks } from '../../../runtime/peers/run-hooks.ts'
import type { Hook } from '../../../runtime/spec/types.ts'
import { until } from '../../support/command.ts'

let dir: string
let warnings: string[]
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hooks-'))
  warnings = []
})
afterEach(() => rmSync(dir, { recursive: true }))

const logger = { ...silentLogger, warn: (_: LogFields, message: string) => void warnings.push(message) }

function shell(script: string, more: Partial<Hook> = {}): Hook {
  return { path: '/bin/sh', args: ['sh', '-c', script], env: ['PATH=/bin:/usr/bin'], ...more }
}

function run(name: HostHookName, hooks: readonly Hook[], signal?: AbortSignal): Promise<void> {
  const state = { ociVersion: '1.0.2', id: 'c1', status: 'creating', pid: 42, bundle: dir } as const
  return runHooks({ name, hooks, state, logger, signal })
}

test('a hook reads the state on its standard input and finds argv, environment and folder exactly as they should be', async () => {
  const script = `cat > input; echo "$0 $1" > argv; env > env; pwd > cwd; ls /proc/self/fd | wc -l > fds`
  await run('prestart', [
    { ...shell(script), args: ['the name', '-c', script, 'zero', 'one'], env: ['A=1', 'PATH=/bin'] },
  ])
  const read = (name: string): string => readFileSync(join(dir, name), 'utf8').trim()
  expect(JSON.parse(read('input'))).toEqual({ ociVersion: '1.0.2', id: 'c1', status: 'creating', pid: 42, bundle: dir })
  expect(read('argv')).toBe('zero one')
  expect(read('env').split('\n')).toContain('A=1')
  expect(read('env')).not.toContain('HOME=')
  expect(read('cwd')).toBe(dir)
  // 0, 1, 2 and the one that ls reads
  expect(read('fds')).toBe('4')
})

test('a hook without args gets its path as argv[0]', async () => {
  await run('prestart', [{ path: '/bin/true', args: [], env: [] }])
})

test('hooks run in order, and the first that fails ends the list with its index, its status and the end of its output', async () => {
  const hooks = [
    shell('echo one >> log'),
    shell('echo two >> log; echo out; echo err >&2; exit 3'),
    shell('echo three >> log'),
  ]
  await expect(run('createRuntime', hooks)).rejects.toThrow(
    'error running createRuntime hook #1: exit status 3, stdout: out, stderr: err',
  )
  expect(readFileSync(join(dir, 'log'), 'utf8')).toBe('one\ntwo\n')
})

test('output with control characters stays one line', async () => {
  await expect(run('prestart', [shell(String.raw`printf 'a\nb\033[1m'; exit 1`)])).rejects.toThrow(
    String.raw`error running prestart hook #0: exit status 1, stdout: a\nb%1B[1m, stderr: `,
  )
})

test('a poststop hook that fails is a warning, and the next one still runs', async () => {
  await run('poststop', [shell('exit 7'), { path: '/does/not/exist', args: [], env: [] }, shell('touch ran')])
  expect(existsSync(join(dir, 'ran'))).toBe(true)
  expect(warnings).toEqual([
    'error running poststop hook #0: exit status 7, stdout: , stderr: ',
    'error running poststop hook #1: cannot start "/does/not/exist": ENOENT: no such file or directory',
  ])
})

test('a hook that outlives its timeout is killed with its process group', async () => {
  const begin = performance.now()
  await expect(run('poststart', [shell('sleep 100 & echo $! > child; wait', { timeout: 1 })])).rejects.toThrow(
    'error running poststart hook #0: timed out after 1 s, stdout: , stderr: ',
  )
  expect(performance.now() - begin).toBeLessThan(15_000)
  const child = readFileSync(join(dir, 'child'), 'utf8').trim()
  await until('its child to be gone', () => !existsSync(`/proc/${child}`))
})

test('a hook that a signal kills is told apart from one that exits', async () => {
  await expect(run('prestart', [shell('kill -TERM $$')])).rejects.toThrow(
    'error running prestart hook #0: signal: terminated',
  )
})

test('a background child that keeps the output open does not keep the runtime waiting, and is not left to it', async () => {
  const begin = performance.now()
  await run('poststart', [shell('sleep 30 & echo $! > child')])
  expect(performance.now() - begin).toBeLessThan(10_000)
  const child = Number(readFileSync(join(dir, 'child'), 'utf8'))
  expect(readFileSync(`/proc/${child}/status`, 'utf8')).not.toContain(`PPid:\t${process.pid}\n`)
  process.kill(child)
})

test('of a hook that prints a lot the end is kept, in flat memory', async () => {
  globalThis.gc?.()
  const before = process.memoryUsage().rss
  await expect(
    run('prestart', [shell('yes 0123456789 | head -c 300000000; echo; echo the end; exit 1')]),
  ).rejects.toThrow(/stdout: .{1000,1200}the end, stderr: $/)
  expect(process.memoryUsage().rss - before).toBeLessThan(100 * 1024 * 1024)
})

test('a hook that reads nothing does not mind a state of a megabyte', async () => {
  const state = {
    ociVersion: '1.0.2',
    id: 'c',
    status: 'stopped',
    bundle: dir,
    annotations: { a: 'x'.repeat(1 << 20) },
  } as const
  await runHooks({ name: 'prestart', hooks: [shell('exit 0'), shell('wc -c > size')], state, logger })
  expect(Number(readFileSync(join(dir, 'size'), 'utf8'))).toBeGreaterThan(1 << 20)
})

test('giving up kills the hook that runs', async () => {
  const abort = new AbortController()
  const running = run('createRuntime', [shell('echo $$ > pid; sleep 100')], abort.signal)
  await until('the hook to run', () => existsSync(join(dir, 'pid')))
  abort.abort(new Error('given up'))
  await expect(running).rejects.toThrow('error running createRuntime hook #0: given up')
})
