/**
 * Places at which a test build kills itself when RUNTS_FAIL_AT names them, so that tests can see what a crash at that very moment leaves
 * behind. The product contains nothing of this: its bundles are made with RUNTS_FAILPOINTS as false, and the calls vanish.
 */
import { getpid, kill } from './sys/libc.ts'

/** set by scripts/build.ts; sources that run as they are have none */
declare const RUNTS_FAILPOINTS: boolean | undefined

const SIGKILL = 9

/** Every place, in the order in which a container's life passes them; those of the init helper are `init:<op>` and `init:<op>+`. */
export const FAILPOINTS = [
  'create:claimed',
  'create:locked',
  'create:fifo',
  'create:recorded',
  'create:cgroup',
  'create:spawned',
  'create:child',
  'create:ready',
  'create:saved',
  'create:done',
  'start:opened',
  'start:executed',
  'start:done',
  'exec:spawned',
  'exec:executed',
  'delete:locked',
  'delete:killed',
  'delete:cgroup',
  'delete:done',
] as const

/** Name of such a place. */
export type Failpoint = (typeof FAILPOINTS)[number]

/** Ends the process here, as if by kill -9, when a test asks for it. */
export function failpoint(name: Failpoint): void {
  if (typeof RUNTS_FAILPOINTS !== 'undefined' && RUNTS_FAILPOINTS && process.env['RUNTS_FAIL_AT'] === name) {
    kill(getpid(), SIGKILL)
  }
}

/** The environment of the init helper: empty, but for the name of the place in a test build. */
export function helperEnvironment(): readonly string[] {
  if (typeof RUNTS_FAILPOINTS === 'undefined' || !RUNTS_FAILPOINTS) return []
  const name = process.env['RUNTS_FAIL_AT']
  return name === undefined ? [] : [`RUNTS_FAIL_AT=${name}`]
}
