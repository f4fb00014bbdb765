/**
 * `delete` of a container whose shim did not say goodbye: it crashed, was killed, or never got as far; or it lives, and containerd has
 * lost it. Runs in a process of its own, without a server, from nothing but the command line; every step tolerates that its object is
 * gone, and a second run changes nothing. Invariant: a DeleteResponse is always printed (an empty answer would mean "exit code 0"), and
 * exit status 0 only when all is clean.
 */

import { realpathSync, unlinkSync, writeSync } from 'node:fs'
import {
  bundleOf,
  deleteContainer,
  ENOENT,
  errnoOf,
  exitNow,
  failpoint,
  RuntimeError,
  realtime,
  reasonOf,
  unmountTree,
} from '../runtime/index.ts'
import { answerOf, readExit, readRoot, readStatus, stateRoot } from './bundle.ts'
import type { Flags } from './flags.ts'
import { rootfsOf } from './rootfs.ts'
import { messageOf } from './status.ts'
import { endSurvivor, socketPaths } from './survivor.ts'

/** A process that was killed by signal 9, which is what happens here to whatever still runs. */
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
    // an id that another daemon's container has: a Create was refused for it, and this is what follows
    if (made !== '' && !isSameFolder(made, bundle)) return
    pid = await deleteContainer(root, id, { force: true })
  })
  failpoint('cleanup:container')
  if (bundle !== '') await step(() => unmountTree(rootfsOf(bundle)))
  failpoint('cleanup:unmounted')
  await step(() => removeSockets(flags))
  failpoint('cleanup:done')
  // read at the end: a shim that lived has written it just now
  const record = bundle === '' ? undefined : (readExit(bundle) ?? readStatus(bundle))
  writeSync(1, answerOf(record ?? { pid, exit: { status: KILLED_STATUS, at: realtime() } }))
  if (failures.length > 0) writeSync(2, `containerd-shim-ts-v2: ${failures.join('; ')}\n`)
  return exitNow(failures.length === 0 ? 0 : 1)
}

/** Whether two paths name one folder, there or not. */
function isSameFolder(one: string, other: string): boolean {
  if (one === other) return true
  try {
    return realpathSync(one) === realpathSync(other)
  } catch {
    // what is not there has but the name that it had
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
