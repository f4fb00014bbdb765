/**
 * The shim of a container that `delete` is asked to remove: usually gone, but it may still live, when containerd has lost or given up
 * the connection to it. One that answers ends its container itself, with its hooks and its events, and then leaves; one that does not
 * answer is killed, as long as it holds the container's lock and its init. Invariant: no process is killed but the one that listens on
 * the container's own socket (the kernel says which) and whose command line says that it is the shim of this very container.
 */

import { readFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { basename, join } from 'node:path'
import { Code, createClient, TtrpcClient, TtrpcError } from 'ttrpc-ts'
import { TaskService } from 'ttrpc-ts/containerd'
import {
  connectUnix,
  type OwnedFd,
  peerCredentials,
  processStat,
  RuntimeError,
  SIGKILL,
  signalProcess,
} from '../runtime/index.ts'
import { readFile } from './bundle.ts'
import type { Flags } from './flags.ts'

/** What one that lives gets to say so. */
const ANSWER_MS = 1_000
/** What it gets to end its container; containerd gives the whole of `delete` five seconds. */
const END_MS = 2_000
const DEFAULT_SOCKET_DIR = '/run/containerd/s'
const SCHEME = 'unix://'

/** Where the container's shim listens, or did: where the rule says (shim v2: a hash of daemon, namespace and id), and where the bundle does. */
export function socketPaths({ bundle, address, namespace, id }: Flags): string[] {
  // loading it takes milliseconds that a serving shim, which shares this bundle, must not pay
  const { createHash } = process.getBuiltinModule('node:crypto')
  const hash = createHash('sha256')
    .update(join(address, namespace, id))
    .digest('hex')
  const named = bundle === '' ? '' : (readFile(join(bundle, 'address'))?.trim() ?? '')
  const paths = [join(DEFAULT_SOCKET_DIR, hash)]
  // believed only about a socket of this container's name: the folder may be another one, the name never is
  if (named.startsWith(`${SCHEME}/`) && basename(named) === hash) paths.push(named.slice(SCHEME.length))
  return [...new Set(paths)]
}

/** Ends the shim that still serves the container, if there is one. @throws what stood in the way of killing it */
export async function endSurvivor(flags: Flags): Promise<void> {
  for (const path of socketPaths(flags)) {
    const connection = connectIfAny(path)
    if (connection === undefined) continue
    const { pid } = peerCredentials(connection.fd)
    if (!(await endThrough(connection, flags.id))) killShim(pid, flags)
  }
}

function connectIfAny(path: string): OwnedFd | undefined {
  try {
    return connectUnix(path)
  } catch (error) {
    // no such file, or nobody listens on it: the common case
    if (error instanceof RuntimeError) return undefined
    throw error
  }
}

/** False when nobody answers; what becomes of the container is looked at by the caller anyway. */
async function endThrough(connection: OwnedFd, id: string): Promise<boolean> {
  using client = new TtrpcClient({ stream: new Socket({ fd: connection.take(), readable: true, writable: true }) })
  const task = createClient(TaskService, client)
  try {
    await task.connect({ id }, { timeoutMs: ANSWER_MS })
  } catch {
    // it hangs, or it was leaving just now
    return client.closed
  }
  const limit = { timeoutMs: END_MS }
  try {
    await task.kill({ id, signal: SIGKILL, all: true }, limit)
    await task.wait({ id }, limit)
    await task.delete({ id }, limit)
  } catch (error) {
    // it has no such container, or takes too long over its output: the rest is done without it
    if (!(error instanceof TtrpcError)) throw error
    if (error.code === Code.UNAVAILABLE) return true
  }
  // ignored while it has other containers
  await task.shutdown({ id }, limit).catch(() => undefined)
  return true
}

function killShim(pid: number, { namespace, id }: Flags): void {
  const stat = processStat(pid)
  if (stat === undefined) return
  const words = ` ${readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ')} `
  if (!words.includes(` -namespace ${namespace} -id ${id} `)) return
  signalProcess(pid, stat.startTime, SIGKILL)
}
