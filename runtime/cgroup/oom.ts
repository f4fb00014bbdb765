/**
 * OOM kills of a container, counted by the kernel: `oom_kill` in memory.events (v2) or memory.oom_control (v1, since
 * Linux 4.13). The counter decides; an event only says when to read it. v1 signals every failed charge (hundreds for
 * one kill) and also the removal of the cgroup. Invariant: the listener is called once per growth of the counter, and
 * never without one.
 *
 * v2: inotify on memory.events, by fs.watch. v1: the file gives no inotify events, so an eventfd is registered in
 * cgroup.event_control; sys/eventfd.ts brings it into the event loop without a thread. v1 signals *before* it kills,
 * since it chooses, logs and counts the victim afterwards. So the counter is read several times after an event. The v1
 * counter does not include sub-cgroups that the container made itself.
 */
import { closeSync, constants, type FSWatcher, openSync, watch } from 'node:fs'
import { type EventCounter, openEventCounter } from '../sys/eventfd.ts'
import { cgroupError, readTextIfAny, writeText } from './files.ts'
import { displayName, UNIFIED } from './hierarchy.ts'
import type { CgroupPaths } from './request.ts'

const FIRST_LOOK_MS = 1
const LAST_LOOK_MS = 512

/** The file with the counter and its directory; undefined without a memory controller. */
function counterFile(paths: CgroupPaths): { dir: string; file: string; v1: boolean } | undefined {
  const { memory } = paths
  if (memory !== undefined) return { dir: memory, file: `${memory}/memory.oom_control`, v1: true }
  const unified = paths[UNIFIED]
  return unified === undefined ? undefined : { dir: unified, file: `${unified}/memory.events`, v1: false }
}

/** The count in a file; undefined when there is none any more. */
export function readOomKills(file: string): number | undefined {
  const text = readTextIfAny(file)
  return text === undefined ? undefined : Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0)
}

function nothing(): void {}

/** How many processes of the container the OOM killer has killed; 0 without a memory controller. */
export function oomKillCount(paths: CgroupPaths): number {
  const counter = counterFile(paths)
  return counter === undefined ? 0 : (readOomKills(counter.file) ?? 0)
}

/**
 * Calls `onOom` with the new count after each growth from now on, until disposed. The watch ends, and calls `onEnd`,
 * when the cgroup is gone (v1) or has no process any more (v2), and at once without a memory controller. It keeps no
 * process alive.
 */
export function watchOom(paths: CgroupPaths, onOom: (count: number) => void, onEnd = nothing): Disposable {
  const counter = counterFile(paths)
  let last = counter === undefined ? undefined : readOomKills(counter.file)
  if (counter === undefined || last === undefined) {
    onEnd()
    return { [Symbol.dispose]() {} }
  }
  const { dir, file, v1 } = counter
  let timer: NodeJS.Timeout | undefined
  const sources: (FSWatcher | EventCounter)[] = []
  let disposed = false

  const dispose = () => {
    disposed = true
    clearTimeout(timer)
    for (const source of sources.splice(0)) source.close()
  }
  const end = () => {
    if (disposed) return
    dispose()
    onEnd()
  }
  /** True when the event needs no further look. */
  const look = (): boolean => {
    if (disposed) return true
    const count = readOomKills(file)
    if (count === undefined) {
      end()
      return true
    }
    if (last === undefined || count <= last) return false
    last = count
    onOom(count)
    return true
  }
  const lookAgain = (ms: number) => {
    clearTimeout(timer)
    if (look() || ms > LAST_LOOK_MS) return
    timer = setTimeout(lookAgain, ms, ms * 2).unref()
  }

  try {
    if (v1) {
      const events = openEventCounter(() => lookAgain(FIRST_LOOK_MS))
      sources.push(events)
      registerEvent(dir, file, { event: events.fd })
    } else {
      sources.push(watch(file, { persistent: false }, look).on('error', end))
      // the kernel reports no removal of a cgroup, but the last process leaves before it
      const lookForEnd = () => {
        if (!look() && /^populated 0$/m.test(readTextIfAny(`${dir}/cgroup.events`) ?? '')) end()
      }
      if (onEnd !== nothing) sources.push(watch(`${dir}/cgroup.events`, { persistent: false }, lookForEnd))
    }
  } catch (error) {
    dispose()
    const name = displayName(v1 ? 'memory' : UNIFIED, dir)
    throw cgroupError(`cannot watch for OOM on cgroup "${name}"`, error, {
      call: v1 ? 'write' : 'inotify_add_watch',
      path: file,
    })
  }
  // catches what was counted between the first reading and the registration
  look()
  return { [Symbol.dispose]: dispose }
}

/** Asks a v1 cgroup to signal an eventfd for what `file` stands for; closing the eventfd ends it. */
export function registerEvent(
  dir: string,
  file: string,
  { event, argument }: { readonly event: number; readonly argument?: string },
): void {
  const control = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    writeText(`${dir}/cgroup.event_control`, [event, control, argument].filter((word) => word !== undefined).join(' '))
  } finally {
    // the kernel needs it only to find the cgroup
    closeSync(control)
  }
}
