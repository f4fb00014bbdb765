/**
 * When and where a process may run: `scheduler`, `ioPriority` and `execCPUAffinity` of a process, `memoryPolicy` of the
 * container. The plan turns words into numbers. What the kernel would refuse with a bare EINVAL is refused here with
 * its reason.
 */
import { specError } from '../errors.ts'
import { SCHED_DEADLINE } from '../sys/linux.ts'
import {
  asString,
  bigintField,
  type Defined,
  defined,
  integerField,
  listField,
  objectField,
  pointerTo,
  requiredString,
  stringField,
  UINT64,
} from './fields.ts'
import type { Json, JsonObject } from './json.ts'
import { listMask } from './lists.ts'
import type {
  IoClass,
  MemoryPolicy,
  MemoryPolicyFlag,
  MemoryPolicyMode,
  OciProcess,
  Scheduler,
  SchedulerFlag,
  SchedulerPolicy,
} from './types.ts'

/** SCHED_* policies of sched(7). */
export const SCHEDULER_POLICIES: Readonly<Record<SchedulerPolicy, number>> = {
  SCHED_OTHER: 0,
  SCHED_FIFO: 1,
  SCHED_RR: 2,
  SCHED_BATCH: 3,
  SCHED_ISO: 4,
  SCHED_IDLE: 5,
  SCHED_DEADLINE,
}

/** SCHED_FLAG_* of sched_setattr(2). */
export const SCHEDULER_FLAGS: Readonly<Record<SchedulerFlag, bigint>> = {
  SCHED_FLAG_RESET_ON_FORK: 0x01n,
  SCHED_FLAG_RECLAIM: 0x02n,
  SCHED_FLAG_DL_OVERRUN: 0x04n,
  SCHED_FLAG_KEEP_POLICY: 0x08n,
  SCHED_FLAG_KEEP_PARAMS: 0x10n,
  SCHED_FLAG_UTIL_CLAMP_MIN: 0x20n,
  SCHED_FLAG_UTIL_CLAMP_MAX: 0x40n,
}

/** IOPRIO_CLASS_* of ioprio_set(2). */
export const IO_CLASSES: Readonly<Record<IoClass, number>> = {
  IOPRIO_CLASS_RT: 1,
  IOPRIO_CLASS_BE: 2,
  IOPRIO_CLASS_IDLE: 3,
}

/** MPOL_* modes of set_mempolicy(2). */
export const MEMORY_MODES: Readonly<Record<MemoryPolicyMode, number>> = {
  MPOL_DEFAULT: 0,
  MPOL_PREFERRED: 1,
  MPOL_BIND: 2,
  MPOL_INTERLEAVE: 3,
  MPOL_LOCAL: 4,
  MPOL_PREFERRED_MANY: 5,
  MPOL_WEIGHTED_INTERLEAVE: 6,
}

/** MPOL_F_* mode flags. */
export const MEMORY_FLAGS: Readonly<Record<MemoryPolicyFlag, number>> = {
  MPOL_F_NUMA_BALANCING: 1 << 13,
  MPOL_F_RELATIVE_NODES: 1 << 14,
  MPOL_F_STATIC_NODES: 1 << 15,
}

/** Modes that need nodes, and modes that take none; MPOL_PREFERRED takes both. */
const NEEDS_NODES: ReadonlySet<MemoryPolicyMode> = new Set([
  'MPOL_BIND',
  'MPOL_INTERLEAVE',
  'MPOL_WEIGHTED_INTERLEAVE',
  'MPOL_PREFERRED_MANY',
])
const WITHOUT_NODES: ReadonlySet<MemoryPolicyMode> = new Set(['MPOL_DEFAULT', 'MPOL_LOCAL'])

const INT32 = { min: -0x80000000, max: 0x7fffffff }

function isKey<K extends string>(table: Readonly<Record<K, unknown>>, word: string): word is K {
  return Object.hasOwn(table, word)
}

/** Reads `scheduler` of a process. @throws InvalidArgument */
export function readScheduler(process: JsonObject, at: string): Scheduler | undefined {
  const object = objectField(process, 'scheduler', at)
  if (object === undefined) return undefined
  const pointer = pointerTo(at, 'scheduler')
  const policy = requiredString(object, 'policy', { at: pointer, missing: 'scheduler policy is required' })
  if (!isKey(SCHEDULER_POLICIES, policy)) {
    throw specError(pointerTo(pointer, 'policy'), `invalid scheduler policy ${JSON.stringify(policy)}`)
  }
  const nice = integerField(object, 'nice', { at: pointer, range: INT32 }) ?? 0
  if ((policy === 'SCHED_OTHER' || policy === 'SCHED_BATCH') && (nice < -20 || nice > 19)) {
    throw specError(pointerTo(pointer, 'nice'), `invalid scheduler.nice: ${nice} is out of range, expected -20 to 19`)
  }
  const priority = integerField(object, 'priority', { at: pointer, range: INT32 }) ?? 0
  const realtime = policy === 'SCHED_FIFO' || policy === 'SCHED_RR'
  if (priority !== 0 && !realtime) {
    const message = 'scheduler.priority can only be specified for SchedFIFO or SchedRR policy'
    throw specError(pointerTo(pointer, 'priority'), message)
  }
  if (realtime && (priority < 1 || priority > 99)) {
    throw specError(pointerTo(pointer, 'priority'), `invalid scheduler.priority: ${priority}, expected 1 to 99`)
  }
  const time = (key: 'runtime' | 'deadline' | 'period') => {
    const value = bigintField(object, key, { at: pointer, range: UINT64 }) ?? 0n
    if (value !== 0n && policy !== 'SCHED_DEADLINE') {
      const message = 'scheduler runtime/deadline/period can only be specified for SchedDeadline policy'
      throw specError(pointerTo(pointer, key), message)
    }
    return value
  }
  return {
    policy,
    nice,
    priority,
    flags: listField(object, 'flags', { at: pointer, read: readSchedulerFlag }),
    runtime: time('runtime'),
    deadline: time('deadline'),
    period: time('period'),
  }
}

function readSchedulerFlag(value: Json, at: string): SchedulerFlag {
  const flag = asString(value, at)
  if (!isKey(SCHEDULER_FLAGS, flag)) throw specError(at, `invalid scheduler flag ${JSON.stringify(flag)}`)
  return flag
}

/** Reads `ioPriority` of a process. @throws InvalidArgument */
export function readIoPriority(process: JsonObject, at: string): OciProcess['ioPriority'] {
  const object = objectField(process, 'ioPriority', at)
  if (object === undefined) return undefined
  const pointer = pointerTo(at, 'ioPriority')
  const priority = integerField(object, 'priority', { at: pointer, range: INT32 }) ?? 0
  if (priority < 0 || priority > 7) {
    throw specError(pointerTo(pointer, 'priority'), `invalid ioPriority.Priority: ${priority}, expected 0 to 7`)
  }
  const name = stringField(object, 'class', pointer) ?? ''
  if (!isKey(IO_CLASSES, name)) {
    throw specError(pointerTo(pointer, 'class'), `invalid ioPriority.Class: ${JSON.stringify(name)}`)
  }
  return { class: name, priority }
}

/** Reads `execCPUAffinity` of a process. @throws InvalidArgument */
export function readAffinity(process: JsonObject, at: string): OciProcess['execCPUAffinity'] {
  const object = objectField(process, 'execCPUAffinity', at)
  if (object === undefined) return undefined
  const pointer = pointerTo(at, 'execCPUAffinity')
  const list = (key: 'initial' | 'final') => {
    const text = stringField(object, key, pointer)
    if (text !== undefined) requireList(text, pointerTo(pointer, key), `${key} CPU affinity`)
    return text
  }
  const affinity: Defined<{ initial: string | undefined; final: string | undefined }> = defined({
    initial: list('initial'),
    final: list('final'),
  })
  return affinity.initial === undefined && affinity.final === undefined ? undefined : affinity
}

/** Reads `memoryPolicy` of the container. @throws InvalidArgument */
export function readMemoryPolicy(linux: JsonObject, at: string): MemoryPolicy | undefined {
  const object = objectField(linux, 'memoryPolicy', at)
  if (object === undefined) return undefined
  const pointer = pointerTo(at, 'memoryPolicy')
  const mode = stringField(object, 'mode', pointer) ?? ''
  if (!isKey(MEMORY_MODES, mode)) {
    throw specError(pointerTo(pointer, 'mode'), `invalid memory policy mode ${JSON.stringify(mode)}`)
  }
  const nodes = stringField(object, 'nodes', pointer)
  const nodesAt = pointerTo(pointer, 'nodes')
  if (nodes === undefined && NEEDS_NODES.has(mode)) throw specError(nodesAt, `memory policy ${mode} needs nodes`)
  if (nodes !== undefined && WITHOUT_NODES.has(mode)) throw specError(nodesAt, `memory policy ${mode} takes no nodes`)
  if (nodes !== undefined) requireList(nodes, nodesAt, 'memory policy nodes')
  const flags = listField(object, 'flags', {
    at: pointer,
    read: (value, flagAt) => {
      const flag = asString(value, flagAt)
      if (!isKey(MEMORY_FLAGS, flag)) throw specError(flagAt, `invalid memory policy flag ${JSON.stringify(flag)}`)
      return flag
    },
  })
  return defined({ mode, nodes, flags })
}

function requireList(text: string, at: string, what: string): void {
  const result = listMask(text)
  if ('refused' in result) throw specError(at, `invalid ${what} ${JSON.stringify(text)}: ${result.refused}`)
}
