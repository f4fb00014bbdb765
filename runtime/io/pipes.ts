/**
 * Pipes as the standard streams of a container process, for a caller that wants to write and read them. Invariant: the process's ends
 * belong to the user who runs in it, on the host, so that it can open /dev/stdin, /dev/stdout and /dev/stderr again, also in a user
 * namespace; our ends are CLOEXEC and belong to the caller.
 */
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { hostGid, hostUid } from '../host/ids.ts'
import type { Stdio } from '../init/spawn.ts'
import type { Spec, User } from '../spec/types.ts'
import { chownFd, type OwnedFd, pipePair } from '../sys/fd.ts'

/** Three pipes: what to start the process with, and the other ends. */
export interface ProcessPipes extends Disposable {
  /** for create or exec */
  readonly stdio: Stdio
  readonly stdin: Writable
  readonly stdout: Readable
  readonly stderr: Readable
  /** Closes the process's ends here: to be called once it has them, or no stream of it ever ends. Idempotent. */
  started(): void
}

/** Makes the pipes of a process that runs as `user` (left out: as config.json says) in a container of this spec. */
export function processPipes(spec: Spec, { uid, gid }: Pick<User, 'uid' | 'gid'> = spec.process.user): ProcessPipes {
  const owned: OwnedFd[] = []
  try {
    const [input, output, errors] = [0, 1, 2].map(() => {
      const pipe = pipePair()
      owned.push(pipe.read, pipe.write)
      return pipe
    })
    if (input === undefined || output === undefined || errors === undefined) throw new Error('three pipes were made')
    const theirs = [input.read, output.write, errors.write]
    for (const { fd } of theirs) chownFd(fd, hostUid(spec, uid), hostGid(spec, gid))
    const stdio = { kind: 'fds', stdin: input.read.fd, stdout: output.write.fd, stderr: errors.write.fd } as const
    const stdin = new Socket({ fd: input.write.take(), readable: false, writable: true })
    const stdout = new Socket({ fd: output.read.take(), readable: true, writable: false })
    const stderr = new Socket({ fd: errors.read.take(), readable: true, writable: false })
    const started = (): void => {
      for (const end of theirs) end.close()
    }
    return {
      stdio,
      stdin,
      stdout,
      stderr,
      started,
      [Symbol.dispose]() {
        started()
        for (const stream of [stdin, stdout, stderr]) stream.destroy()
      },
    }
  } catch (error) {
    for (const fd of owned) fd.close()
    throw error
  }
}
