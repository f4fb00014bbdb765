/**
 * One run of CRIU as a worker for this process (`criu swrk`), and the conversation with it: a packet for each request,
 * each notification and each answer. CRIU waits at a notification until it is answered. Invariant: when end() has
 * resolved, CRIU has been reaped. A CRIU that ends early is noticed, even if processes that it made hold its socket.
 */
import { existsSync, writeSync } from 'node:fs'
import {
  type CriuNotification,
  CriuRequest,
  CriuRequestType,
  CriuResponse,
  type CriuResponse as Response,
} from 'ttrpc-ts/criu'
import { RuntimeError } from '../../errors.ts'
import { hostFacts } from '../../host/facts.ts'
import { findCriu } from '../../sys/criu-path.ts'
import { inheritedEnvironment } from '../../sys/environment.ts'
import { type OwnedFd, openNull } from '../../sys/fd.ts'
import { SIGKILL, SOCK_SEQPACKET } from '../../sys/linux.ts'
import { openChild, pollReadable } from '../../sys/pids.ts'
import type { Child, ProcessMaker } from '../../sys/reaper.ts'
import { receivePacket, socketPair } from '../../sys/socket.ts'
import { exitText } from '../../sys/words.ts'

/** CRIU's descriptor of its socket. */
const SOCKET_FD = 3
/** CRIU's first descriptor of a file that the caller gives it. */
const FIRST_FD = 4
/** Room for a response: a few numbers and words. */
const PACKET_BYTES = 65536

/** The path of CRIU. @throws PermissionDenied unless root of the machine; FailedPrecondition with what to install */
export function requireCriu(): string {
  if (hostFacts().rootless) throw new RuntimeError('PermissionDenied', 'criu needs root of the machine for that')
  const path = findCriu()
  if (path !== undefined) return path
  const message = 'cannot find the program "criu" on the PATH: install CRIU 3.11 or newer (package criu)'
  throw new RuntimeError('FailedPrecondition', message)
}

/** What a request says. */
export type CriuAsk = Parameters<typeof CriuRequest.encode>[0]

/** A step at which CRIU waits, and the descriptor that came with it. */
export interface Notified {
  readonly script: string
  readonly pid: number
  readonly fd: OwnedFd | undefined
}

/** Descriptors for CRIU, all borrowed. */
export interface CriuStreams {
  /** its own standard streams, which a restored process can take over; left out: the null device */
  readonly stdio?: readonly [number, number, number]
  /** further files, which CRIU has from fdOf(0) on */
  readonly files?: readonly number[]
}

/** CRIU's number of one of the further files. */
export function fdOf(index: number): number {
  return FIRST_FD + index
}

/** A running CRIU. */
export class Criu {
  readonly #child: Child
  readonly #socket: OwnedFd
  readonly #pidfd: OwnedFd | undefined

  private constructor(child: Child, socket: OwnedFd) {
    this.#child = child
    this.#socket = socket
    this.#pidfd = openChild(child.pid)
  }

  /** Starts CRIU. @throws FailedPrecondition on a host without it; what posix_spawn(3) met */
  static start(reaper: ProcessMaker, { stdio, files = [] }: CriuStreams = {}): Criu {
    const path = requireCriu()
    const { ours, theirs } = socketPair(SOCK_SEQPACKET)
    try {
      using nowhere = openNull()
      const streams = stdio ?? [nowhere.fd, nowhere.fd, nowhere.fd]
      const fds = [...streams, theirs.fd, ...files].map((from, to) => ({ from, to }))
      const argv = ['criu', 'swrk', String(SOCKET_FD)]
      const child = reaper.spawn({ path, argv, env: inheritedEnvironment(), fds, external: { cwd: '/' } })
      return new Criu(child, ours)
    } catch (error) {
      ours.close()
      throw error
    } finally {
      theirs.close()
    }
  }

  get pid(): number {
    return this.#child.pid
  }

  /**
   * Sends a request, has its notifications handled in their order, and resolves with the response. When a handler
   * fails, CRIU is told so, and undoes what it has done.
   * @throws Internal when CRIU ends before its response; what a handler threw
   */
  async ask(request: CriuAsk, onNotify: (at: Notified) => Promise<void> | void = () => {}): Promise<Response> {
    this.#send(request)
    let failure: { readonly error: unknown } | undefined
    for (;;) {
      const { response, fd } = await this.#receive()
      const { type, notify } = response
      if (type !== CriuRequestType.NOTIFY) {
        fd?.close()
        if (failure !== undefined) throw failure.error
        return response
      }
      try {
        if (failure === undefined) await onNotify(notified(notify, fd))
        else fd?.close()
      } catch (error) {
        failure = { error }
      }
      this.#send({ type: CriuRequestType.NOTIFY, notifySuccess: failure === undefined })
    }
  }

  /** Ends the conversation and waits for the end of CRIU; a success unless it says otherwise. */
  async end(): Promise<string | undefined> {
    this.#socket.close()
    const exit = await this.#child.exited
    this.#pidfd?.close()
    return exit.status === 0 ? undefined : exitText(exit)
  }

  /** Kills CRIU and waits for its end. What it has made so far stays. */
  async abort(): Promise<void> {
    this.#child.kill(SIGKILL)
    await this.end()
  }

  #send(request: CriuAsk): void {
    try {
      writeSync(this.#socket.fd, CriuRequest.encode(request))
    } catch {
      // EPIPE: it has ended, and the next receive reports how
    }
  }

  async #receive(): Promise<{ readonly response: Response; readonly fd: OwnedFd | undefined }> {
    const fds = this.#pidfd === undefined ? [this.#socket.fd] : [this.#socket.fd, this.#pidfd.fd]
    for (;;) {
      const ended = this.#child.exit !== undefined || !(await pollReadable(fds, -1)).includes(0)
      const packet = receivePacket(this.#socket.fd, { room: PACKET_BYTES, mostFds: 1, wait: false })
      if (packet !== undefined && packet !== 'end') {
        return { response: CriuResponse.decode(packet.data), fd: packet.fds[0] }
      }
      if (packet === undefined && !ended) continue
      const exit = await this.#child.exited
      throw new RuntimeError('Internal', `criu ended before it answered: ${exitText(exit)}`)
    }
  }
}

function notified(notify: CriuNotification | undefined, fd: OwnedFd | undefined): Notified {
  return { script: notify?.script ?? '', pid: notify?.pid ?? 0, fd }
}

/** The versions since which CRIU has what only some requests need, as major * 10000 + minor * 100 + patch. */
const SINCE = {
  anything: 30_000,
  'a network namespace of another owner': 31_100,
  'a freezer of cgroup v2': 31_400,
  'a pid namespace of another owner': 31_500,
  'a label of a security module': 31_600,
} as const

/** Something that not every CRIU can do. */
export type CriuAbility = keyof typeof SINCE

/** Asks for the version, and refuses one that lacks something that is needed. @throws FailedPrecondition */
export async function requireVersion(criu: Criu, needed: readonly CriuAbility[]): Promise<void> {
  const { version } = await criu.ask({ type: CriuRequestType.VERSION, keepOpen: true })
  const { majorNumber = 0, minorNumber = 0, sublevel = 0 } = version ?? {}
  const number = majorNumber * 10_000 + minorNumber * 100 + sublevel
  for (const what of ['anything', ...needed] as const) {
    if (number >= SINCE[what]) continue
    const since = `${Math.floor(SINCE[what] / 10_000)}.${Math.floor(SINCE[what] / 100) % 100}`
    const found = `the installed criu is version ${majorNumber}.${minorNumber}`
    const reason = what === 'anything' ? '' : ` for ${what}`
    throw new RuntimeError('FailedPrecondition', `${found}, and ${since} or newer is needed${reason}`)
  }
}

/** CRIU's configuration for containers that runc's users know; undefined where there is none. */
export function configFile(annotations: Readonly<Record<string, string>>): string | undefined {
  const named = annotations['org.criu.config']
  if (named) return named
  return existsSync(DEFAULT_CONFIG) ? DEFAULT_CONFIG : undefined
}

const DEFAULT_CONFIG = '/etc/criu/runc.conf'
