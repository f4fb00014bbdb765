/**
 * The entry point of the shim process: it reads the command line, sets the title that `ps` shows, and runs the one
 * action it was started for. Both actions are imported statically, because one flat bundle starts faster than two lazy
 * halves. Only the last lines of this file run at import.
 */
import { writeSync } from 'node:fs'
import { exitNow, leaveStderrAlone, messageOf, probeTurns } from '../runtime/internal.ts'
import { deleteLeftovers } from './cleanup.ts'
import { type Flags, parseFlags } from './flags.ts'
import { serve } from './serve.ts'

async function main(argv: readonly string[]): Promise<void> {
  let flags: Flags
  try {
    flags = parseFlags(argv)
  } catch (error) {
    complain(error)
    exitNow(2)
  }
  process.title = `containerd-shim-ts-v2 -namespace ${flags.namespace} -id ${flags.id} -address ${flags.address}`
  try {
    if (flags.action === 'serve') serve(flags)
    else await deleteLeftovers(flags)
  } catch (error) {
    complain(error)
    exitNow(1)
  }
}

/** One line on stderr: containerd reads it after `delete`, and for `serve` it is the log fifo. */
function complain(error: unknown): void {
  try {
    writeSync(2, `containerd-shim-ts-v2: ${messageOf(error)}\n`)
  } catch {
    // the log is full or closed, and there is no other place to write to
  }
}

// It names the socket on which containerd reports to systemd. Programs that the shim starts must not report there.
delete process.env['NOTIFY_SOCKET']
leaveStderrAlone()
probeTurns()
void main(process.argv.slice(2))
