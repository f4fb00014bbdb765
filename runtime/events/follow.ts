/**
 * The events of a container as lines of JSON, in runc's form: its counters, and what the kernel says about its memory.
 * Invariant: the lines end with the container, and a kill of the OOM killer is told before that end.
 */
import type { Cgroup } from '../cgroup/cgroup.ts'
import type { PressureLevel } from '../cgroup/pressure.ts'
import type { Container } from '../container/container.ts'
import { stringifyJson } from '../spec/stringify.ts'
import { watched } from '../watched.ts'
import { readCounters } from './counters.ts'
import { statsDocument } from './document.ts'

/** The longest time that a timer of Node can be set to. */
const MAX_TIMER_MS = 0x7fff_ffff

/** The container that is followed. */
export type Followed = Pick<Container, 'id' | 'stats' | 'oomKillCount' | 'notifyMemoryPressure'> & {
  readonly cgroup: Pick<Cgroup, 'paths' | 'watchOom'>
  readonly init: Pick<Container['init'], 'alive' | 'exited'>
}

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
export async function statsLine(container: Followed): Promise<string> {
  const { cgroup, network, intelRdt } = await container.stats()
  const data = statsDocument(readCounters(container.cgroup, cgroup), network, intelRdt)
  return `${stringifyJson({ type: 'stats', id: container.id, data })}\n`
}

/**
 * Yields the lines until the container has stopped.
 * @throws what a watch of the kernel's events met
 */
export async function* followEvents(container: Followed, options: FollowOptions): AsyncGenerator<string, void, void> {
  const { id } = container
  const stop = new AbortController()
  const failures: unknown[] = []
  let oomKills = container.oomKillCount()
  const lines = watched<string>((push, end) => {
    const fail = (error: unknown) => {
      failures.push(error)
      end()
    }
    const tellOom = (count: number) => {
      if (count > oomKills) push(`${JSON.stringify({ type: 'oom', id })}\n`)
      oomKills = Math.max(oomKills, count)
    }
    const oom = container.cgroup.watchOom(tellOom)
    const tellStats = () => {
      statsLine(container).then(push, (error: unknown) => {
        if (container.init.alive) options.onError(error)
      })
    }
    const timer = setInterval(tellStats, Math.min(options.intervalMs, MAX_TIMER_MS))
    if (options.pressure !== undefined) {
      forwardPressure(container, options.pressure, { signal: stop.signal, push }).catch(fail)
    }
    container.init.exited.then(() => tellOom(container.oomKillCount())).then(end, fail)
    return {
      [Symbol.dispose]() {
        clearInterval(timer)
        oom[Symbol.dispose]()
        stop.abort()
      },
    }
  })
  yield* lines
  for (const failure of failures) throw failure
}

async function forwardPressure(
  container: Followed,
  level: PressureLevel,
  { signal, push }: { readonly signal: AbortSignal; readonly push: (line: string) => void },
): Promise<void> {
  for await (const reached of container.notifyMemoryPressure(level, { signal })) {
    push(`${JSON.stringify({ type: 'memory-pressure', id: container.id, data: { level: reached } })}\n`)
  }
}
