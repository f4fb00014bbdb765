/**
 * The shim process at work: it serves on the listening socket that the launcher made. life.ts decides when the process
 * ends.
 *
 * Invariants: no error of one container ends the process. A connection from another user is closed before a byte of it
 * is read.
 */
import { createServer, type Server, type Socket } from 'node:net'
import { TtrpcServer } from 'ttrpc-ts'
import { TaskService, TaskV3Service } from 'ttrpc-ts/containerd'
import { LAUNCH_FDS, LAUNCH_LIMITS } from '../proto/launch.ts'
import { type ProcessMaker, Reaper } from '../runtime/index.ts'
import { exitNow, getpid, messageOf, peerCredentials } from '../runtime/internal.ts'
import { Calls } from './calls.ts'
import { daemonForwarder, EventQueue } from './events.ts'
import type { Flags } from './flags.ts'
import { Life } from './life.ts'
import { createLogger, type ShimLogger } from './log.ts'
import { report } from './report.ts'
import { toTtrpcError } from './status.ts'
import { abandonTask } from './task/delete.ts'
import { Registry, type Shim } from './task/registry.ts'
import { taskHandlers } from './task/service.ts'

/** What a Host asks of the shim. */
export interface HostCalls {
  /** Takes a connection over. */
  serve(socket: Socket): void
  /** Ends the process in order. */
  leave(): void
  /** Answers SIGUSR1. */
  report(): void
}

/** Where connections, children and signals come from: this process, or a keeper (work.ts). */
export interface Host {
  readonly reaper: ProcessMaker
  /** the process that clients take for the shim */
  readonly pid: number
  /** Begins to deliver connections and signals. */
  open(calls: HostCalls): void
  /** Ends the process. */
  exit(status: number): void
}

/** Starts to serve; returns at once. life.ts ends the process. */
export function serve(flags: Flags, makeHost: (logger: ShimLogger) => Host = ownHost): void {
  const logger = createLogger({ debug: flags.debug, fields: { namespace: flags.namespace, id: flags.id } })
  const host = makeHost(logger)
  watchForBugs(logger)
  // The shim was started in the bundle, which containerd must be able to remove. No path in the shim is relative.
  process.chdir('/')
  const registry = new Registry()
  const events = new EventQueue({
    namespace: flags.namespace,
    forwarder: flags.ttrpc === '' ? undefined : daemonForwarder(flags.ttrpc, flags.namespace),
    logger,
  })
  const shim: Shim = {
    namespace: flags.namespace,
    pid: host.pid,
    registry,
    reaper: host.reaper,
    events,
    logger,
    withdraw: () => life.withdraw(),
    leave: () => life.leave(),
  }
  const life = new Life({
    socket: flags.socket,
    logger,
    registry,
    events,
    abandon: (task) => abandonTask(shim, task),
    exit: (status) => host.exit(status),
  })
  const calls = new Calls(logger)
  const handlers = taskHandlers(shim)
  const server = new TtrpcServer({
    mapError: toTtrpcError,
    around: (context, next, request) => calls.around(context, () => life.around(context, next), request),
    onError: (error) => logger.warn({ error: error.message }, 'a connection failed'),
  })
  server.register(TaskService, handlers)
  server.register<typeof TaskV3Service>(TaskV3Service, handlers)
  host.open({
    serve: (socket) => {
      if (isOwnUser(socket, logger)) server.serve(socket)
      else socket.destroy()
    },
    leave: () => life.leave(),
    report: () => report(shim, calls, flags.bundle),
  })
}

/** This process is the shim: it listens, and has the children. */
function ownHost(logger: ShimLogger): Host {
  const reaper = new Reaper(logger)
  reaper.start()
  return {
    reaper,
    pid: getpid(),
    exit: exitNow,
    open(calls) {
      process.on('SIGTERM', () => calls.leave())
      process.on('SIGINT', () => calls.leave())
      process.on('SIGUSR1', () => calls.report())
      const listener = createServer((socket) => calls.serve(socket))
      listener.on('error', (error) => {
        logger.error({ error: error.message }, 'cannot serve')
        calls.leave()
      })
      listen(listener)
    },
  }
}

/**
 * Server.listen() loads Node's modules cluster, child_process and dgram to find out whether this process is a cluster's
 * worker, which takes a tenth of the whole start. `_listen2` is what it calls afterwards; Node keeps that name as an
 * alias. Without the alias this uses listen().
 */
function listen(listener: Server): void {
  const direct: unknown = Reflect.get(listener, '_listen2')
  if (typeof direct === 'function')
    Reflect.apply(direct, listener, [null, null, null, LAUNCH_LIMITS.BACKLOG, LAUNCH_FDS.LISTEN])
  else listener.listen({ fd: LAUNCH_FDS.LISTEN, backlog: LAUNCH_LIMITS.BACKLOG })
}

/**
 * Only processes with the shim's own user and group may command it. The mode of the socket says the same, but can be
 * changed.
 */
function isOwnUser(socket: Socket, logger: ShimLogger): boolean {
  const handle: unknown = Reflect.get(socket, '_handle')
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined
  if (typeof fd !== 'number' || fd < 0) return false
  const { uid, gid, pid } = peerCredentials(fd)
  if (uid === process.geteuid?.() && gid === process.getegid?.()) return true
  logger.warn({ uid, gid, pid }, 'refused a connection of another user')
  return false
}

/**
 * An uncaught error is a bug of the shim: it is logged, and the process goes on, because its end would cost the
 * containers' state.
 */
function watchForBugs(logger: ShimLogger): void {
  const tell = (what: string) => (error: unknown) => {
    const stack = error instanceof Error ? error.stack : undefined
    logger.error({ error: messageOf(error), stack }, what)
  }
  process.on('uncaughtException', tell('uncaught exception: this is a bug'))
  process.on('unhandledRejection', tell('unhandled rejection: this is a bug'))
}
