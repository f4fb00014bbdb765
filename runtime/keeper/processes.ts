/**
 * Starting processes through the keeper, which is their parent and outlives this process. Invariants: a process has a
 * tag that no other one of this container has had, so that a later worker knows it again. An exit stays with the keeper
 * until it is acknowledged here, which its owner asks for once the consequences are saved.
 *
 * The keeper reaps at any moment, so a pid may belong to another process before its exit has been told here. Signals
 * therefore go to a pid whose start time is still the same.
 */
import { writeSync } from 'node:fs'
import { KEEPER_LIMITS, REQUESTS, SPAWN_FLAGS } from '../../proto/keeper.ts'
import { RuntimeError } from '../errors.ts'
import { syscallError } from '../sys/errno.ts'
import { OwnedFd } from '../sys/fd.ts'
import { kill, memfdCreate } from '../sys/libc.ts'
import { processStat, signalProcess } from '../sys/pids.ts'
import { Child, type Exit, type ProcessMaker } from '../sys/reaper.ts'
import type { SpawnOptions } from '../sys/spawn.ts'
import type { Delivery, KeeperLink } from './link.ts'

/** A process of an earlier worker that lives, or an exit, as the keeper tells it. */
export type ProcessNotice = Extract<Delivery, { notice: 'process' }>

/** How a KeeperProcesses works. */
export interface KeeperProcessesOptions {
  /** the first tag that no worker has used */
  readonly nextTag?: bigint
  /** called with every exit, after its child has been settled */
  readonly onExit: (exit: ProcessNotice) => void
}

const OWN_DESCRIPTOR = /^\/proc\/self\/fd\/(\d+)$/

/** The ProcessMaker of a keeper's worker. */
export class KeeperProcesses implements ProcessMaker {
  readonly #link: KeeperLink
  readonly #onExit: (exit: ProcessNotice) => void
  readonly #children = new Map<number, Child>()
  /** exits that came before a helper has reported the pid */
  readonly #early = new Map<number, Exit>()
  #nextTag: bigint
  #expecting = 0

  constructor(link: KeeperLink, { nextTag = 1n, onExit }: KeeperProcessesOptions) {
    this.#link = link
    this.#nextTag = nextTag
    this.#onExit = onExit
  }

  /** The tag that the next process will get. */
  get nextTag(): bigint {
    return this.#nextTag
  }

  spawn({ path, argv, env, fds, external }: SpawnOptions): Child {
    const own = OWN_DESCRIPTOR.exec(path)?.[1]
    const streams = [...fds].sort((a, b) => a.to - b.to)
    if (streams.some(({ to }, i) => to !== i)) throw new Error('the descriptors of a process are not 0, 1, …')
    const texts = [own === undefined ? path : '', external?.cwd ?? '', ...argv, ...env]
    const bytes = Buffer.from(texts.map((text) => `${text}\0`).join(''))
    if (bytes.length > KEEPER_LIMITS.TEXT_MAX_BYTES || streams.length > KEEPER_LIMITS.STREAMS_MAX) {
      throw new RuntimeError('InvalidArgument', `cannot start "${path}": its arguments and environment are too large`)
    }
    using file = new OwnedFd(memfdCreate('texts'))
    for (let done = 0; done < bytes.length; ) done += writeSync(file.fd, bytes, done, bytes.length - done, done)
    const tag = this.#nextTag++
    const flags =
      (own === undefined ? 0 : SPAWN_FLAGS.PROGRAM_FD) | (external === undefined ? 0 : SPAWN_FLAGS.OWN_GROUP)
    const program = own === undefined ? [] : [Number(own)]
    const request = { flags, tag, argc: argv.length, envc: env.length, textBytes: bytes.length }
    this.#link.send('spawn', request, [file.fd, ...program, ...streams.map(({ from }) => from)])
    const answer = this.#link.waitFor(
      (delivery) => delivery.notice === 'answer' && delivery.request === REQUESTS.spawn.code && delivery.tag === tag,
    )
    if (answer.notice !== 'answer' || answer.error !== 0) {
      const error = answer.notice === 'answer' ? answer.error : 0
      throw syscallError(`cannot start "${path}"`, { call: 'execve', errno: error, path })
    }
    return this.#add(answer.pid)
  }

  expect(): void {
    this.#expecting++
  }

  adopt(pid: number): Child {
    const child = this.#add(pid)
    const early = this.#early.get(pid)
    if (early !== undefined) this.#settle(child, early)
    this.forget()
    return child
  }

  forget(): void {
    if (--this.#expecting === 0) this.#early.clear()
  }

  /** A process that an earlier worker has made, and whose exit has not been told. */
  resume(pid: number): Child {
    return this.#add(pid)
  }

  /** Takes a notice of the keeper about a process. */
  take(told: ProcessNotice): void {
    if (told.ended === 0) return
    const child = this.#children.get(told.pid)
    const exit = exitOf(told)
    if (child !== undefined) this.#settle(child, exit)
    else if (this.#expecting > 0) this.#early.set(told.pid, exit)
    this.#onExit(told)
  }

  /** The consequences of an exit are saved: no later worker needs to hear of it. */
  acknowledge({ number }: ProcessNotice): void {
    this.#link.send('acknowledge', { number })
  }

  #add(pid: number): Child {
    const startTime = processStat(pid)?.startTime
    const child = new Child(pid, (target, signal) => {
      if (startTime === undefined) return false
      if (target > 0) return signalProcess(target, startTime, signal)
      return processStat(-target)?.startTime === startTime && kill(target, signal)
    })
    this.#children.set(pid, child)
    return child
  }

  #settle(child: Child, exit: Exit): void {
    this.#children.delete(child.pid)
    child.settle(exit)
  }
}

function exitOf({ status, time }: ProcessNotice): Exit {
  const at = { seconds: time / 1_000_000_000n, nanos: Number(time % 1_000_000_000n) }
  const signal = status & 0x7f
  return signal === 0 ? { status: (status >> 8) & 0xff, at } : { status: 128 + signal, signal, at }
}
