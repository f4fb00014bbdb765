/** What every command gets and returns, and the few things that several commands do alike. */
import { readFileSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { constants } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { type Logger, RuntimeError } from '../index.ts'
import type { CommandSpec, ParsedArgs } from './flags.ts'

/** The settings that precede the command. */
export interface Context {
  readonly root: string
  readonly debug: boolean
  readonly logger: Logger
}

/** One command: its grammar and its action, which returns the exit status. */
export interface Command {
  readonly spec: CommandSpec
  run(context: Context, args: ParsedArgs): Promise<number>
}

/** Writes text to standard output, all of it, before it returns. */
export function print(text: string): void {
  const bytes = Buffer.from(text)
  for (let done = 0; done < bytes.length; ) done += writeSync(1, bytes, done)
}

/** A signal by number or name ("9", "KILL", "sigkill"). @throws InvalidArgument */
export function parseSignal(text: string): number {
  const known = new Map<string, number>(Object.entries(constants.signals))
  const number = /^\d+$/.test(text) ? Number(text) : known.get(`SIG${text.toUpperCase().replace(/^SIG/, '')}`)
  if (number === undefined || number > 64) throw new RuntimeError('InvalidArgument', `unknown signal "${text}"`)
  return number
}

/** Writes a pid file so that a reader sees either nothing or the whole number. */
export function writePidFile(path: string, pid: number): void {
  const temporary = join(dirname(path), `.${basename(path)}`)
  rmSync(temporary, { force: true })
  writeFileSync(temporary, String(pid), { mode: 0o666, flag: 'wx' })
  renameSync(temporary, path)
}

/** Reads a file that the user named. @throws InvalidArgument with the path */
export function readUserFile(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const reason = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    throw new RuntimeError('InvalidArgument', `cannot read "${path}": ${reason}`, { cause: error })
  }
}

/** Options that create and run share. */
export const CREATE_OPTIONS = {
  bundle: {
    type: 'string',
    short: 'b',
    value: 'DIR',
    doc: 'the bundle: a folder with config.json (default: the working directory)',
  },
  'console-socket': { type: 'string', value: 'PATH', doc: 'unix socket that receives the master of the terminal' },
  'pid-file': { type: 'string', value: 'FILE', doc: 'write the pid of the container process here' },
  'no-pivot': { type: 'boolean', doc: 'move the root to / instead of pivot_root (for a root on an initramfs)' },
  'no-new-keyring': { type: 'boolean', doc: 'keep the session keyring of the caller' },
} as const satisfies CommandSpec['options']
