/**
 * What a watch tells by calls, as an async iterator. Invariant: the watch exists only while a caller iterates, and
 * nothing that it told before its end is lost.
 */

/** Starts a watch that calls `push` with each value, and `end` when there will be no other. */
type StartWatch<T> = (push: (value: T) => void, end: () => void) => Disposable

/** Yields what the watch tells, until it ends or the signal is aborted. */
export async function* watched<T>(start: StartWatch<T>, signal?: AbortSignal): AsyncGenerator<T, void, void> {
  const values: T[] = []
  let over = signal?.aborted === true
  let wake = (): void => {}
  const end = (): void => {
    over = true
    wake()
  }
  signal?.addEventListener('abort', end, { once: true })
  try {
    using _watch = start((value) => {
      values.push(value)
      wake()
    }, end)
    for (;;) {
      const [next] = values
      if (next !== undefined) {
        values.shift()
        yield next
      } else if (over) return
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
