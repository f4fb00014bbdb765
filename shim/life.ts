/**
 * When the shim process ends, and how. It ends because it is told to (Shutdown, a signal), or because nobody can tell it any more: its
 * `start` failed half-way and no container ever came, or its bundle is gone, and with it the only place where containerd keeps our
 * address. Invariant: it leaves in order (the socket vanishes, what is being created is undone, events are delivered), in bounded time.
 */
import { existsSync, unlinkSync } from 'node:fs'
import type { CallContext, Outcome } from 'ttrpc-ts'
import { exitNow, longTime, RuntimeError } from '../runtime/index.ts'
import type { EventQueue } from './events.ts'
import type { ShimLogger } from './log.ts'
import { messageOf } from './status.ts'
import type { Registry, Task } from './task/registry.ts'

/** How long a shim may be without a container, and how often one with a container looks for its bundle. */
export const IDLE_MS = 60_000
/** What events get to be delivered when the shim leaves. */
const DRAIN_MS = 1_900
/** Whatever happens, the process is gone after this. */
const LEAVE_MS = 2_000
/** The calls after which a shim may be without a container; no other call keeps an empty one alive, since daemons poll. */
const MOVING = new Set(['Create', 'Delete'])

/** What a life is made of. */
export interface LifeParts {
  /** path of our own socket */
  readonly socket: string
  readonly logger: ShimLogger
  readonly registry: Registry
  readonly events: Pick<EventQueue, 'drain' | 'retry'>
  /** Ends a container of which nobody knows any more; resolves when it is gone. */
  readonly abandon: (task: Task) => Promise<void>
  /** Ends the process; replaced in tests. */
  readonly exit?: (status: number) => void
}

/** The end of the process, from its beginning on. */
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

  /** Runs around every call: some of them make it live longer. */
  around(context: CallContext, next: () => Outcome): Outcome {
    // whoever calls us takes our events too
    this.#parts.events.retry()
    let outcome: Outcome
    try {
      outcome = next()
    } catch (error) {
      this.#ended(context)
      throw error
    }
    if (!(outcome instanceof Promise)) {
      this.#ended(context)
      return outcome
    }
    const ended = (): void => this.#ended(context)
    outcome.then(ended, ended)
    return outcome
  }

  /**
   * Gives up the socket's name. The name is that of the container's id, so a `start` of that id would find us there for as long as our
   * last events take; and once we are gone from it, it may be another shim's, which is why it is removed only once.
   */
  withdraw(): void {
    if (this.#withdrawn) return
    this.#withdrawn = true
    try {
      unlinkSync(this.#parts.socket)
    } catch {
      // `delete` has removed it already, or we were given none
    }
  }

  /** Leaves in order. */
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
    // cheap: a running timer is only moved
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

  /** containerd removes a bundle when it has given a container up: what still runs of it is known to nobody. */
  async #end(task: Task): Promise<void> {
    const { abandon, logger, registry } = this.#parts
    if (this.#abandoned.has(task)) return
    this.#abandoned.add(task)
    logger.warn({ container: task.id }, 'ending a container whose bundle was removed')
    try {
      await abandon(task)
      if (registry.empty) this.leave()
    } catch (error) {
      // the next look tries again
      this.#abandoned.delete(task)
      logger.error({ container: task.id, error: messageOf(error) }, 'cannot end a container whose bundle was removed')
    }
  }
}
