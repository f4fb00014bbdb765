/**
 * Pipes as the standard streams of a container process, for a caller that writes and reads them. Invariant: on the host
 * the process's ends belong to the user of the process, so that it can open /dev/stdin, /dev/stdout and /dev/stderr
 * again, even in a user namespace. The other ends are CLOEXEC and belong to the caller.
 */
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { hostGid, hostUid } from '../host/ids.ts'
import type { Stdio } from '../init/spawn.ts'
import type { Spec, User } from '../spec/types.ts'
import { chownFd, type OwnedFd, pipePair } from '../sys/fd.ts'

/** Three pipes: the streams to start the process with, and the caller's ends. */
export interface ProcessPipes extends Disposable {
  /** to be passed to create or exec */
  readonly stdio: Stdio
  readonly stdin: Writable
  readonly stdout: Readable
  readonly stderr: Readable
  /**
   * Closes the process's ends in this process; to be called once the container process has them, or its streams never
   * end. Idempotent.
   */
  started(): void
}

/** Makes the pipes for a process in a container of this spec; `user` is by default that of config.json. */
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
