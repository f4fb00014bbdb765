/**
 * Takes fds out of a new process, and passes fds to programs that listen on unix sockets. Such an fd is a pidfd of the
 * process, its terminal's master, or the listener of its seccomp filter. Each connection is made before the process, so
 * that a missing listener is an error before there is a process to undo. It is closed after its one message.
 */
import { Socket } from 'node:net'
import { resolve } from 'node:path'
import { messageOf, RuntimeError } from '../errors.ts'
import type { Stdio } from '../init/spawn.ts'
import type { LinuxSeccomp, Spec } from '../spec/types.ts'
import { type OciStatus, ociState } from '../state/oci-state.ts'
import type { OwnedFd } from '../sys/fd.ts'
import { SECCOMP_FILTER_FLAG_NEW_LISTENER } from '../sys/linux.ts'
import { copyFdOf, openChild } from '../sys/pids.ts'
import { connectUnix, sendFd } from '../sys/socket.ts'

/** Connects to the socket that will receive a pidfd. @throws InvalidArgument with the path */
function connectPidfdSocket(path: string): OwnedFd {
  return connectTo(path, `cannot use the pidfd socket "${path}"`)
}

/**
 * Connects to the socket that will receive a terminal's master, if the caller named one.
 * @throws InvalidArgument without a terminal; what connecting met
 */
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
 * Connects to the agent of a seccomp filter with a listener; undefined for a filter without one. A relative path counts
 * from the bundle, as its author means it. @throws InvalidArgument when no program listens
 */
function connectAgent(
  profile: LinuxSeccomp | undefined,
  flags: number | undefined,
  bundle: string,
): OwnedFd | undefined {
  if (profile === undefined || ((flags ?? 0) & SECCOMP_FILTER_FLAG_NEW_LISTENER) === 0) return undefined
  const path = resolve(bundle, profile.listenerPath ?? '')
  return connectTo(path, `failed to connect with seccomp agent "${path}"`)
}

/** Connected sockets that are to receive fds of a new process. Disposing closes those that were not handed on. */
export interface Peers extends Disposable {
  /** agent of the seccomp filter's listener */
  readonly agent: OwnedFd | undefined
  /** receives the terminal's master */
  readonly consoleSocket: OwnedFd | undefined
  /** receives a pidfd of the process */
  readonly pidfdSocket: OwnedFd | undefined
}

/** Connects to the peers of a new process; when one cannot be reached, none stays connected. @throws InvalidArgument */
export function connectPeers(
  options: { readonly stdio: Stdio; readonly consoleSocket?: string; readonly pidfdSocket?: string | undefined },
  filter: { readonly profile: LinuxSeccomp | undefined; readonly flags: number | undefined; readonly bundle: string },
): Peers {
  using sockets = new DisposableStack()
  const { pidfdSocket: path } = options
  const agent = sockets.use(connectAgent(filter.profile, filter.flags, filter.bundle))
  const consoleSocket = sockets.use(connectConsole(options))
  const pidfdSocket = path === undefined ? undefined : sockets.use(connectPidfdSocket(path))
  const owned = sockets.move()
  return { agent, consoleSocket, pidfdSocket, [Symbol.dispose]: () => owned.dispose() }
}

function connectTo(path: string, what: string): OwnedFd {
  try {
    return connectUnix(path)
  } catch (error) {
    const reason = messageOf(error)
    throw new RuntimeError('InvalidArgument', `${what}: ${reason}`, { cause: error })
  }
}

/**
 * Sends a pidfd of a child that is not reaped yet, and closes the socket. `word` is the text of the message: "standard"
 * for init, "setns" for an exec. @throws FailedPrecondition when the child has ended
 */
export function sendPidfd(socket: OwnedFd, pid: number, word: 'standard' | 'setns'): void {
  using pidfd = openChild(pid)
  if (pidfd === undefined) throw new RuntimeError('FailedPrecondition', `process ${pid} has already ended`)
  sendFd(socket.fd, Buffer.from(word), pidfd.fd)
  socket.close()
}

/** Copies an fd of a child that is not reaped yet; the child keeps its own. @throws FailedPrecondition when it ended */
export function takeFd(pid: number, fd: number): OwnedFd {
  using pidfd = openChild(pid)
  if (pidfd === undefined) throw new RuntimeError('FailedPrecondition', `process ${pid} has already ended`)
  return copyFdOf(pidfd.fd, fd)
}

/** The facts for the agent's message (ContainerProcessState of the OCI runtime spec). */
export interface ListenerFacts {
  readonly id: string
  readonly bundle: string
  readonly spec: Spec
  /** host pid of the process that loaded the filter */
  readonly pid: number
  /** number of the listener in that process */
  readonly fd: number
  /** host pid of the container's init */
  readonly init: number
  readonly status: OciStatus
}

/**
 * Takes the listener out of the process and sends it to the agent; resolves when all was sent. Takes ownership of the
 * socket. @throws what sending met; aborting the signal ends the wait for a slow agent
 */
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
  // a document with many annotations can be longer than the socket's buffer
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
