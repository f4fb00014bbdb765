/** Undoing a failed restore. Invariant: it ends at the first step that fails, so nothing that is mounted is removed. */

import { messageOf } from '../../errors.ts'
import type { Logger } from '../../logger.ts'

/**
 * Steps that undo a restore, in the reverse order. One that fails is a warning, and ends the undo: a root that is still
 * mounted must not be removed with the folder that it is mounted in.
 */
export class Undo {
  readonly #id: string
  readonly #logger: Logger
  readonly #steps: (() => void | Promise<void>)[] = []

  constructor(id: string, logger: Logger) {
    this.#id = id
    this.#logger = logger
  }

  defer(step: () => void | Promise<void>): void {
    this.#steps.push(step)
  }

  async run(): Promise<void> {
    try {
      for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) await step()
    } catch (failure) {
      const reason = messageOf(failure)
      this.#logger.warn({ container: this.#id, reason }, 'cannot undo all of a restore that has failed')
    }
  }
}
