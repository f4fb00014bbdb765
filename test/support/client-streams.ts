/**
 * The client's side of a process's streams: fifos as containerd's clients make them.
 * Programs of their own read and write the fifos, so a test can stop, kill and replace them like any client.
 */
import { closeSync, constants, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { errnoOf } from '../../runtime/internal.ts'
import { errnoName } from '../../runtime/sys/errno.ts'
import { mkfifo } from '../../runtime/sys/libc.ts'
import { type Command, type StartOptions, startCommand, until } from './command.ts'

/** Three fifos. */
export interface Fifos {
  readonly stdin: string
  readonly stdout: string
  readonly stderr: string
}

let count = 0

/** Makes the fifos of one process. */
export function makeFifos(parent: string): Fifos {
  const folder = join(parent, `fifos-${count++}`)
  mkdirSync(folder)
  const fifo = (name: string): string => {
    const path = join(folder, name)
    mkfifo(path, 0o700)
    return path
  }
  return { stdin: fifo('stdin'), stdout: fifo('stdout'), stderr: fifo('stderr') }
}

/** A client that reads a fifo to its end: `finished` is the moment at which it sees the end. */
export function reader(path: string, options: StartOptions = {}): Command {
  return untilEnd(startCommand('cat', [path], options))
}

/** A client that writes a fifo. Its open blocks until the fifo has a reader. */
export function writer(path: string): Command {
  return untilEnd(startCommand('sh', ['-c', 'exec cat >"$0"', path], { input: 'open' }))
}

/** Fills a fifo, so that writers wait until a reader takes some. Call `letGo` when that reader has opened the fifo. */
export function fillFifo(path: string): { readonly bytes: number; letGo(): void } {
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  let open = true
  const letGo = (): void => {
    if (open) closeSync(fd)
    open = false
  }
  onTestFinished(letGo)
  const page = Buffer.alloc(4096)
  let bytes = 0
  try {
    for (;;) bytes += writeSync(fd, page)
  } catch (error) {
    if (errnoName(errnoOf(error)) !== 'EAGAIN') throw error
  }
  return { bytes, letGo }
}

function untilEnd(command: Command): Command {
  onTestFinished(async () => {
    command.kill('SIGKILL')
    await command.finished
  })
  return command
}

/** How many bytes a process has written so far (proc_pid_io(5)). */
function bytesWritten(pid: number): number {
  return Number(/^wchar: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, 'latin1'))?.[1])
}

/** Waits until a process sleeps and writes no more, and answers how much it has written. */
export async function untilBlocked(pid: number): Promise<number> {
  let seen = -1
  let same = 0
  await until(`process ${pid} to be blocked`, () => {
    const now = bytesWritten(pid)
    const asleep = / S /.test(readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\)/, ''))
    same = asleep && now === seen && now > 0 ? same + 1 : 0
    seen = now
    return same >= 20
  })
  return seen
}

/** Waits until a process uses no processor time for a moment. A process in a busy loop never gets there. */
export async function untilIdle(pid: number): Promise<void> {
  let seen = -1
  let same = 0
  await until(`process ${pid} to sleep`, () => {
    const [user, system] = readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/^.*\) /, '')
      .split(' ')
      .slice(11, 13)
    const now = Number(user) + Number(system)
    same = now === seen ? same + 1 : 0
    seen = now
    return same >= 20
  })
}
