/**
 * The resctrl file system, by which the kernel offers Intel RDT: where it is, what it can do, and its errors. Its root
 * is an input. A caller may name a folder instead of the mounted file system, for tests on machines without the
 * hardware. There nobody fills a new group with files, so that is done here. Invariant: nothing outside the root is
 * touched.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, statfsSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { errnoCode, errnoOf, errnoWords } from '../sys/errno.ts'
import { ENOENT } from '../sys/linux.ts'
import { unescapeMountPath } from '../sys/mountinfo.ts'

const DEFAULT_ROOT = '/sys/fs/resctrl'
const RDTGROUP_SUPER_MAGIC = 0x7655821
/** What the kernel puts into a new group. */
const GROUP_FILES = ['tasks', 'schemata'] as const
const GROUP_FOLDERS = ['mon_groups', 'mon_data'] as const

/** What the host offers. */
export interface Resctrl {
  readonly root: string
  /** shares of the L3 cache */
  readonly cat: boolean
  /** shares of the bandwidth of memory */
  readonly mba: boolean
  /** the counters that can be read (info/L3_MON/mon_features) */
  readonly counters: ReadonlySet<string>
}

/** The resctrl file system; undefined where there is none. `root` is a folder to take for it. */
export function findResctrl(root?: string): Resctrl | undefined {
  const found = root ?? mountedAt()
  if (found === undefined) return undefined
  const features = readIfAny(join(found, 'info/L3_MON/mon_features')) ?? ''
  return {
    root: found,
    cat: existsSync(join(found, 'info/L3')),
    mba: existsSync(join(found, 'info/MB')),
    counters: new Set(features.split('\n').filter(Boolean)),
  }
}

function mountedAt(): string | undefined {
  if (isReal(DEFAULT_ROOT)) return DEFAULT_ROOT
  // the kernel makes this folder where it knows RDT; without it there is no such mount
  if (!existsSync(DEFAULT_ROOT)) return undefined
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [before = '', after = ''] = line.split(' - ')
    if (after.startsWith('resctrl ')) return unescapeMountPath(before.split(' ')[4] ?? '')
  }
  return undefined
}

function isReal(root: string): boolean {
  try {
    return statfsSync(root).type === RDTGROUP_SUPER_MAGIC
  } catch {
    return false
  }
}

/** The text of a file without blanks around it. @throws what the kernel says */
export function readTrimmed(path: string): string {
  return readFileSync(path, 'utf8').trim()
}

function readIfAny(path: string): string | undefined {
  try {
    return readTrimmed(path)
  } catch (error) {
    if (errnoOf(error) === ENOENT) return undefined
    throw error
  }
}

/** Makes a group, if it does not exist; true when it was made. @throws node's own error */
export function makeGroup(root: string, path: string): boolean {
  if (existsSync(path)) return false
  mkdirSync(path, { mode: 0o755 })
  if (isReal(root)) return true
  for (const name of GROUP_FILES) writeFileSync(join(path, name), '')
  for (const name of GROUP_FOLDERS) mkdirSync(join(path, name))
  return true
}

/** Removes a group; its processes fall back to the group above. One that does not exist is fine. */
export function removeGroup(root: string, path: string): void {
  try {
    if (!isReal(root) && existsSync(path)) {
      for (const name of GROUP_FILES) unlinkSync(join(path, name))
      for (const name of GROUP_FOLDERS) rmdirSync(join(path, name))
    }
    rmdirSync(path)
  } catch (error) {
    if (errnoOf(error) !== ENOENT) throw groupError(root, `cannot remove the Intel RDT group "${path}"`, error)
  }
}

/** Sets the shares of a group; the kernel takes all lines or none. @throws what the kernel says, in its words too */
export function writeSchemata(root: string, path: string, lines: readonly string[]): void {
  try {
    writeFileSync(join(path, 'schemata'), lines.map((line) => `${line}\n`).join(''))
  } catch (error) {
    throw groupError(root, `cannot set the schemata ${JSON.stringify(lines)} of the Intel RDT group "${path}"`, error)
  }
}

/** The error of a failed `what`, with what the kernel adds in info/last_cmd_status. */
export function groupError(root: string, what: string, error: unknown): unknown {
  const errno = errnoOf(error)
  if (errno === 0 || error instanceof RuntimeError) return error
  const status = readIfAny(join(root, 'info/last_cmd_status'))
  const more = status === undefined || status === '' || status === 'ok' ? '' : `, last_cmd_status: ${status}`
  const code = errnoCode(errno, errno === ENOENT ? 'cgroupFile' : 'call')
  return new RuntimeError(code, `${what}: ${errnoWords(errno)}${more}`, { cause: error })
}
