/**
 * Kills a process at a named place of a shim's life. The test build of the shim stops itself there
 * (runtime/failpoint.ts), the test kills, and the shim goes on if it still lives.
 * Invariant: no process stays stopped.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Failpoint } from '../../runtime/failpoint.ts'
import type { ShimFailpoint } from '../../shim/failpoints.ts'
import { descendants } from './census.ts'
import { until } from './command.ts'
import type { Containers } from './containerd.ts'
import { ROOT } from './places.ts'

/** The process that is killed, unless the test has made one for that. */
export type Victim = 'containerd' | 'shim' | 'ts-init'

/** Makes the test build; for beforeAll. Of two test files at the same time, one builds and the other finds it built. */
export function buildFailing(): void {
  const build = [process.execPath, join(ROOT, 'scripts/build.ts'), '--failpoints']
  execFileSync('flock', [join(ROOT, 'build'), ...build], { stdio: 'pipe' })
}

/**
 * The file that tells the shims of a test file where to stop. Make it before the daemon, whose environment they
 * inherit.
 */
export class StopFile {
  readonly #folder = mkdtempSync(join(tmpdir(), 'stop-'))
  readonly path = join(this.#folder, 'order')

  constructor(longTimeMs: number) {
    process.env['RUNTS_STOP_FILE'] = this.path
    process.env['RUNTS_LONG_TIME_MS'] = String(longTimeMs)
  }

  /** The next process that passes the place stops there; the next helper, for `init:<op>`, dies there. */
  order(place: Failpoint | ShimFailpoint | `init:${string}`): void {
    writeFileSync(this.path, place)
  }

  /** Whether no process has passed the place yet. */
  get pending(): boolean {
    return existsSync(this.path)
  }

  cancel(): void {
    rmSync(this.path, { force: true })
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** Waits until the process that took the order has stopped; its pid. */
export async function untilStopped(ct: Containers, id: string, order: StopFile): Promise<number> {
  let stopped: number | undefined
  await until(`a process of ${id} to stop`, () => {
    if (order.pending) return false
    stopped = ct.shims(id).find(hasStopped)
    return stopped !== undefined
  })
  return stopped!
}

/** Whether a process has been stopped and not continued. */
export function hasStopped(pid: number): boolean {
  return /^State:\tT/m.test(statusOf(pid))
}

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8')
  } catch {
    // gone
    return ''
  }
}

/** Kills the victim while the shim is stopped, and continues what is left. A killed daemon is started again. */
export async function killAt(ct: Containers, shim: number, victim: Victim | number): Promise<void> {
  if (victim === 'shim') {
    process.kill(shim, 'SIGKILL')
    return
  }
  try {
    if (typeof victim === 'number') process.kill(victim, 'SIGKILL')
    else if (victim === 'containerd') await ct.daemon.kill('SIGKILL')
    else for (const { pid, name } of descendants(shim)) if (name.startsWith('ts-init')) process.kill(pid, 'SIGKILL')
  } finally {
    process.kill(shim, 'SIGCONT')
  }
  if (victim === 'containerd') await ct.daemon.start()
}
