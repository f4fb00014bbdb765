/**
 * `delete` of a container whose shim did not say goodbye: it crashed, was killed, or never got as far. Runs in a process of its own,
 * without a server, from nothing but the command line; every step tolerates that its object is gone, and a second run changes nothing.
 * Invariant: a DeleteResponse is always printed (an empty answer would mean "exit code 0"), and exit status 0 only when all is clean.
 */
import { unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { DeleteResponse } from 'ttrpc-ts/containerd'
import { deleteContainer, errnoName, errnoOf, exitNow, RuntimeError, realtime, unmountTree } from '../runtime/index.ts'
import { type ExitRecord, readExit, readFile, readRoot, stateRoot } from './bundle.ts'
import type { Flags } from './flags.ts'
import { rootfsOf } from './rootfs.ts'
import { messageOf } from './status.ts'

/** A process that was killed by signal 9, which is what happens here to whatever still runs. */
const KILLED_STATUS = 137
const DEFAULT_SOCKET_DIR = '/run/containerd/s'

/** Cleans up, prints the answer, and ends the process. */
export async function deleteLeftovers(flags: Flags): Promise<never> {
  const { id, namespace, bundle } = flags
  const record = readExit(bundle)
  const failures: string[] = []
  let pid = 0
  try {
    pid = await deleteContainer(readRoot(bundle) ?? stateRoot('', namespace), id, { force: true })
  } catch (error) {
    failures.push(messageOf(error))
  }
  for (const step of [() => unmountTree(rootfsOf(bundle)), () => removeSockets(flags)]) {
    try {
      step()
    } catch (error) {
      failures.push(messageOf(error))
    }
  }
  answer(record ?? { pid, exit: { status: KILLED_STATUS, at: realtime() } })
  if (failures.length > 0) writeSync(2, `containerd-shim-ts-v2: ${failures.join('; ')}\n`)
  return exitNow(failures.length === 0 ? 0 : 1)
}

/** The socket that the bundle names, and the one that the rule gives (shim v2: a hash of daemon, namespace and id). */
function removeSockets({ bundle, address, namespace, id, socket }: Flags): void {
  // loading it takes milliseconds that a serving shim, which shares this bundle, must not pay
  const { createHash } = process.getBuiltinModule('node:crypto')
  const hash = createHash('sha256')
    .update(join(address, namespace, id))
    .digest('hex')
  const named = readFile(join(bundle, 'address'))?.trim() ?? ''
  const prefix = 'unix://'
  const paths = [socket, join(DEFAULT_SOCKET_DIR, hash), named.startsWith(prefix) ? named.slice(prefix.length) : '']
  for (const path of paths) {
    if (path === '') continue
    try {
      unlinkSync(path)
    } catch (error) {
      const name = errnoName(errnoOf(error))
      if (name !== 'ENOENT')
        throw new RuntimeError('Internal', `cannot remove the socket "${path}": ${name}`, { cause: error })
    }
  }
}

function answer({ pid, exit }: ExitRecord): void {
  writeSync(1, DeleteResponse.encode({ pid, exitStatus: exit.status, exitedAt: exit.at }))
}
