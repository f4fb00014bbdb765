/**
 * The answer to SIGUSR1: what an operator wants to know of a shim that seems stuck, large or lost. It goes to the file
 * `shim-report` of the bundle, which is replaced every time, and to the log at any level. Either place may be out of
 * reach.
 *
 * Invariants: making a report waits for no lane and no process. What cannot be found out is left out. It costs no
 * memory and no work before the first signal.
 */
import { readdirSync, readFileSync, readlinkSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { LIB_FILES } from '../proto/launch.ts'
import type { LogFields } from '../runtime/index.ts'
import { libDir, messageOf, processStat } from '../runtime/internal.ts'
import type { Calls } from './calls.ts'
import type { Shim, Task, TaskProcess } from './task/registry.ts'

const REPORT_FILE = 'shim-report'

/** A report: log fields, by subject. */
interface Report {
  readonly shim: LogFields
  readonly memory: LogFields
  /** open descriptors, counted by kind or by the path of a file */
  readonly files: readonly LogFields[]
  /** what the event loop waits for, in Node's names, counted */
  readonly waiting: readonly LogFields[]
  readonly calls: readonly LogFields[]
  readonly containers: readonly LogFields[]
  readonly processes: readonly LogFields[]
}

/** Collects a report. */
function makeReport(shim: Shim, calls: Calls): Report {
  const { registry, events, pid } = shim
  const tasks = [...registry.tasks]
  return {
    shim: {
      time: new Date().toISOString(),
      pid,
      namespace: shim.namespace,
      version: text(join(libDir(), LIB_FILES.VERSION))?.trim(),
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

/**
 * Makes a report, writes it to all bundles of the shim, and logs it. `bundle` is the one that the shim was started for.
 */
export function report(shim: Shim, calls: Calls, bundle: string): void {
  // first of all: the log would load its library, and the report would count that memory
  const made = makeReport(shim, calls)
  // the registry does not have a container that is still being created, so the bundle of the command line is added
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

/**
 * In KiB. What this process alone costs: its anonymous memory, its page tables, and 16 KiB of kernel stack per thread.
 */
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

/** One word per open descriptor: a kind ("socket", "pipe", "eventpoll"), or the path of a file. */
function openFiles(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const [, kind = '', rest = ''] = /^(\w+):\[?([\w]*)\]?/.exec(readlinkSync(`/proc/self/fd/${fd}`)) ?? []
      if (kind === '') return [readlinkSync(`/proc/self/fd/${fd}`)]
      return [kind === 'anon_inode' ? rest : kind]
    } catch {
      // the descriptor through which readdir has read the folder is closed by now
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

function processFields(task: Task, { execId, state, stdio, io }: TaskProcess): LogFields {
  return {
    container: task.id,
    exec: execId || undefined,
    pid: state.pid,
    state: state.kind,
    launching: state.kind === 'starting',
    // the letter of /proc/PID/stat: D hangs in the kernel, Z was not reaped
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
    // left out of the report
    return undefined
  }
}
