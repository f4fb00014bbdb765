/**
 * The records of ts-init: over the status socket until a container is created, over its exec fifo after the start.
 * Invariant: a failure has the same message whichever way it came.
 */

import { FAILURES, LIMITS, type Op, RECORDS } from '../../proto/init-plan.ts'
import { RuntimeError } from '../errors.ts'
import { MOUNT_ATTR } from '../spec/mount-options.ts'
import { errnoCode, errnoWords } from '../sys/errno.ts'
import { SCHED_DEADLINE } from '../sys/linux.ts'

const HEADER_BYTES = 8
const NO_OP = 0xffffffff
const TAKEN = '0'.charCodeAt(0)

/** The operation of a complete sentence, for a reader that does not have the plan. */
const COMPLETE: ReadonlyMap<number, string> = new Map([
  [FAILURES.PROGRAM, 'exec'],
  [FAILURES.HOOK, 'hook'],
])

/** The message for a process that ended without a record of its failure. */
export const ENDED_EARLY = 'container process ended before it executed its program'

/** Splits a stream of bytes into records. */
export class Records {
  #pending: Buffer = Buffer.alloc(0)

  /** Takes bytes and passes on the records that are complete. @throws Internal for a record that is too large */
  receive(chunk: Buffer, onRecord: (type: number, payload: Buffer) => void): void {
    let data = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk])
    while (data.length >= HEADER_BYTES) {
      const size = data.readUInt32LE(4)
      if (size > LIMITS.RECORD_MAX_BYTES)
        throw new RuntimeError('Internal', `init helper sent a record of ${size} bytes`)
      if (data.length < HEADER_BYTES + size) break
      onRecord(data.readUInt32LE(0), data.subarray(HEADER_BYTES, HEADER_BYTES + size))
      data = data.subarray(HEADER_BYTES + size)
    }
    // the caller may reuse its buffer
    this.#pending = Buffer.from(data)
  }
}

/** The error for a record type that the schema does not have. */
export function unknownRecord(type: number): RuntimeError {
  return new RuntimeError('Internal', `init helper sent a record of unknown type ${type}`)
}

/** Reads what an exec fifo holds: the filler, the byte by which init takes the start, and its records. */
export class StartRecords {
  readonly #records = new Records()
  #reached: 'nothing' | 'taken' | 'executing' = 'nothing'
  #failure: RuntimeError | undefined

  /** Whether init has taken the start. */
  get taken(): boolean {
    return this.#reached !== 'nothing'
  }

  /** Takes bytes of the fifo; the chunk is borrowed for the call. @throws Internal for what init does not write */
  receive(chunk: Buffer): void {
    let rest = chunk
    if (this.#reached === 'nothing') {
      const at = chunk.findIndex((byte) => byte !== 0)
      if (at < 0) return
      this.#reached = 'taken'
      // without the byte, it was read by an earlier start, which was killed before init's next record
      rest = chunk.subarray(chunk[at] === TAKEN ? at + 1 : at)
    }
    this.#records.receive(rest, (type, payload) => {
      if (type === RECORDS.executing.type) this.#reached = 'executing'
      else if (type === RECORDS.failed.type) this.#failure ??= helperFailure(payload)
      else if (type !== RECORDS.log.type) throw unknownRecord(type)
    })
  }

  /** At the end of the file: whether init has executed the program. */
  get executing(): boolean {
    return this.#reached === 'executing' && this.#failure === undefined
  }

  /** The failure that init has reported, if any. */
  get failure(): RuntimeError | undefined {
    return this.#failure
  }
}

/** The error of a `failed` record; without `ops`, the plan's operations, it lacks their names and origins. */
export function helperFailure(payload: Buffer, ops?: readonly Op[]): RuntimeError {
  const opIndex = payload.readUInt32LE(0)
  const errno = payload.readInt32LE(4)
  const kind = payload.readUInt32LE(8)
  const step = payload.toString('utf8', 12)
  const op = opIndex === NO_OP ? undefined : ops?.[opIndex]
  const name = op?.op ?? COMPLETE.get(kind) ?? 'none'
  const pointer = op?.origin
  const detail = {
    source: 'helper' as const,
    op: name,
    opIndex,
    errno: Math.abs(errno),
    step,
    ...(pointer === undefined ? {} : { pointer }),
  }
  const code = errnoCode(Math.abs(errno))
  // the failure of a program or of a hook is a complete sentence, in the words that tools expect
  if (kind === FAILURES.PROGRAM)
    return new RuntimeError(code === 'Internal' ? 'InvalidArgument' : code, step, { detail })
  if (kind === FAILURES.HOOK) return new RuntimeError('Internal', step, { detail })
  const where = pointer === undefined ? '' : `, at ${pointer}`
  const reason = errno === 0 ? '' : `: ${errnoWords(Math.abs(errno))}${explain(op, code, kind)}`
  return new RuntimeError(code, `cannot set up the container: ${step}${reason} (plan op ${opIndex} ${name}${where})`, {
    detail,
  })
}

/** What an EPERM of the kernel can mean, where there are few causes; empty for any other failure. */
function explain(op: Op | undefined, code: string, kind: number): string {
  if (code !== 'PermissionDenied') return ''
  // sched_setattr(2): a deadline is for all processors, and for the privileged
  if (op?.op === 'scheduler' && op.policy === SCHED_DEADLINE)
    return ", process scheduler can't be used together with AllowedCPUs, nor a deadline without CAP_SYS_NICE"
  // mount_namespaces(7): what a mount brings from a more privileged user namespace is locked
  if (op?.op !== 'mount' || kind !== FAILURES.ATTRIBUTES) return ''
  const times = MOUNT_ATTR.ATIME_MODE | MOUNT_ATTR.NODIRATIME
  const cleared = op.clear | op.recClear
  if ((cleared & ~times) !== 0n) return ', cannot clear locked flags of the source'
  return ((cleared | op.set | op.recSet) & times) === 0n ? '' : ', cannot change locked atime flags of the source'
}
