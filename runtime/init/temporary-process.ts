/**
 * A process that lives only to be looked at: what belongs to a namespace (its id maps, a handle of it) can be had of a process in it alone.
 * ts-init is started with a plan whose process stops at a point where it waits for an answer, and is ended there instead of being answered.
 * Invariant: when the promise settles, the process is gone.
 */
import { once } from 'node:events'
import { closeSync, constants, openSync } from 'node:fs'
import type { Op } from '../../proto/init-plan.ts'
import { RuntimeError } from '../errors.ts'
import { type Logger, silentLogger } from '../logger.ts'
import type { Reaper } from '../sys/reaper.ts'
import { PlanProcess } from './spawn.ts'

/** Who starts the process, and hears what it says. */
export interface PassingHelpers {
  readonly reaper: Reaper
  readonly logger?: Logger | undefined
  /** the helper, instead of the installed one */
  readonly helper?: string | undefined
}

/** Has the operations make a process, looks at it where it stops, and ends it. @throws what the operations met, and what `look` throws */
export async function lookAtProcess<T>(
  ops: readonly Op[],
  stop: 'onIdMaps' | 'onRuntimeHooks',
  look: (pid: number) => T,
  { reaper, logger = silentLogger, helper }: PassingHelpers,
): Promise<T> {
  const seen = Promise.withResolvers<T>()
  const nowhere = openSync('/dev/null', constants.O_RDWR)
  try {
    const waiting = new PlanProcess({
      // nobody lets it come as far as a program
      ops: [...ops, { op: 'program', args: ['/nothing'], env: [], uid: 0 }, { op: 'exec', fds: 0 }],
      stdio: { kind: 'fds', stdin: nowhere, stdout: nowhere, stderr: nowhere },
      reaper,
      logger,
      helper,
      stops: {
        [stop]: async ({ pid, signal }: { pid: number; signal: AbortSignal }) => {
          seen.resolve(look(pid))
          // it waits for an answer, and is ended instead
          if (!signal.aborted) await once(signal, 'abort')
          throw new RuntimeError('Canceled', 'what it was made for has been seen')
        },
      },
    })
    waiting.handshake.ready.catch((error: unknown) => seen.reject(error))
    waiting.handshake.executed.catch((error: unknown) => seen.reject(error))
    try {
      return await seen.promise
    } finally {
      await waiting.abort()
    }
  } finally {
    closeSync(nowhere)
  }
}
