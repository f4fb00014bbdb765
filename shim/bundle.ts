/**
 * The small files that the shim leaves in the bundle for `delete`. containerd runs `delete` after every container,
 * usually when the shim has already left.
 *
 *   shim-exit     everything is cleaned up, and this is how the container ended; the launcher answers without Node
 *   shim-status   how the container ended; there may be something left to clean up
 *   shim-root     the folder of the container's state, when Create named one
 *
 * Invariant: `shim-exit` appears whole, by rename, and only when nothing is left to clean up.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DeleteResponse } from 'ttrpc-ts/containerd'
import { BUNDLE_FILES } from '../proto/launch.ts'
import type { Exit } from '../runtime/index.ts'
import { removeFile } from '../runtime/internal.ts'

const DEFAULT_ROOT = '/run/containerd/ts'
const ROOT_VARIABLE = 'CONTAINERD_SHIM_TS_ROOT'
const STATUS_FILE = 'shim-status'
const ROOT_FILE = 'shim-root'

/** What a record says: the pid of the container's init and how it ended. */
export interface ExitRecord {
  readonly pid: number
  readonly exit: Exit
}

/**
 * The folder that holds the state of one namespace's containers. `root` is the runtime option; empty means the default.
 */
export function stateRoot(root: string, namespace: string): string {
  return join(root === '' ? process.env[ROOT_VARIABLE] || DEFAULT_ROOT : root, namespace)
}

/** Writes `shim-root`: the folder of the container's state. */
export function writeRoot(bundle: string, root: string): void {
  writeFileSync(join(bundle, ROOT_FILE), root, { mode: 0o600 })
}

/** The folder of the container's state, or undefined when the bundle has no `shim-root`. */
export function readRoot(bundle: string): string | undefined {
  return readFile(join(bundle, ROOT_FILE))
}

/** A record as bytes: the protobuf DeleteResponse that `delete` prints and that the files hold. */
export function answerOf({ pid, exit }: ExitRecord): Uint8Array {
  return DeleteResponse.encode({ pid, exitStatus: exit.status, exitedAt: exit.at })
}

/** Writes `shim-exit`: the container is gone, and this is how it ended. */
export function writeExit(bundle: string, record: ExitRecord): void {
  const temporary = join(bundle, `.${BUNDLE_FILES.EXIT}`)
  writeFileSync(temporary, answerOf(record), { mode: 0o600 })
  renameSync(temporary, join(bundle, BUNDLE_FILES.EXIT))
}

/**
 * Writes `shim-status`: the init has ended, the rest of the container is still there. No rename: a torn record is
 * ignored.
 */
export function writeStatus(bundle: string, record: ExitRecord): void {
  writeFileSync(join(bundle, STATUS_FILE), answerOf(record), { mode: 0o600 })
}

/** Removes the records of an earlier container in this bundle; called before a new one is made. */
export function clearRecords(bundle: string): void {
  for (const name of [BUNDLE_FILES.EXIT, STATUS_FILE]) removeFile(join(bundle, name))
}

/** The content of `shim-exit`, if the bundle has one. */
export function readExit(bundle: string): ExitRecord | undefined {
  return readRecord(bundle, BUNDLE_FILES.EXIT)
}

/** The content of `shim-status`, if the bundle has one: the shim was alive when the init ended. */
export function readStatus(bundle: string): ExitRecord | undefined {
  return readRecord(bundle, STATUS_FILE)
}

/** The time is the last field of a record, so a torn record has no time and is ignored. */
function readRecord(bundle: string, name: string): ExitRecord | undefined {
  try {
    const bytes = readFileSync(join(bundle, name))
    const line = bytes.toString('latin1')
    if (/^\d/.test(line)) return readLine(line)
    const { pid, exitStatus, exitedAt } = DeleteResponse.decode(bytes)
    return exitedAt && { pid, exit: { status: exitStatus, at: exitedAt } }
  } catch {
    // missing or torn
    return undefined
  }
}

/**
 * Earlier versions wrote a line of four numbers. No DeleteResponse begins with a digit, so the two cannot be confused.
 */
function readLine(line: string): ExitRecord | undefined {
  const [, pid, status, seconds, nanos] = /^(\d+) (\d+) (-?\d+) (\d+)\n$/.exec(line) ?? []
  if (seconds === undefined) return undefined
  return { pid: Number(pid), exit: { status: Number(status), at: { seconds: BigInt(seconds), nanos: Number(nanos) } } }
}

/** The text of a file of the bundle; undefined when it cannot be read, as in a bundle that is half removed. */
export function readFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    // for every reason alike: the callers go on without it
    return undefined
  }
}
