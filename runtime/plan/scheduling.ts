/**
 * When, where and with which memory a process runs. CPU affinity needs the most care: the mask of the runtime must not
 * reach the container. And a mask that is set before a process enters its cgroup is replaced by the cgroup's own CPUs.
 */
import type { Op } from '../../proto/init-plan.ts'
import { checkedMask } from '../spec/lists.ts'
import { IO_CLASSES, MEMORY_FLAGS, MEMORY_MODES, SCHEDULER_FLAGS, SCHEDULER_POLICIES } from '../spec/scheduling.ts'
import type { Linux, OciProcess } from '../spec/types.ts'
import type { ProcessInput } from './process-ops.ts'

const EVERY_CPU = new Uint8Array(0)
const NO_NODES = new Uint8Array(0)
/** The class of an I/O priority stands above 13 bits of level (ioprio_set(2)). */
const IO_CLASS_SHIFT = 13

/** Scheduling policy, niceness or deadlines. */
export function scheduler({ process, at }: ProcessInput): readonly Op[] {
  const { scheduler } = process
  if (scheduler === undefined) return []
  const { policy, flags, nice, priority, runtime, deadline, period } = scheduler
  return [
    {
      op: 'scheduler',
      policy: SCHEDULER_POLICIES[policy],
      flags: flags.reduce((bits, flag) => bits | SCHEDULER_FLAGS[flag], 0n),
      nice,
      priority,
      runtime,
      deadline,
      period,
      origin: `${at}/scheduler`,
    },
  ]
}

/** I/O priority. */
export function ioPriority({ process, at }: ProcessInput): readonly Op[] {
  if (process.ioPriority === undefined) return []
  const { class: name, priority } = process.ioPriority
  return [{ op: 'io_priority', value: (IO_CLASSES[name] << IO_CLASS_SHIFT) | priority, origin: `${at}/ioPriority` }]
}

/** NUMA policy: the container has one for all its processes. */
export function memoryPolicy({ memoryPolicy }: Linux): readonly Op[] {
  if (memoryPolicy === undefined) return []
  const { mode, nodes, flags } = memoryPolicy
  return [
    {
      op: 'memory_policy',
      mode: flags.reduce((bits, flag) => bits | MEMORY_FLAGS[flag], MEMORY_MODES[mode]),
      nodes: nodes === undefined ? NO_NODES : checkedMask(nodes),
      origin: '/linux/memoryPolicy',
    },
  ]
}

/**
 * Every CPU that the cgroup allows. This need not wait for the cgroup: a process in it gets the allowed part of the
 * mask, and a process that enters later gets the cgroup's CPUs then.
 */
export function everyCpu(): Op {
  return { op: 'affinity', mask: EVERY_CPU }
}

/** For an exec: the CPUs on which it is set up. */
export function initialAffinity({ process, at }: ProcessInput): readonly Op[] {
  const initial = process.execCPUAffinity?.initial
  if (initial === undefined) return []
  return [{ op: 'initial_affinity', mask: checkedMask(initial), origin: `${at}/execCPUAffinity/initial` }]
}

/** For an exec: the CPUs of its program; without `final`, those on which it was set up. */
export function affinity({ process, at }: ProcessInput): readonly Op[] {
  const { initial, final } = process.execCPUAffinity ?? {}
  if (final === undefined) return initial === undefined ? [everyCpu()] : []
  return [{ op: 'affinity', mask: checkedMask(final), origin: `${at}/execCPUAffinity/final` }]
}

/** True when the kernel checks a setting against the cgroup of the process. */
export function needsCgroup({ scheduler }: OciProcess, { memoryPolicy }: Linux): boolean {
  return scheduler !== undefined || memoryPolicy !== undefined
}
