/**
 * The id maps of a new user namespace of an unprivileged runtime. A user may map only the user's own id. All other ids
 * need the setuid programs newuidmap(1) and newgidmap(1), which check /etc/subuid and /etc/subgid. A user who maps only
 * the user's own group must first give up setgroups(2) for the namespace (user_namespaces(7)). When the runtime is
 * root, the init helper writes the maps instead.
 */
import { writeFileSync } from 'node:fs'
import { RuntimeError, specError } from '../errors.ts'
import { hostFacts } from '../host/facts.ts'
import { newNamespaces } from '../host/ids.ts'
import { mapText } from '../plan/namespaces.ts'
import type { IdMapping, Spec } from '../spec/types.ts'
import { reasonOf } from '../sys/errno.ts'
import { findProgram } from '../sys/path-search.ts'
import type { ProcessMaker } from '../sys/reaper.ts'
import { exitText } from '../sys/words.ts'
import { runProgram } from './program.ts'

/** How much of a mapping program's output is kept for the error. */
const OUTPUT_BYTES = 1024

/** One of the two maps. */
interface IdMap {
  readonly kind: 'uid' | 'gid'
  readonly mappings: readonly IdMapping[]
  /** path of the program that writes it; left out: it maps only the user's own id, and the runtime writes it */
  readonly program?: string
}

/** How an unprivileged runtime writes the maps of a container. */
export interface IdMapPlan {
  readonly uid: IdMap
  readonly gid: IdMap
  /** whether setgroups(2) stays allowed in the namespace */
  readonly setgroups: boolean
}

/**
 * Plans the id maps of a spec; undefined where the init helper writes them, or where there is no new user namespace.
 * The programs are looked for here, before anything is started.
 * @throws InvalidArgument without a user namespace; FailedPrecondition when a program is missing
 */
export function planIdMaps(spec: Spec): IdMapPlan | undefined {
  if (!hostFacts().unprivileged) return undefined
  if (!spec.linux.namespaces.some(({ type }) => type === 'user')) {
    throw specError('/linux/namespaces', 'rootless container requires user namespaces')
  }
  if (!newNamespaces(spec).has('user')) return undefined
  const gid = planMap('gid', spec.linux.gidMappings, process.getegid?.())
  const uid = planMap('uid', spec.linux.uidMappings, process.geteuid?.())
  return { uid, gid, setgroups: gid.program !== undefined && hostFacts().setgroups }
}

function planMap(kind: 'uid' | 'gid', mappings: readonly IdMapping[], own: number | undefined): IdMap {
  const [only] = mappings
  const alone = mappings.length === 1 && only?.size === 1 && only.hostID === own
  return alone ? { kind, mappings } : { kind, mappings, program: mapProgram(`new${kind}map`) }
}

function mapProgram(name: string): string {
  const path = findProgram(name)
  if (path !== undefined) return path
  throw new RuntimeError(
    'FailedPrecondition',
    `cannot map ids of a new user namespace: "${name}" is not in PATH (Debian's package uidmap has it)`,
  )
}

/** A process that waits for its maps in a new user namespace. */
export interface MapTarget {
  readonly pid: number
  /** starts the programs */
  readonly reaper: ProcessMaker
  /** aborted when the process has gone or is given up */
  readonly signal: AbortSignal
}

/** Writes the maps of a waiting process. @throws PermissionDenied; FailedPrecondition with what the program printed */
export async function writeIdMaps(plan: IdMapPlan, target: MapTarget): Promise<void> {
  if (plan.gid.program === undefined) write(`/proc/${target.pid}/setgroups`, 'deny')
  await writeMap(plan.gid, target)
  await writeMap(plan.uid, target)
}

async function writeMap({ kind, mappings, program }: IdMap, { pid, reaper, signal }: MapTarget): Promise<void> {
  if (program === undefined) {
    write(`/proc/${pid}/${kind}_map`, mapText(mappings))
    return
  }
  const numbers = mappings.flatMap(({ containerID, hostID, size }) => [containerID, hostID, size]).map(String)
  const argv = [program, String(pid), ...numbers]
  const { exit, stderr } = await runProgram({
    reaper,
    path: program,
    argv,
    env: [],
    cwd: '/',
    outputBytes: OUTPUT_BYTES,
    signal,
  })
  if (exit.status === 0) return
  throw new RuntimeError('FailedPrecondition', `cannot write the ${kind} map: ${exitText(exit)}: ${stderr}`)
}

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text)
  } catch (error) {
    const name = reasonOf(error)
    throw new RuntimeError('PermissionDenied', `cannot write "${path}": ${name}`, { cause: error })
  }
}
