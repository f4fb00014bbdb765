/** The interface of a command, and what several commands have in common. */
import { readFileSync, writeSync } from 'node:fs'
import { constants } from 'node:os'
import { Container, type Logger, RuntimeError } from '../index.ts'
import { EAGAIN, EPIPE, errnoOf, type Log, messageOf, reasonOf } from '../internal.ts'
import type { CommandSpec, Options, ParsedArgs } from './flags.ts'
import type { Globals } from './globals.ts'

/** The settings of the options before the command. */
export interface Context extends Globals {
  readonly logger: Log
  /** for the messages of ts-init */
  readonly containerLogger: Logger
}

/** One command: its grammar and its action, which returns the exit status. */
export interface Command {
  readonly spec: CommandSpec
  run(context: Context, args: ParsedArgs): Promise<number>
}

/** Writes all of a text to standard output before it returns; false when that has no reader any more. */
export function print(text: string): boolean {
  const bytes = Buffer.from(text)
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(1, bytes, done)
    } catch (error) {
      // EPIPE: the reader has seen enough. EAGAIN: the pipe was made non-blocking by another program, and its reader is
      // slow
      if (errnoOf(error) === EPIPE) return false
      if (errnoOf(error) !== EAGAIN) throw error
    }
  }
  return true
}

/** Reports a failure once on standard error, and in the log if that is elsewhere. */
export function complain(error: unknown, log: Log | undefined): void {
  const message = messageOf(error)
  if (log !== undefined && (!log.isStderr || log.format === 'json')) log.error({}, message)
  if (log?.isStderr === true && log.format === 'json') return
  // only bugs are printed with a stack: other errors are refusals of the runtime or of the system
  const told = error instanceof RuntimeError || !(error instanceof Error) || errnoOf(error) !== 0
  const text = told ? message : (error.stack ?? message)
  try {
    writeSync(2, `runts: error: ${text}\n`)
  } catch {
    // standard error has no reader; the exit status reports the failure too
  }
}

/**
 * The container that the first argument names.
 * @throws NotFound
 */
export function loadContainer(context: Context, args: ParsedArgs): Container {
  return Container.load(context.root, args.positionals[0] ?? '', context.logger)
}

/** glibc's range of real-time signals (signal(7)): its threads use the kernel's first two. */
const SIGRTMIN = 34
const SIGRTMAX = 64

/** A signal by number or name ("9", "KILL", "sigkill", "RTMIN+3"). @throws InvalidArgument */
export function parseSignal(text: string): number {
  const unknown = (): RuntimeError => new RuntimeError('InvalidArgument', `unknown signal "${text}"`)
  if (/^\d+$/.test(text)) {
    if (Number(text) > SIGRTMAX) throw unknown()
    return Number(text)
  }
  const name = text.toUpperCase().replace(/^SIG/, '')
  const realTime = /^RT(MIN|MAX)([+-]\d{1,2})?$/.exec(name)
  if (realTime !== null) {
    const signal = (realTime[1] === 'MIN' ? SIGRTMIN : SIGRTMAX) + Number(realTime[2] ?? 0)
    if (signal < SIGRTMIN || signal > SIGRTMAX) throw unknown()
    return signal
  }
  const known = new Map<string, number>(Object.entries(constants.signals)).get(`SIG${name}`)
  if (known === undefined) throw unknown()
  return known
}

/** Reads a file that the user named; "-" is standard input. @throws InvalidArgument with the path */
export function readUserFile(path: string): string {
  try {
    return readFileSync(path === '-' ? 0 : path, 'utf8')
  } catch (error) {
    throw new RuntimeError('InvalidArgument', `cannot read "${path}": ${reasonOf(error)}`, { cause: error })
  }
}

/** The `--format` of a command that prints a table or JSON. @throws InvalidArgument */
export function outputFormat(command: string, args: ParsedArgs): 'table' | 'json' {
  const format = args.text('format') ?? 'table'
  if (format === 'table' || format === 'json') return format
  throw new RuntimeError('InvalidArgument', `${command}: invalid --format "${format}": must be table or json`)
}

/** Options that create, run and exec share. */
export const PROCESS_OPTIONS = {
  'console-socket': {
    type: 'string',
    value: 'FILE',
    doc: 'unix socket that receives the master of the terminal (SCM_RIGHTS); a relative path counts from the bundle, for exec from the working directory',
  },
  'pidfd-socket': {
    type: 'string',
    value: 'FILE',
    doc: 'unix socket that receives a pidfd of the process (SCM_RIGHTS); a relative path counts as that of --console-socket',
  },
  'pid-file': { type: 'string', value: 'FILE', doc: 'write the pid of the process here' },
  'preserve-fds': {
    type: 'count',
    value: 'N',
    doc: 'pass N more descriptors to the program: 3, 4, …; after those of LISTEN_FDS where that is set (default 0)',
  },
} as const satisfies Options

/** Options that create and run share. */
export const CREATE_OPTIONS = {
  bundle: {
    type: 'string',
    short: 'b',
    value: 'DIR',
    doc: 'the bundle: a folder with config.json (default: the working directory)',
  },
  ...PROCESS_OPTIONS,
  'no-pivot': {
    type: 'boolean',
    doc: 'move the root to / instead of pivot_root: for a root file system on an initramfs; it isolates less',
  },
  'no-new-keyring': { type: 'boolean', doc: 'keep the session keyring of the caller' },
} as const satisfies Options

/** The option of the commands that print a table or JSON. */
export const FORMAT_OPTION = {
  format: { type: 'string', short: 'f', value: 'table|json', doc: 'output format (default table)' },
} as const satisfies Options
