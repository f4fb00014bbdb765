/**
 * The caller's own streams, and how a process in the foreground is connected to them. The process gets pipes. Through a
 * descriptor of the caller's it could open the file behind it again (/proc/self/fd). It could then write to its input,
 * empty a log, or read from the host's terminal long after the command has ended.
 *
 * Invariants: a process in the foreground has no descriptor of the caller's. The caller's open files keep their flags,
 * owner, mode and settings. Their offsets move by what was copied, as if the process had used the file itself.
 */
import { constants, fstatSync, type Stats, statfsSync } from 'node:fs'
import { isatty } from 'node:tty'
import type { Logger, OwnedFd, Stdio } from '../index.ts'
import {
  accessOf,
  chownFd,
  duplicate,
  EIO,
  EPIPE,
  errnoOf,
  FileInput,
  FileSink,
  growPipe,
  type OutputPipe,
  openNull,
  PipeSink,
  pipePair,
  pipeSource,
  pollableSource,
  Relay,
  reopen,
  type Sink,
  type Source,
  sameDescription,
  setNonBlocking,
} from '../internal.ts'

const NAMES = ['standard input', 'standard output', 'standard error'] as const
const [STDIN, STDOUT, STDERR] = [0, 1, 2] as const
/** Errors that are not worth a warning: EIO from a terminal that hung up, EPIPE from a reader that has seen enough. */
const EXPECTED_ERRNOS: readonly number[] = [EIO, EPIPE]
/** The size of the process's pipes. With smaller ones the process and the relay would wait for each other in turns. */
const PIPE_BYTES = 256 * 1024
/** PIPEFS_MAGIC (linux/magic.h), the file system of pipes without a name */
const PIPEFS = 0x50495045
/** makedev(1, 3) */
const NULL_DEVICE = 0x103
/** How long a left-behind process may keep the command waiting: without writing a byte, and in all. */
const QUIET_MS = 2_000
const LONGEST_MS = 10_000
/** How often the command checks these times. */
const LOOK_MS = 100

/** The kind of a descriptor of the caller's. */
type Kind = 'null' | 'file' | 'pipe' | 'terminal' | 'other'

function kindOf(fd: number): Kind {
  const stat = fstatSync(fd)
  if (stat.isFile()) return 'file'
  if (stat.isFIFO()) return 'pipe'
  if (!stat.isCharacterDevice()) return 'other'
  if (isatty(fd)) return 'terminal'
  return stat.rdev === NULL_DEVICE ? 'null' : 'other'
}

/** Opens the caller's pipe or terminal again, for flags of its own; undefined where the kernel refuses that. */
function reopened(fd: number, flags: number): OwnedFd | undefined {
  const { readable, writable } = accessOf(fd)
  if (flags === constants.O_WRONLY ? !writable : !readable) return undefined
  try {
    return reopen(fd, flags | constants.O_NONBLOCK)
  } catch {
    // EACCES if another user made it; ENXIO if the pipe has no reader, which the first write will report
    return undefined
  }
}

/**
 * Whether a pipe has no name in a file system. When the writer of a fifo has gone, poll(2) reports the end only to
 * descriptions that were open with that writer. A second open of such a fifo would wait for ever.
 */
function isNameless(fd: number): boolean {
  return statfsSync(`/proc/self/fd/${fd}`).type === PIPEFS
}

/** A sink on one of the caller's descriptors; it closes the source when the descriptor accepts no more. */
export function callerSink(fd: number, logger: Logger): Sink {
  const onError = (error: Error): void => {
    const errno = errnoOf(error.cause)
    if (!EXPECTED_ERRNOS.includes(errno)) logger.warn({ reason: error.message }, `lost what went to ${NAMES[fd]}`)
  }
  const own = kindOf(fd) === 'pipe' ? reopened(fd, constants.O_WRONLY) : undefined
  if (own === undefined) {
    return new FileSink(fd, NAMES[fd] ?? `fd ${fd}`, { borrowed: true, endsSource: true, onError })
  }
  return new PipeSink(ownPipe(own), { endsSource: true, onError })
}

/** A pipe or terminal for a sink. It has a reader already, so releasing it means closing it. */
function ownPipe(own: OwnedFd): OutputPipe {
  const close = (closeFd?: (fd: number) => void): void => {
    if (own.fd < 0) return
    if (closeFd === undefined) own.close()
    else closeFd(own.take())
  }
  return {
    get fd() {
      return own.fd
    },
    release: close,
    close,
  }
}

/** Input that is being copied. */
export interface Input {
  /** Stops copying: the process that reads has ended. */
  stop(): void
}

/**
 * Copies the caller's standard input to a pipe of a process, or to the master of a terminal. Both descriptors are taken
 * over. `reader` is a reading end of the pipe, by which the offset of a file is set at the end.
 */
export function callerInput(to: OwnedFd, logger: Logger, reader?: OwnedFd): Input {
  const onError = (error: Error): void => logger.warn({ reason: error.message }, `cannot read ${NAMES[STDIN]}`)
  const kind = kindOf(STDIN)
  const polled = kind === 'terminal' || (kind === 'pipe' && isNameless(STDIN))
  const own = polled ? reopened(STDIN, constants.O_RDONLY) : undefined
  if (own === undefined) {
    const sharesOffset = [STDOUT, STDERR].some((fd) => sameInode(fstatSync(STDIN), fstatSync(fd)))
    return new FileInput(STDIN, to, { onError, reader, sharesOffset })
  }
  reader?.close()
  // copied, never moved by splice: the pages in the caller's pipe may belong to a file of the host
  const source: Source = kind === 'pipe' ? { ...pipeSource(own.take()), isPipe: false } : pollableSource(own)
  setNonBlocking(to.fd)
  const relay = new Relay(source, new PipeSink(ownPipe(to), { endsSource: true }))
  return { stop: () => relay.close() }
}

/** Whether two of the caller's descriptors lead to one place, so that the order of all writes must be kept. */
function samePlace(one: number, other: number): boolean {
  const stat = fstatSync(one)
  if (!sameInode(stat, fstatSync(other))) return false
  // two descriptions of one file have separate offsets, which does not matter if both append
  return !stat.isFile() || sameDescription(one, other) || (accessOf(one).appends && accessOf(other).appends)
}

function sameInode(one: Stats, other: Stats): boolean {
  return one.dev === other.dev && one.ino === other.ino && one.rdev === other.rdev
}

/** Streams to start a process with; disposed once the process has its own descriptors. */
export interface ChosenStreams extends Disposable {
  readonly stdio: Stdio
}

/**
 * The caller's own streams, for a process that outlives the command. In place of a terminal it gets the null device:
 * with the terminal it could later read what is typed on the host. The log says so.
 */
export function detachedStreams(logger: Logger): ChosenStreams {
  let device: OwnedFd | undefined
  const lost: string[] = []
  const choose = (fd: number): number => {
    if (kindOf(fd) !== 'terminal') return fd
    if (fd !== STDIN) lost.push(NAMES[fd] ?? '')
    device ??= openNull()
    return device.fd
  }
  const stdio = { kind: 'fds', stdin: choose(STDIN), stdout: choose(STDOUT), stderr: choose(STDERR) } as const
  if (lost.length > 0) {
    logger.warn({}, `what stays behind gets no terminal: its ${lost.join(' and ')} is /dev/null unless redirected`)
  }
  return { stdio, [Symbol.dispose]: () => device?.close() }
}

/** The pipes of a process without a terminal. */
export class ForegroundStreams implements ChosenStreams {
  /** the streams to start the process with; borrowed until connect() */
  readonly stdio: Stdio
  readonly #handed: OwnedFd[] = []
  #input: OwnedFd | undefined
  #inputReader: OwnedFd | undefined
  readonly #outputs: { readonly from: OwnedFd; readonly to: number }[] = []

  /** `uid` and `gid` (of the host) will own the process's ends, so that it can open /dev/stdout again. */
  constructor({ uid, gid }: { readonly uid: number; readonly gid: number }) {
    const hand = (end: OwnedFd): number => {
      this.#handed.push(end)
      growPipe(end.fd, PIPE_BYTES)
      chownFd(end.fd, uid, gid)
      return end.fd
    }
    const output = (to: number): number => {
      if (kindOf(to) === 'null') return this.#null()
      const { read, write } = pipePair()
      this.#outputs.push({ from: read, to })
      return hand(write)
    }
    try {
      let stdin: number
      if (kindOf(STDIN) === 'null') stdin = this.#null()
      else {
        const { read, write } = pipePair()
        this.#input = write
        stdin = hand(read)
        // opened now: once the pipe belongs to another user, this process may not be allowed to
        if (kindOf(STDIN) === 'file') this.#inputReader = duplicate(read.fd)
      }
      const stdout = output(STDOUT)
      const stderr = samePlace(STDOUT, STDERR) ? stdout : output(STDERR)
      this.stdio = { kind: 'fds', stdin, stdout, stderr }
    } catch (error) {
      this[Symbol.dispose]()
      throw error
    }
  }

  /** Opens a null device; ts-init replaces it by the container's. */
  #null(): number {
    const owned = openNull()
    this.#handed.push(owned)
    return owned.fd
  }

  /** Closes the process's ends in this process, and begins to copy. To be called once the process has them. */
  connect(logger: Logger): { readonly input: Input | undefined; readonly outputs: readonly Relay[] } {
    for (const end of this.#handed.splice(0)) end.close()
    const outputs = this.#outputs.splice(0).map(({ from, to }) => {
      using source = from
      const sink = callerSink(to, logger)
      return new Relay(pipeSource(source.take()), sink)
    })
    const [input, reader] = [this.#input, this.#inputReader]
    this.#input = undefined
    this.#inputReader = undefined
    return { input: input === undefined ? undefined : callerInput(input, logger, reader), outputs }
  }

  [Symbol.dispose](): void {
    for (const end of this.#handed.splice(0)) end.close()
    for (const { from } of this.#outputs.splice(0)) from.close()
    this.#input?.close()
    this.#inputReader?.close()
  }
}

/** Whether a relay has nothing to copy at this moment. */
function isIdle(relay: Relay): boolean {
  return relay.handed === relay.taken && relay.unread === 0
}

/**
 * Waits for the last output of a process that has ended. All that the process wrote itself is copied, however slowly
 * the caller reads. A process that it left behind may still write: its output is copied until two seconds of silence,
 * and for ten seconds at most. Each relay may have `hiddenBytes` waiting that FIONREAD does not count.
 */
export async function drained(outputs: readonly Relay[], hiddenBytes = 0): Promise<void> {
  if (outputs.length === 0) return
  const open = new Set(outputs)
  let wake = (): void => {}
  for (const relay of outputs) {
    void relay.done.then(() => {
      open.delete(relay)
      if (open.size === 0) wake()
    })
  }
  /** the byte up to which the output may be the process's own; a relay that was idle since then has copied it */
  const owed = new Map(outputs.map((relay) => [relay, relay.taken + relay.unread + hiddenBytes]))
  const started = performance.now()
  for (let [quietSince, taken] = [started, -1]; ; ) {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, LOOK_MS)
      wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    if (open.size === 0) return
    const now = performance.now()
    for (const [relay, bytes] of owed) if (relay.handed >= bytes || isIdle(relay)) owed.delete(relay)
    const sum = outputs.reduce((bytes, relay) => bytes + relay.taken, 0)
    if (sum !== taken || ![...open].every(isIdle)) quietSince = now
    taken = sum
    const enough = now - quietSince >= QUIET_MS || now - started >= LONGEST_MS
    if (enough && [...owed.keys()].every((relay) => !open.has(relay))) break
  }
  for (const relay of open) relay.close()
}
