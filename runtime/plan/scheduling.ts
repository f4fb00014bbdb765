/**
 * When, where and with which memory a process runs. CPU affinity needs the most care: whatever mask the runtime was started with must not
 * reach the container, and a mask that is set before a process enters its cgroup is replaced by the cgroup's own CPUs.
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

/** Policy, niceness or deadlines of the process. */
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

/** Priority of the process's input and output. */
export function ioPriority({ process, at }: ProcessInput): readonly Op[] {
  if (process.ioPriority === undefined) return []
  const { class: name, priority } = process.ioPriority
  return [{ op: 'io_priority', value: (IO_CLASSES[name] << IO_CLASS_SHIFT) | priority, origin: `${at}/ioPriority` }]
}

/** NUMA policy: the container's, for all of its processes. */
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
 * Every CPU that the cgroup allows. It need not wait for the cgroup: a process that has entered gets the cgroup's part of the mask, and
 * one that enters later gets the cgroup's CPUs by entering.
 */
export function everyCpu(): Op {
  return { op: 'affinity', mask: EVERY_CPU }
}

/** For an exec: the CPUs that it is set up on. */
export function initialAffinity({ process, at }: ProcessInput): readonly Op[] {
  const initial = process.execCPUAffinity?.initial
  if (initial === undefined) return []
  return [{ op: 'initial_affinity', mask: checkedMask(initial), origin: `${at}/execCPUAffinity/initial` }]
}

/** For an exec: the CPUs that it runs on in the end; those that it was set up on, if nothing else is said of the end. */
export function affinity({ process, at }: ProcessInput): readonly Op[] {
  const { initial, final } = process.execCPUAffinity ?? {}
  if (final === undefined) return initial === undefined ? [everyCpu()] : []
  return [{ op: 'affinity', mask: checkedMask(final), origin: `${at}/execCPUAffinity/final` }]
}

/** True when the kernel judges what is asked for by the cgroup that the process is in. */
export function needsCgroup({ scheduler }: OciProcess, { memoryPolicy }: Linux): boolean {
  return scheduler !== undefined || memoryPolicy !== undefined
}
