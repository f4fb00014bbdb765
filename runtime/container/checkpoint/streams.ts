/**
 * The standard streams of a container across a checkpoint. Their other ends are outside, so CRIU cannot save them. The
 * file descriptors.json beside the images keeps a name for each, and a restore gives CRIU new files for these names.
 * The file and the names of pipes are runc's. Invariant: a name is used only as a name.
 */
import { readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf, RuntimeError } from '../../errors.ts'
import type { Stdio } from '../../init/spawn.ts'
import { reasonOf } from '../../sys/errno.ts'
import { mountsOf } from './mounts.ts'

const DESCRIPTORS = 'descriptors.json'
/** Three names are short; the file may be anyone's. */
const MOST_NAME_BYTES = 4096
const STREAMS = [0, 1, 2] as const

/** The streams of a container that is dumped. */
export interface StreamNames {
  /** what descriptors.json keeps, for each of the three streams */
  readonly names: readonly string[]
  /** files outside the container's mounts, as CRIU is told of them */
  readonly external: readonly string[]
}

/**
 * Names the streams. `saved` are the files that init was started with: it may have closed them since, while its
 * children have them. `processes` are those of the container, init among them.
 */
export function nameStreams(
  init: number,
  saved: readonly string[] | undefined,
  processes: readonly number[],
): StreamNames {
  const paths = saved ?? STREAMS.map((fd) => linkOf(init, fd) ?? '')
  const wanted = new Set(paths.filter((path) => path.startsWith('/')))
  const found = wanted.size === 0 ? new Map<string, string>() : outsideFiles(init, processes, wanted)
  return {
    names: STREAMS.map((fd) => found.get(paths[fd] ?? '') ?? paths[fd] ?? ''),
    external: [...new Set(found.values())],
  }
}

/** CRIU's names of open files that lie on no mount of the container, by their paths: fifos and files of the host. */
function outsideFiles(init: number, processes: readonly number[], wanted: ReadonlySet<string>): Map<string, string> {
  const own = new Set(mountsOf(init).map(({ id }) => id))
  const found = new Map<string, string>()
  for (const pid of new Set([init, ...processes])) {
    for (const fd of fdsOf(pid)) {
      const path = linkOf(pid, fd)
      if (path === undefined || !wanted.has(path) || found.has(path)) continue
      const name = outsideName(pid, fd, own)
      if (name !== undefined) found.set(path, name)
    }
  }
  return found
}

/** CRIU's name of an open file that lies on none of the mounts `own`; undefined for any other, or when it has gone. */
function outsideName(pid: number, fd: number, own: ReadonlySet<number>): string | undefined {
  try {
    const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1')
    const mount = Number(/^mnt_id:\s*(\d+)$/m.exec(info)?.[1])
    if (!Number.isSafeInteger(mount) || own.has(mount)) return undefined
    const { ino } = statSync(`/proc/${pid}/fd/${fd}`, { bigint: true })
    return `file[${mount.toString(16)}:${ino.toString(16)}]`
  } catch {
    // the process has closed it, or has ended
    return undefined
  }
}

function fdsOf(pid: number): readonly number[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).map(Number)
  } catch {
    // it has ended
    return []
  }
}

function linkOf(pid: number, fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`)
  } catch {
    // it is closed
    return undefined
  }
}

/** Writes the names beside the images. @throws what writing met */
export function keepStreams(imagePath: string, { names }: StreamNames): void {
  const path = join(imagePath, DESCRIPTORS)
  try {
    writeFileSync(path, JSON.stringify(names), { mode: 0o600 })
  } catch (error) {
    throw new RuntimeError('Internal', `cannot write "${path}": ${reasonOf(error)}`, { cause: error })
  }
}

/** The descriptors of CRIU that stand for the streams of the images. @throws InvalidArgument without usable names */
export function streamsToInherit(imagePath: string, stdio: Stdio): readonly { key: string; fd: number }[] {
  const names = readNames(join(imagePath, DESCRIPTORS))
  if (stdio.kind === 'terminal') return []
  return STREAMS.flatMap((fd) => {
    const key = names[fd] ?? ''
    return key.includes('pipe:') || key.startsWith('file[') ? [{ key, fd }] : []
  })
}

function readNames(path: string): readonly string[] {
  const refuse = (why: string): RuntimeError =>
    new RuntimeError('InvalidArgument', `cannot restore from "${path}": ${why}`)
  let names: unknown
  try {
    names = JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    throw refuse(error instanceof SyntaxError ? messageOf(error) : reasonOf(error))
  }
  const isName = (name: unknown): name is string => typeof name === 'string' && name.length <= MOST_NAME_BYTES
  if (Array.isArray(names) && names.every(isName)) return names
  throw refuse('it must be a list of names')
}
