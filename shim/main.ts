/**
 * The entry point of the shim process: it reads the command line, sets the title that `ps` shows, and runs the one
 * action it was started for. Serving and deleting are imported statically, because one flat bundle starts faster than
 * two parts; the worker of a keeper is a part. Only the last lines of this file run at import.
 */
import { writeSync } from 'node:fs'
import { ACTIONS, EXITS, FLAGS, PROGRAM, WORKER_NAME } from '../proto/launch.ts'
import { exitNow, leaveStderrAlone, messageOf, probeTurns } from '../runtime/internal.ts'
import { deleteLeftovers } from './cleanup.ts'
import { type Flags, parseFlags } from './flags.ts'
import { serve } from './serve.ts'

/** What operators and scripts expect to see of any shim. */
const TITLE_FLAGS = [FLAGS.NAMESPACE, FLAGS.ID, FLAGS.ADDRESS] as const

async function main(argv: readonly string[]): Promise<void> {
  let flags: Flags
  try {
    flags = parseFlags(argv)
  } catch (error) {
    complain(error)
    exitNow(EXITS.USAGE)
  }
  const isWorker = flags.action === ACTIONS.WORK
  process.title = isWorker
    ? WORKER_NAME
    : [PROGRAM, ...TITLE_FLAGS.flatMap((name) => [`-${name}`, flags[name]])].join(' ')
  try {
    if (flags.action === ACTIONS.SERVE) serve(flags)
    else if (isWorker) (await import('./work.ts')).work(flags)
    else await deleteLeftovers(flags)
  } catch (error) {
    complain(error)
    exitNow(EXITS.FAILURE)
  }
}

/** One line on stderr: containerd reads it after `delete`, and for `serve` it is the log fifo. */
function complain(error: unknown): void {
  try {
    writeSync(2, `${PROGRAM}: ${messageOf(error)}\n`)
  } catch {
    // the log is full or closed, and there is no other place to write to
  }
}

// It names the socket on which containerd reports to systemd. Programs that the shim starts must not report there.
delete process.env['NOTIFY_SOCKET']
leaveStderrAlone()
probeTurns()
void main(process.argv.slice(2))
