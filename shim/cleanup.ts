/**
 * The `delete` command, for a container that its shim did not clean up. That shim has crashed, was killed, failed in
 * Create, or still lives and has lost its connection to containerd. This runs in a process of its own, without a
 * server, and knows only its command line. Every step tolerates that its object is gone, so a second run changes
 * nothing.
 *
 * Invariants: a DeleteResponse is always printed, because containerd reads an empty answer as "exit code 0". The exit
 * status is 0 only when nothing is left.
 */

import { realpathSync, unlinkSync, writeSync } from 'node:fs'
import { EXITS, PROGRAM } from '../proto/launch.ts'
import { deleteContainer, RuntimeError } from '../runtime/index.ts'
import {
  bundleOf,
  ENOENT,
  errnoOf,
  exitNow,
  failpoint,
  messageOf,
  realtime,
  reasonOf,
  unmountTree,
} from '../runtime/internal.ts'
import { answerOf, readExit, readRoot, readStatus, stateRoot } from './bundle.ts'
import type { Flags } from './flags.ts'
import { rootfsOf } from './rootfs.ts'
import { endSurvivor, socketPaths } from './survivor.ts'

/**
 * The exit status of a process that SIGKILL has ended, which is what this command does to a process that still runs.
 */
const KILLED_STATUS = 137

/** Cleans up, prints the answer, and ends the process. */
export async function deleteLeftovers(flags: Flags): Promise<never> {
  const { id, namespace } = flags
  const failures: string[] = []
  const step = async (work: () => unknown): Promise<void> => {
    try {
      await work()
    } catch (error) {
      failures.push(messageOf(error))
    }
  }
  const root = (flags.bundle === '' ? undefined : readRoot(flags.bundle)) ?? stateRoot('', namespace)
  let made = ''
  await step(() => {
    made = bundleOf(root, id)
  })
  const bundle = flags.bundle === '' ? made : flags.bundle
  failpoint('cleanup:begin')
  await step(() => endSurvivor(flags))
  let pid = 0
  await step(async () => {
    // The id belongs to a container of another bundle, made for another containerd: Create was refused, and containerd
    // now deletes what it takes for a leftover. That container must stay.
    if (made !== '' && !isSameFolder(made, bundle)) return
    pid = await deleteContainer(root, id, { force: true })
  })
  failpoint('cleanup:container')
  if (bundle !== '') await step(() => unmountTree(rootfsOf(bundle)))
  failpoint('cleanup:unmounted')
  await step(() => removeSockets(flags))
  failpoint('cleanup:done')
  // read only now: a shim that was still alive may have written it during endSurvivor()
  const record = bundle === '' ? undefined : (readExit(bundle) ?? readStatus(bundle))
  writeSync(1, answerOf(record ?? { pid, exit: { status: KILLED_STATUS, at: realtime() } }))
  if (failures.length > 0) writeSync(2, `${PROGRAM}: ${failures.join('; ')}\n`)
  return exitNow(failures.length === 0 ? 0 : EXITS.FAILURE)
}

/** Whether two paths name the same folder; a folder that is gone is compared by its name. */
function isSameFolder(one: string, other: string): boolean {
  if (one === other) return true
  try {
    return realpathSync(one) === realpathSync(other)
  } catch {
    // one of them is gone, and the names differ
    return false
  }
}

function removeSockets(flags: Flags): void {
  for (const path of socketPaths(flags)) {
    try {
      unlinkSync(path)
    } catch (error) {
      if (errnoOf(error) === ENOENT) continue
      throw new RuntimeError('Internal', `cannot remove the socket "${path}": ${reasonOf(error)}`, { cause: error })
    }
  }
}
