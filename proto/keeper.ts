/**
 * The contract between c/keeper/ (C, which lives as long as the container) and its worker (TypeScript, which may die at
 * any moment). It has the messages of both directions, the descriptors of a worker, and the head of the state file.
 * Everything here is constant data. scripts/gen.ts turns it into a header of c/keeper/.
 *
 *   message := code u32, the fields in the order of the schema, little-endian, no padding; then what the message says
 *
 * One SOCK_SEQPACKET socket carries both directions: a message and the descriptors beside it arrive whole or not at
 * all. What a worker sent is read to its end even when the worker is dead. Libuv cannot take descriptors from a
 * socket, so an eventfd, the bell, counts the messages to the worker; the worker polls the bell and then receives.
 *
 *   keeper                                             worker
 *      | kept and process for all that it knows, go ------------->|   (a new worker takes everything over)
 *      |<----------------------------------- status{READY}       |
 *      |<---------------------------------------------- keep + fd |
 *      |<----------------- spawn + texts, program, streams        |
 *      | answer{pid} or {error} ----------------------------------->|
 *      | process{number, pid, status} ----------------------------->|   (saves the consequences in the state file)
 *      |<---------------------------------- acknowledge{number}   |
 *      |<---------------------------- status{PARKS}, then _exit  |   (until an event or a time)
 *
 * Invariant: every integer is aligned in its message by its own size, which the generator checks.
 */

/** Stands in the head of the state file: a worker that knows another number refuses to serve. */
export const KEEPER_VERSION = 1

/** The descriptors of a worker, besides 0 and 1, which are /dev/null, and 2, the log. */
export const WORKER_FDS = {
  /** the socket of the messages */
  KEEPER: 3,
  /** an eventfd, which counts the messages to the worker */
  BELL: 4,
  /** the state file, in memory */
  STATE: 5,
} as const

/** Keys of descriptors: the keeper gives those from here on to connections, the worker chooses the others. */
export const FIRST_CONNECTION_KEY = 0x80000000

/** Limits that both sides enforce. */
export const KEEPER_LIMITS = {
  /** of a message without its descriptors */
  MESSAGE_MAX_BYTES: 256,
  /** descriptors under keys; connections are accepted while less than half of them is used */
  KEPT_MAX: 8192,
  /** processes that live or whose exit is not acknowledged; more exits stay with the kernel, as zombies */
  PROCESSES_MAX: 4096,
  /** streams of a spawned process */
  STREAMS_MAX: 16,
  /** path, folder, arguments and environment of a spawned process, each with its NUL */
  TEXT_MAX_BYTES: 2 * 1024 * 1024,
  STRINGS_MAX: 32768,
} as const

/**
 * Bits of the spawn request's `flags`. Signals are always at their defaults, and none is blocked. The limit of open
 * files and the priority are those that the keeper was started with.
 */
export const SPAWN_FLAGS = {
  /** the program is the descriptor after the texts, and the path is empty */
  PROGRAM_FD: 1,
  /** the process leads a process group of its own */
  OWN_GROUP: 2,
} as const

/** Bits of `flags` in status. */
export const STATUS_FLAGS = {
  /** the worker has taken everything over */
  READY: 1,
  /** it ends now, and is not missed until something happens */
  PARKS: 2,
  /** the worker and then the keeper end now; nothing is removed */
  QUIT: 4,
} as const

/** Bits of `reasons` in go: why there is a new worker. */
export const WAKE_REASONS = {
  START: 1,
  /** a connection or another kept descriptor has an event */
  EVENT: 2,
  EXIT: 4,
  TIME: 8,
  SIGNAL: 16,
  /** the worker before it ended without parking */
  DEATH: 32,
} as const

/** How a field is encoded. */
export type FieldKind = 'u32' | 'i32' | 'u64'

/** A message: its code, its sentence, its fields, and how many descriptors come with it. */
export interface MessageSchema {
  readonly code: number
  readonly doc: string
  readonly fields: Readonly<Record<string, FieldKind>>
  readonly fds?: { readonly least: number; readonly most: number }
}

/** From the worker to the keeper. */
export const REQUESTS = {
  keep: {
    code: 1,
    doc: 'Keeps the descriptor under a key, polled for `events` (poll(2)) without a worker. Without one: other events.',
    fields: { key: 'u32', events: 'u32' },
    fds: { least: 0, most: 1 },
  },
  drop: { code: 2, doc: 'Closes a kept descriptor. An unknown key is no error.', fields: { key: 'u32' } },
  spawn: {
    code: 3,
    doc: 'Starts a process: a memory file of its texts (path, folder, arguments, environment), the program, its fds 0, 1, …',
    fields: { flags: 'u32', tag: 'u64', argc: 'u32', envc: 'u32', textBytes: 'u32', unused: 'u32' },
    fds: { least: 1, most: 18 },
  },
  acknowledge: { code: 4, doc: 'Forgets a process that has ended.', fields: { unused: 'u32', number: 'u64' } },
  status: {
    code: 5,
    doc: 'What the worker has done and wants: flags; when a worker is wanted (ns of CLOCK_MONOTONIC, 0: never); signals it got.',
    fields: { flags: 'u32', wakeAt: 'u64', signals: 'u64' },
  },
} as const satisfies Readonly<Record<string, MessageSchema>>

/** From the keeper to the worker. */
export const NOTICES = {
  kept: {
    code: 1,
    doc: 'A descriptor that the keeper keeps: one of an earlier worker, or a new connection.',
    fields: { key: 'u32', events: 'u32' },
    fds: { least: 1, most: 1 },
  },
  process: {
    code: 2,
    doc: 'A child that lives or has ended, by `status` of waitpid(2) at `time` (ns since 1970). `tag`: its spawn, or 0.',
    fields: { pid: 'i32', number: 'u64', tag: 'u64', time: 'u64', status: 'u32', ended: 'u32' },
  },
  go: {
    code: 3,
    doc: 'All that was known has been told. Comes again with new `signals` (bit N), until a status names them. `deaths`: without parking.',
    fields: { reasons: 'u32', signals: 'u64', workers: 'u32', deaths: 'u32' },
  },
  answer: {
    code: 4,
    doc: 'To every spawn, and to every request that was refused: its code or 0, its tag or key, and the errno or 0.',
    fields: { request: 'u32', tag: 'u64', pid: 'i32', error: 'u32' },
  },
} as const satisfies Readonly<Record<string, MessageSchema>>

/** First four bytes of the state file: "TSKS" read as a little-endian u32. */
export const STATE_MAGIC = 0x534b5354

/** The head of the state file, which the keeper writes once, before the first worker. The rest is the worker's. */
export const STATE_HEAD = {
  magic: 'u32',
  /** KEEPER_VERSION of the keeper */
  version: 'u32',
  /** the keeper's pid */
  keeper: 'i32',
  /** version of the worker's format; 0 until a worker has saved something */
  format: 'u32',
} as const satisfies Readonly<Record<string, FieldKind>>

/** Where the worker's part of the state file begins. */
export const STATE_OFFSET = 4096

/** An object with the fields of a schema. */
export type Fields<S extends Readonly<Record<string, FieldKind>>> = {
  readonly [Name in keyof S]: S[Name] extends 'u64' ? bigint : number
}
