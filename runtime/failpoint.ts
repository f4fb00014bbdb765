/**
 * Places at which a test build kills itself when RUNTS_FAIL_AT names them, so that tests can see what a crash at that very moment leaves
 * behind; or stops itself, once, when the file that RUNTS_STOP_FILE names holds the place, so that a test can kill whom it likes at that
 * moment. The product contains nothing of this: its bundles are made with RUNTS_FAILPOINTS as false, and the calls vanish.
 */

import { readFileSync, unlinkSync } from 'node:fs'
import { getpid, kill } from './sys/libc.ts'
import { SIGKILL, SIGSTOP } from './sys/linux.ts'

/** set by scripts/build.ts; sources that run as they are have none */
declare const RUNTS_FAILPOINTS: boolean | undefined

/**
 * Every place of this build, in the order in which a container's life passes them. The programs in C have their own: `init:<op>` and
 * `init:<op>+` of the init helper, `launch:socket`, `launch:address` and `launch:spawned` of the launcher.
 */
export const FAILPOINTS = [
  'task:create',
  'task:mounted',
  'task:io',
  'create:claimed',
  'create:locked',
  'create:fifo',
  'create:recorded',
  'create:cgroup',
  'create:spawned',
  'create:child',
  'hook:spawned',
  'create:ready',
  'create:saved',
  'create:done',
  'task:created',
  'task:announced',
  'start:opened',
  'start:executed',
  'start:done',
  'task:started',
  'task:exec-io',
  'exec:spawned',
  'exec:executed',
  'task:exec-started',
  'task:exited',
  'task:exit-told',
  'task:drained',
  'delete:locked',
  'delete:killed',
  'delete:cgroup',
  'delete:done',
  'task:unmounted',
  'task:recorded',
  'task:deleted',
  'cleanup:begin',
  'cleanup:container',
  'cleanup:unmounted',
  'cleanup:done',
] as const

/** Name of such a place. */
export type Failpoint = (typeof FAILPOINTS)[number]

let place = 'boot'

/** The place that was passed last; a test build alone knows it. */
export function lastPlace(): string {
  return place
}

/** Ends the process here, as if by kill -9, or stops it, when a test asks for it. */
export function failpoint(name: Failpoint): void {
  if (typeof RUNTS_FAILPOINTS !== 'undefined' && RUNTS_FAILPOINTS) {
    place = name
    if (process.env['RUNTS_FAIL_AT'] === name) kill(getpid(), SIGKILL)
    if (takeOrder((order) => order === name) !== undefined) kill(getpid(), SIGSTOP)
  }
}

/** The environment of the init helper: empty, but for the name of the place in a test build. */
export function helperEnvironment(): readonly string[] {
  if (typeof RUNTS_FAILPOINTS !== 'undefined' && RUNTS_FAILPOINTS) {
    const name = process.env['RUNTS_FAIL_AT'] ?? takeOrder((order) => order.startsWith('init:'))
    if (name !== undefined) return [`RUNTS_FAIL_AT=${name}`]
  }
  return []
}

/** What the test build takes for a long time; the product's own value otherwise. */
export function longTime(ms: number): number {
  if (typeof RUNTS_FAILPOINTS !== 'undefined' && RUNTS_FAILPOINTS) {
    return Number(process.env['RUNTS_LONG_TIME_MS'] ?? ms)
  }
  return ms
}

/** The order in the file, if it is meant for this place; it is carried out once. */
function takeOrder(isMeant: (order: string) => boolean): string | undefined {
  const path = process.env['RUNTS_STOP_FILE']
  if (path === undefined) return undefined
  try {
    const order = readFileSync(path, 'utf8')
    if (!isMeant(order)) return undefined
    unlinkSync(path)
    return order
  } catch {
    // nothing is ordered
    return undefined
  }
}
