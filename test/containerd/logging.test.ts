/** Output that goes to files and to log programs instead of to a client. */
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { isAlive } from '../support/census.ts'
import { BareTask, makeFifos, writer } from '../support/client-streams.ts'
import { until } from '../support/command.ts'
import { type Containers, expect, test } from '../support/containerd.ts'
import { needs } from '../support/needs.ts'
import { expectedSha256 } from '../support/stream.ts'

const MIB = 1024 * 1024

const lines = (path: string): string[] =>
  existsSync(path)
    ? readFileSync(path, 'utf8')
        .replaceAll('\r', '')
        .split('\n')
        .filter((line) => line !== '')
    : []

describe('file://', needs('root', 'containerd', 'busybox', 'our shim'), () => {
  test('makes missing folders and the file, takes both outputs of the init and of execs, and appends', async ({
    ct,
  }) => {
    const path = join(ct.folder, 'new folder/below/log')
    const uri = `file://${path.replace(' ', '%20')}`
    const task = await BareTask.on(ct, ['sh', '-c', 'echo out; echo err >&2; exec sleep 1000'])
    await task.create({ stdout: uri, stderr: uri })
    await task.start()
    await until('the first lines', () => lines(path).length === 2)
    expect(statSync(path).mode & 0o7777).toBe(0o644)
    expect(statSync(join(path, '..')).mode & 0o7777).toBe(0o755)
    await task.exec('e', ['sh', '-c', 'echo exec; echo exec-err >&2'], { stdout: uri })
    await task.start('e')
    await task.wait('e')
    await task.delete('e')
    await task.exec('t', ['echo', 'terminal'], { stdout: uri, terminal: true })
    await task.start('t')
    await task.wait('t')
    await task.delete('t')
    expect(lines(path).sort()).toEqual(['err', 'exec', 'exec-err', 'out', 'terminal'])
    await task.end()
  })

  test('a plain path to a file is appended to; one to nothing or to a folder is refused', async ({ ct }) => {
    const path = join(ct.folder, 'there')
    writeFileSync(path, 'before\n')
    const task = await BareTask.on(ct, ['echo', 'after'])
    await expect(task.create({ stdout: join(ct.folder, 'missing') })).rejects.toThrow(/"\S*missing": ENOENT/)
    mkdirSync(join(ct.folder, 'folder'))
    await expect(task.create({ stdout: join(ct.folder, 'folder') })).rejects.toThrow(/"\S*folder": EISDIR/)
    await expect(task.create({ stdin: join(ct.folder, 'folder') })).rejects.toThrow(/"\S*folder": EISDIR/)
    await expect(task.create({ stdout: `file://${path}/below` })).rejects.toThrow(/"\S*below": (ENOTDIR|EEXIST)/)
    await task.create({ stdout: path })
    await task.start()
    expect(await task.wait()).toBe(0)
    await task.end()
    expect(lines(path)).toEqual(['before', 'after'])
  })

  test('`ctr run --log-uri` and a container that says much', async ({ ct }) => {
    const path = join(ct.folder, 'log')
    const size = 16 * MIB
    const id = ct.id()
    await ct.ok(...ct.runArgs(['-d', '--log-uri', `file://${path}`], id, ['payload', 'bytes', String(size)]))
    await ct.untilStatus(id, 'STOPPED')
    await ct.ok('task', 'rm', id)
    const { createHash } = await import('node:crypto')
    expect(createHash('sha256').update(readFileSync(path)).digest('hex')).toBe(expectedSha256(size))
  })
})

let programs = 0

/** A log program: a shell script, which leaves its pid beside it. */
interface Program {
  readonly uri: string
  /** undefined before it runs */
  readonly pid: number | undefined
}

/** Writes a log program. It is killed with the test, whatever became of its shim. */
function program(ct: Containers, script: string, options: { query?: string; scheme?: string } = {}): Program {
  const path = join(ct.folder, `program-${programs++}`)
  const pidFile = `${path}.pid`
  writeFileSync(path, `#!/bin/sh\necho $$ >${pidFile}\n${script}\n`, { mode: 0o755 })
  const made = {
    uri: `${options.scheme ?? 'binary'}://${path}${options.query ?? ''}`,
    get pid(): number | undefined {
      const [pid] = lines(pidFile)
      return pid === undefined ? undefined : Number(pid)
    },
  }
  ct.onEnd(async () => {
    const { pid } = made
    if (pid !== undefined && isAlive(pid) && readFileSync(`/proc/${pid}/environ`, 'utf8').includes('CONTAINER_ID='))
      process.kill(pid, 'SIGKILL')
  })
  return made
}

/** What most log programs do: copies both streams to files until they end. It is ready when it has them open. */
const copies = (folder: string): string =>
  `cat <&3 >>${folder}/out & cat <&4 >>${folder}/err & exec 3<&- 4<&-; echo ready >&5; exec 5>&-; wait; echo end >>${folder}/end`

describe('binary://', needs('root', 'containerd', 'busybox', 'our shim'), () => {
  test('a log program finds what it was promised: arguments, environment, folder and descriptors', async ({ ct }) => {
    const seen = join(ct.folder, 'seen')
    const log = program(
      ct,
      `{ for arg; do echo "arg:$arg"; done; tr '\\0' '\\n' </proc/$$/environ | sed 's/^/env:/'; echo "cwd:$(pwd)"; grep Sig[BI] /proc/$$/status; } >${seen}; exec sleep 1000`,
      { query: '?key=a%20value&flag&plus=a+b&key=ignored&=nameless&%3D%26=%C3%A9' },
    )
    const task = await BareTask.on(ct, ['sleep', '1000'])
    const creating = task.create({ stdout: log.uri, stderr: log.uri })
    await until('the program to write', () => lines(seen).some((line) => line.startsWith('SigIgn')))
    // it has not said that it is ready, so there is no container
    await expect(task.shim.task.state({ id: task.shim.id })).rejects.toThrow('not found')
    const pid = log.pid!
    await until('the program to be sleep', () => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'sleep\n')
    const fds = readdirSync(`/proc/${pid}/fd`).map((fd) => `${fd}:${readlinkSync(`/proc/${pid}/fd/${fd}`)}`)
    expect(fds.map((line) => line.replace(/\[.*/, '')).sort()).toEqual([
      ...[0, 1, 2].map((fd) => `${fd}:/dev/null`),
      ...[3, 4, 5].map((fd) => `${fd}:pipe:`),
    ])
    process.kill(pid, 'SIGKILL')
    await creating
    const { id, bundle } = task.shim
    const text = lines(seen)
    const own = (prefix: string): string[] =>
      text.filter((line) => line.startsWith(prefix)).map((line) => line.slice(prefix.length))
    expect(readFileSync(seen, 'utf8')).toContain('arg:flag\narg:\narg:plus\n')
    expect(own('arg:')).toEqual(['key', 'a value', 'flag', '', 'plus', 'a b', '', 'nameless', '=&', 'é'])
    expect(own('env:').sort()).toEqual([`CONTAINER_ID=${id}`, `CONTAINER_NAMESPACE=${ct.daemon.namespace}`])
    expect(own('cwd:')).toEqual([bundle])
    expect(text.filter((line) => line.startsWith('Sig'))).toEqual([
      'SigBlk:\t0000000000000000',
      'SigIgn:\t0000000000000000',
    ])
    await task.end()
  })

  test('takes the output of the init and of execs, each by a program of its own, and has all of it when Delete answers', async ({
    ct,
  }) => {
    const [one, two] = ['one', 'two'].map((name) => join(ct.folder, name)) as [string, string]
    for (const folder of [one, two]) mkdirSync(folder)
    const size = 8 * MIB
    const script = `payload bytes ${size}; echo err >&2`
    const task = await BareTask.on(ct, ['sh', '-c', `${script}; exec sleep 1000`])
    await task.create({ stdout: program(ct, copies(one)).uri })
    await task.start()
    await task.exec('e', ['sh', '-c', script], { stdout: program(ct, `${copies(two)}; env >${two}/env`).uri })
    await task.start('e')
    expect(await task.wait('e')).toBe(0)
    await task.delete('e')
    const { createHash } = await import('node:crypto')
    const digest = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')
    expect(digest(join(two, 'out'))).toBe(expectedSha256(size))
    expect(lines(join(two, 'err'))).toEqual(['err'])
    expect(lines(join(two, 'end'))).toEqual(['end'])
    expect(lines(join(two, 'env'))).toContain('CONTAINER_ID=e')
    await until('the init’s output', () => lines(join(one, 'err')).length === 1)
    await task.end()
    expect(digest(join(one, 'out'))).toBe(expectedSha256(size))
  })

  test('takes the output of a terminal, and its input comes from the client', async ({ ct }) => {
    const fifos = makeFifos(ct)
    const task = await BareTask.on(ct, ['sh', '-c', 'read line; echo "got $line"'])
    await task.create({ stdin: fifos.stdin, stdout: program(ct, copies(ct.folder)).uri, terminal: true })
    await task.start()
    const input = writer(ct, fifos.stdin)
    input.write('typed\n')
    expect(await task.wait()).toBe(0)
    await task.end()
    expect(lines(join(ct.folder, 'out'))).toEqual(['typed', 'got typed'])
    expect(lines(join(ct.folder, 'err'))).toEqual([])
  })

  test('a program that ends neither kills nor blocks its container', async ({ ct }) => {
    const log = program(ct, 'echo ready >&5; exec sleep 1000')
    const size = 64 * MIB
    const task = await BareTask.on(ct, ['sh', '-c', `payload bytes ${size}; echo $? >/status; exec sleep 1000`])
    await task.create({ stdout: log.uri })
    await task.start()
    process.kill(log.pid!, 'SIGKILL')
    await task.exec('e', ['sh', '-c', 'until [ -s /status ]; do sleep 0.1; done; exit $(cat /status)'])
    await task.start('e')
    expect(await task.wait('e')).toBe(0)
    await task.end()
  })

  test('a program that leaves its work to a child is not robbed of the rest', async ({ ct }) => {
    const gate = join(ct.folder, 'gate')
    const log = program(
      ct,
      `echo ready >&5; (until [ -e ${gate} ]; do sleep 0.05; done; cat <&3 >${ct.folder}/out) & exit 0`,
    )
    const fifos = makeFifos(ct)
    const task = await BareTask.on(ct, ['sh', '-c', 'read line; echo hello'])
    await task.create({ stdin: fifos.stdin, stdout: log.uri })
    await until('the program to end', () => !isAlive(log.pid!))
    await task.start()
    const input = writer(ct, fifos.stdin)
    input.write('\n')
    expect(await task.wait()).toBe(0)
    writeFileSync(gate, '')
    await until('the rest', () => lines(join(ct.folder, 'out')).length === 1)
    await task.end()
    expect(lines(join(ct.folder, 'out'))).toEqual(['hello'])
  })

  test('a program that waits for SIGTERM gets it, one that ignores it is killed, and so is one that is not ready within 10 s: nothing waits for ever', {
    timeout: 60_000,
  }, async ({ ct }) => {
    const told = join(ct.folder, 'told')
    const polite = program(ct, `trap 'echo term >${told}; exit 0' TERM; echo ready >&5; while :; do sleep 0.05; done`)
    const stubborn = program(ct, `trap '' TERM; echo ready >&5; while :; do sleep 0.05; done`)
    const late = program(ct, 'exec sleep 1000')
    const task = await BareTask.on(ct, ['sleep', '1000'])
    await task.create({ stdout: polite.uri })
    await task.start()
    await task.exec('late', ['true'], { stdout: late.uri })
    const starting = expect(task.start('late')).rejects.toThrow('it was not ready within 10 s')
    await task.exec('e', ['true'], { stdout: stubborn.uri })
    await task.start('e')
    expect(await task.wait('e')).toBe(0)
    await task.delete('e')
    expect(isAlive(stubborn.pid!)).toBe(false)
    await starting
    expect(isAlive(late.pid!)).toBe(false)
    await task.kill()
    await task.wait()
    expect(isAlive(polite.pid!)).toBe(true)
    await task.end()
    expect(isAlive(polite.pid!)).toBe(false)
    expect(lines(told)).toEqual(['term'])
  })

  test('one that cannot be started, or ends before it is ready where that is demanded, fails the create and leaves nothing', async ({
    ct,
  }) => {
    const task = await BareTask.on(ct, ['sh', '-c', 'echo fine'])
    await expect(task.create({ stdout: 'binary:///no/such/program' })).rejects.toThrow('"/no/such/program": ENOENT')
    await expect(task.create({ stdout: 'binary://relative' })).rejects.toThrow('its path is not absolute')
    await expect(task.create({ stdout: 'binary:///x?a=%zz' })).rejects.toThrow('not properly escaped')
    await expect(task.create({ stderr: 'binary:///bin/cat' })).rejects.toThrow('stdout names it')
    const quiet = program(ct, 'exit 0', { scheme: 'binary-v2' })
    await expect(task.create({ stdout: quiet.uri })).rejects.toThrow('it ended without saying that it is ready')
    // with the older scheme the end of the pipe is enough
    await task.create({ stdout: quiet.uri.replace('-v2', '') })
    await task.start()
    expect(await task.wait()).toBe(0)
    await task.end()
  })

  test('a Create that is given up ends its program', async ({ ct }) => {
    const log = program(ct, 'exec sleep 1000')
    const task = await BareTask.on(ct, ['true'])
    const creating = expect(task.create({ stdout: log.uri })).rejects.toThrow()
    await until('the program to run', () => log.pid !== undefined)
    await expect(task.delete()).rejects.toThrow('not found')
    await creating
    expect(isAlive(log.pid!)).toBe(false)
    await task.leave()
  })

  test('`ctr run --log-uri`: the program survives its daemon, and nothing is lost meanwhile', {
    timeout: 60_000,
  }, async ({ ct }) => {
    const log = program(ct, copies(ct.folder))
    const id = ct.id()
    const script = 'i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done'
    await ct.ok(...ct.runArgs(['-d', '--log-uri', log.uri], id, ['sh', '-c', script]))
    const out = join(ct.folder, 'out')
    await until('the first lines', () => lines(out).length > 3)
    const { pid } = log
    await ct.daemon.kill()
    const before = lines(out).length
    await until('lines while the daemon is away', () => lines(out).length > before + 3)
    await ct.daemon.start()
    const later = lines(out).length
    await until('lines after its return', () => lines(out).length > later + 3)
    expect(isAlive(pid!)).toBe(true)
    await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
    await ct.untilStatus(id, 'STOPPED')
    await ct.ok('task', 'rm', id)
    const written = lines(out)
    expect(written).toEqual(written.map((_, i) => `line ${i + 1}`))
    expect(lines(join(ct.folder, 'end'))).toEqual(['end'])
  })
})
