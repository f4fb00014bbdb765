/**
 * The places of the shim at which a test build can be killed or stopped (runtime/failpoint.ts), in the order of a
 * container's life. Only tests import this file; the shim itself passes the names to failpoint().
 */

/** The places of the shim: `task:*` in the calls of the Task service, `cleanup:*` in the `delete` command. */
export const SHIM_FAILPOINTS = [
  'task:create',
  'task:mounted',
  'task:io',
  'task:created',
  'task:announced',
  'task:started',
  'task:exec-io',
  'task:exec-started',
  'task:exited',
  'task:exit-told',
  'task:drained',
  'task:unmounted',
  'task:recorded',
  'task:deleted',
  'cleanup:begin',
  'cleanup:container',
  'cleanup:unmounted',
  'cleanup:done',
] as const

/** The name of a place of the shim. */
export type ShimFailpoint = (typeof SHIM_FAILPOINTS)[number]
