/**
 * runts: an OCI runtime on the command line. This file parses the options before the command, opens the log and runs
 * the command. A failure becomes one line on standard error and in the log, "runts: error: …". The exit status is then
 * 1. It is 255, as with runc, for an `exec` with a correct command line, which distinguishes the failure from an exit
 * status of the program.
 */

import { RuntimeError } from '../index.ts'
import { exitNow, type Log, leaveStderrAlone, openLog } from '../internal.ts'
import { complain, print } from './command.ts'
import { COMMANDS } from './commands/index.ts'
import { versionText } from './commands/version.ts'
import { parseCommand, parsedArgs, readOptions, type Values } from './flags.ts'
import { GLOBAL_OPTIONS, logLevel, readGlobals } from './globals.ts'
import { commandHelp, programHelp } from './help.ts'

const EXEC_FAILED = 255

/** The log for failures; until it is open they go to standard error only. */
let log: Log | undefined

function usage(): string {
  return programHelp(
    COMMANDS.map(({ spec }) => spec),
    GLOBAL_OPTIONS,
  )
}

/**
 * The command of a name.
 * @throws InvalidArgument in runc's words
 */
function findCommand(name: string) {
  const command = COMMANDS.find(({ spec }) => spec.name === name)
  if (command !== undefined) return command
  throw new RuntimeError(
    'InvalidArgument',
    `unknown command "${name}": No help topic for '${name}' (runts --help lists the commands)`,
  )
}

function open(values: Values): Log {
  const [file] = values.get('log') ?? []
  const [format] = values.get('log-format') ?? []
  return openLog({
    level: logLevel(values),
    ...(file === undefined ? {} : { file }),
    ...(format === undefined ? {} : { format }),
  })
}

/** Reads the global options, and opens the log before it reports an error in them; the index of the command. */
function readFirst(argv: readonly string[], values: Values): number {
  try {
    return readOptions(GLOBAL_OPTIONS, argv, { values, words: 0 }).end
  } finally {
    log = open(values)
  }
}

async function main(argv: readonly string[]): Promise<number> {
  const values: Values = new Map()
  const at = readFirst(argv, values)
  const globals = parsedArgs([], values)
  const [name, ...rest] = argv.slice(at)
  if (globals.flag('version')) {
    print(versionText())
    return 0
  }
  const [topic] = rest
  const asksForHelp = name === 'help' || name === 'h'
  if (name === undefined || globals.flag('help') || (asksForHelp && topic === undefined)) {
    print(usage())
    return 0
  }
  if (asksForHelp && topic !== undefined) {
    print(commandHelp(findCommand(topic).spec))
    return 0
  }
  const command = findCommand(name)
  const args = parseCommand(command.spec, rest)
  if (args.flag('help')) {
    print(commandHelp(command.spec))
    return 0
  }
  const settings = readGlobals(values)
  const logger = log ?? open(values)
  logger.debug({ command: name, id: args.positionals[0] }, 'runts')
  try {
    return await command.run({ ...settings, logger, containerLogger: logger.at(settings.containerLogLevel) }, args)
  } catch (error) {
    complain(error, log)
    return name === 'exec' ? EXEC_FAILED : 1
  }
}

leaveStderrAlone()
main(process.argv.slice(2)).then(exitNow, (error: unknown) => {
  complain(error, log)
  exitNow(1)
})
