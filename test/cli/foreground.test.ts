/**
 * A process in the foreground, and the files, pipes and terminal of its caller.
 * The container never has these, and they stay as they were. Still every byte goes through in order, as if directly.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { allPids } from '../support/census.ts'
import { type Command, type Finished, type StartOptions, startCommand, until } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { BIN, PAYLOAD } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'
import type { SpecChange } from '../support/spec.ts'
import { expectedSha256 } from '../support/stream.ts'

/** A shell of the host in the test's folder, where `runts` is the one under test. */
function shellArgs(runts: Runts, script: string): string[] {
  return ['bash', '-c', `cd ${runts.folder}; runts() { ${join(BIN, 'runts')} --root ${runts.root} "$@"; }; ${script}`]
}

function shell(runts: Runts, script: string, options: StartOptions = {}): Promise<Finished> {
  const [program = '', ...args] = shellArgs(runts, script)
  return startCommand(program, args, options).finished
}

/** The same on a terminal as a person has it. */
function onTerminal(runts: Runts, script: string): Command {
  return startCommand(PAYLOAD, ['terminal', '24', '80', '--', ...shellArgs(runts, script)], { input: 'open' })
}

const SLEEP = ['sleep', '1000']

/** A container that runs, as root unless told otherwise. */
function running(runts: Runts, uid = 0): void {
  const bundle = runts.bundle(SLEEP, (spec) => {
    spec.process.user = { uid, gid: uid }
  })
  runts.leave('run', '-d', '-b', bundle, 'c')
}

/** What the descriptors of a process refer to. */
function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
}

async function pidOf(runts: Runts, id: string): Promise<number> {
  return Number((await runts.state(id))['pid'])
}

/** The pids of the processes in a container, as the host knows them. */
async function pidsOf(runts: Runts, id: string): Promise<number[]> {
  return JSON.parse((await runts.ok('ps', '-f', 'json', id)).stdout)
}

describe('the files of whoever calls runts', needs('root', 'busybox'), () => {
  test('cannot be written, emptied or read again by a process in the foreground', async ({ runts }) => {
    const attack = 'echo evil >/proc/self/fd/0; : >/proc/self/fd/1; echo done'
    const bundle = runts.bundle(['sh', '-c', attack])
    running(runts)
    for (const command of [`exec c sh -c '${attack}'`, `run -b ${bundle} d`]) {
      writeFileSync(join(runts.folder, 'host.conf'), 'secret\n')
      writeFileSync(join(runts.folder, 'host.log'), 'before\n')
      await shell(runts, `runts ${command} <host.conf >>host.log 2>errors`)
      expect(readFileSync(join(runts.folder, 'host.conf'), 'utf8'), command).toBe('secret\n')
      const log = readFileSync(join(runts.folder, 'host.log'), 'utf8')
      expect(log, command).toMatch(/^before\n/)
      expect(log, command).toMatch(/done\n$/)
    }
  })

  test('are no descriptors of a process in the foreground, whatever they are', async ({ runts }) => {
    const list = ['sh', '-c', 'for fd in 0 1 2; do readlink /proc/self/fd/$fd; done']
    running(runts)
    writeFileSync(join(runts.folder, 'run.txt'), '')
    const bundle = runts.bundle(list)
    for (const command of [`exec c ${list[0]} -c '${list[2]}'`, `run -b ${bundle} d`]) {
      await shell(runts, `runts ${command} <run.txt >>run.txt 2>other.txt`)
      expect(readFileSync(join(runts.folder, 'run.txt'), 'utf8'), command).toMatch(/^(pipe:\[\d+\]\n){3}$/)
      writeFileSync(join(runts.folder, 'run.txt'), '')
      // as strangers: a container in the foreground reads from what its caller reads, and has none of it
      const piped = await shell(runts, `echo | runts ${command} | cat`)
      expect(piped.stdout, command).toMatch(/^(pipe:\[\d+\]\n){3}$/)
    }
  })

  test('have an offset behind what the process has read, and not behind what was read ahead', async ({ runts }) => {
    running(runts)
    const lines = Array.from({ length: 40_000 }, (_, i) => `line ${i}`)
    writeFileSync(join(runts.folder, 'list'), `${lines.join('\n')}\n`)
    const script = `{ runts exec c sh -c 'read a; echo "<$a>"'; runts exec c true; read b; echo "<$b>"; runts exec c cat | md5sum; cat; } <list`
    const { stdout } = await shell(runts, script)
    const rest = await shell(runts, 'tail -n +3 list | md5sum')
    expect(stdout).toBe(`<line 0>\n<line 1>\n${rest.stdout}`)
  })

  test('do not end a loop over a list whose commands read nothing', async ({ runts }) => {
    running(runts)
    const { stdout } = await shell(
      runts,
      `printf 'a\\nb\\nc\\n' >list; while read x; do runts exec c echo "<$x>"; done <list`,
    )
    expect(stdout).toBe('<a>\n<b>\n<c>\n')
  })

  test('get what comes in order where standard output and standard error are one', async ({ runts }) => {
    running(runts)
    const inner = 'i=0; while [ $i -lt 50 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done'
    const wanted = Array.from({ length: 50 }, (_, i) => `o${i}\ne${i}\n`).join('')
    const command = `runts exec c sh -c '${inner}'`
    expect((await shell(runts, `${command} 2>&1`)).stdout).toBe(wanted)
    expect((await shell(runts, `${command} >both 2>&1; cat both`)).stdout).toBe(wanted)
    expect((await shell(runts, `rm both; ${command} >>both 2>>both; cat both`)).stdout).toBe(wanted)
  })

  test('are added to where they stand: between what others write, appended or not', async ({ runts }) => {
    running(runts)
    for (const redirection of ['>', '>>']) {
      const script = `rm -f out; { echo a; runts exec c echo b; echo c; runts exec c echo d >&2; } ${redirection}out 2>&1; cat out`
      expect((await shell(runts, script)).stdout).toBe('a\nb\nc\nd\n')
    }
  })

  test('keep their flags: nothing becomes non-blocking, nothing that is becomes blocking', async ({ runts }) => {
    running(runts)
    mkdirSync(join(runts.folder, 'flags'))
    for (const [name, nonblocking] of [
      ['blocking', ''],
      ['nonblocking', 'fcntl(0,4,fcntl(0,3)|2048);fcntl(1,4,fcntl(1,3)|2048);'],
    ] as const) {
      // perl holds the pipes, changes their flags before, and tells them after
      const script = `perl -e 'use Fcntl; pipe(R, W); pipe(S, T); for $f (R, T) { $n = fcntl($f, F_GETFL, 0); fcntl($f, F_SETFL, ${nonblocking === '' ? '$n' : '$n | O_NONBLOCK'}) } $a = fcntl(R, F_GETFL, 0) . " " . fcntl(T, F_GETFL, 0); syswrite(W, "in\\n"); close W; $p = fork; if (!$p) { open(STDIN, "<&R"); open(STDOUT, ">&T"); exec "${join(BIN, 'runts')}", "--root", "${runts.root}", "exec", "c", "cat" } waitpid($p, 0); $b = fcntl(R, F_GETFL, 0) . " " . fcntl(T, F_GETFL, 0); close T; print "$a\\n$b\\n", <S>'`
      const { stdout, stderr } = await shell(runts, script)
      const [before, after, ...out] = stdout.split('\n')
      expect({ name, after, out, stderr }).toEqual({ name, after: before, out: ['in', ''], stderr: '' })
    }
  })

  test('stay blocking also where they are standard error, for commands of every kind', async ({ runts }) => {
    running(runts)
    const commands = [
      'runts exec c true',
      'runts exec -d c true',
      `runts run -b ${runts.bundle(['true'])} d`,
      'runts ps c >/dev/null',
      'runts exec -t c true >/dev/null',
    ]
    for (const command of commands) {
      // a write to a non-blocking pipe that nobody reads yet would be short
      const script = `{ ${command} </dev/null; head -c 300000 /dev/zero; } 2>&1 | { sleep 0.5; wc -c; }`
      expect((await shell(runts, script)).stdout, command).toBe('300000\n')
    }
  })

  test('that stand for input and output at once are read and written through one offset', async ({ runts }) => {
    running(runts)
    const inner = 'cat >/dev/null; echo appended'
    const script = `printf 'line1\\nline2\\n' >f; exec 3<>f; runts exec c sh -c '${inner}' <&3 >&3; cat f`
    expect((await shell(runts, script)).stdout).toBe('line1\nline2\nappended\n')
  })

  test('are not set back by a process that fills its input itself: the host does no line of a script twice', async ({
    runts,
  }) => {
    running(runts)
    const fill = 'cat >/dev/null; printf %0500d 0 >/proc/self/fd/0; exit 3'
    const { stdout } = await shell(
      runts,
      `printf 'one\\ntwo\\n' >f; { read x; runts exec c sh -c '${fill}'; echo $?; cat; } <f`,
    )
    expect(stdout).toBe('3\ntwo\n')
  })

  test('without an offset, or that cannot be read at all, are an input that ends', async ({ runts }) => {
    running(runts)
    for (const input of ['/', '/proc/self/mem']) {
      const { stdout, stderr } = await shell(runts, `runts exec c sh -c 'cat; echo end; exit 4' <${input}; echo $?`)
      expect({ input, stdout, lines: stderr.match(/cannot read standard input/g)?.length }).toEqual({
        input,
        stdout: 'end\n4\n',
        lines: 1,
      })
    }
  })

  test('that are sockets of messages get as many as fit', async ({ runts }) => {
    running(runts)
    const program = `${join(BIN, 'runts')} --root ${runts.root}`
    const script = `perl -e 'use Socket; socketpair(A, B, AF_UNIX, SOCK_SEQPACKET, 0); $p = fork; if (!$p) { close A; open(STDOUT, ">&B"); exec "${program} exec c payload bytes 1000000" } close B; while (($n = sysread(A, $b, 300000)) > 0) { $sum += $n } waitpid($p, 0); print "$sum $?\\n"'`
    expect((await shell(runts, script, { timeoutMs: 15_000 })).stdout).toBe('1000000 0\n')
  })

  test('get all that a process wrote before its end, also when they are read slowly', async ({ runts }) => {
    running(runts)
    const bytes = 5_000_000
    const slow = `runts exec c payload bytes ${bytes} | { sleep 3; cat; }`
    expect((await shell(runts, slow, { keepOutput: false })).sha256).toBe(expectedSha256(bytes))
    expect(
      (await shell(runts, `runts exec c payload bytes ${bytes} >out; cat out`, { keepOutput: false })).sha256,
    ).toBe(expectedSha256(bytes))
    // the way in and out, through a file and a pipe
    for (const way of ['<out', '< <(cat out)']) {
      const { sha256, stderr } = await shell(runts, `runts exec c cat ${way}`, { keepOutput: false })
      expect({ way, sha256, stderr }).toEqual({ way, sha256: expectedSha256(bytes), stderr: '' })
    }
  })

  test('get all of that also from a terminal that a process left behind keeps open', async ({ runts }) => {
    running(runts)
    const bytes = 150_000
    const inner = `trap "" HUP; sleep 1000 & payload bytes ${bytes} text`
    const slow = `runts exec -t c sh -c '${inner}' | { sleep 3; head -c 70000; sleep 3; cat; }`
    expect((await shell(runts, slow, { keepOutput: false })).sha256).toBe(expectedSha256(bytes, 'text'))
  })

  test('do not keep the command waiting for a process that was left behind with them', async ({ runts }) => {
    running(runts)
    const late = await shell(runts, 'x=$(runts exec c sh -c \'(sleep 1; echo late) & echo now\'); echo "<$x>"')
    expect(late.stdout).toBe('<now\nlate>\n')
    const quiet = await shell(
      runts,
      `runts exec c sh -c 'sleep 1000 & echo started; exit 3' | cat; echo \${PIPESTATUS[0]}`,
    )
    expect(quiet.stdout).toBe('started\n3\n')
    const loud = await shell(
      runts,
      `runts exec c sh -c 'while echo x; do sleep 0.3; done & exit 4' | wc -l; echo \${PIPESTATUS[0]}`,
    )
    expect(loud.stdout).toMatch(/^\d+\n4\n$/)
  })

  test('whose reader has gone end the process by SIGPIPE, as they would without runts', async ({ runts }) => {
    running(runts)
    // the first process of a pid namespace gets EPIPE, but no signal
    const script = `runts exec c yes | head -1; echo \${PIPESTATUS[0]}; runts run -b ${runts.bundle(['yes'])} d | head -1; echo \${PIPESTATUS[0]}`
    expect((await shell(runts, script)).stdout).toBe('y\n141\ny\n1\n')
  })

  test('that take no more are named, once', async ({ runts }) => {
    running(runts)
    const { stderr } = await shell(runts, 'runts exec c yes >/dev/full')
    expect(stderr).toMatch(/^[^\n]*lost what went to standard output[^\n]*ENOSPC[^\n]*\n$/)
  })

  test('may be closed, each of them', async ({ runts }) => {
    running(runts)
    for (const closed of ['<&-', '>&-', '2>&-', '<&- >&-', '<&- >&- 2>&-']) {
      const { stdout } = await shell(
        runts,
        `runts exec c sh -c 'cat; echo out; echo err >&2; exit 5' ${closed}; echo $?`,
        {
          input: 'in\n',
        },
      )
      const output = closed.includes('>&- ') || closed.includes(' >&-') || closed.startsWith('>&-') ? '' : 'out\n'
      expect(stdout, closed).toBe(`${closed.includes('<&-') || output === '' ? '' : 'in\n'}${output}5\n`)
    }
  })

  test('of other kinds go through too: a fifo, a socket, a device', async ({ runts }) => {
    running(runts)
    const fifo = await shell(runts, 'mkfifo f; echo in >f & runts exec c cat <f')
    expect(fifo.stdout).toBe('in\n')
    const device = await shell(runts, 'runts exec c head -c 100000 </dev/zero | wc -c')
    expect(device.stdout).toBe('100000\n')
    const socket = `perl -e 'use Socket; socketpair(A, B, AF_UNIX, SOCK_STREAM, 0); syswrite(A, "in\\n"); shutdown(A, 1); $p = fork; if (!$p) { open(STDIN, "<&B"); open(STDOUT, ">&B"); close A; exec "${join(BIN, 'runts')}", "--root", "${runts.root}", "exec", "c", "cat" } close B; waitpid($p, 0); print <A>'`
    expect((await shell(runts, socket)).stdout).toBe('in\n')
  })

  test('are opened again by a process of another user: /dev/stdin, /dev/stdout and /dev/stderr', async ({ runts }) => {
    running(runts, 1000)
    const reopen = 'cat /dev/stdin; echo out >/dev/stdout; echo err >/dev/stderr'
    const { stdout, stderr } = await shell(runts, `runts exec c sh -c '${reopen}' <in`.replace('<in', '< <(echo in)'))
    expect({ stdout, stderr }).toEqual({ stdout: 'in\nout\n', stderr: 'err\n' })
  })

  test('keep owner and mode, in the foreground and detached; only pipes are given to the user of the process', async ({
    runts,
  }) => {
    running(runts, 1000)
    const bundle = runts.bundle(SLEEP, (spec) => {
      spec.process.user = { uid: 1000, gid: 1000 }
    })
    writeFileSync(join(runts.folder, 'file'), '', { mode: 0o600 })
    await shell(
      runts,
      `runts exec c echo a >>file; runts exec -d c sh -c 'echo b; exec sleep 900' </dev/null >>file 2>&1`,
    )
    await shell(runts, `runts run -d -b ${bundle} d </dev/null >>file 2>&1`)
    await until('the output of both', () => readFileSync(join(runts.folder, 'file'), 'utf8') === 'a\nb\n')
    const { uid, gid, mode } = statSync(join(runts.folder, 'file'))
    expect({ uid, gid, mode: mode & 0o777 }).toEqual({ uid: 0, gid: 0, mode: 0o600 })
    // what stays behind has the file, which its caller gave it
    expect(openFiles(await pidOf(runts, 'd'))).toContain(join(runts.folder, 'file'))
    const pipe = `runts exec -d c sh -c 'exec >/dev/stdout; echo c' </dev/null | cat`
    expect((await shell(runts, pipe)).stdout).toBe('c\n')
  })
})

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

describe('many commands in the foreground', needs('root', 'busybox'), () => {
  const full = process.env['FULL'] === '1'
  // around what pipes, pages and one write hold; each with the status that its commands end with
  const sizes = [0, 1, 4095, 4097, 65_535, 65_536, 65_537, 200_003]
  const statuses = [0, 1, 3, 6, 125, 127, 137, 255]

  test('lose no byte and no status, and leave nothing behind', { timeout: 1_800_000 }, async ({ runts }) => {
    // it outlives them all
    runts.leave('run', '-d', '-b', runts.bundle(['sleep', '100000']), 'c')
    const init = await pidOf(runts, 'c')
    const files = openFiles(init)
    const [execs, runs] = full ? [5000, 1000] : [112, 48]
    // without an input it takes the last of each
    const program = `read size status; payload bytes \${size:-200003} text; echo "$size $status"; echo err >&2; exit \${status:-255}`
    const bundles = [0, 1].map(() => runts.bundle(['sh', '-c', program]))
    const script = `
      sizes=(${sizes.join(' ')}); statuses=(${statuses.join(' ')})
      said() { ${PAYLOAD} bytes $1 text; echo "$2"; }
      sum() { tr -d '\r' | sha256sum | cut -c-64; }
      for k in \${!sizes[@]}; do
        size=\${sizes[k]}; words="$size \${statuses[k]}"
        echo "$words" >in.$k
        out[k]=$(said $size "$words" | sum); both[k]=$(said $size "$words"$'\nerr' | sum)
        length[k]=$(said $size "$words"$'\nerr' | wc -c)
      done
      last=$((\${#sizes[@]} - 1)); noInput=$(said 200003 ' '$'\nerr' | sum); err=$(echo err | sum)
      one() { # NUMBER WAYS WORDS...: each way in turn, with each size
        n=$1; ways=$2; shift 2; k=$((n / ways % \${#sizes[@]})); status=\${statuses[k]}
        case $((n % ways)) in
        0) got="$(cat in.$k | runts "$@" 2>err.$n | sum; echo \${PIPESTATUS[1]}) $(sum <err.$n)"; want="\${out[k]} $status $err" ;;
        1) runts "$@" <in.$k >out.$n 2>&1; got="$? $(sum <out.$n)"; want="$status \${both[k]}" ;;
        2) runts "$@" <&- >out.$n 2>>out.$n; got="$? $(sum <out.$n)"; want="255 $noInput" ;;
        3) got=$(runts "$@" <in.$k 2>&1 | sum; echo \${PIPESTATUS[0]}); want="\${both[k]} $status" ;;
        4) runts "$@" <in.$k >&- 2>&-; got=$?; want=$status ;;
        # the terminal shows what is typed before what is said
        5) ${PAYLOAD} terminal 24 80 -- ${join(BIN, 'runts')} --root ${runts.root} "$@" <in.$k >out.$n
          got="$? $(tr -d '\r' <out.$n | tail -c \${length[k]} | sum)"; want="$status \${both[k]}" ;;
        6) got="$(cat in.$k | runts exec -t "\${@:2}" | tr -d '\r' | tail -c \${length[k]} | sum; echo \${PIPESTATUS[1]})"; want="\${both[k]} $status" ;;
        esac
        rm -f err.$n out.$n
        [ "$(echo $got)" = "$want" ] || echo "$n ($((n % ways)), $k): $got instead of $want" >&2
      }
      work() { # FIRST COUNT WHAT BUNDLE: every second one
        i=$1; while [ $i -lt $2 ]; do
          if [ $3 = exec ]; then one $i 7 exec c sh -c '${program}'; else one $i 6 run -b $4 r$i; fi
          i=$((i + 2))
        done
      }
      work 0 ${execs} exec & work 1 ${execs} exec & wait
      work 0 ${runs} run ${bundles[0]} & work 1 ${runs} run ${bundles[1]} & wait`
    const { stderr } = await shell(runts, script, { timeoutMs: 1_700_000 })
    expect(stderr).toBe('')
    expect(await pidsOf(runts, 'c')).toEqual([init])
    expect(openFiles(init)).toEqual(files)
    expect((await runts.ok('list', '-q')).stdout).toBe('c\n')
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(runts.folder)
    // neither a helper nor a relay
    expect(allPids().filter((pid) => commandLine(pid).includes(runts.root))).toEqual([])
  })
})

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1')
  } catch {
    // it has ended
    return ''
  }
}
