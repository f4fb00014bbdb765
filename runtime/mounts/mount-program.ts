/**
 * File systems that a program mounts and serves: the types fuse.NAME and fuse3.NAME. The runtime calls mount.fuse and
 * mount.fuse3 of libfuse as mount(8) would. The serving program runs on the host as long as the mount exists, and
 * belongs to no container.
 */
import { delimiter } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { runProgram } from '../peers/program.ts'
import { type FsMount, isPropagation, setPropagation } from '../sys/mount.ts'
import { findProgram, searchFolders } from '../sys/path-search.ts'
import type { ProcessMaker } from '../sys/reaper.ts'
import { exitText } from '../sys/words.ts'

/** Folders where mount(8) looks for its helpers, searched after PATH. */
const HELPER_FOLDERS = ['/sbin', '/usr/sbin']
/** How long mounting may take. */
const TIMEOUT_MS = 60_000
const OUTPUT_BYTES = 2048

/** Whether an entry's type is fuse.NAME or fuse3.NAME. */
export function isMountedByProgram({ type }: FsMount): boolean {
  return /^fuse3?\../.test(type)
}

/**
 * Mounts one entry through its program.
 * @throws Unimplemented when the program is missing; DeadlineExceeded; Internal with the program's output
 */
export async function mountByProgram({ type, source, target, options }: FsMount, reaper: ProcessMaker): Promise<void> {
  const [kind = '', name = ''] = [type.slice(0, type.indexOf('.')), type.slice(type.indexOf('.') + 1)]
  const what = `cannot mount "${source}" on "${target}"`
  const folders = [...searchFolders(), ...HELPER_FOLDERS]
  const path = findProgram(`mount.${kind}`, folders)
  if (path === undefined)
    throw new RuntimeError('Unimplemented', `${what}: the type "${type}" needs the program mount.${kind}`)
  const words = options.filter((option) => option !== '' && !isPropagation(option))
  const argv = [path, source, target, ...(words.length > 0 ? ['-o', words.join(',')] : []), '-t', name]
  const env = [`PATH=${folders.join(delimiter)}`]
  const { exit, stderr, stdout, timedOut } = await runProgram({
    reaper,
    path,
    argv,
    env,
    cwd: '/',
    outputBytes: OUTPUT_BYTES,
    timeoutMs: TIMEOUT_MS,
  })
  if (timedOut) throw new RuntimeError('DeadlineExceeded', `${what}: "${path}" took longer than ${TIMEOUT_MS} ms`)
  if (exit.status !== 0)
    throw new RuntimeError('Internal', `${what}: "${path}" failed: ${exitText(exit)}: ${stderr || stdout}`)
  setPropagation(target, options)
}
