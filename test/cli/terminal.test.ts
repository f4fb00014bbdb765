/**
 * Terminals of containers. In the foreground, runts joins the container's terminal with ours.
 * The terminal of a detached container goes to the program that listens on the console socket.
 */
import { readFileSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { type Command, startCommand, until } from '../support/command.ts'
import { FdReceiver } from '../support/console-socket.ts'
import { needs } from '../support/needs.ts'
import { BIN, PAYLOAD } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'
import type { TestSpec } from '../support/spec.ts'

const withTerminal = (spec: TestSpec): void => {
  spec.process.terminal = true
}

/** Runs runts on a terminal of 24 rows and 80 columns, as a person would. */
function onTerminal(runts: Runts, ...args: string[]): Command {
  const command = [join(BIN, 'runts'), '--root', runts.root, ...args]
  return startCommand(PAYLOAD, ['pty', '24', '80', '--', ...command], { input: 'open', control: true })
}

/**
 * What a terminal shows until it has shown `text`. The master is read without a wait for more than the program
 * writes.
 */
async function untilShown(master: number, text: string): Promise<string> {
  let shown = ''
  const buffer = Buffer.alloc(4096)
  await until(`"${text}" on the terminal`, () => {
    shown += buffer.toString('utf8', 0, readSync(master, buffer))
    return shown.includes(text)
  })
  return shown
}

describe('runts with a terminal', needs('root', 'busybox'), () => {
  test('run in the foreground connects it to ours, with its size and what becomes of that', async ({ runts }) => {
    const bundle = runts.bundle(['payload', 'winsize'], withTerminal)
    const command = onTerminal(runts, 'run', '-b', bundle, 'c')
    await command.untilOutput('tty 111')
    await command.untilOutput('size 24 80')
    command.resize(50, 132)
    await command.untilOutput('size 50 132')
    command.write('x\n')
    expect(await command.finished).toMatchObject({ code: 0 })
  })

  test('exec -t gives the command a terminal, and takes its exit status from it', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(['sleep', '1000']), 'c')
    const command = onTerminal(runts, 'exec', '-t', 'c', 'sh', '-c', 'tty; read line; echo "<$line>"; exit 7')
    await command.untilOutput('/dev/pts/')
    command.write('typed\n')
    await command.untilOutput('<typed>')
    expect(await command.finished).toMatchObject({ code: 7 })
  })

  test('exec -t stays connected while its command has let go of the terminal', async ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(['sleep', '1000']), 'c')
    const away = 'exec </dev/null >/dev/null 2>&1; while [ ! -e /dev/shm/go ]; do sleep 0.02; done'
    const command = onTerminal(runts, 'exec', '-t', 'c', 'sh', '-c', `echo here; ${away}; echo back >/dev/tty; exit 7`)
    await command.untilOutput('here')
    await runts.ok('exec', 'c', 'touch', '/dev/shm/go')
    await command.untilOutput('back')
    expect(await command.finished).toMatchObject({ code: 7 })
  })

  test('create sends the master to the console socket', async ({ runts }) => {
    const path = join(runts.folder, 'console')
    using console_ = new FdReceiver(path)
    const bundle = runts.bundle(['sh', '-c', 'tty; read line; echo "<$line>"; sleep 1000'], withTerminal)
    runts.leave('create', '-b', bundle, '--console-socket', path, 'c')
    using master = console_.take()
    await runts.ok('start', 'c')
    expect(await untilShown(master.fd, '\n')).toContain('/dev/pts/0')
    writeSync(master.fd, 'typed\n')
    await untilShown(master.fd, '<typed>')
  })

  test('a console socket and a terminal need each other', async ({ runts }) => {
    const plain = runts.bundle(['true'])
    const terminal = runts.bundle(['true'], withTerminal)
    const useless = 'runts: error: cannot use console socket if runts will not detach or allocate tty\n'
    const cases: [string[], string][] = [
      [['create', '-b', plain, '--console-socket', '/x', 'c'], useless],
      [['run', '-b', terminal, '--console-socket', '/x', 'c'], useless],
      [
        ['run', '-d', '-b', terminal, 'c'],
        'runts: error: cannot allocate tty if runts will detach without setting console socket\n',
      ],
    ]
    for (const [args, stderr] of cases)
      expect(await runts.run(...args), args.join(' ')).toMatchObject({ code: 1, stderr })
    expect(
      await runts.run('create', '-b', terminal, '--console-socket', join(runts.folder, 'none'), 'c'),
    ).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^runts: error: cannot connect to ".*\/none": ENOENT/),
    })
  })

  test('--pidfd-socket gets a pidfd of the process, for run and for exec', async ({ runts }) => {
    const path = join(runts.folder, 'pidfd')
    using receiver = new FdReceiver(path)
    const pidOf = (info: string): string | undefined => /^Pid:\s+(\d+)$/m.exec(info)?.[1]
    runts.leave('run', '-d', '--pidfd-socket', path, '-b', runts.bundle(['sleep', '1000']), 'c')
    using init = receiver.take()
    expect(pidOf(readFileSync(`/proc/self/fdinfo/${init.fd}`, 'utf8'))).toBe(String((await runts.state('c'))['pid']))
    const pidFile = join(runts.folder, 'pid')
    runts.leave('exec', '-d', '--pidfd-socket', path, '--pid-file', pidFile, 'c', 'sleep', '900')
    using second = receiver.take()
    expect(pidOf(readFileSync(`/proc/self/fdinfo/${second.fd}`, 'utf8'))).toBe(readFileSync(pidFile, 'utf8'))
  })
})
