/**
 * The soft limit of open files (RLIMIT_NOFILE). Node raises its own to the hard limit when it starts, and a child would
 * inherit that. Programs that use select(2), or close every number up to the limit, expect the customary value. What
 * starts Node (the launcher, or the script of `runts`) passes the earlier limit in a variable. Programs that are not
 * part of the runtime get that limit. Invariant: the limit of this process is lower only while a callback runs.
 */
import { VARIABLES } from '../../proto/launch.ts'
import { syscallError } from './errno.ts'
import { declare, lastErrno } from './libc.ts'
import { RLIMIT_NOFILE } from './linux.ts'

const INFINITY = 2n ** 64n - 1n

const prlimit = declare('int prlimit(int pid, int resource, const void *limit, void *old)')

/** A limit of open files, as getrlimit(2) has it. */
export interface FileLimit {
  readonly soft: bigint
  readonly hard: bigint
}

let inherited: FileLimit | false | undefined

/** The limit from before Node raised it; undefined when the variable is missing or names no lower limit. */
export function inheritedFileLimit(): FileLimit | undefined {
  inherited ??= findInherited() ?? false
  return inherited === false ? undefined : inherited
}

function findInherited(): FileLimit | undefined {
  const text = process.env[VARIABLES.SOFT_NOFILE]
  // the variable is about this process: a child must not inherit it
  delete process.env[VARIABLES.SOFT_NOFILE]
  const told = text === 'unlimited' ? INFINITY : /^\d{1,20}$/.test(text ?? '') ? BigInt(text ?? '') : undefined
  if (told === undefined) return undefined
  const { soft, hard } = ownLimit()
  return told < soft ? { soft: told, hard } : undefined
}

function ownLimit(): FileLimit {
  const old = Buffer.alloc(16)
  change(null, old)
  return { soft: old.readBigUInt64LE(0), hard: old.readBigUInt64LE(8) }
}

function change(limit: Buffer | null, old: Buffer | null): void {
  if (prlimit(0, RLIMIT_NOFILE, limit, old) < 0)
    throw syscallError('cannot change the limit of open files', { call: 'prlimit', errno: lastErrno() })
}

/**
 * Runs `start`, which starts a process, with the inherited limit. Open files stay open, and the main thread opens no
 * other file before `start` returns. An open on a thread of the pool can fail (EMFILE) only if more files than the
 * lower limit are open.
 */
export function withInheritedFileLimit<T>(start: () => T): T {
  const limit = inheritedFileLimit()
  if (limit === undefined) return start()
  const old = Buffer.alloc(16)
  const lower = Buffer.alloc(16)
  lower.writeBigUInt64LE(limit.soft, 0)
  lower.writeBigUInt64LE(limit.hard, 8)
  change(lower, old)
  try {
    return start()
  } finally {
    change(old, null)
  }
}
