/** Output that goes to files and to log programs instead of to a client. */
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, onTestFinished } from 'vitest'
import { isAlive } from '../support/census.ts'
import { makeFifos, untilBlocked, writer } from '../support/client-streams.ts'
import { startCommand, until } from '../support/command.ts'
import { expect, test } from '../support/fake.ts'
import { copies, linesOf, logProgram } from '../support/log-program.ts'
import { needs } from '../support/needs.ts'
import { PAYLOAD } from '../support/places.ts'
import { expectedSha256 } from '../support/stream.ts'

const MIB = 1024 * 1024

describe('file://', needs('root', 'busybox'), () => {
  test('makes missing folders and the file, takes both outputs of the init and of execs, and appends', async ({
    fake,
    shim,
  }) => {
    const path = join(fake.folder, 'new folder/below/log')
    const uri = `file://${path.replace(' ', '%20')}`
    const task = shim.task(['sh', '-c', 'echo out; echo err >&2; exec sleep 1000'])
    await task.create({ stdout: uri, stderr: uri })
    await task.start()
    await until('the first lines', () => linesOf(path).length === 2)
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
    expect(linesOf(path).sort()).toEqual(['err', 'exec', 'exec-err', 'out', 'terminal'])
    await task.remove()
  })

  test('a device that is full for a while gets all of it', async ({ shim }) => {
    const size = MIB / 4
    // the outer side of a terminal that is not read, of which the inner side is the log
    const outer = startCommand(PAYLOAD, ['pty', '24', '80', '--', 'sh', '-c', 'tty; exec sleep 1000'], {
      input: 'open',
      control: true,
    })
    onTestFinished(() => outer.kill('SIGKILL'))
    await outer.untilOutput('\n')
    const path = outer.stdout.trim()
    outer.kill('SIGSTOP')
    const task = shim.task(['payload', 'bytes', String(size), 'text'])
    const pid = await task.create({ stdout: `file://${path}` })
    await task.start()
    await untilBlocked(pid)
    outer.kill('SIGCONT')
    expect(await task.wait()).toMatchObject({ exitStatus: 0 })
    await task.remove()
    await until('all of it', () => outer.stdout.length === `${path}\n`.length + size)
    expect(createHash('sha256').update(outer.stdout.slice(-size)).digest('hex')).toBe(expectedSha256(size, 'text'))
    outer.kill('SIGKILL')
    await outer.finished
  })

  test('a plain path to a file is appended to; one to nothing or to a folder is refused', async ({ fake, shim }) => {
    const path = join(fake.folder, 'there')
    writeFileSync(path, 'before\n')
    const task = shim.task(['echo', 'after'])
    await expect(task.create({ stdout: join(fake.folder, 'missing') })).rejects.toThrow(/"\S*missing": ENOENT/)
    mkdirSync(join(fake.folder, 'folder'))
    await expect(task.create({ stdout: join(fake.folder, 'folder') })).rejects.toThrow(/"\S*folder": EISDIR/)
    await expect(task.create({ stdin: join(fake.folder, 'folder') })).rejects.toThrow(/"\S*folder": EISDIR/)
    await expect(task.create({ stdout: `file://${path}/below` })).rejects.toThrow(/"\S*below": (ENOTDIR|EEXIST)/)
    await task.create({ stdout: path })
    await task.start()
    expect(await task.wait()).toMatchObject({ exitStatus: 0 })
    await task.remove()
    expect(linesOf(path)).toEqual(['before', 'after'])
  })
})

describe('binary://', needs('root', 'busybox'), () => {
  test('a log program finds what it was promised: arguments, environment, folder and descriptors', async ({
    fake,
    shim,
  }) => {
    const seen = join(fake.folder, 'seen')
    const log = logProgram(
      fake.folder,
      `{ for arg; do echo "arg:$arg"; done; tr '\\0' '\\n' </proc/$$/environ | sed 's/^/env:/'; echo "cwd:$(pwd)"; echo written; } >${seen}; exec sleep 1000`,
      { query: '?key=a%20value&flag&plus=a+b&key=ignored&=nameless&%3D%26=%C3%A9' },
    )
    const task = shim.task(['sleep', '1000'])
    const creating = task.create({ stdout: log.uri, stderr: log.uri })
    await until('the program to write', () => linesOf(seen).includes('written'))
    // it has not said that it is ready, so there is no container
    expect(await task.client.connect({ id: task.id })).toMatchObject({ taskPid: 0 })
    const pid = log.pid!
    await until('the program to be sleep', () => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'sleep\n')
    const fds = readdirSync(`/proc/${pid}/fd`).map((fd) => `${fd}:${readlinkSync(`/proc/${pid}/fd/${fd}`)}`)
    expect(fds.map((line) => line.replace(/\[.*/, '')).sort()).toEqual([
      ...[0, 1, 2].map((fd) => `${fd}:/dev/null`),
      ...[3, 4, 5].map((fd) => `${fd}:pipe:`),
    ])
    const signals = readFileSync(`/proc/${pid}/status`, 'utf8').match(/^Sig(Blk|Ign):.*$/gm)
    expect(signals).toEqual(['SigBlk:\t0000000000000000', 'SigIgn:\t0000000000000000'])
    process.kill(pid, 'SIGKILL')
    await creating
    const { id, bundle } = task
    const text = linesOf(seen)
    const own = (prefix: string): string[] =>
      text.filter((line) => line.startsWith(prefix)).map((line) => line.slice(prefix.length))
    expect(readFileSync(seen, 'utf8')).toContain('arg:flag\narg:\narg:plus\n')
    expect(own('arg:')).toEqual(['key', 'a value', 'flag', '', 'plus', 'a b', '', 'nameless', '=&', 'é'])
    expect(own('env:').sort()).toEqual([`CONTAINER_ID=${id}`, `CONTAINER_NAMESPACE=${fake.namespace}`])
    expect(own('cwd:')).toEqual([bundle])
    await task.remove()
  })

  test('takes the output of the init and of execs, each by a program of its own, and has all of it when Delete answers', async ({
    fake,
    shim,
  }) => {
    const [one, two] = ['one', 'two'].map((name) => join(fake.folder, name)) as [string, string]
    for (const folder of [one, two]) mkdirSync(folder)
    const size = 8 * MIB
    const script = `payload bytes ${size}; echo err >&2`
    const task = shim.task(['sh', '-c', `${script}; exec sleep 1000`])
    await task.create({ stdout: logProgram(fake.folder, copies(one)).uri })
    await task.start()
    await task.exec('e', ['sh', '-c', script], {
      stdout: logProgram(fake.folder, `${copies(two)}; env >${two}/env`).uri,
    })
    await task.start('e')
    expect(await task.wait('e')).toMatchObject({ exitStatus: 0 })
    await task.delete('e')
    const { createHash } = await import('node:crypto')
    const digest = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')
    expect(digest(join(two, 'out'))).toBe(expectedSha256(size))
    expect(linesOf(join(two, 'err'))).toEqual(['err'])
    expect(linesOf(join(two, 'end'))).toEqual(['end'])
    expect(linesOf(join(two, 'env'))).toContain('CONTAINER_ID=e')
    await until('the init’s output', () => linesOf(join(one, 'err')).length === 1)
    await task.remove()
    expect(digest(join(one, 'out'))).toBe(expectedSha256(size))
  })

  test('takes the output of a terminal, and its input comes from the client', async ({ fake, shim }) => {
    const fifos = makeFifos(fake.folder)
    const task = shim.task(['sh', '-c', 'read line; echo "got $line"'])
    await task.create({ stdin: fifos.stdin, stdout: logProgram(fake.folder, copies(fake.folder)).uri, terminal: true })
    await task.start()
    const input = writer(fifos.stdin)
    input.write('typed\n')
    expect(await task.wait()).toMatchObject({ exitStatus: 0 })
    await task.remove()
    expect(linesOf(join(fake.folder, 'out'))).toEqual(['typed', 'got typed'])
    expect(linesOf(join(fake.folder, 'err'))).toEqual([])
  })

  test('a program that ends neither kills nor blocks its container', async ({ fake, shim }) => {
    const log = logProgram(fake.folder, 'echo ready >&5; exec sleep 1000')
    const size = 64 * MIB
    const task = shim.task(['sh', '-c', `payload bytes ${size}; echo $? > /dev/shm/status; exec sleep 1000`])
    await task.create({ stdout: log.uri })
    await task.start()
    process.kill(log.pid!, 'SIGKILL')
    await task.exec('e', ['sh', '-c', 'until [ -s /dev/shm/status ]; do sleep 0.1; done; exit $(cat /dev/shm/status)'])
    await task.start('e')
    expect(await task.wait('e')).toMatchObject({ exitStatus: 0 })
    await task.remove()
  })

  test('a program that leaves its work to a child is not robbed of the rest', async ({ fake, shim }) => {
    const gate = join(fake.folder, 'gate')
    const log = logProgram(
      fake.folder,
      `echo ready >&5; (until [ -e ${gate} ]; do sleep 0.05; done; cat <&3 >${fake.folder}/out) & exit 0`,
    )
    const fifos = makeFifos(fake.folder)
    const task = shim.task(['sh', '-c', 'read line; echo hello'])
    await task.create({ stdin: fifos.stdin, stdout: log.uri })
    await until('the program to end', () => !isAlive(log.pid!))
    await task.start()
    const input = writer(fifos.stdin)
    input.write('\n')
    expect(await task.wait()).toMatchObject({ exitStatus: 0 })
    writeFileSync(gate, '')
    await until('the rest', () => linesOf(join(fake.folder, 'out')).length === 1)
    await task.remove()
    expect(linesOf(join(fake.folder, 'out'))).toEqual(['hello'])
  })

  test('a program that waits for SIGTERM gets it, one that ignores it is killed, and so is one that is not ready within 10 s: nothing waits for ever', {
    timeout: 60_000,
  }, async ({ fake, shim }) => {
    const told = join(fake.folder, 'told')
    const polite = logProgram(
      fake.folder,
      `trap 'echo term >${told}; exit 0' TERM; echo ready >&5; while :; do sleep 0.05; done`,
    )
    const stubborn = logProgram(fake.folder, `trap '' TERM; echo ready >&5; while :; do sleep 0.05; done`)
    const late = logProgram(fake.folder, 'exec sleep 1000')
    const task = shim.task(['sleep', '1000'])
    await task.create({ stdout: polite.uri })
    await task.start()
    await task.exec('late', ['true'], { stdout: late.uri })
    const starting = expect(task.start('late')).rejects.toThrow('it was not ready within 10 s')
    await task.exec('e', ['true'], { stdout: stubborn.uri })
    await task.start('e')
    expect(await task.wait('e')).toMatchObject({ exitStatus: 0 })
    await task.delete('e')
    expect(isAlive(stubborn.pid!)).toBe(false)
    await starting
    expect(isAlive(late.pid!)).toBe(false)
    await task.kill()
    await task.wait()
    expect(isAlive(polite.pid!)).toBe(true)
    await task.remove()
    expect(isAlive(polite.pid!)).toBe(false)
    expect(linesOf(told)).toEqual(['term'])
  })

  test('one that cannot be started, or ends before it is ready where that is demanded, fails the create and leaves nothing', async ({
    fake,
    shim,
  }) => {
    const task = shim.task(['sh', '-c', 'echo fine'])
    await expect(task.create({ stdout: 'binary:///no/such/program' })).rejects.toThrow('"/no/such/program": ENOENT')
    await expect(task.create({ stdout: 'binary://relative' })).rejects.toThrow('its path is not absolute')
    await expect(task.create({ stdout: 'binary:///x?a=%zz' })).rejects.toThrow('not properly escaped')
    await expect(task.create({ stderr: 'binary:///bin/cat' })).rejects.toThrow('stdout names it')
    const quiet = logProgram(fake.folder, 'exit 0', { scheme: 'binary-v2' })
    await expect(task.create({ stdout: quiet.uri })).rejects.toThrow('it ended without saying that it is ready')
    // with the older scheme the end of the pipe is enough
    await task.create({ stdout: quiet.uri.replace('-v2', '') })
    await task.start()
    expect(await task.wait()).toMatchObject({ exitStatus: 0 })
    await task.remove()
  })

  test('a container that ends does not wait for the program of an exec to be ready', async ({ fake, shim }) => {
    const log = logProgram(fake.folder, 'exec sleep 1000')
    const task = await shim.started()
    await task.exec('e', ['true'], { stdout: log.uri })
    const starting = expect(task.start('e')).rejects.toThrow('init process is not running')
    await until('the program to run', () => log.pid !== undefined)
    const killed = performance.now()
    await task.kill()
    expect(await task.wait()).toMatchObject({ exitStatus: 137 })
    expect(performance.now() - killed).toBeLessThan(5_000)
    await starting
    expect(isAlive(log.pid!)).toBe(false)
    await task.remove()
  })

  test('a Create that is given up ends its program', async ({ fake, shim }) => {
    const log = logProgram(fake.folder, 'exec sleep 1000')
    const task = shim.task(['true'])
    const creating = expect(task.create({ stdout: log.uri })).rejects.toThrow()
    await until('the program to run', () => log.pid !== undefined)
    await expect(task.delete()).rejects.toThrow('not found')
    await creating
    expect(isAlive(log.pid!)).toBe(false)
  })
})
