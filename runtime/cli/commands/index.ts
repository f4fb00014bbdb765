/** The commands, in the order of the help text. */
import type { Command } from '../command.ts'
import { checkpoint, restore } from './checkpoint.ts'
import { completionCommand } from './completion.ts'
import { create } from './create.ts'
import { features, plan } from './describe.ts'
import { events } from './events.ts'
import { exec } from './exec.ts'
import { list, state } from './inspect.ts'
import { kill, pause, remove, resume, start } from './lifecycle.ts'
import { ps } from './ps.ts'
import { run } from './run.ts'
import { spec } from './spec.ts'
import { update } from './update.ts'

/** All commands. */
export const COMMANDS: readonly Command[] = [
  run,
  create,
  start,
  exec,
  state,
  list,
  ps,
  events,
  kill,
  pause,
  resume,
  update,
  checkpoint,
  restore,
  remove,
  spec,
  features,
  plan,
  completionCommand(() => COMMANDS.map(({ spec }) => spec)),
]
