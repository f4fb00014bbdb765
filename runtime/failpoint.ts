/**
 * Places at which a test build can be killed or stopped, so that tests see what a crash at that moment leaves behind. A
 * process kills itself at the place that RUNTS_FAIL_AT names. It stops itself, once, at the place that the file in
 * RUNTS_STOP_FILE holds, so that a test can kill any process at that moment. The product contains none of this: its
 * bundles are built with RUNTS_FAILPOINTS as false, and the calls vanish.
 */

import { readFileSync, unlinkSync } from 'node:fs'
import { FAIL_AT } from '../proto/launch.ts'
import { getpid, kill } from './sys/libc.ts'
import { SIGKILL, SIGSTOP } from './sys/linux.ts'

/** set by scripts/build.ts; undefined when the sources run unbundled */
declare const RUNTS_FAILPOINTS: boolean | undefined

/**
 * The places of the runtime, in the order of a container's life. A program that uses the runtime may have more. The C
 * programs have their own: `init:<op>` and `init:<op>+` in ts-init; `launch:socket`, `launch:address` and
 * `launch:spawned` in the launcher.
 */
export const FAILPOINTS = [
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
  'start:opened',
  'start:executed',
  'start:done',
  'exec:spawned',
  'exec:executed',
  'checkpoint:asked',
  'checkpoint:dumped',
  'restore:bound',
  'restore:asked',
  'restore:saved',
  'restore:done',
  'delete:locked',
  'delete:killed',
  'delete:cgroup',
  'delete:done',
] as const

/** The places of a checkpoint and of a restore, for which the machine needs CRIU. */
export const CHECKPOINT_FAILPOINTS = [
  'checkpoint:asked',
  'checkpoint:dumped',
  'restore:bound',
  'restore:asked',
  'restore:saved',
  'restore:done',
] as const

/** The name of a place of the runtime. */
export type Failpoint = (typeof FAILPOINTS)[number]

let place = 'boot'

/** The place that was passed last; "boot" outside a test build. */
export function lastPlace(): string {
  return place
}

/** Ends the process here, as if by kill -9, or stops it, when a test asks for it. */
export function failpoint(name: string): void {
  if (typeof RUNTS_FAILPOINTS !== 'undefined' && RUNTS_FAILPOINTS) {
    place = name
    if (process.env[FAIL_AT] === name) kill(getpid(), SIGKILL)
    if (takeOrder((order) => order === name) !== undefined) kill(getpid(), SIGSTOP)
  }
}

/** The environment of ts-init: empty, except for the name of the place in a test build. */
export function helperEnvironment(): readonly string[] {
  if (typeof RUNTS_FAILPOINTS !== 'undefined' && RUNTS_FAILPOINTS) {
    const name = process.env[FAIL_AT] ?? takeOrder((order) => order.startsWith('init:'))
    if (name !== undefined) return [`${FAIL_AT}=${name}`]
  }
  return []
}

/** The given time, or in a test build the time that RUNTS_LONG_TIME_MS sets. */
export function longTime(ms: number): number {
  if (typeof RUNTS_FAILPOINTS !== 'undefined' && RUNTS_FAILPOINTS) {
    return Number(process.env['RUNTS_LONG_TIME_MS'] ?? ms)
  }
  return ms
}

/** The order in the file, if it is meant for this place; the file is removed, so that the order is carried out once. */
function takeOrder(isMeant: (order: string) => boolean): string | undefined {
  const path = process.env['RUNTS_STOP_FILE']
  if (path === undefined) return undefined
  try {
    const order = readFileSync(path, 'utf8')
    if (!isMeant(order)) return undefined
    unlinkSync(path)
    return order
  } catch {
    // there is no order
    return undefined
  }
}
