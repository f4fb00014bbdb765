/** Terminals: whose they are, what they are called, their size, and how their other end is handed over. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished } from 'vitest'
import { type Command, startCommand } from '../support/command.ts'
import { notRunc } from '../support/needs.ts'
import { inModes, MODES, type OciHost } from '../support/oci.ts'
import { PAYLOAD, PROBE } from '../support/places.ts'

/** A program that waits for a terminal, as a container manager does. */
async function console_(runts: OciHost, name: string): Promise<{ socket: string; peer: Command }> {
  const socket = join(runts.folder, name)
  const peer = startCommand(PROBE, ['console', socket], { input: 'open' })
  onTestFinished(async () => {
    peer.kill('SIGKILL')
    await peer.finished
  })
  await peer.untilOutput('listening')
  return { socket, peer }
}

/** What probe says of a terminal: one of /dev/pts, of its user and the group of terminals. */
const seen = (uid: number, rows = 0, columns = 0): RegExp =>
  new RegExp(`tty 111 /dev/(pts/\\d+|console) owner ${uid}:5 rows ${rows} columns ${columns}\\r+\\n`)

inModes(MODES, 'a terminal', (test) => {
  test('is handed over by create, with its size, and belongs to the user of the process', async ({ runts }) => {
    for (const uid of [0, 1000]) {
      const { socket, peer } = await console_(runts, `create${uid}.sock`)
      const bundle = runts.bundle(
        ['sh', '-c', 'probe tty; readlink /proc/self/fd/0; stat -c %F /dev/console; read line; echo "[$line]"'],
        (spec) => {
          spec.process.terminal = true
          spec.process.consoleSize = { height: 10, width: 110 }
          spec.process.user = { uid, gid: uid }
        },
      )
      runts.leave('run', '-d', '--console-socket', socket, '-b', bundle, `c${uid}`)
      await peer.untilOutput(seen(uid, 10, 110))
      peer.write('typed\n')
      await peer.untilOutput('[typed]')
      expect(peer.stdout).toMatch(/received \/dev\/(pts\/)?(ptmx|\d+)/)
      expect(peer.stdout).toContain('character special file')
      await runts.ok('delete', '-f', `c${uid}`)
    }
  })

  test('is handed over by exec, with the size of its process document', async ({ runts }) => {
    const bundle = runts.bundle(['sleep', '1000'])
    runts.leave('run', '-d', '-b', bundle, 'c')
    const { process } = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8'))
    const document = join(runts.folder, 'process.json')
    const change = { terminal: true, consoleSize: { height: 11, width: 120 }, user: { uid: 1000, gid: 1000 } }
    writeFileSync(document, JSON.stringify({ ...process, ...change, args: ['sh', '-c', 'probe tty; read line'] }))
    const { socket, peer } = await console_(runts, 'exec.sock')
    runts.leave('exec', '-d', '--console-socket', socket, '-p', document, 'c')
    await peer.untilOutput(seen(1000, 11, 120))
  })

  const sized = notRunc('1.1 sets the size only when the program runs already')
  test("in the foreground is relayed to the caller's, and as large as that", sized, async ({ runts }) => {
    for (const uid of [0, 1000]) {
      const bundle = runts.bundle(['probe', 'tty'], (spec) => {
        spec.process.terminal = true
        spec.process.user = { uid, gid: uid }
      })
      const line = runts.commandOf('run', '-b', bundle, `c${uid}`)
      const outer = startCommand(PAYLOAD, ['terminal', '24', '80', '--', ...line], { control: true, input: 'open' })
      expect(await outer.finished).toMatchObject({ code: 0 })
      expect(outer.stdout).toMatch(seen(uid, 24, 80))
    }
  })

  test('and a console socket need each other', async ({ runts }) => {
    const terminal = runts.bundle(['true'], (spec) => {
      spec.process.terminal = true
    })
    expect(runts.refusal(await runts.run('create', '-b', terminal, 'c'))).toMatch(
      /cannot allocate tty if \w+ will detach without setting console socket/,
    )
    const plain = runts.bundle(['true'])
    const socket = join(runts.folder, 'nobody.sock')
    expect(runts.refusal(await runts.run('create', '--console-socket', socket, '-b', plain, 'c'))).toMatch(
      /cannot use console socket if \w+ will not detach or allocate tty/,
    )
  })
})

// a user namespace's root owns no pipe of the host
inModes(['as root'], 'without a terminal', (test) => {
  test('the three streams are what the caller gave, and the process may open them again', async ({ runts }) => {
    const script = 'probe tty; [ -e /dev/console ] || echo no console; echo again >/dev/stdout'
    const bundle = runts.bundle(['sh', '-c', script], (spec) => {
      spec.process.user = { uid: 1000, gid: 1000 }
    })
    // the streams of this test are sockets, which nobody can open by a path: a shell's are pipes
    const { finished } = startCommand('sh', [
      '-c',
      '"$@" </dev/null 2>&1 | cat',
      'sh',
      ...runts.commandOf('run', '-b', bundle, 'c'),
    ])
    expect(await finished).toMatchObject({ stdout: 'tty 000\nno console\nagain\n' })
  })
})
