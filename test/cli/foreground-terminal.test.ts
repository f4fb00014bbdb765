/** A process in the foreground, and the terminal of its caller: the container never has it, and it stays as it was. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { until } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { BIN } from '../support/places.ts'
import { test } from '../support/runts.ts'
import type { SpecChange } from '../support/spec.ts'
import { onTerminal, openFiles, pidsOf, running, SLEEP, shell } from './foreground-host.ts'

describe('the terminal of whoever calls runts', needs('root', 'busybox'), () => {
  test('is never a descriptor in a container, and stays its owner’s', async ({ runts }) => {
    running(runts, 1000)
    const user: SpecChange = (spec) => {
      spec.process.user = { uid: 1000, gid: 1000 }
    }
    const bundle = runts.bundle(SLEEP, user)
    const before = 'stat -c "owner %u:%g %a" $(tty)'
    const [first, second] = [bundle, runts.bundle(SLEEP, user)]
    const script = [
      before,
      `runts exec c sh -c 'sleep 901 & exit'`,
      'runts exec -d c sleep 902',
      `runts run -d -b ${first} d`,
      `runts create -b ${second} e`,
      before,
    ].join('; ')
    const { stdout, code } = await onTerminal(runts, script).finished
    expect(code).toBe(0)
    const owners = stdout.match(/owner .*/g) ?? []
    expect(owners).toHaveLength(2)
    expect(owners[1]).toBe(owners[0])
    expect(stdout).toContain('its standard output and standard error is /dev/null unless redirected')
    const pids = [...(await pidsOf(runts, 'c')), ...(await pidsOf(runts, 'd')), ...(await pidsOf(runts, 'e'))]
    expect(pids.length).toBeGreaterThanOrEqual(5)
    for (const pid of pids) expect(openFiles(pid).filter((file) => /pts|ptmx|tty/.test(file))).toEqual([])
  })

  test('has one carriage return for each line, with and without a terminal in the container; a pipe has none', async ({
    runts,
  }) => {
    running(runts)
    const plain = runts.bundle(['printf', 'one\\ntwo\\n'])
    const terminal = runts.bundle(['printf', 'one\\ntwo\\n'], (spec) => {
      spec.process.terminal = true
    })
    for (const command of [
      `exec -t c printf 'one\\ntwo\\n'`,
      `exec c printf 'one\\ntwo\\n'`,
      `run -b ${terminal} d`,
      `run -b ${plain} d`,
    ]) {
      expect((await onTerminal(runts, `runts ${command}`).finished).stdout, command).toBe('one\r\ntwo\r\n')
      expect((await shell(runts, `runts ${command}`)).stdout, command).toBe('one\ntwo\n')
      expect((await shell(runts, `x=$(runts ${command}); echo "<$x>"`)).stdout, command).toBe('<one\ntwo>\n')
      // a terminal in front, a file behind
      expect((await onTerminal(runts, `runts ${command} >out; od -An -c out`).finished).stdout, command).toMatch(
        /^ +o +n +e +\\n +t +w +o +\\n\r\n$/,
      )
      // input from a pipe, output on the terminal
      expect((await onTerminal(runts, `true | runts ${command}`).finished).stdout, command).toBe('one\r\ntwo\r\n')
    }
  })

  test('keeps every setting, whatever end a command comes to', async ({ runts }) => {
    running(runts)
    const settings = 'stty -a | tr "\\n" " "; echo'
    const program = `${join(BIN, 'runts')} --root ${runts.root}`
    const killed = `sh -c 'echo $$ >pid; exec ${program} exec -t c sleep 1000'`
    const killer = 'until runts ps -f json c | grep -q ,; do sleep 0.05; done; kill -TERM $(cat pid)'
    const ends = [
      'runts exec -t c true',
      'runts exec -t c sh -c "stty raw; exit 3"',
      'runts exec -t c missing-program',
      'runts exec c true',
      `{ ${killer}; } & ${killed}`,
    ]
    for (const end of ends) {
      const script = `${settings}; ${end}; ${settings}`
      const { stdout } = await onTerminal(runts, script).finished
      const seen = stdout.match(/^speed .*/gm) ?? []
      expect(seen, end).toHaveLength(2)
      expect(seen[1], end).toBe(seen[0])
    }
  })

  test('is raw for the container’s terminal: control characters and bytes go through as they are', async ({
    runts,
  }) => {
    running(runts)
    const command = onTerminal(
      runts,
      `runts exec -t c sh -c 'stty raw -echo; echo ready; dd bs=1 count=6 2>/dev/null | od -An -tx1'`,
    )
    await command.untilOutput('ready')
    command.child.stdin?.write(Buffer.from([0x03, 0x1a, 0x0d, 0x0a, 0x00, 0xff]))
    const { stdout, code } = await command.finished
    expect({ code, bytes: /(?:[0-9a-f]{2} ?){6}/.exec(stdout)?.[0] }).toEqual({ code: 0, bytes: '03 1a 0d 0a 00 ff' })
  })

  test('is the container’s by lines and signals where that has none: ^C ends the command', async ({ runts }) => {
    running(runts)
    const command = onTerminal(runts, `runts exec c sh -c 'read x; echo "<$x>"; exec sleep 1000'; echo "ended $?"`)
    await new Promise((resolve) => setTimeout(resolve, 0))
    command.write('typed\n')
    await command.untilOutput('<typed>')
    command.write('\x03')
    await command.untilOutput('ended 130')
    command.endInput()
    await command.finished
  })

  test('is not read any more by a process that was left behind', async ({ runts }) => {
    running(runts)
    const script = `runts exec c sh -c 'exec 3<&0; while read x <&3; do echo $x >>/dev/shm/stolen; done & exit'; echo next; while read x; do echo "mine $x"; [ "$x" = 9 ] && exit; done`
    const command = onTerminal(runts, script)
    await command.untilOutput('next')
    for (let i = 0; i < 10; i++) command.write(`${i}\n`)
    const { stdout } = await command.finished
    expect(stdout.match(/mine \d/g)).toHaveLength(10)
    expect((await runts.run('exec', 'c', 'cat', '/dev/shm/stolen')).stdout).toBe('')
  })

  test('that hangs up leaves a command its exit status', async ({ runts }) => {
    running(runts)
    const inner = 'trap "exit 7" HUP; echo ready; while :; do sleep 0.05; done'
    const program = `${join(BIN, 'runts')} --root ${runts.root} exec -t c sh -c '${inner}'`
    // the leader of the session gets the signal, and passes it on as shells do
    const script = `trap 'kill -HUP $p' HUP; ${program} </dev/tty & p=$!; wait $p; wait $p; echo $? >status`
    const command = onTerminal(runts, script)
    await command.untilOutput('ready')
    command.kill('SIGKILL')
    await command.finished
    const status = join(runts.folder, 'status')
    await until('the status', () => existsSync(status) && readFileSync(status, 'utf8') !== '')
    expect(readFileSync(status, 'utf8')).toBe('7\n')
  })

  test('that nobody reads keeps no command from its end of the terminal’s reader', async ({ runts }) => {
    running(runts)
    expect((await shell(runts, 'runts exec -t c yes | head -1 | od -An -c')).stdout).toMatch(/^ +y +\\n\n$/)
  })
})
