/**
 * OOM kills of one container as those see them who hold it: whether the end of a process was one, and a stream of the kernel's count.
 * Invariant: each kill is put down to one process at most.
 */
import type { Cgroup } from '../cgroup/cgroup.ts'
import { RuntimeError } from '../errors.ts'

/** Puts the kernel's OOM kills down to processes that were killed. */
export class OomLedger {
  readonly #cgroup: Cgroup
  #told = 0

  constructor(cgroup: Cgroup) {
    this.#cgroup = cgroup
  }

  /** Whether the kernel has killed more processes than were told so far: it is asked about one that was killed. */
  readonly claim = (): boolean => {
    try {
      if (this.#cgroup.oomKillCount() <= this.#told) return false
      this.#told++
      return true
    } catch {
      // the cgroup has been removed: nobody knows any more
      return false
    }
  }
}

/** The failure of a set-up during which the kernel has killed somebody in the cgroup: it may have been the process that was set up. */
export function possiblyOomKilled(error: unknown): unknown {
  if (!(error instanceof RuntimeError)) return error
  return new RuntimeError(error.code, `${error.message} (possibly OOM-killed)`, { detail: error.detail, cause: error })
}

/** The count after each growth from now on; ends when no process is left in the cgroup, or by the signal. Keeps no process alive. */
export async function* oomCounts(cgroup: Cgroup, signal?: AbortSignal): AsyncGenerator<number, void, void> {
  const counts: number[] = []
  let over = signal?.aborted === true
  let wake = (): void => {}
  const end = (): void => {
    over = true
    wake()
  }
  signal?.addEventListener('abort', end, { once: true })
  try {
    using _watch = cgroup.watchOom((count) => {
      counts.push(count)
      wake()
    }, end)
    for (;;) {
      const next = counts.shift()
      if (next !== undefined) yield next
      else if (over) return
      else {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
    }
  } finally {
    signal?.removeEventListener('abort', end)
  }
}
