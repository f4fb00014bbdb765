/** Memory pressure of one container as a stream. A container whose owner does not ask loads no such module. */
import type { Cgroup } from '../cgroup/cgroup.ts'
import { PRESSURE_LEVELS, type PressureLevel, watchMemoryPressure } from '../cgroup/pressure.ts'
import { RuntimeError } from '../errors.ts'
import { watched } from '../watched.ts'

/** Yields the level for each event of the kernel, until no process is left or the signal is aborted. */
export function pressureEvents(
  { paths }: Cgroup,
  level: PressureLevel,
  signal?: AbortSignal,
): AsyncGenerator<PressureLevel, void, void> {
  if (!PRESSURE_LEVELS.includes(level)) {
    throw new RuntimeError('InvalidArgument', `invalid pressure level "${level}": must be low, medium or critical`)
  }
  return watched<PressureLevel>(
    (push, onEnd) => watchMemoryPressure(paths, level, { onPressure: () => push(level), onEnd }),
    signal,
  )
}
