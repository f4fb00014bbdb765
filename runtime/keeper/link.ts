/**
 * The worker's end of the connection to its keeper. Notices come in their order, whether the event loop delivers them
 * or a caller waits for one of them. Invariant: every descriptor that comes with a notice has an owner at once.
 */
import { KEEPER_LIMITS, WORKER_FDS } from '../../proto/keeper.ts'
import { RuntimeError } from '../errors.ts'
import { openEventCounter } from '../sys/eventfd.ts'
import type { OwnedFd } from '../sys/fd.ts'
import { receivePacket, sendPacket } from '../sys/socket.ts'
import { decodeNotice, encodeRequest, type Notice, type RequestFields, type RequestName } from './messages.ts'

/** A notice, and the descriptor that came with it. */
export type Delivery = Notice & { readonly fd?: OwnedFd }

/** The connection of a worker. */
export class KeeperLink {
  readonly #socket: number
  /** received while a caller waited for another notice */
  readonly #waiting: Delivery[] = []
  #handler: ((delivery: Delivery) => void) | undefined

  /** Uses the descriptors with which a worker is started. */
  constructor(socket: number = WORKER_FDS.KEEPER) {
    this.#socket = socket
  }

  /** Sends a request with borrowed descriptors. What was sent is carried out, even when this process ends now. */
  send<Name extends RequestName>(name: Name, fields: RequestFields<Name>, fds: readonly number[] = []): void {
    sendPacket(this.#socket, encodeRequest(name, fields), fds)
  }

  /** Waits for the first notice that `matches`, without the event loop; those before it are delivered later. */
  waitFor(matches: (delivery: Delivery) => boolean): Delivery {
    for (;;) {
      const delivery = this.#receive(true)
      if (delivery === undefined) throw new RuntimeError('Unavailable', 'the keeper has ended')
      if (matches(delivery)) {
        if (this.#waiting.length > 0) setImmediate(() => this.#deliver())
        return delivery
      }
      this.#waiting.push(delivery)
    }
  }

  /** Delivers all notices from now on, first those that came before. The keeper's end ends this process. */
  listen(handler: (delivery: Delivery) => void): void {
    this.#handler = handler
    openEventCounter(() => this.#deliver(), { event: WORKER_FDS.BELL, keepsAlive: true })
    setImmediate(() => this.#deliver())
  }

  #deliver(): void {
    while (this.#handler !== undefined) {
      const delivery = this.#waiting.shift() ?? this.#receive(false)
      if (delivery === undefined) return
      this.#handler(delivery)
    }
  }

  #receive(wait: boolean): Delivery | undefined {
    const packet = receivePacket(this.#socket, { room: KEEPER_LIMITS.MESSAGE_MAX_BYTES, mostFds: 1, wait })
    if (packet === undefined || packet === 'end') return undefined
    const [fd] = packet.fds
    try {
      return { ...decodeNotice(packet.data), ...(fd === undefined ? {} : { fd }) }
    } catch (error) {
      fd?.close()
      throw error
    }
  }
}
