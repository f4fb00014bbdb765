/**
 * Memory pressure of a container, as the kernel tells it. v1 has events of three levels (memory.pressure_level), which
 * an eventfd receives. v2 has no levels: there a trigger on the pressure stall information says that processes waited
 * for memory for more than a share of two seconds. Invariant: every watch ends with the cgroup, and leaves no
 * registration in the kernel.
 */
import { closeSync, constants, existsSync, type FSWatcher, openSync, watch, writeSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { openEventCounter } from '../sys/eventfd.ts'
import { EPOLLPRI, whenReady } from '../sys/readiness.ts'
import { cgroupError, readTextIfAny } from './files.ts'
import { displayName, UNIFIED } from './hierarchy.ts'
import { registerEvent } from './oom.ts'
import type { CgroupPaths } from './request.ts'

/** How urgent it is: the kernel reclaims memory, does so with little success, or is close to killing a process. */
export type PressureLevel = 'low' | 'medium' | 'critical'

/** All levels, in their order. */
export const PRESSURE_LEVELS: readonly PressureLevel[] = ['low', 'medium', 'critical']

/**
 * The triggers of v2: microseconds in which some processes, or all of them, waited, within two seconds. A program
 * without CAP_SYS_RESOURCE may only ask for windows that are multiples of two seconds.
 */
const TRIGGERS: Readonly<Record<PressureLevel, string>> = {
  low: 'some 200000 2000000',
  medium: 'some 800000 2000000',
  critical: 'full 800000 2000000',
}

/** What a watch tells its owner. */
export interface PressureListener {
  /** called for each event of the kernel, of which there may be many */
  readonly onPressure: () => void
  /** called when no further event can come */
  readonly onEnd: () => void
}

/**
 * Watches for pressure of a level, or a higher one, until disposed. Keeps no process alive.
 * @throws FailedPrecondition without a memory controller, or where the kernel does not tell
 */
export function watchMemoryPressure(paths: CgroupPaths, level: PressureLevel, listener: PressureListener): Disposable {
  const { memory } = paths
  const unified = paths[UNIFIED]
  if (memory === undefined && unified === undefined) {
    throw new RuntimeError('FailedPrecondition', 'cannot watch for memory pressure: the container has no cgroup for it')
  }
  const dir = memory ?? unified ?? ''
  const file = `${dir}/${memory === undefined ? 'memory.pressure' : 'memory.pressure_level'}`
  try {
    return memory === undefined ? watchV2(dir, file, { level, listener }) : watchV1(dir, file, { level, listener })
  } catch (error) {
    const name = displayName(memory === undefined ? UNIFIED : 'memory', dir)
    throw cgroupError(`cannot watch for memory pressure on cgroup "${name}"`, error, { call: 'open', path: file })
  }
}

interface Wanted {
  readonly level: PressureLevel
  readonly listener: PressureListener
}

/** Disposes each once, and ends at most once. */
function endable(close: () => void, onEnd: () => void): { end(): void; dispose(): void; readonly over: boolean } {
  let over = false
  const dispose = () => {
    if (over) return
    over = true
    close()
  }
  const end = () => {
    if (over) return
    dispose()
    onEnd()
  }
  return {
    end,
    dispose,
    get over() {
      return over
    },
  }
}

function watchV1(dir: string, file: string, { level, listener }: Wanted): Disposable {
  const events = openEventCounter(() => {
    // the kernel signals the removal of the cgroup too
    if (!existsSync(file)) life.end()
    else listener.onPressure()
  })
  const life = endable(() => events.close(), listener.onEnd)
  try {
    registerEvent(dir, file, { event: events.fd, argument: level })
  } catch (error) {
    life.dispose()
    throw error
  }
  return { [Symbol.dispose]: life.dispose }
}

function watchV2(dir: string, file: string, { level, listener }: Wanted): Disposable {
  // the trigger lives as long as this descriptor
  const fd = openSync(file, constants.O_RDWR | constants.O_NOFOLLOW)
  const sources: ({ close(): void } | FSWatcher)[] = []
  const life = endable(() => {
    for (const source of sources) source.close()
    closeSync(fd)
  }, listener.onEnd)
  try {
    writeSync(fd, `${TRIGGERS[level]}\0`)
    const onReady = () => {
      if (life.over) return
      // of a cgroup that is gone, the descriptor stays ready
      if (!existsSync(file)) life.end()
      else listener.onPressure()
    }
    sources.push(whenReady(fd, EPOLLPRI, onReady))
    const lookForEnd = () => {
      if (/^populated 1$/m.test(readTextIfAny(`${dir}/cgroup.events`) ?? '')) return
      life.end()
    }
    sources.push(watch(`${dir}/cgroup.events`, { persistent: false }, lookForEnd).on('error', life.end))
  } catch (error) {
    life.dispose()
    throw error
  }
  return { [Symbol.dispose]: life.dispose }
}
