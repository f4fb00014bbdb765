/** What one process costs in memory, from the kernel's own counts. */
import { readdirSync, readFileSync } from 'node:fs'

/** In KiB. */
export interface MemoryOfOne {
  /**
   * What the process alone causes: anonymous pages that nobody shares, its page tables, the kernel stacks of its
   * threads.
   */
  readonly own: number
  readonly rss: number
  readonly pss: number
}

/** A thread's kernel stack on x86_64 and arm64. */
const STACK_KIB = 16

/** Adds up a process, read from smaps_rollup and status. */
export function memoryOf(pid: number): MemoryOfOne {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const field = (text: string, name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0)
  // shared anonymous pages (of a forked process) are counted by their share
  const anonymous = field(rollup, 'Pss_Anon')
  const threads = readdirSync(`/proc/${pid}/task`).length
  return {
    own: anonymous + field(status, 'VmPTE') + threads * STACK_KIB,
    rss: field(rollup, 'Rss'),
    pss: field(rollup, 'Pss'),
  }
}
