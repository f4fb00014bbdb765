/**
 * The client's side of a process's streams: fifos made as containerd's clients make them, read and written by programs of their own, which
 * can be stopped, killed and replaced like any client. And the calls around a container on a bare shim that every such test repeats.
 */
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { mkfifo } from '../../runtime/index.ts'
import { type BareShim, startBareShim } from './bare-shim.ts'
import { type Command, type StartOptions, startCommand, until } from './command.ts'
import type { Containers } from './containerd.ts'
import type { SpecChange } from './spec.ts'

/** Three fifos. */
export interface Fifos {
  readonly stdin: string
  readonly stdout: string
  readonly stderr: string
}

let count = 0

/** Makes the fifos of one process. */
export function makeFifos(ct: Containers): Fifos {
  const folder = join(ct.folder, `fifos-${count++}`)
  mkdirSync(folder)
  const fifo = (name: string): string => {
    const path = join(folder, name)
    mkfifo(path, 0o700)
    return path
  }
  return { stdin: fifo('stdin'), stdout: fifo('stdout'), stderr: fifo('stderr') }
}

/** A client that reads a fifo to its end: `finished` is the moment at which it sees the end. */
export function reader(ct: Containers, path: string, options: StartOptions = {}): Command {
  return untilEnd(ct, startCommand('cat', [path], options))
}

/** A client that writes a fifo. Its open blocks until somebody can read. */
export function writer(ct: Containers, path: string): Command {
  return untilEnd(ct, startCommand('sh', ['-c', 'exec cat >"$0"', path], { input: 'open' }))
}

function untilEnd(ct: Containers, command: Command): Command {
  ct.onEnd(async () => {
    command.kill('SIGKILL')
    await command.finished
  })
  return command
}

/** A container on a shim of its own, without a daemon between. */
export class BareTask {
  readonly shim: BareShim
  readonly #ct: Containers

  private constructor(ct: Containers, shim: BareShim) {
    this.#ct = ct
    this.shim = shim
  }

  /** Starts a shim; there is no container yet. */
  static async on(ct: Containers, command: readonly string[], change?: SpecChange): Promise<BareTask> {
    return new BareTask(ct, await startBareShim(ct, command, change))
  }

  /** The pid of the init. */
  async create(streams: Partial<Fifos> & { terminal?: boolean } = {}): Promise<number> {
    const { id, bundle } = this.shim
    return (await this.shim.task.create({ id, bundle, ...streams })).pid
  }

  /** Starts the init, or an exec. */
  async start(execId = ''): Promise<number> {
    return (await this.shim.task.start({ id: this.shim.id, execId })).pid
  }

  /** Adds an exec of a command. */
  async exec(
    execId: string,
    args: readonly string[],
    streams: Partial<Fifos> & { terminal?: boolean } = {},
    process: Readonly<Record<string, unknown>> = {},
  ): Promise<void> {
    const document = { args, cwd: '/', env: ['PATH=/bin:/usr/bin'], user: { uid: 0, gid: 0 }, ...process }
    const value = new TextEncoder().encode(JSON.stringify(document))
    const spec = { typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Process', value }
    await this.shim.task.exec({ id: this.shim.id, execId, spec, ...streams })
  }

  async closeStdin(execId = ''): Promise<void> {
    await this.shim.task.closeIO({ id: this.shim.id, execId, stdin: true })
  }

  /** The exit status. */
  async wait(execId = ''): Promise<number> {
    return (await this.shim.task.wait({ id: this.shim.id, execId })).exitStatus
  }

  async kill(signal = 9, execId = ''): Promise<void> {
    await this.shim.task.kill({ id: this.shim.id, execId, signal })
  }

  async delete(execId = ''): Promise<void> {
    await this.shim.task.delete({ id: this.shim.id, execId })
  }

  /** Whatever the container is doing: ends it, and the shim. */
  async end(): Promise<void> {
    const { task, id } = this.shim
    const { status } = await task.state({ id })
    if (status !== 3) {
      await this.kill()
      await this.wait()
    }
    await this.delete()
    await this.leave()
  }

  /** Ends the shim, which has no container. */
  async leave(): Promise<void> {
    await this.shim.task.shutdown({ id: this.shim.id })
    this.shim.close()
    expect(await this.shim.delete()).toMatchObject({ code: 0 })
  }

  /** The shim's process. */
  get shimPid(): number {
    return this.#ct.shimPid(this.shim.id)
  }
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
