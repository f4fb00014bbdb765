/**
 * File systems that a program mounts and serves: the types fuse.NAME and fuse3.NAME, through mount.fuse and mount.fuse3 of libfuse, called
 * as mount(8) would. The program that serves lives as long as the mount does, on the host's side, and belongs to nobody's container.
 */
import { delimiter } from 'node:path'
import { RuntimeError } from '../errors.ts'
import { runProgram } from '../peers/program.ts'
import { type FsMount, isPropagation, setPropagation } from '../sys/mount.ts'
import { findProgram, searchFolders } from '../sys/path-search.ts'
import type { Reaper } from '../sys/reaper.ts'
import { exitText } from '../sys/words.ts'

/** Where mount(8) has its helpers, besides the PATH. */
const HELPER_FOLDERS = ['/sbin', '/usr/sbin']
/** A file system that is not there by then is waiting for something that does not come. */
const TIMEOUT_MS = 60_000
const OUTPUT_BYTES = 2048

/** Whether an entry is of that kind. */
export function isMountedByProgram({ type }: FsMount): boolean {
  return /^fuse3?\../.test(type)
}

/** Mounts one entry through its program. @throws Unimplemented when the program is missing, Internal with what it said when it failed */
export async function mountByProgram({ type, source, target, options }: FsMount, reaper: Reaper): Promise<void> {
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
