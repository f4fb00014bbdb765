/**
 * The events of a container as lines of JSON, in runc's form: its counters, and what the kernel says about its memory.
 * Invariant: the lines end with the container, and a kill of the OOM killer is told before that end.
 */
import type { PressureLevel } from '../cgroup/pressure.ts'
import type { Container } from '../container/container.ts'
import { stringifyJson } from '../spec/stringify.ts'
import { watched } from '../watched.ts'
import { readCounters } from './counters.ts'
import { statsDocument } from './document.ts'

/** The longest time that a timer of Node can be set to. */
const MAX_TIMER_MS = 0x7fff_ffff

/** What is told, and how often. */
export interface FollowOptions {
  /** between two lines of counters */
  readonly intervalMs: number
  /** tell of pressure of this level or higher, too */
  readonly pressure?: PressureLevel | undefined
  /** called when the counters could not be read; the next ones may be */
  readonly onError: (error: unknown) => void
}

/** The line with the present counters. */
export async function statsLine(container: Container): Promise<string> {
  const { cgroup, network, intelRdt } = await container.stats()
  const data = statsDocument(readCounters(container.cgroup, cgroup), network, intelRdt)
  return `${stringifyJson({ type: 'stats', id: container.id, data })}\n`
}

/** Yields the lines until the container has stopped. */
export async function* followEvents(container: Container, options: FollowOptions): AsyncGenerator<string, void, void> {
  const { id } = container
  const stop = new AbortController()
  const { signal } = stop
  let oomKills = container.oomKillCount()
  const oomLine = (count: number): string[] => {
    if (count <= oomKills) return []
    oomKills = count
    return [`${JSON.stringify({ type: 'oom', id })}\n`]
  }
  const lines = watched<string>((push, end) => {
    const tell = (texts: readonly string[]) => {
      for (const text of texts) push(text)
    }
    const timer = setInterval(
      () => {
        statsLine(container).then(push, (error: unknown) => {
          if (container.init.alive) options.onError(error)
        })
      },
      Math.min(options.intervalMs, MAX_TIMER_MS),
    )
    const oom = container.cgroup.watchOom((count) => tell(oomLine(count)))
    if (options.pressure !== undefined)
      void forward(container, options.pressure, { signal, push, failed: options.onError })
    void container.init.exited.then(() => {
      tell(oomLine(container.oomKillCount()))
      end()
    })
    return {
      [Symbol.dispose]() {
        clearInterval(timer)
        oom[Symbol.dispose]()
        stop.abort()
      },
    }
  })
  yield* lines
}

async function forward(
  container: Container,
  level: PressureLevel,
  to: {
    readonly signal: AbortSignal
    readonly push: (line: string) => void
    readonly failed: (error: unknown) => void
  },
): Promise<void> {
  try {
    for await (const reached of container.notifyMemoryPressure(level, { signal: to.signal })) {
      to.push(`${JSON.stringify({ type: 'memory-pressure', id: container.id, data: { level: reached } })}\n`)
    }
  } catch (error) {
    to.failed(error)
  }
}
