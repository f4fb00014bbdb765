/**
 * The init helper as an executable that no container can alter: ts-init is copied once per process into a sealed memory file and
 * always started from that, so that a container which reaches the file behind /proc/<pid>/exe finds it unwritable (CVE-2019-5736).
 */

import { accessSync, constants, readFileSync, writeSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { errnoCode, errnoOf, errnoWords } from '../sys/errno.ts'
import { OwnedFd } from '../sys/fd.ts'
import { fcntl, memfdCreate } from '../sys/libc.ts'
import { F_ADD_SEALS } from '../sys/linux.ts'
import { helperPath } from '../sys/paths.ts'

/** What its memory file is called, and so what /proc/<pid>/exe of a process says that has not executed its program yet. */
export const HELPER_NAME = 'ts-init'
const MFD_ALLOW_SEALING = 2
const MFD_EXEC = 16
/** F_SEAL_SEAL, SHRINK, GROW and WRITE (fcntl(2)). */
const SEALS = 1 | 2 | 4 | 8
/** Nobody changes the executable bits (fcntl(2)). */
const F_SEAL_EXEC = 32

const sealed = new Map<string, OwnedFd>()

function createFile(): { file: OwnedFd; seals: number } {
  try {
    const file = new OwnedFd(memfdCreate(HELPER_NAME, MFD_ALLOW_SEALING | MFD_EXEC))
    return { file, seals: SEALS | F_SEAL_EXEC }
  } catch (error) {
    // fallback: kernels before 6.3 know neither MFD_EXEC nor F_SEAL_EXEC
    if (errnoOf(error) !== 22) throw error
    return { file: new OwnedFd(memfdCreate(HELPER_NAME, MFD_ALLOW_SEALING)), seals: SEALS }
  }
}

/** Path of the sealed helper for posix_spawn; the memory file lives as long as this process. @throws NotFound when it is not there, PermissionDenied when it is no program */
export function sealedHelper(path = helperPath()): string {
  let file = sealed.get(path)
  if (file === undefined) {
    file = seal(readHelper(path))
    sealed.set(path, file)
  }
  return `/proc/self/fd/${file.fd}`
}

function readHelper(path: string): Buffer {
  try {
    // the memory file would be executable whatever this is
    accessSync(path, constants.X_OK)
    return readFileSync(path)
  } catch (error) {
    const errno = errnoOf(error)
    const message = `cannot use the init helper "${path}": ${errnoWords(errno)}; the installation is incomplete: scripts/install makes it anew`
    throw new RuntimeError(errnoCode(errno), message, { cause: error })
  }
}

function seal(program: Buffer): OwnedFd {
  const { file, seals } = createFile()
  for (let done = 0; done < program.length; ) done += writeSync(file.fd, program, done)
  fcntl(file.fd, F_ADD_SEALS, seals)
  return file
}
