/**
 * Taking fds out of a new process, and handing fds to somebody who listens on a unix socket: a pidfd of the process, the listener of its
 * seccomp filter. The connection is made before the process is, so that nobody listening is an error before there is anything to undo, and
 * is closed after its one message.
 */

import { Socket } from 'node:net'
import { resolve } from 'node:path'
import { RuntimeError } from '../errors.ts'
import type { Stdio } from '../init/spawn.ts'
import type { LinuxSeccomp, Spec } from '../spec/types.ts'
import { type OciStatus, ociState } from '../state/oci-state.ts'
import type { OwnedFd } from '../sys/fd.ts'
import { SECCOMP_FILTER_FLAG_NEW_LISTENER } from '../sys/linux.ts'
import { copyFdOf, openChild } from '../sys/pids.ts'
import { connectUnix, sendFd } from '../sys/socket.ts'

/** Connects to the socket that is to receive a pidfd. @throws InvalidArgument with the path */
export function connectPidfdSocket(path: string): OwnedFd {
  return connectTo(path, `cannot use the pidfd socket "${path}"`)
}

/** Connects to the socket that is to receive a terminal's master, if there is one. @throws InvalidArgument without a terminal, and what connecting met */
export function connectConsole(options: {
  readonly stdio: Stdio
  readonly consoleSocket?: string
}): OwnedFd | undefined {
  const { stdio, consoleSocket: path } = options
  if (path === undefined) return undefined
  if (stdio.kind === 'terminal') return connectUnix(path)
  throw new RuntimeError('InvalidArgument', `cannot use the console socket "${path}": the process has no terminal`)
}

/**
 * Connects to the agent of a filter that has a listener; undefined for one that has not. A relative path counts from the bundle,
 * where its author is. @throws InvalidArgument when nobody listens
 */
export function connectAgent(
  profile: LinuxSeccomp | undefined,
  flags: number | undefined,
  bundle: string,
): OwnedFd | undefined {
  if (profile === undefined || ((flags ?? 0) & SECCOMP_FILTER_FLAG_NEW_LISTENER) === 0) return undefined
  const path = resolve(bundle, profile.listenerPath ?? '')
  return connectTo(path, `failed to connect with seccomp agent "${path}"`)
}

function connectTo(path: string, what: string): OwnedFd {
  try {
    return connectUnix(path)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new RuntimeError('InvalidArgument', `${what}: ${reason}`, { cause: error })
  }
}

/** Sends a pidfd of a child that is not reaped yet; `word` is what the message says: "standard" for init, "setns" for an exec. */
export function sendPidfd(socket: OwnedFd, pid: number, word: 'standard' | 'setns'): void {
  using pidfd = openChild(pid)
  if (pidfd === undefined) throw new RuntimeError('FailedPrecondition', `process ${pid} has already ended`)
  sendFd(socket.fd, Buffer.from(word), pidfd.fd)
  socket.close()
}

/** A copy of an fd of a child that is not reaped yet; its own stays open. */
export function takeFd(pid: number, fd: number): OwnedFd {
  using pidfd = openChild(pid)
  if (pidfd === undefined) throw new RuntimeError('FailedPrecondition', `process ${pid} has already ended`)
  return copyFdOf(pidfd.fd, fd)
}

/** What the agent is told about the process (ContainerProcessState of the specification). */
export interface ListenerFacts {
  readonly id: string
  readonly bundle: string
  readonly spec: Spec
  /** the process that loaded the filter, on the host */
  readonly pid: number
  /** number of the listener in that process */
  readonly fd: number
  /** the container's init */
  readonly init: number
  readonly status: OciStatus
}

/** Takes the listener out of the process and sends it to the agent; resolves when all was sent. Takes over the socket. */
export async function sendListener(
  socket: OwnedFd | undefined,
  { id, bundle, spec, pid, fd, init, status }: ListenerFacts,
  signal: AbortSignal,
): Promise<void> {
  if (socket === undefined) throw new Error('a filter without an agent has a listener')
  const metadata = spec.linux.seccomp?.listenerMetadata
  const document = {
    ociVersion: spec.ociVersion,
    fds: ['seccompFd'],
    pid,
    ...(metadata === undefined ? {} : { metadata }),
    state: ociState({ id, bundle, spec, pid: init }, status),
  }
  const bytes = Buffer.from(JSON.stringify(document))
  let sent: number
  {
    using listener = takeFd(pid, fd)
    sent = sendFd(socket.fd, bytes, listener.fd)
  }
  if (sent === bytes.length) {
    socket.close()
    return
  }
  // a state with annotations can be longer than what the socket takes at once
  const rest = new Socket({ fd: socket.take() })
  const giveUp = (): void => void rest.destroy(new Error('the seccomp agent did not read its message'))
  signal.addEventListener('abort', giveUp, { once: true })
  try {
    await new Promise<void>((resolve, reject) => {
      rest.on('error', reject)
      rest.end(bytes.subarray(sent), () => resolve())
    })
  } finally {
    signal.removeEventListener('abort', giveUp)
    rest.destroy()
  }
}
