/**
 * When, where and with which memory a process runs. CPU affinity needs the most care. The container must not inherit
 * the mask of the runtime. And when a process enters its cgroup, the kernel replaces its mask by the cgroup's CPUs.
 */
import type { Op } from '../../proto/init-plan.ts'
import { checkedMask } from '../spec/lists.ts'
import { IO_CLASSES, MEMORY_FLAGS, MEMORY_MODES, SCHEDULER_FLAGS, SCHEDULER_POLICIES } from '../spec/scheduling.ts'
import type { Linux, OciProcess } from '../spec/types.ts'
import type { ProcessInput } from './process-ops.ts'

/** ts-init takes an empty mask for all CPUs. */
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
 * Lets the process run on every CPU that its cgroup allows. The operation may come before or after the process enters
 * the cgroup. Inside, the kernel keeps the allowed part of a mask. At the entry it replaces the mask by the CPUs of the
 * cgroup.
 */
export function everyCpu(): Op {
  return { op: 'affinity', mask: EVERY_CPU }
}

/** For an exec: the CPUs on which ts-init sets the process up. */
export function initialAffinity({ process, at }: ProcessInput): readonly Op[] {
  const initial = process.execCPUAffinity?.initial
  if (initial === undefined) return []
  return [{ op: 'initial_affinity', mask: checkedMask(initial), origin: `${at}/execCPUAffinity/initial` }]
}

/** For an exec: the CPUs of its program. Without `final` it keeps those on which it was set up. */
export function affinity({ process, at }: ProcessInput): readonly Op[] {
  const { initial, final } = process.execCPUAffinity ?? {}
  if (final === undefined) return initial === undefined ? [everyCpu()] : []
  return [{ op: 'affinity', mask: checkedMask(final), origin: `${at}/execCPUAffinity/final` }]
}

/** Whether a setting must wait until the process is in its cgroup, since the kernel checks it against that cgroup. */
export function needsCgroup({ scheduler }: OciProcess, { memoryPolicy }: Linux): boolean {
  return scheduler !== undefined || memoryPolicy !== undefined
}
