/**
 * The small files that the shim leaves in the bundle for `delete`, which runs after every container and usually without us: `shim-exit`
 * says that everything is cleaned up and how the container ended (then no Node is started at all), `shim-status` only how it ended,
 * `shim-root` where its state lies. Invariant: `shim-exit` appears whole, by rename, and only when nothing is left to clean.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DeleteResponse } from 'ttrpc-ts/containerd'
import { type Exit, removeFile } from '../runtime/index.ts'

const DEFAULT_ROOT = '/run/containerd/ts'
const ROOT_VARIABLE = 'CONTAINERD_SHIM_TS_ROOT'
const EXIT_FILE = 'shim-exit'
const STATUS_FILE = 'shim-status'
const ROOT_FILE = 'shim-root'

/** The process and the exit that a record holds. */
export interface ExitRecord {
  readonly pid: number
  readonly exit: Exit
}

/** The folder of one namespace's containers; `root` is the option of that name, empty for the default. */
export function stateRoot(root: string, namespace: string): string {
  return join(root === '' ? process.env[ROOT_VARIABLE] || DEFAULT_ROOT : root, namespace)
}

/** Notes where the container's state lies. */
export function writeRoot(bundle: string, root: string): void {
  writeFileSync(join(bundle, ROOT_FILE), root, { mode: 0o600 })
}

/** Where the container's state lies, or undefined when nobody noted it. */
export function readRoot(bundle: string): string | undefined {
  return readFile(join(bundle, ROOT_FILE))
}

/** What `delete` prints for a record, and what a record is as a file: a protobuf DeleteResponse. */
export function answerOf({ pid, exit }: ExitRecord): Uint8Array {
  return DeleteResponse.encode({ pid, exitStatus: exit.status, exitedAt: exit.at })
}

/** Notes that the container is gone and how it ended. */
export function writeExit(bundle: string, record: ExitRecord): void {
  const temporary = join(bundle, `.${EXIT_FILE}`)
  writeFileSync(temporary, answerOf(record), { mode: 0o600 })
  renameSync(temporary, join(bundle, EXIT_FILE))
}

/** Notes how the container ended, of which everything but its init is still there. A torn record says nothing, so this needs no rename. */
export function writeStatus(bundle: string, record: ExitRecord): void {
  writeFileSync(join(bundle, STATUS_FILE), answerOf(record), { mode: 0o600 })
}

/** A container begins in this bundle: whatever an earlier try noted is no longer true. */
export function clearRecords(bundle: string): void {
  for (const name of [EXIT_FILE, STATUS_FILE]) removeFile(join(bundle, name))
}

/** The record of a clean end, if there is one. */
export function readExit(bundle: string): ExitRecord | undefined {
  return readRecord(bundle, EXIT_FILE)
}

/** How the container ended, if the shim has lived to see it. */
export function readStatus(bundle: string): ExitRecord | undefined {
  return readRecord(bundle, STATUS_FILE)
}

/** The time comes last in a record, so that a torn one has none. */
function readRecord(bundle: string, name: string): ExitRecord | undefined {
  try {
    const bytes = readFileSync(join(bundle, name))
    const line = bytes.toString('latin1')
    if (/^\d/.test(line)) return readLine(line)
    const { pid, exitStatus, exitedAt } = DeleteResponse.decode(bytes)
    return exitedAt && { pid, exit: { status: exitStatus, at: exitedAt } }
  } catch {
    // missing or torn: there is nothing to learn from it
    return undefined
  }
}

/** A shim that was started before its update wrote a line of four numbers; a DeleteResponse begins with no digit. */
function readLine(line: string): ExitRecord | undefined {
  const [, pid, status, seconds, nanos] = /^(\d+) (\d+) (-?\d+) (\d+)\n$/.exec(line) ?? []
  if (seconds === undefined) return undefined
  return { pid: Number(pid), exit: { status: Number(status), at: { seconds: BigInt(seconds), nanos: Number(nanos) } } }
}

/** The text of a file of the bundle; undefined when it is not there, like the rest of a half-removed bundle. */
export function readFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    // whatever the reason, there is nothing to learn from it
    return undefined
  }
}
