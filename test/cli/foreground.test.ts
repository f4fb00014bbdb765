/**
 * A process in the foreground, and the files and pipes of its caller.
 * The container never has these, and they stay as they were. Still every byte goes through in order, as if directly.
 */
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { until } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { BIN } from '../support/places.ts'
import { test } from '../support/runts.ts'
import { expectedSha256 } from '../support/stream.ts'
import { openFiles, pidOf, running, SLEEP, shell } from './foreground-host.ts'

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
