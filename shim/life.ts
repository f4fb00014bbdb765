/**
 * When the shim process ends, and how. Shutdown or a signal tells it to end. It also ends by itself in two cases, in
 * which containerd can no longer reach it.
 *
 *   - It has had no container for a minute, as after a `start` whose client failed before its Create.
 *   - A container's bundle is gone, and with it the file `address`, the only place where containerd keeps the shim's
 *     address.
 *
 * Invariant: it leaves in order and in bounded time. The socket vanishes, a Create in progress is undone, events are
 * delivered.
 */
import { existsSync, unlinkSync } from 'node:fs'
import type { CallContext, Outcome } from 'ttrpc-ts'
import { RuntimeError } from '../runtime/index.ts'
import { exitNow, longTime, messageOf } from '../runtime/internal.ts'
import type { EventQueue } from './events.ts'
import type { ShimLogger } from './log.ts'
import { whenSettled } from './outcome.ts'
import type { Registry, Task } from './task/registry.ts'

/** How long a shim may be without a container, and how often a shim with containers looks for their bundles. */
export const IDLE_MS = 60_000
/** How long a leaving shim waits for its events to be delivered. */
const DRAIN_MS = 1_900
/** The longest time from leave() to the end of the process. */
const LEAVE_MS = 2_000
/**
 * The calls that start the minute anew. Other calls do not: containerd polls, and an empty shim must not live on
 * because of that.
 */
const MOVING = new Set(['Create', 'Delete'])

/** What a Life works with. */
export interface LifeParts {
  /** path of the shim's own socket */
  readonly socket: string
  readonly logger: ShimLogger
  readonly registry: Registry
  readonly events: Pick<EventQueue, 'drain' | 'retry'>
  /** Ends a container that containerd no longer knows; resolves when it is gone. */
  readonly abandon: (task: Task) => Promise<void>
  /** Ends the process; replaced in tests. */
  readonly exit?: (status: number) => void
}

/** Decides when the process ends, and ends it. */
export class Life {
  readonly #parts: LifeParts
  readonly #exitProcess: (status: number) => void
  readonly #idle: NodeJS.Timeout
  readonly #abandoned = new Set<Task>()
  #leaving = false
  #withdrawn = false

  constructor(parts: LifeParts) {
    this.#parts = parts
    this.#exitProcess = parts.exit ?? exitNow
    this.#idle = setTimeout(() => this.#look(), longTime(IDLE_MS))
  }

  /** The server's interceptor: a call shows that containerd lives, and some calls start the idle minute anew. */
  around(context: CallContext, next: () => Outcome): Outcome {
    // the caller is containerd, which takes events as well
    this.#parts.events.retry()
    return whenSettled(next, () => this.#ended(context))
  }

  /**
   * Removes the socket's name, at most once. The name is derived from the container's id: while it is there, a `start`
   * of the same id would find this shim, which is leaving. Once it is removed, the same name may belong to the next
   * shim and must not be removed again.
   */
  withdraw(): void {
    if (this.#withdrawn) return
    this.#withdrawn = true
    try {
      unlinkSync(this.#parts.socket)
    } catch {
      // `delete` has removed it already, or the launcher gave no path
    }
  }

  /** Ends the process in order, within LEAVE_MS. */
  leave(): void {
    if (this.#leaving) return
    this.#leaving = true
    this.withdraw()
    clearTimeout(this.#idle)
    const limit = setTimeout(() => this.#exitProcess(0), LEAVE_MS)
    void this.#wrapUp().finally(() => {
      clearTimeout(limit)
      this.#exitProcess(0)
    })
  }

  async #wrapUp(): Promise<void> {
    const { registry, events, logger } = this.#parts
    const creations = [...registry.creations]
    for (const { abort } of creations) abort.abort(new RuntimeError('Canceled', 'the shim is leaving'))
    await Promise.all(creations.map((creation) => creation.done))
    await events.drain(DRAIN_MS)
    await logger.flush()
  }

  #ended(context: CallContext): void {
    // refresh() only moves the timer and is cheap enough for every call
    if (MOVING.has(context.method)) this.#idle.refresh()
  }

  #look(): void {
    if (this.#leaving) return
    const { registry, logger } = this.#parts
    if (registry.empty) {
      logger.info({}, 'leaving: no container, and nobody brings one')
      this.leave()
      return
    }
    this.#idle.refresh()
    for (const task of registry.tasks) if (!existsSync(task.bundle)) void this.#end(task)
  }

  /** containerd has removed the bundle, so it has given the container up. Nothing else will end what still runs. */
  async #end(task: Task): Promise<void> {
    const { abandon, logger, registry } = this.#parts
    if (this.#abandoned.has(task)) return
    this.#abandoned.add(task)
    logger.warn({ container: task.id }, 'ending a container whose bundle was removed')
    try {
      await abandon(task)
      if (registry.empty) this.leave()
    } catch (error) {
      // #look() tries again a minute later
      this.#abandoned.delete(task)
      logger.error({ container: task.id, error: messageOf(error) }, 'cannot end a container whose bundle was removed')
    }
  }
}
