/**
 * The shim as the worker of a keeper (c/keeper/README.md), which accepts connections, starts and reaps processes, and
 * gets the signals. So far the worker saves no state, so a next worker cannot go on where an earlier one died. It then
 * ends the keeper, and containerd sees what it sees of a killed shim.
 *
 * Invariant: all that the keeper tells is taken: an exit is acknowledged, a connection is dropped when it is closed.
 */
import { Socket } from 'node:net'
import { FIRST_CONNECTION_KEY, STATUS_FLAGS } from '../proto/keeper.ts'
import { exitNow } from '../runtime/internal.ts'
import { type Delivery, KeeperLink, KeeperProcesses, shareProcessMaker } from '../runtime/worker.ts'
import type { Flags } from './flags.ts'
import type { ShimLogger } from './log.ts'
import { type Host, type HostCalls, serve } from './serve.ts'

const [SIGINT, SIGUSR1, SIGTERM] = [2, 10, 15]

/** Starts to serve for the keeper; returns at once. @throws Error when an earlier worker has died */
export function work(flags: Flags): void {
  const link = new KeeperLink()
  const go = link.waitFor(({ notice }) => notice === 'go')
  if (go.notice !== 'go' || go.workers > 1) {
    sayStatus(link, STATUS_FLAGS.QUIT)
    throw new Error('cannot go on where an earlier worker has died: this version saves no state')
  }
  serve(flags, (logger) => keeperHost(link, logger))
  sayStatus(link, STATUS_FLAGS.READY)
}

function sayStatus(link: KeeperLink, flags: number, signals = 0n): void {
  link.send('status', { flags, wakeAt: 0n, signals })
}

function keeperHost(link: KeeperLink, logger: ShimLogger): Host {
  const reaper = new KeeperProcesses(link, { onExit: (exit) => reaper.acknowledge(exit) })
  shareProcessMaker(reaper)
  return {
    reaper,
    pid: process.ppid,
    open: (calls) => link.listen((delivery) => take(delivery, { link, logger, reaper, calls })),
    exit(status) {
      sayStatus(link, STATUS_FLAGS.QUIT)
      exitNow(status)
    },
  }
}

interface Taker {
  readonly link: KeeperLink
  readonly logger: ShimLogger
  readonly reaper: KeeperProcesses
  readonly calls: HostCalls
}

function take(delivery: Delivery, { link, logger, reaper, calls }: Taker): void {
  if (delivery.notice === 'process') reaper.take(delivery)
  if (delivery.notice === 'kept') takeConnection(delivery, link, calls)
  if (delivery.notice === 'go') takeSignals(delivery.signals, link, calls)
  if (delivery.notice === 'answer')
    logger.warn({ request: delivery.request, error: delivery.error }, 'the keeper refused a request: this is a bug')
}

function takeConnection(delivery: Delivery, link: KeeperLink, calls: HostCalls): void {
  if (delivery.notice !== 'kept' || delivery.fd === undefined || delivery.key < FIRST_CONNECTION_KEY) return
  const { key, fd } = delivery
  const socket = new Socket({ fd: fd.take(), readable: true, writable: true })
  // the client sees the end when both have closed it
  socket.once('close', () => link.send('drop', { key }))
  calls.serve(socket)
}

function takeSignals(signals: bigint, link: KeeperLink, calls: HostCalls): void {
  const has = (signal: number): boolean => ((signals >> BigInt(signal)) & 1n) === 1n
  if (signals !== 0n) sayStatus(link, STATUS_FLAGS.READY, signals)
  if (has(SIGUSR1)) calls.report()
  if (has(SIGTERM) || has(SIGINT)) calls.leave()
}
