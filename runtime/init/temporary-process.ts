/**
 * A process that lives only to be looked at: the kernel shows the id maps of a namespace, and a handle of it, only
 * through a process in it. The runtime starts ts-init with a plan whose process stops at a point and waits for an
 * answer. There the runtime looks at it, and ends it instead of answering.
 * Invariant: when the promise settles, the process is gone.
 */
import { once } from 'node:events'
import { closeSync, constants, openSync } from 'node:fs'
import type { Op } from '../../proto/init-plan.ts'
import { RuntimeError } from '../errors.ts'
import { type Logger, silentLogger } from '../logger.ts'
import type { ProcessMaker } from '../sys/reaper.ts'
import { PlanProcess } from './spawn.ts'

/** What starts the process and logs its messages. */
export interface TemporaryProcessOptions {
  readonly reaper: ProcessMaker
  readonly logger?: Logger | undefined
  /** path of the helper; default: the installed one */
  readonly helper?: string | undefined
}

/** The operations that make the process, the point where it stops, and what is done there. */
export interface Sight<T> {
  readonly ops: readonly Op[]
  readonly stop: 'onIdMaps' | 'onRuntimeHooks'
  readonly look: (pid: number) => T
}

/**
 * Makes a process with the operations, looks at it at the point where it stops, and ends it.
 * @throws what the operations met; what `look` throws
 */
export async function lookAtProcess<T>(
  { ops, stop, look }: Sight<T>,
  { reaper, logger = silentLogger, helper }: TemporaryProcessOptions,
): Promise<T> {
  const seen = Promise.withResolvers<T>()
  const nowhere = openSync('/dev/null', constants.O_RDWR)
  try {
    const waiting = new PlanProcess({
      // never reached: a plan must end with a program
      ops: [...ops, { op: 'program', args: ['/nothing'], env: [], uid: 0 }, { op: 'exec', fds: 0 }],
      stdio: { kind: 'fds', stdin: nowhere, stdout: nowhere, stderr: nowhere },
      reaper,
      logger,
      helper,
      stops: {
        [stop]: async ({ pid, signal }: { pid: number; signal: AbortSignal }) => {
          seen.resolve(look(pid))
          // no answer is sent: the process waits until `abort` below ends it
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
