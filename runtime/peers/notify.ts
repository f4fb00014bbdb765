/**
 * Readiness for a service manager (sd_notify(3)). The manager's socket is on the host, so the container gets a socket
 * of its own below /run/notify. The command that starts the container passes the program's READY=1 on to the manager,
 * with the pid that the manager shall watch. No other message of the program gets through. The folder is bind-mounted
 * at create; the socket in it is made at start.
 */
import { chmodSync, existsSync, mkdirSync, writeSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { messageOf, RuntimeError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { Spec } from '../spec/types.ts'
import { stateDir } from '../state/store.ts'
import { bindDatagram, connectDatagram, receiveDatagram } from '../sys/datagram.ts'
import { type OwnedFd, pipePair } from '../sys/fd.ts'
import { openProcess, pollReadable } from '../sys/pids.ts'
import { removeFile } from '../sys/remove.ts'
import { sendFd } from '../sys/socket.ts'

const FOLDER = '/run/notify'
const SOCKET = 'notify.sock'
/** systemd's own bound for a message */
const MAX_BYTES = 4096
/** How long a service manager may take to read the message (sd_notify_barrier(3)). */
const BARRIER_MS = 30_000

/** A process. Its pid alone could have been reused. */
interface ProcessIdentity {
  readonly pid: number
  readonly startTime: bigint
}

function hostFolder(root: string, id: string): string {
  return resolve(stateDir(root, id), 'notify')
}

/** Makes the folder of a container's notify socket. */
export function makeNotifyFolder(root: string, id: string): void {
  const source = hostFolder(root, id)
  mkdirSync(source)
  // the umask may have masked the rights that the container's user needs to reach the socket
  chmodSync(source, 0o755)
}

/** Adds the mount of that folder, and NOTIFY_SOCKET, to a spec. */
export function withNotifySocket(spec: Spec, root: string, id: string): Spec {
  const options = ['bind', 'nosuid', 'noexec', 'nodev', 'ro']
  const source = hostFolder(root, id)
  const mount = { destination: FOLDER, type: 'bind', source, options, uidMappings: [], gidMappings: [] }
  const env = [...spec.process.env, `NOTIFY_SOCKET=${join(FOLDER, SOCKET)}`]
  return { ...spec, mounts: [...spec.mounts, mount], process: { ...spec.process, env } }
}

/** What a relay waits for and tells. */
export interface RelayOptions {
  /** the process of the program */
  readonly init: ProcessIdentity
  /** the pid that the manager is to watch */
  readonly mainPid: number
  readonly logger: Logger
}

/** The host's end of a container's notify socket, which it owns. */
export class NotifySocket implements Disposable {
  readonly #fd: OwnedFd

  private constructor(fd: OwnedFd) {
    this.#fd = fd
  }

  /** Starts to listen; undefined when the container was created without this folder. @throws what the kernel says */
  static open(root: string, id: string): NotifySocket | undefined {
    const folder = hostFolder(root, id)
    if (!existsSync(folder)) return undefined
    const path = join(folder, SOCKET)
    // an earlier start that failed may have left one
    removeFile(path)
    const socket = new NotifySocket(bindDatagram(path))
    chmodSync(path, 0o777)
    return socket
  }

  /**
   * Waits until the program is ready or has ended. If it is ready, sends READY=1 to the manager that listens on
   * `address`.
   * @throws Unavailable when the manager cannot be reached; DeadlineExceeded when it does not read the message
   */
  async relay(address: string, { init, mainPid, logger }: RelayOptions): Promise<void> {
    using pidfd = openProcess(init.pid, init.startTime)
    if (pidfd === undefined) return
    for (;;) {
      const readable = await pollReadable([this.#fd.fd, pidfd.fd], -1)
      const message = receiveDatagram(this.#fd.fd, MAX_BYTES)
      const ready = message
        ?.toString()
        .split('\n')
        .find((line) => line.startsWith('READY='))
      if (ready !== undefined) return await tell(address, ready, mainPid)
      if (message === undefined && readable.includes(1)) return
      if (message !== undefined) logger.debug({ bytes: message.length }, 'left out a notification that is not READY')
    }
  }

  [Symbol.dispose](): void {
    this.#fd.close()
  }
}

async function tell(address: string, ready: string, mainPid: number): Promise<void> {
  try {
    using manager = connectDatagram(address)
    writeSync(manager.fd, `${ready}\nMAINPID=${mainPid}\n`)
    // the manager looks the sender up when it reads, and this process may end next: wait for the read
    const { read, write } = pipePair()
    using seen = read
    {
      using token = write
      sendFd(manager.fd, Buffer.from('BARRIER=1'), token.fd)
    }
    if ((await pollReadable([seen.fd], BARRIER_MS)).length > 0) return
  } catch (error) {
    const reason = messageOf(error)
    throw new RuntimeError('Unavailable', `cannot notify the service manager: ${reason}`, { cause: error })
  }
  throw new RuntimeError('DeadlineExceeded', `the service manager at "${address}" does not read its notifications`)
}
