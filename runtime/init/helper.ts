/**
 * The init helper as an executable that no container can alter. The runtime copies ts-init once per process into a
 * sealed memory file and always starts that. A container that reaches the file behind /proc/<pid>/exe cannot write it
 * (CVE-2019-5736).
 */
import { accessSync, constants, readFileSync, writeSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { errnoCode, errnoOf, errnoWords } from '../sys/errno.ts'
import { OwnedFd } from '../sys/fd.ts'
import { fcntl, memfdCreate } from '../sys/libc.ts'
import { EINVAL, F_ADD_SEALS } from '../sys/linux.ts'
import { helperPath } from '../sys/paths.ts'

/** Name of the memory file. /proc/<pid>/exe shows it for a process that has not executed its program yet. */
export const HELPER_NAME = 'ts-init'
const MFD_ALLOW_SEALING = 2
const MFD_EXEC = 16
/** F_SEAL_SEAL, SHRINK, GROW and WRITE (fcntl(2)). */
const SEALS = 1 | 2 | 4 | 8
/** No process can change the executable bits (fcntl(2)). */
const F_SEAL_EXEC = 32

const sealed = new Map<string, OwnedFd>()

function createFile(): { file: OwnedFd; seals: number } {
  try {
    const file = new OwnedFd(memfdCreate(HELPER_NAME, MFD_ALLOW_SEALING | MFD_EXEC))
    return { file, seals: SEALS | F_SEAL_EXEC }
  } catch (error) {
    // fallback: kernels before 6.3 know neither MFD_EXEC nor F_SEAL_EXEC
    if (errnoOf(error) !== EINVAL) throw error
    return { file: new OwnedFd(memfdCreate(HELPER_NAME, MFD_ALLOW_SEALING)), seals: SEALS }
  }
}

/**
 * Path of the sealed helper for posix_spawn(3). The memory file is kept as long as this process lives.
 * @throws NotFound when the helper does not exist; PermissionDenied when it is not executable
 */
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
    // checked here, since the memory file is executable in any case
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
