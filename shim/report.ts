/**
 * What an operator wants to know of a shim that seems stuck, large or lost: the answer to SIGUSR1. It goes to two places, since either may
 * be out of reach: the file `shim-report` of the bundle, replaced every time, and the log, whatever its level. Invariants: nothing waits
 * for a lane or a process; what cannot be found out is left out; nothing of it exists before it is asked for.
 */
import { readdirSync, readFileSync, readlinkSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type LogFields, libDir, processStat } from '../runtime/index.ts'
import type { Calls } from './calls.ts'
import { messageOf } from './status.ts'
import type { Shim, Task, TaskProcess } from './task/registry.ts'

const REPORT_FILE = 'shim-report'

/** The report: lines of fields by what they are about. */
export interface Report {
  readonly shim: LogFields
  readonly memory: LogFields
  /** open descriptors by kind, paths of files as they are */
  readonly files: readonly LogFields[]
  /** what the event loop waits for, by Node's names */
  readonly waiting: readonly LogFields[]
  readonly calls: readonly LogFields[]
  readonly containers: readonly LogFields[]
  readonly processes: readonly LogFields[]
}

/** Looks at everything. */
export function makeReport(shim: Shim, calls: Calls): Report {
  const { registry, events, pid } = shim
  const tasks = [...registry.tasks]
  return {
    shim: {
      time: new Date().toISOString(),
      pid,
      namespace: shim.namespace,
      version: text(join(libDir(), 'VERSION'))?.trim(),
      commit: text(join(libDir(), 'COMMIT'))?.trim(),
      node: process.version,
      uptimeS: Math.round(process.uptime()),
      queuedEvents: events.length,
      creating: [...registry.creations].length,
    },
    memory: memory(),
    files: counted(openFiles()),
    waiting: counted(process.getActiveResourcesInfo()),
    calls: calls.running,
    containers: tasks.map((task) => containerFields(task)),
    processes: tasks.flatMap((task) => [task.init, ...task.execs.values()].map((one) => processFields(task, one))),
  }
}

/** Makes the report, writes it where an operator looks, and logs it; `bundle` is the one that the shim was started for. */
export function report(shim: Shim, calls: Calls, bundle: string): void {
  // before the log is: its library would be counted too
  const made = makeReport(shim, calls)
  // a container that is still being created is in no table
  const bundles = new Set([bundle, ...[...shim.registry.tasks].map((task) => task.bundle)])
  for (const folder of bundles) if (folder !== '') writeReport(shim, folder, made)
  for (const [part, found] of Object.entries(made)) {
    for (const fields of [found].flat()) shim.logger.warn(fields, `report: ${part}`)
  }
}

function writeReport({ logger }: Shim, bundle: string, made: Report): void {
  const temporary = join(bundle, `.${REPORT_FILE}`)
  try {
    writeFileSync(temporary, `${JSON.stringify(made, null, 2)}\n`, { mode: 0o600 })
    renameSync(temporary, join(bundle, REPORT_FILE))
  } catch (error) {
    logger.warn({ bundle, error: messageOf(error) }, 'cannot write the report')
  }
}

/** In KiB. What the process alone costs is its anonymous memory, its page tables, and 16 KiB of stack per thread. */
function memory(): LogFields {
  const rollup = text('/proc/self/smaps_rollup') ?? ''
  const status = text('/proc/self/status') ?? ''
  const field = (from: string, name: string): number | undefined => {
    const found = new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(from)?.[1]
    return found === undefined ? undefined : Number(found)
  }
  const { heapUsed, heapTotal, external } = process.memoryUsage()
  const kib = (bytes: number): number => Math.round(bytes / 1024)
  return {
    anonymous: field(rollup, 'Pss_Anon'),
    pageTables: field(status, 'VmPTE'),
    threads: field(status, 'Threads'),
    pss: field(rollup, 'Pss'),
    rss: field(rollup, 'Rss'),
    heapUsed: kib(heapUsed),
    heapTotal: kib(heapTotal),
    external: kib(external),
  }
}

/** What each open descriptor is: a kind ("socket", "pipe", "anon_inode eventpoll"), or the path of a file. */
function openFiles(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const [, kind = '', rest = ''] = /^(\w+):\[?([\w]*)\]?/.exec(readlinkSync(`/proc/self/fd/${fd}`)) ?? []
      if (kind === '') return [readlinkSync(`/proc/self/fd/${fd}`)]
      return [kind === 'anon_inode' ? rest : kind]
    } catch {
      // the one through which the folder was read
      return []
    }
  })
}

function counted(words: readonly string[]): LogFields[] {
  const counts = new Map<string, number>()
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1)
  return [...counts].map(([what, count]) => ({ what, count }))
}

function containerFields({ id, bundle, container, oomKills }: Task): LogFields {
  return { container: id, bundle, processes: attempt(() => container.processes().length), oomKills }
}

function processFields(task: Task, { execId, state, launching, stdio, io }: TaskProcess): LogFields {
  return {
    container: task.id,
    exec: execId || undefined,
    pid: state.pid,
    state: state.kind,
    launching: launching !== undefined,
    // a D here is a process that hangs in the kernel, a Z one that was not reaped
    kernel: state.pid === 0 ? undefined : (attempt(() => processStat(state.pid)?.state) ?? 'gone'),
    stdin: stdio.stdin || undefined,
    stdout: stdio.stdout || undefined,
    stderr: stdio.stderr || undefined,
    streams: io?.summary,
  }
}

function text(path: string): string | undefined {
  return attempt(() => readFileSync(path, 'utf8'))
}

function attempt<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch {
    // left out: a report says what can be known
    return undefined
  }
}
