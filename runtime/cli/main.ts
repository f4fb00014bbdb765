/**
 * runts: an OCI runtime on the command line. This file parses what precedes the command, opens the log, runs the command and turns a
 * failure into one line on standard error (and in the log), "runts: error: …", and an exit status: 1, or 255 for an `exec` that was understood and failed, so
 * that it is told from what the program of a container answers; as runc's users expect.
 */
import { exitNow, type Log, leaveStderrAlone, openLog, RuntimeError } from '../index.ts'
import { complain, print } from './command.ts'
import { COMMANDS } from './commands/index.ts'
import { REFUSED } from './commands/refused.ts'
import { versionText } from './commands/version.ts'
import { parseCommand, parsedArgs, readOptions, type Values } from './flags.ts'
import { GLOBAL_OPTIONS, logLevel, readGlobals } from './globals.ts'
import { commandHelp, programHelp } from './help.ts'

const EXEC_FAILED = 255

/** Who may be told of a failure: standard error only, until the log is open. */
let log: Log | undefined

function usage(): string {
  return programHelp(
    COMMANDS.map(({ spec }) => spec),
    REFUSED.map(({ spec }) => spec),
    GLOBAL_OPTIONS,
  )
}

/** The command of a name. @throws InvalidArgument, with the words that runc has for it */
function findCommand(name: string) {
  const command = [...COMMANDS, ...REFUSED].find(({ spec }) => spec.name === name)
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

/** Reads the global options and opens the log before it complains about any of them; where the command begins. */
function readFirst(argv: readonly string[], values: Values): number {
  try {
    return readOptions(GLOBAL_OPTIONS, argv, values, 0).end
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
