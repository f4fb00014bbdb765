/**
 * The hooks that run on the host: prestart and createRuntime while a container is made, then poststart and poststop.
 * They run one after the other in the order of the list. A hook without an environment inherits the runtime's.
 * Invariant: the first hook that fails ends its list. The exception is poststop: the container has gone already, so a
 * failure is a warning and the next hook still runs.
 */
import { existsSync } from 'node:fs'
import { LIMITS } from '../../proto/init-plan.ts'
import { messageOf, RuntimeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { Hook, HookName } from '../spec/types.ts'
import type { OciState } from '../state/oci-state.ts'
import { inheritedEnvironment } from '../sys/environment.ts'
import { Reaper } from '../sys/reaper.ts'
import { exitText } from '../sys/words.ts'
import { type ProgramResult, runProgram } from './program.ts'

/** The longest timer of Node: 24 days. */
const LONGEST_TIMER_MS = 2 ** 31 - 1

/** The names of the hooks that run on the host. */
export type HostHookName = Exclude<HookName, 'createContainer' | 'startContainer'>

/** Records each hook before it exists, so that a later command can end one whose runtime was killed. */
export interface HookJournal {
  /** called before a hook is started; returns a name for the file of its standard input */
  readonly willStart: () => string
  /** called when the hook has been started */
  readonly started: (pid: number) => void
}

/** One list of hooks to run. */
export interface HookRun {
  readonly name: HostHookName
  readonly hooks: readonly Hook[]
  /** the document that each hook gets on its standard input */
  readonly state: OciState
  readonly logger: Logger
  /** records each hook; left out: none is recorded */
  readonly journal?: HookJournal | undefined
  /** aborting kills the running hook */
  readonly signal?: AbortSignal | undefined
}

/** Runs a list of hooks; an empty list costs nothing. @throws Internal for the first that fails, except for poststop */
export async function runHooks({ name, hooks, state, logger, signal, journal }: HookRun): Promise<void> {
  if (hooks.length === 0) return
  const input = JSON.stringify(state)
  // runc runs hooks in the bundle, too
  const cwd = existsSync(state.bundle) ? state.bundle : '/'
  for (const [index, hook] of hooks.entries()) {
    try {
      await runHook(hook, { input, cwd, signal, journal })
      logger.debug({ hook: name, index }, 'hook has run')
    } catch (error) {
      const reason = messageOf(error)
      const said = error instanceof HookFailure ? error : { timedOut: false, stdout: '', stderr: '' }
      const { timedOut, stdout, stderr } = said
      const failure = new RuntimeError('Internal', `error running ${name} hook #${index}: ${reason}`, {
        cause: error,
        detail: { source: 'hook', name, index, timedOut, stdout, stderr },
      })
      if (name !== 'poststop') throw failure
      logger.warn({ container: state.id }, failure.message)
    }
  }
}

/** A hook that ran, and failed. */
class HookFailure extends Error {
  readonly timedOut: boolean
  readonly stdout: string
  readonly stderr: string

  constructor(failed: string, { timedOut, stdout, stderr }: ProgramResult) {
    super(`${failed}, stdout: ${printable(stdout)}, stderr: ${printable(stderr)}`)
    this.timedOut = timedOut
    this.stdout = stdout
    this.stderr = stderr
  }
}

async function runHook(
  { path, args, env, timeout }: Hook,
  { input, cwd, signal, journal }: { input: string; cwd: string } & Pick<HookRun, 'signal' | 'journal'>,
): Promise<void> {
  using lease = Reaper.lease()
  const result = await runProgram({
    reaper: lease.reaper,
    path,
    argv: args.length === 0 ? [path] : args,
    env: env ?? inheritedEnvironment(),
    cwd,
    input,
    inputName: journal?.willStart(),
    outputBytes: LIMITS.HOOK_OUTPUT_MAX_BYTES,
    ...(timeout === undefined ? {} : { timeoutMs: Math.min(timeout * 1000, LONGEST_TIMER_MS) }),
    signal,
    onStart: journal?.started,
  })
  signal?.throwIfAborted()
  const failed = ending(result, timeout)
  if (failed === undefined) return
  throw new HookFailure(failed, result)
}

function ending({ exit, timedOut }: ProgramResult, timeout: number | undefined): string | undefined {
  if (timedOut) return `timed out after ${timeout} s`
  return exit.status === 0 ? undefined : exitText(exit)
}

/** Escapes control characters, so that the error stays one line whatever a hook prints. */
function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, (control) => (control === '\n' ? '\\n' : encodeURIComponent(control)))
}
