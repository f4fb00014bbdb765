/**
 * The life of the shim process: it takes the listening socket that the launcher made, answers until containerd sends Shutdown or a signal
 * ends it, and leaves nothing of its own behind. Invariants: nothing else ends it, in particular no error of one container; a socket
 * whose other end is not our own user is closed unread; it leaves by exitNow() alone, since a forked Node may not run exit handlers.
 */
import { unlinkSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { type CallContext, codeName, type Outcome, TtrpcError, TtrpcServer } from 'ttrpc-ts'
import { TaskService, TaskV3Service } from 'ttrpc-ts/containerd'
import { exitNow, getpid, peerCredentials, Reaper, RuntimeError } from '../runtime/index.ts'
import { daemonForwarder, EventQueue } from './events.ts'
import type { Flags } from './flags.ts'
import { createLogger, type ShimLogger } from './log.ts'
import { messageOf, toTtrpcError } from './status.ts'
import { Registry, type Shim } from './task/registry.ts'
import { taskHandlers } from './task/service.ts'

const LISTEN_FD = 3
const BACKLOG = 4096
/** A shim without a container that nobody calls ends after this: its `start` failed half-way, or its daemon has forgotten it. */
const IDLE_MS = 60_000
/** What events get to be delivered when the shim leaves. */
const DRAIN_MS = 1_900
/** Whatever happens, the process is gone after this. */
const LEAVE_MS = 2_000

/** Serves until told to stop. */
export function serve(flags: Flags): void {
  const logger = createLogger({ debug: flags.debug, fields: { namespace: flags.namespace, id: flags.id } })
  const reaper = new Reaper(logger)
  reaper.start()
  watchForBugs(logger)
  // nothing here is relative, and the bundle must be removable
  process.chdir('/')
  const registry = new Registry()
  const events = new EventQueue({
    namespace: flags.namespace,
    forwarder: flags.ttrpc === '' ? undefined : daemonForwarder(flags.ttrpc, flags.namespace),
    logger,
  })
  const life = new Life({ flags, logger, registry, events })
  const shim: Shim = {
    namespace: flags.namespace,
    pid: getpid(),
    registry,
    reaper,
    events,
    logger,
    leave: () => life.leave(),
  }
  const handlers = taskHandlers(shim)
  const server = new TtrpcServer({
    mapError: toTtrpcError,
    around: (context, next) => life.around(context, next),
    onError: (error) => logger.warn({ error: error.message }, 'a connection failed'),
  })
  server.register(TaskService, handlers)
  server.register<typeof TaskV3Service>(TaskV3Service, handlers)
  process.on('SIGTERM', () => life.leave())
  process.on('SIGINT', () => life.leave())
  process.on('SIGUSR1', () => report(shim))
  const listener = createServer((socket) => {
    if (isOwnUser(socket, logger)) server.serve(socket)
    else socket.destroy()
  })
  listener.on('error', (error) => {
    logger.error({ error: error.message }, 'cannot serve')
    life.leave()
  })
  listener.listen({ fd: LISTEN_FD, backlog: BACKLOG })
}

/** When the process may end, and how. */
class Life {
  readonly #flags: Flags
  readonly #logger: ShimLogger
  readonly #registry: Registry
  readonly #events: EventQueue
  #calls = 0
  #idle: NodeJS.Timeout
  #leaving = false

  constructor(parts: { flags: Flags; logger: ShimLogger; registry: Registry; events: EventQueue }) {
    this.#flags = parts.flags
    this.#logger = parts.logger
    this.#registry = parts.registry
    this.#events = parts.events
    this.#idle = setTimeout(() => this.#timeout(), IDLE_MS)
  }

  /** Runs around every call: counts it, and logs how it ended. */
  around(context: CallContext, next: () => Outcome): Outcome {
    this.#calls++
    let outcome: Outcome
    try {
      outcome = next()
    } catch (error) {
      this.#ended(context, error)
      throw error
    }
    if (!(outcome instanceof Promise)) {
      this.#ended(context, undefined)
      return outcome
    }
    outcome.then(
      () => this.#ended(context, undefined),
      (error: unknown) => this.#ended(context, error),
    )
    return outcome
  }

  /** Leaves in order: what is being created is undone, events are delivered, the socket vanishes. */
  leave(): void {
    if (this.#leaving) return
    this.#leaving = true
    setTimeout(() => this.#exit(), LEAVE_MS)
    void this.#wrapUp().finally(() => this.#exit())
  }

  async #wrapUp(): Promise<void> {
    const creations = [...this.#registry.creations]
    for (const { abort } of creations) abort.abort(new RuntimeError('Canceled', 'the shim is leaving'))
    await Promise.all(creations.map((creation) => creation.done))
    await this.#events.drain(DRAIN_MS)
    await this.#logger.flush()
  }

  #exit(): never {
    try {
      unlinkSync(this.#flags.socket)
    } catch {
      // `delete` has removed it already, or we were given none
    }
    return exitNow(0)
  }

  #ended(context: CallContext, error: unknown): void {
    this.#calls--
    // cheap: a running timer is only moved
    this.#idle.refresh()
    if (error === undefined) {
      this.#logger.debug({ method: context.method }, 'call')
      return
    }
    const { code, message } = toTtrpcError(error)
    const fields = { method: context.method, code: codeName(code), error: message }
    const origin = error instanceof TtrpcError ? (error.cause ?? error) : error
    if (origin instanceof TtrpcError) this.#logger.debug(fields, 'call refused')
    else if (origin instanceof RuntimeError) this.#logger.warn(fields, 'call failed')
    else
      this.#logger.error(
        { ...fields, stack: origin instanceof Error ? origin.stack : undefined },
        'call failed: this is a bug',
      )
  }

  #timeout(): void {
    if (this.#calls > 0 || !this.#registry.empty) this.#idle.refresh()
    else {
      this.#logger.info({}, 'leaving: no container, and nobody calls')
      this.leave()
    }
  }
}

/** Only our own user may command us; the socket's mode says so too, but it can be changed. */
function isOwnUser(socket: Socket, logger: ShimLogger): boolean {
  const handle: unknown = Reflect.get(socket, '_handle')
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined
  if (typeof fd !== 'number' || fd < 0) return false
  const { uid, gid, pid } = peerCredentials(fd)
  if (uid === process.geteuid?.() && gid === process.getegid?.()) return true
  logger.warn({ uid, gid, pid }, 'refused a connection of another user')
  return false
}

/** An error that nobody caught is a bug, but the container must not pay for it. */
function watchForBugs(logger: ShimLogger): void {
  const tell = (what: string) => (error: unknown) => {
    const stack = error instanceof Error ? error.stack : undefined
    logger.error({ error: messageOf(error), stack }, what)
  }
  process.on('uncaughtException', tell('uncaught exception: this is a bug'))
  process.on('unhandledRejection', tell('unhandled rejection: this is a bug'))
}

/** What an operator wants to know of a shim that seems stuck, whatever the log level. */
function report({ registry, events, logger, pid }: Shim): void {
  const { rss, heapUsed } = process.memoryUsage()
  logger.warn(
    {
      pid,
      containers: registry.taskCount,
      queuedEvents: events.length,
      rss,
      heapUsed,
      uptimeS: Math.round(process.uptime()),
    },
    'report',
  )
  for (const { id, init, execs } of registry.tasks) {
    logger.warn(
      { container: id, pid: init.state.pid, state: init.state.kind, launching: init.launching !== undefined },
      'report: container',
    )
    for (const { execId, state, launching } of execs.values()) {
      logger.warn(
        { container: id, exec: execId, pid: state.pid, state: state.kind, launching: launching !== undefined },
        'report: exec',
      )
    }
  }
}
