/**
 * The OOM kills of one container: whether the end of a process was one, and a stream of the kernel's count.
 * Invariant: each kill is attributed to at most one process.
 */
import type { Cgroup } from '../cgroup/cgroup.ts'
import { RuntimeError } from '../errors.ts'
import { watched } from '../watched.ts'

/** Attributes the kernel's OOM kills to processes that were killed. */
export class OomLedger {
  readonly #cgroup: Cgroup
  #told = 0

  constructor(cgroup: Cgroup) {
    this.#cgroup = cgroup
  }

  /** Asked about one killed process: whether the kernel counts more OOM kills than were attributed. If so, one is. */
  readonly claim = (): boolean => {
    try {
      if (this.#cgroup.oomKillCount() <= this.#told) return false
      this.#told++
      return true
    } catch {
      // the cgroup has been removed, and its count with it
      return false
    }
  }
}

/** Marks a failed set-up during which the kernel killed a process of the cgroup: perhaps the one being set up. */
export function possiblyOomKilled(error: unknown): unknown {
  if (!(error instanceof RuntimeError)) return error
  return new RuntimeError(error.code, `${error.message} (possibly OOM-killed)`, { detail: error.detail, cause: error })
}

/**
 * Yields the count each time it has grown; ends when the cgroup has no process, or by the signal. Waiting does not keep
 * this process alive.
 */
export function oomCounts(cgroup: Cgroup, signal?: AbortSignal): AsyncGenerator<number, void, void> {
  return watched<number>((push, end) => cgroup.watchOom(push, end), signal)
}
