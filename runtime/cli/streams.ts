/**
 * The caller's own streams, and what stands between them and a process in the foreground. The process gets pipes: with a descriptor of the
 * caller's it could open the file behind it again (/proc/self/fd), write what was given to be read, empty a log, or read what is typed on
 * the host's terminal long after the command has ended.
 *
 * Invariants: no process of a container has a descriptor of the caller's; flags, owner, mode and settings of what the caller has open stay
 * as they are, and its offsets move by what went through, as if the process had had it.
 */
import { constants, fstatSync, openSync, type Stats, statfsSync } from 'node:fs'
import { isatty } from 'node:tty'
import {
  accessOf,
  chownFd,
  duplicate,
  errnoOf,
  FileInput,
  FileSink,
  growPipe,
  type Logger,
  type OutputPipe,
  OwnedFd,
  PipeSink,
  pipePair,
  pipeSource,
  pollableSource,
  Relay,
  reopen,
  type Sink,
  type Source,
  type Stdio,
  sameDescription,
  setNonBlocking,
} from '../index.ts'

const NAMES = ['standard input', 'standard output', 'standard error'] as const
const [STDIN, STDOUT, STDERR] = [0, 1, 2] as const
/** EIO: a terminal that hung up; EPIPE: a reader that has seen enough. Neither is worth a word. */
const [EIO, EPIPE] = [5, 32]
/** What a pipe of the process's holds: with less, it and we would take turns. */
const PIPE_BYTES = 256 * 1024
/** PIPEFS_MAGIC (linux/magic.h): pipes without a name */
const PIPEFS = 0x50495045
/** makedev(1, 3) */
const NULL_DEVICE = 0x103
/** What a process left behind may hold its output open for: without a byte, and at all. */
const QUIET_MS = 2_000
const LONGEST_MS = 10_000
/** How often that is looked at. */
const LOOK_MS = 100

/** What a descriptor of the caller's is. */
type Kind = 'null' | 'file' | 'pipe' | 'terminal' | 'other'

function kindOf(fd: number): Kind {
  const stat = fstatSync(fd)
  if (stat.isFile()) return 'file'
  if (stat.isFIFO()) return 'pipe'
  if (!stat.isCharacterDevice()) return 'other'
  if (isatty(fd)) return 'terminal'
  return stat.rdev === NULL_DEVICE ? 'null' : 'other'
}

/** A null device of our own, which the helper exchanges for the container's. */
function openNull(): OwnedFd {
  return new OwnedFd(openSync('/dev/null', constants.O_RDWR))
}

/** A description of our own for a pipe or terminal of the caller's, which may not be had: another user may have made it. */
function reopened(fd: number, flags: number): OwnedFd | undefined {
  const { readable, writable } = accessOf(fd)
  if (flags === constants.O_WRONLY ? !writable : !readable) return undefined
  try {
    return reopen(fd, flags | constants.O_NONBLOCK)
  } catch {
    // ENXIO for a pipe that nobody reads any more: the first write tells
    return undefined
  }
}

/**
 * Whether it is a pipe without a name. Who opens a fifo anew when its writer has gone is not told of the end by poll(2): only the caller's
 * own description, which had that writer, is.
 */
function isNameless(fd: number): boolean {
  return statfsSync(`/proc/self/fd/${fd}`).type === PIPEFS
}

/** Where output goes: one of the caller's descriptors. When nobody reads that any more, the source ends. */
export function callerSink(fd: number, logger: Logger): Sink {
  const onError = (error: Error): void => {
    const errno = errnoOf(error.cause)
    if (errno !== EPIPE && errno !== EIO) logger.warn({ reason: error.message }, `lost what went to ${NAMES[fd]}`)
  }
  const own = kindOf(fd) === 'pipe' ? reopened(fd, constants.O_WRONLY) : undefined
  if (own === undefined) {
    return new FileSink(fd, NAMES[fd] ?? `fd ${fd}`, { borrowed: true, endsSource: true, onError })
  }
  return new PipeSink(ownPipe(own), { endsSource: true, onError })
}

/** A pipe or terminal for a sink, of which nothing need be kept open for a reader that comes late. */
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

/** Input on its way; to be stopped when its reader has ended. */
export interface Input {
  stop(): void
}

/**
 * Copies the caller's standard input to a description of our own: a pipe of a process, or the master of a terminal. Both descriptors are
 * taken over; `reader` is a reading end of the pipe, for the offset of a file.
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
  // copied, never moved: what a client has put into its pipe may be the pages of a file of the host
  const source: Source = kind === 'pipe' ? { ...pipeSource(own.take()), isPipe: false } : pollableSource(own)
  setNonBlocking(to.fd)
  const relay = new Relay(source, new PipeSink(ownPipe(to), { endsSource: true }))
  return { stop: () => relay.close() }
}

/** Whether two of the caller's descriptors are the same place, so that what goes to either must stay in order. */
function samePlace(one: number, other: number): boolean {
  const stat = fstatSync(one)
  if (!sameInode(stat, fstatSync(other))) return false
  // two descriptions of one file have an offset each, which does not matter where both append
  return !stat.isFile() || sameDescription(one, other) || (accessOf(one).appends && accessOf(other).appends)
}

function sameInode(one: Stats, other: Stats): boolean {
  return one.dev === other.dev && one.ino === other.ino && one.rdev === other.rdev
}

/** Streams to start a process with; what was opened for it is closed by its disposal, once the process has its own. */
export interface ChosenStreams extends Disposable {
  readonly stdio: Stdio
}

/**
 * The caller's own streams for a process that stays behind, as it asked for; but not its terminals, of which the process would read what is
 * typed there later, or open them for every other process of its user. In their place it gets the null device, and the log says so.
 */
export function detachedStreams(logger: Logger): ChosenStreams {
  let null_: OwnedFd | undefined
  const lost: string[] = []
  const choose = (fd: number): number => {
    if (kindOf(fd) !== 'terminal') return fd
    if (fd !== STDIN) lost.push(NAMES[fd] ?? '')
    null_ ??= openNull()
    return null_.fd
  }
  const stdio = { kind: 'fds', stdin: choose(STDIN), stdout: choose(STDOUT), stderr: choose(STDERR) } as const
  if (lost.length > 0) {
    logger.warn({}, `what stays behind gets no terminal: its ${lost.join(' and ')} is /dev/null unless redirected`)
  }
  return { stdio, [Symbol.dispose]: () => null_?.close() }
}

/** The pipes of a process that has no terminal. */
export class ForegroundStreams implements ChosenStreams {
  /** what the process is started with; borrowed until connect() */
  readonly stdio: Stdio
  readonly #handed: OwnedFd[] = []
  #input: OwnedFd | undefined
  #inputReader: OwnedFd | undefined
  readonly #outputs: { readonly from: OwnedFd; readonly to: number }[] = []

  /** `uid` and `gid`, of the host, are whose the process's ends are, so that it can open /dev/stdout again. */
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
        // taken now: once the pipe is the process's, its user may be one whose files we may not open
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

  #null(): number {
    const owned = openNull()
    this.#handed.push(owned)
    return owned.fd
  }

  /** The process has its ends: lets go of them, and begins to copy. */
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

/** Whether there is nothing to hand on at this moment. */
function isIdle(relay: Relay): boolean {
  return relay.handed === relay.taken && relay.unread === 0
}

/**
 * Waits for the last of the output of a process that has ended. What it wrote itself is handed on, however slowly that is read. A process
 * that it left behind may still have its streams open: what that writes goes through until it has been quiet for two seconds, ten at most.
 * So many `hiddenBytes` may wait for each relay besides those that FIONREAD counts.
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
  /** until which byte it may be the process's own; a relay that was idle since has no more of those */
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
