/**
 * The runtime's half of the conversation with ts-init: status records become typed facts, in the order of the diagram in
 * proto/init-plan.ts. Invariant: whatever the helper does, each of `ready` and `executed` settles exactly once; end of file settles
 * what is still open.
 */
import { Socket } from 'node:net'
import { LIMITS, type Op, RECORDS, SYNC_POINTS } from '../../proto/init-plan.ts'
import { RuntimeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { MOUNT_ATTR } from '../spec/mount-options.ts'
import { errnoCode, errnoWords } from '../sys/errno.ts'
import type { OwnedFd } from '../sys/fd.ts'

const HEADER_BYTES = 8
const NO_OP = 0xffffffff

const STOPS: ReadonlyMap<number, 'onIdMaps' | 'onRuntimeHooks'> = new Map([
  [SYNC_POINTS.ID_MAPS, 'onIdMaps'],
  [SYNC_POINTS.RUNTIME_HOOKS, 'onRuntimeHooks'],
])

/** A point at which the container side waits for us. */
export interface StopPoint {
  /** the container process, on the host */
  readonly pid: number
  /** aborted when the container side is gone or given up */
  readonly signal: AbortSignal
}

/** What happens at these points; the container side goes on when the promise resolves, and when one rejects all is over. */
export interface StopHandlers {
  /** a new user namespace of the process waits for its id maps */
  readonly onIdMaps?: (at: StopPoint) => Promise<void>
  /** everything is mounted, the root is not yet pivoted */
  readonly onRuntimeHooks?: (at: StopPoint) => Promise<void>
  /** the process has its network namespace; `fd` is the number of a netlink socket there */
  readonly onNetDevices?: (at: StopPoint, fd: number) => Promise<void>
  /** the process has loaded its filter; `fd` is the number of the listener there */
  readonly onListener?: (at: StopPoint, fd: number) => Promise<void>
}

/** What the handshake tells its owner while it goes on. */
export interface HandshakeEvents extends StopHandlers {
  readonly onChild: (pid: number) => void
  /** whether the process was reaped: then its pid may be another's already */
  readonly isReaped: () => boolean
  readonly onConsole: () => void
  /** the connection is over: every process that held the other end has exited or executed the program */
  readonly onClosed: () => void
}

const SCHED_DEADLINE = 6

/** What the kernel's bare EPERM is about, where there are few answers; empty for any other failure. */
function explain(op: Op | undefined, code: string, step: string): string {
  if (code !== 'PermissionDenied') return ''
  // sched_setattr(2): a deadline is for all processors, and for the privileged
  if (op?.op === 'scheduler' && op.policy === SCHED_DEADLINE)
    return ", process scheduler can't be used together with AllowedCPUs, nor a deadline without CAP_SYS_NICE"
  // mount_namespaces(7): what a mount brings from a more privileged user namespace is locked
  if (op?.op !== 'mount' || !step.endsWith(': attributes')) return ''
  const times = MOUNT_ATTR.ATIME_MODE | MOUNT_ATTR.NODIRATIME
  const cleared = op.clear | op.recClear
  if ((cleared & ~times) !== 0n) return ', cannot clear locked flags of the source'
  return ((cleared | op.set | op.recSet) & times) === 0n ? '' : ', cannot change locked atime flags of the source'
}

class Deferred {
  readonly promise: Promise<void>
  resolve: () => void = () => {}
  reject: (error: Error) => void = () => {}

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    // whoever awaits it sees the rejection; nobody awaiting it is no fault
    this.promise.catch(() => {})
  }
}

/** One handshake over the status socket, which it owns. */
export class Handshake {
  readonly #ready = new Deferred()
  readonly #executed = new Deferred()
  readonly #socket: Socket
  readonly #ops: readonly Op[]
  readonly #events: HandshakeEvents
  readonly #logger: Logger
  #pending: Buffer = Buffer.alloc(0)
  #executing = false
  #failure: Error | undefined
  #pid: number | undefined
  readonly #over = new AbortController()
  #stopping: Promise<void> = Promise.resolve()

  constructor(status: OwnedFd, ops: readonly Op[], events: HandshakeEvents, logger: Logger) {
    this.#ops = ops
    this.#events = events
    this.#logger = logger
    this.#socket = new Socket({ fd: status.take(), readable: true, writable: true })
    this.#socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    this.#socket.on('error', () => {
      // ECONNRESET when the other side died with an answer of ours unread: the close that follows tells all there is
    })
    this.#socket.on('close', () => this.#closed())
  }

  /** Settles when the container is created. */
  get ready(): Promise<void> {
    return this.#ready.promise
  }

  /** Settles when the program has been executed. */
  get executed(): Promise<void> {
    return this.#executed.promise
  }

  /** What went wrong, if anything has been reported. */
  get failure(): Error | undefined {
    return this.#failure
  }

  /** Answers a point at which the container side waits. */
  proceed(): void {
    this.#socket.write('c')
  }

  /** Gives up: a container side that waits for an answer sees end of file; records that are still on their way are read. */
  abandon(): void {
    this.#over.abort()
    this.#socket.end()
  }

  /** Hangs up: a container that is created goes on without us. */
  release(): void {
    this.#socket.destroy()
  }

  #receive(chunk: Buffer): void {
    let data = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk])
    while (data.length >= HEADER_BYTES) {
      const size = data.readUInt32LE(4)
      if (size > LIMITS.RECORD_MAX_BYTES) {
        this.#fail(new RuntimeError('Internal', `init helper sent a record of ${size} bytes`))
        this.#socket.destroy()
        return
      }
      if (data.length < HEADER_BYTES + size) break
      this.#record(data.readUInt32LE(0), data.subarray(HEADER_BYTES, HEADER_BYTES + size))
      data = data.subarray(HEADER_BYTES + size)
    }
    this.#pending = data
  }

  #record(type: number, payload: Buffer): void {
    switch (type) {
      case RECORDS.child.type:
        this.#pid = payload.readUInt32LE(0)
        this.#logger.debug({ pid: this.#pid }, 'init: process made')
        this.#events.onChild(this.#pid)
        break
      case RECORDS.reached.type:
        this.#stop(STOPS.get(payload.readUInt32LE(0)))
        break
      case RECORDS.net_socket.type:
        this.#stop('onNetDevices', payload.readUInt32LE(0))
        break
      case RECORDS.listener.type:
        this.#stop('onListener', payload.readUInt32LE(0))
        break
      case RECORDS.console.type:
        this.#events.onConsole()
        break
      case RECORDS.ready.type:
        this.#logger.debug({ pid: this.#pid }, 'init: set up, waits for the start')
        this.#ready.resolve()
        break
      case RECORDS.executing.type:
        this.#logger.debug({ pid: this.#pid }, 'init: executes its program')
        this.#executing = true
        break
      case RECORDS.failed.type:
        this.#fail(this.#helperError(payload.readUInt32LE(0), payload.readInt32LE(4), payload.toString('utf8', 8)))
        break
      case RECORDS.log.type: {
        const text = payload.toString('utf8', 4)
        if (payload.readUInt32LE(0) === 0) this.#logger.debug({ text }, 'init helper')
        else this.#logger.warn({ text }, 'init helper')
        break
      }
      default:
        this.#fail(new RuntimeError('Internal', `init helper sent a record of unknown type ${type}`))
        this.#socket.destroy()
    }
  }

  /** The other side waits: lets the handler do its part, then answers. */
  #stop(name: keyof StopHandlers | undefined, fd = -1): void {
    const handler = name === undefined ? undefined : this.#events[name]
    if (handler === undefined || this.#pid === undefined) {
      this.fail(
        new RuntimeError('Internal', `init helper stopped where nobody waits for it (${name ?? 'unknown point'})`),
      )
      return
    }
    // it was killed, and this was said before; stage 0 may wait for us in its name
    if (this.#events.isReaped()) {
      this.abandon()
      return
    }
    this.#stopping = handler({ pid: this.#pid, signal: this.#over.signal }, fd).then(
      () => this.proceed(),
      (error: unknown) => this.fail(error instanceof Error ? error : new Error(String(error))),
    )
  }

  /** Settles when no handler of a stop is at work any more. */
  get idle(): Promise<void> {
    return this.#stopping
  }

  /** Ends the conversation for a reason of our side; the container side sees end of file. */
  fail(error: Error): void {
    this.#fail(error)
    this.abandon()
  }

  #helperError(opIndex: number, errno: number, step: string): RuntimeError {
    const op = opIndex === NO_OP ? undefined : this.#ops[opIndex]
    const name = op?.op ?? 'none'
    const pointer = op?.origin
    const detail = {
      source: 'helper' as const,
      op: name,
      opIndex,
      errno: Math.abs(errno),
      step,
      ...(pointer === undefined ? {} : { pointer }),
    }
    const code = errnoCode(Math.abs(errno))
    // a program that cannot be found or executed, or a hook that fails, reads as the field's tools expect it, without our words around it
    if (name === 'program' || name === 'exec')
      return new RuntimeError(code === 'Internal' ? 'InvalidArgument' : code, step, { detail })
    if (name === 'hook') return new RuntimeError('Internal', step, { detail })
    const where = pointer === undefined ? '' : `, at ${pointer}`
    const reason = errno === 0 ? '' : `: ${errnoWords(Math.abs(errno))}${explain(op, code, step)}`
    return new RuntimeError(
      code,
      `cannot set up the container: ${step}${reason} (plan op ${opIndex} ${name}${where})`,
      { detail },
    )
  }

  #fail(error: Error): void {
    this.#failure ??= error
    this.#ready.reject(this.#failure)
    this.#executed.reject(this.#failure)
  }

  #closed(): void {
    this.#over.abort()
    if (this.#failure === undefined && this.#executing) {
      this.#ready.resolve()
      this.#executed.resolve()
    } else {
      this.#fail(
        this.#failure ??
          new RuntimeError('FailedPrecondition', 'container process ended before it executed its program'),
      )
    }
    this.#events.onClosed()
  }
}
