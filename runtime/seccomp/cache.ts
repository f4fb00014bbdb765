/**
 * Compiled filters on disk, one file per key: magic, flags, length, digest, program. Compiling takes milliseconds,
 * reading does not. Invariants: only a completely written file is used, since files appear by rename and one with a
 * wrong length or digest counts as missing. The number of files is bounded.
 */
import type { Hash } from 'node:crypto'
import {
  closeSync,
  constants as files,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { makeDirectories } from '../sys/directory.ts'

/**
 * A host has a handful of profiles. A client that makes one per container would fill the state root, which may be in
 * memory.
 */
const MOST_FILES = 128

/** The arguments of seccomp(2). */
export interface CompiledFilter {
  /** SECCOMP_FILTER_FLAG_* bits */
  readonly flags: number
  /** struct sock_filter[] */
  readonly filter: Uint8Array
}

/** SHA-256. Loading Node's crypto takes milliseconds, so it is loaded only for a container with a profile. */
export function sha256(): Hash {
  return process.getBuiltinModule('node:crypto').createHash('sha256')
}

const MAGIC = 0x46535354
const HEADER_BYTES = 12
const DIGEST_BYTES = 32
const MAX_PROGRAM_BYTES = 4096 * 8

/** Reads a filter; undefined when the file is missing, damaged, or another user's. */
export function readCached(path: string): CompiledFilter | undefined {
  let fd: number
  try {
    fd = openSync(path, files.O_RDONLY | files.O_NOFOLLOW | files.O_NONBLOCK)
  } catch {
    // missing or unreadable: the profile is compiled again
    return undefined
  }
  try {
    const { size, uid } = fstatSync(fd)
    const length = size - HEADER_BYTES - DIGEST_BYTES
    if (uid !== process.geteuid?.() || length <= 0 || length > MAX_PROGRAM_BYTES || length % 8 !== 0) return undefined
    const bytes = Buffer.alloc(size)
    if (readSync(fd, bytes, 0, size, 0) !== size) return undefined
    const filter = bytes.subarray(HEADER_BYTES + DIGEST_BYTES)
    const flags = bytes.readUInt32LE(4)
    if (bytes.readUInt32LE(0) !== MAGIC || bytes.readUInt32LE(8) !== length) return undefined
    const digest = bytes.subarray(HEADER_BYTES, HEADER_BYTES + DIGEST_BYTES)
    return digest.equals(digestOf(flags, filter)) ? { flags, filter } : undefined
  } finally {
    closeSync(fd)
  }
}

/** Removes the older half when there are too many files, including what killed writers left. */
function prune(directory: string): void {
  const names = readdirSync(directory)
  if (names.length <= MOST_FILES) return
  const found = names.map((name) => ({ path: join(directory, name), age: lstatSync(join(directory, name)).mtimeMs }))
  found.sort((a, b) => a.age - b.age)
  for (const { path } of found.slice(0, names.length - MOST_FILES / 2)) unlinkSync(path)
}

/** Writes a filter. A cache that cannot be written is no failure, since the filter is in memory. */
export function writeCached(path: string, { flags, filter }: CompiledFilter): void {
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt32LE(MAGIC, 0)
  header.writeUInt32LE(flags, 4)
  header.writeUInt32LE(filter.length, 8)
  const temporary = `${path}.${process.hrtime.bigint().toString(36)}`
  try {
    makeDirectories(dirname(path), 0o700)
    const fd = openSync(temporary, files.O_WRONLY | files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW, 0o600)
    try {
      const bytes = Buffer.concat([header, digestOf(flags, filter), filter])
      if (writeSync(fd, bytes) !== bytes.length) throw new Error('short write')
      renameSync(temporary, path)
    } catch (error) {
      unlinkSync(temporary)
      throw error
    } finally {
      closeSync(fd)
    }
    prune(dirname(path))
  } catch {
    // a full or read-only disk, or another process that writes the same file: the next container compiles again
  }
}

function digestOf(flags: number, filter: Uint8Array): Buffer {
  return sha256().update(`${flags} `).update(filter).digest()
}
