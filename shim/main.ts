/**
 * Entry point of the shim process: reads the command line, takes its name in ps, and hands over to the one action it was started for.
 * Both actions are imported statically: one flat bundle starts faster than two lazy halves. Nothing happens at import but what is on
 * the last lines.
 */
import { writeSync } from 'node:fs'
import { exitNow, leaveStderrAlone, probeTurns } from '../runtime/index.ts'
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

/** stderr of `delete` is read by containerd, that of `serve` is the log fifo: one line for either. */
function complain(error: unknown): void {
  try {
    writeSync(2, `containerd-shim-ts-v2: ${error instanceof Error ? error.message : String(error)}\n`)
  } catch {
    // a full or closed log: there is nobody left to tell
  }
}

// it is about the daemon, and programs that we start would tell its service manager of themselves
delete process.env['NOTIFY_SOCKET']
leaveStderrAlone()
probeTurns()
void main(process.argv.slice(2))
