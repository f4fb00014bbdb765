/**
 * The shim that may still serve a container which `delete` is asked to remove: containerd has lost or given up its
 * connection to it. A shim that answers ends its container itself, with its hooks and its events, and then leaves. A
 * shim that does not answer is killed, because it would keep the container's lock and its init.
 *
 * Invariant: this kills one process at most per socket, the one that listens on the container's own socket. The kernel
 * names it (SO_PEERCRED), and its command line must name this container and namespace.
 */
import { readFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { basename, join } from 'node:path'
import { Code, createClient, TtrpcClient, TtrpcError } from 'ttrpc-ts'
import { TaskService } from 'ttrpc-ts/containerd'
import { BUNDLE_FILES, FLAGS, SOCKET } from '../proto/launch.ts'
import { type OwnedFd, RuntimeError } from '../runtime/index.ts'
import { connectUnix, peerCredentials, processStat, SIGKILL, signalProcess } from '../runtime/internal.ts'
import { readFile } from './bundle.ts'
import type { Flags } from './flags.ts'

/** How long a shim may take to answer Connect, which shows that it is not stuck. */
const ANSWER_MS = 1_000
/**
 * The limit of each call that ends its container (Kill, Wait, Delete). containerd gives `delete` five seconds in all.
 */
const END_MS = 2_000

/**
 * The paths at which the container's shim listens or has listened. One follows from the shim v2 rule: a hash of
 * containerd's address, the namespace and the id. The other is in the bundle's file `address`.
 */
export function socketPaths({ bundle, address, namespace, id }: Flags): string[] {
  // not imported: loading node:crypto takes milliseconds, and `serve` runs from the same bundled file
  const { createHash } = process.getBuiltinModule('node:crypto')
  const hash = createHash('sha256')
    .update(join(address, namespace, id))
    .digest('hex')
  const named = bundle === '' ? '' : (readFile(join(bundle, BUNDLE_FILES.ADDRESS))?.trim() ?? '')
  const paths = [join(SOCKET.FOLDER, hash)]
  // The file is believed only when its socket has this container's hash as its name. Its folder may differ from the
  // default one.
  if (named.startsWith(`${SOCKET.SCHEME}/`) && basename(named) === hash) paths.push(named.slice(SOCKET.SCHEME.length))
  return [...new Set(paths)]
}

/** Ends the shim that still serves the container, if there is one. @throws RuntimeError when it cannot be killed */
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
    // no such file, or no process listens on it: the common case
    if (error instanceof RuntimeError) return undefined
    throw error
  }
}

/** False when the shim does not answer. Whether the container is gone afterwards is for the caller to find out. */
async function endThrough(connection: OwnedFd, id: string): Promise<boolean> {
  using client = new TtrpcClient({ stream: new Socket({ fd: connection.take(), readable: true, writable: true }) })
  const task = createClient(TaskService, client)
  try {
    await task.connect({ id }, { timeoutMs: ANSWER_MS })
  } catch {
    // it hangs; or it has just left, and the connection is closed
    return client.closed
  }
  const limit = { timeoutMs: END_MS }
  try {
    await task.kill({ id, signal: SIGKILL, all: true }, limit)
    await task.wait({ id }, limit)
    await task.delete({ id }, limit)
  } catch (error) {
    // it has no such container, or is still busy with its output: the caller cleans up the rest
    if (!(error instanceof TtrpcError)) throw error
    if (error.code === Code.UNAVAILABLE) return true
  }
  // a shim that has other containers ignores this
  await task.shutdown({ id }, limit).catch(() => undefined)
  return true
}

function killShim(pid: number, { namespace, id }: Flags): void {
  const stat = processStat(pid)
  if (stat === undefined) return
  const words = ` ${readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ')} `
  if (!words.includes(` -${FLAGS.NAMESPACE} ${namespace} -${FLAGS.ID} ${id} `)) return
  signalProcess(pid, stat.startTime, SIGKILL)
}
