/**
 * Starts the real ts-init with a plan, as the runtime does, and keeps what it reports.
 * Invariant: every process that a run made is dead when its `using` scope ends.
 * The container process is our child (CLONE_PARENT), but not one of Node's, so its zombie gives the exit status.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex, Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { CREDENTIALS, FAILURES, type Op, RECORDS } from '../../proto/init-plan.ts'
import { encodePlan } from '../../runtime/plan/encode.ts'
import { BUSYBOX, ROOT } from '../support/places.ts'

/** One status record, its payload decoded. */
export interface StatusRecord {
  readonly type: keyof typeof RECORDS
  readonly value?: number
  readonly errno?: number
  /** of a failure, unless it is FAILURES.PART */
  readonly kind?: number
  readonly text?: string
}

/** The helper under test: the product, or with SANITIZE=1 the build with ASan and UBSan. */
export const TS_INIT =
  process.env['SANITIZE'] === '1' ? '../build/test/ts-init' : '../build/lib/containerd-shim-ts/ts-init'

/** Brings a target of c/Makefile up to date and returns its path. */
export function make(target: string): string {
  execFileSync('make', ['-s', '-C', join(ROOT, 'c'), target], { stdio: ['ignore', 'inherit', 'inherit'] })
  return join(ROOT, 'c', target)
}

/** A directory with busybox as its root file system. */
export class Rootfs {
  readonly folder: string = mkdtempSync(join(tmpdir(), 'ts-init-'))
  readonly path: string = join(this.folder, 'rootfs')

  constructor() {
    for (const name of ['bin', 'proc', 'dev', 'sys', 'tmp', 'etc'])
      mkdirSync(join(this.path, name), { recursive: true })
    copyFileSync(BUSYBOX, join(this.path, 'bin/busybox'))
    for (const applet of ['sh', 'id', 'cat', 'ls', 'sleep']) symlinkSync('busybox', join(this.path, 'bin', applet))
    writeFileSync(
      join(this.path, 'etc/passwd'),
      'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n',
    )
  }

  /** Makes the exec fifo. */
  fifo(): string {
    const path = join(this.folder, 'exec.fifo')
    execFileSync('mkfifo', [path])
    return path
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}

const TYPES = new Map(Object.entries(RECORDS).map(([name, { type }]) => [type as number, name as keyof typeof RECORDS]))

function decode(type: number, payload: Buffer): StatusRecord {
  const name = TYPES.get(type)
  if (name === undefined) throw new Error(`unknown record ${type}`)
  if (name === 'failed') {
    const kind = payload.readUInt32LE(8)
    return {
      type: name,
      value: payload.readUInt32LE(0),
      errno: payload.readInt32LE(4),
      ...(kind === FAILURES.PART ? {} : { kind }),
      text: payload.toString('utf8', 12),
    }
  }
  if (name === 'log') return { type: name, value: payload.readUInt32LE(0), text: payload.toString('utf8', 4) }
  return payload.length === 0 ? { type: name } : { type: name, value: payload.readUInt32LE(0) }
}

async function text(stream: Readable): Promise<string> {
  let all = ''
  for await (const chunk of stream.setEncoding('utf8')) all += chunk
  return all
}

/** One run of ts-init. */
export class Run {
  readonly records: StatusRecord[] = []
  readonly status: Duplex
  readonly stdout: Promise<string>
  readonly stderr: Promise<string>
  /** exit code of stage 0 */
  readonly stage0: Promise<number | null>
  /** the status socket's end of file */
  readonly ended: Promise<void>
  #pending = Buffer.alloc(0)
  #waiters: { type: string; resolve: () => void }[] = []

  /**
   * `enter` is a command that executes the one behind it, in another namespace say; `extra` are fds for the program.
   */
  constructor(
    plan: readonly Op[] | Uint8Array,
    consoleFd?: number,
    enter: readonly string[] = [],
    extra: readonly number[] = [],
  ) {
    const folder = mkdtempSync(join(tmpdir(), 'ts-init-plan-'))
    const path = join(folder, 'plan')
    writeFileSync(path, plan instanceof Uint8Array ? plan : encodePlan(plan))
    const fd = openSync(path, 'r')
    const [command = '', ...args] = [...enter, join(ROOT, 'c', TS_INIT)]
    const child: ChildProcess = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe', fd, 'pipe', consoleFd ?? 'ignore', ...extra],
      env: enter.length === 0 ? {} : { PATH: process.env['PATH'] },
    })
    closeSync(fd)
    rmSync(folder, { recursive: true })
    this.status = child.stdio[4] as Duplex
    this.stdout = text(child.stdout as Readable)
    this.stderr = text(child.stderr as Readable)
    this.stage0 = new Promise((resolve) => child.once('exit', resolve))
    this.ended = new Promise((resolve) => this.status.once('end', resolve))
    this.status.on('data', (chunk: Buffer) => this.#receive(chunk))
    this.status.on('error', () => {})
  }

  #receive(chunk: Buffer): void {
    this.#pending = Buffer.concat([this.#pending, chunk])
    while (this.#pending.length >= 8 && this.#pending.length >= 8 + this.#pending.readUInt32LE(4)) {
      const end = 8 + this.#pending.readUInt32LE(4)
      this.records.push(decode(this.#pending.readUInt32LE(0), this.#pending.subarray(8, end)))
      if (this.records.at(-1)?.type === 'ready') this.status.write('c')
      this.#pending = this.#pending.subarray(end)
    }
    for (const waiter of this.#waiters) if (this.find(waiter.type)) waiter.resolve()
  }

  find(type: string): StatusRecord | undefined {
    return this.records.find((record) => record.type === type)
  }

  /** Waits for a record, or for the end. */
  async until(type: keyof typeof RECORDS): Promise<void> {
    if (this.find(type)) return
    const came = new Promise<void>((resolve) => this.#waiters.push({ type, resolve }))
    await Promise.race([came, this.ended])
    if (!this.find(type))
      throw new Error(`no ${type} record, but ${JSON.stringify(this.records)}; stderr: ${await this.stderr}`)
  }

  /** Starts it as a runtime does: reads the fifo to its end; what it says there are records too. */
  async start(fifo: string): Promise<void> {
    const bytes = await readFile(fifo)
    const taken = bytes.findIndex((byte) => byte !== 0)
    if (taken < 0 || bytes[taken] !== 0x30) throw new Error('the start was not taken')
    this.#receive(bytes.subarray(taken + 1))
  }

  get pid(): number {
    const pid = this.find('child')?.value
    if (pid === undefined) throw new Error(`no child, but ${JSON.stringify(this.records)}`)
    return pid
  }

  /** The wait status of the container process: field 52 of proc_pid_stat(5). */
  async exit(): Promise<{ code: number; signal: number }> {
    for (let i = 0; i < 2000; i++) {
      const fields = readFileSync(`/proc/${this.pid}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ')
      const status = Number(fields[49])
      if (fields[0] === 'Z') return { code: status >> 8, signal: status & 127 }
      await delay(5)
    }
    throw new Error('the container process does not end')
  }

  [Symbol.dispose](): void {
    const pid = this.find('child')?.value
    this.status.destroy()
    if (pid !== undefined) process.kill(pid, 'SIGKILL')
  }
}

/** The system call that a process waits in, with its arguments (proc_pid_syscall(5)); "running" when it is in none. */
export function callOf(pid: number): string {
  return readFileSync(`/proc/${pid}/syscall`, 'latin1')
}

const NS = {
  mount: 0x00020000n,
  uts: 0x04000000n,
  ipc: 0x08000000n,
  user: 0x10000000n,
  pid: 0x20000000n,
  net: 0x40000000n,
}
/** CLONE_NEW* flags of an ordinary container. */
export const CONTAINER_FLAGS = NS.mount | NS.uts | NS.ipc | NS.pid | NS.net
/** CLONE_NEWUSER. */
export const USER_FLAG = NS.user
const MS_SLAVE_REC = 0x80000 | 0x4000

/** A mount operation with everything that it does not say left out. */
export function mount(args: Partial<Extract<Op, { op: 'mount' }>> & { target: string }): Op {
  return {
    op: 'mount',
    source: 'none',
    fstype: '',
    options: [],
    how: 0,
    set: 0n,
    clear: 0n,
    dropped: 0n,
    recSet: 0n,
    recClear: 0n,
    propagation: [],
    uidMap: '',
    gidMap: '',
    ...args,
  }
}

/** Credentials of `uid` without capabilities but the given ones. */
export function credentials(uid: number, capabilities = 0n): Op {
  return {
    op: 'credentials',
    uid,
    gid: uid,
    groups: [],
    flags: CREDENTIALS.SET_CAPS | CREDENTIALS.SET_GROUPS,
    bounding: capabilities,
    effective: capabilities,
    permitted: capabilities,
    inheritable: 0n,
    ambient: 0n,
  }
}

/** What may differ between the containers of the tests. */
export interface Parts {
  readonly args: readonly string[]
  readonly env?: readonly string[]
  readonly uid?: number
  readonly host?: readonly Op[]
  readonly clone?: Partial<Extract<Op, { op: 'clone' }>>
  /** between rootfs and pivot */
  readonly outside?: readonly Op[]
  /** between pivot and credentials */
  readonly inside?: readonly Op[]
  /** between program and exec */
  readonly late?: readonly Op[]
}

/** The plan of a container with its own namespaces, /proc, /dev and /dev/pts. */
export function containerPlan(rootfs: Rootfs, parts: Parts): Op[] {
  const uid = parts.uid ?? 0
  const becomeRoot = ((parts.clone?.flags ?? 0n) & USER_FLAG) === 0n ? 0 : 1
  return [
    ...(parts.host ?? []),
    { op: 'clone', flags: CONTAINER_FLAGS, uidMap: '', gidMap: '', runtimeMaps: 0, ...parts.clone },
    { op: 'session', becomeRoot },
    { op: 'loopback_up' },
    { op: 'propagation', path: '/', flags: MS_SLAVE_REC },
    { op: 'rootfs', path: rootfs.path, how: 1 },
    mount({ source: 'proc', target: '/proc', fstype: 'proc', how: 4 }),
    mount({ source: 'tmpfs', target: '/dev', fstype: 'tmpfs', options: ['mode=755', 'size=65536k'], set: 2n }),
    mount({
      source: 'devpts',
      target: '/dev/pts',
      fstype: 'devpts',
      options: ['newinstance', 'ptmxmode=0666', 'mode=0620'],
      set: 10n,
    }),
    ...(becomeRoot === 1
      ? [mount({ source: '/dev/null', target: '/dev/null', how: 1 })]
      : [{ op: 'device', path: '/dev/null', mode: 0o20666, major: 1, minor: 3, uid: 0, gid: 0 } as const]),
    { op: 'symlink', target: 'pts/ptmx', path: '/dev/ptmx', replace: 1 },
    ...(parts.outside ?? []),
    { op: 'pivot', mode: 0 },
    { op: 'reopen_null' },
    { op: 'make_cwd', path: '/srv/here' },
    { op: 'hostname', name: 'inside' },
    ...(parts.inside ?? []),
    { op: 'umask', mask: 0o22 },
    { op: 'no_new_privs' },
    { op: 'chdir', path: '/srv/here', tolerant: 1 },
    { op: 'stdio_owner', uid },
    credentials(uid),
    { op: 'chdir', path: '/srv/here', tolerant: 0 },
    { op: 'program', args: parts.args, env: parts.env ?? ['PATH=/bin'], uid },
    ...(parts.late ?? []),
    { op: 'exec', fds: 0 },
  ]
}
