/**
 * runts: an OCI runtime on the command line. This file parses what precedes the command, makes the logger, runs the command and turns a
 * failure into one line on standard error (and in the log) and an exit status: 1, or 255 for `exec`, as runc's users expect.
 */
import { openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import pino from 'pino'
import { exitNow, type Logger, libDir, RuntimeError, silentLogger } from '../index.ts'
import { type Command, type Context, print } from './command.ts'
import { create } from './commands/create.ts'
import { exec } from './commands/exec.ts'
import { features, list, plan, state } from './commands/inspect.ts'
import { kill, pause, remove, resume, start } from './commands/lifecycle.ts'
import { run } from './commands/run.ts'
import { commandHelp, parseCommand, parseReason } from './flags.ts'

const COMMANDS: readonly Command[] = [
  create,
  start,
  run,
  exec,
  state,
  list,
  kill,
  remove,
  pause,
  resume,
  features,
  plan,
]

const GLOBAL_OPTIONS = {
  root: { type: 'string' },
  log: { type: 'string' },
  'log-format': { type: 'string' },
  debug: { type: 'boolean' },
  'systemd-cgroup': { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'v' },
} as const

function usage(): string {
  const width = Math.max(...COMMANDS.map(({ spec }) => spec.name.length))
  return [
    'usage: runts [global options] COMMAND [options] [arguments]',
    '',
    'Commands (runts COMMAND --help explains each):',
    ...COMMANDS.map(({ spec }) => `  ${spec.name.padEnd(width)}  ${spec.summary}`),
    '',
    'Global options:',
    '  --root DIR                 where the state of containers is kept (default /run/runts, for a user $XDG_RUNTIME_DIR/runts)',
    '  --log FILE                 append the log to FILE',
    '  --log-format text|json     format of the log (default text)',
    '  --debug                    log debug messages',
    '  -v, --version              print the version',
    '  -h, --help                 print this text',
    '',
  ].join('\n')
}

function defaultRoot(): string {
  const runtimeDir = process.env['XDG_RUNTIME_DIR']
  return process.getuid?.() !== 0 && runtimeDir ? `${runtimeDir}/runts` : '/run/runts'
}

function makeLogger(file: string | undefined, format: string, debug: boolean): Logger {
  if (format !== 'text' && format !== 'json') {
    throw new RuntimeError('InvalidArgument', `unknown log format "${format}": must be text or json`)
  }
  if (file === undefined && !debug) return silentLogger
  let fd = 2
  if (file !== undefined) {
    try {
      fd = openSync(file, 'a', 0o644)
    } catch (error) {
      throw new RuntimeError(
        'InvalidArgument',
        `cannot open the log "${file}": ${error instanceof Error ? error.message : error}`,
        { cause: error },
      )
    }
  }
  const destination = { write: (line: string) => void writeSync(fd, format === 'json' ? line : textLine(line)) }
  const log = pino(
    {
      base: null,
      level: debug ? 'debug' : 'info',
      messageKey: 'msg',
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label === 'warn' ? 'warning' : label }) },
    },
    destination,
  )
  return log
}

/** A JSON log line as runc's text format: time, level, msg, then the fields. */
function textLine(line: string): string {
  const { time, level, msg, ...fields } = JSON.parse(line) as Record<string, unknown>
  const rest = Object.entries(fields).map(([key, value]) => ` ${key}=${JSON.stringify(value)}`)
  return `time="${time}" level=${level} msg=${JSON.stringify(msg)}${rest.join('')}\n`
}

/** Index of the command in argv: the first word that is no global option and no value of one. */
function commandIndex(argv: readonly string[]): number {
  const { tokens } = parseArgs({
    args: [...argv],
    options: GLOBAL_OPTIONS,
    strict: false,
    allowPositionals: true,
    tokens: true,
  })
  return tokens.find((token) => token.kind === 'positional')?.index ?? argv.length
}

function globalOptions(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: GLOBAL_OPTIONS, strict: true }).values
  } catch (error) {
    throw new RuntimeError('InvalidArgument', parseReason(error), { cause: error })
  }
}

async function main(argv: readonly string[]): Promise<number> {
  const at = commandIndex(argv)
  const values = globalOptions(argv.slice(0, at))
  if (values.version) {
    print(`runts version ${readFileSync(join(libDir(), 'VERSION'), 'utf8').trim()}\nspec: 1.3.0\n`)
    return 0
  }
  const name = argv[at]
  if (name === undefined || name === 'help') {
    print(usage())
    return values.help || name === 'help' ? 0 : 1
  }
  const command = COMMANDS.find(({ spec }) => spec.name === name)
  if (command === undefined) {
    throw new RuntimeError('InvalidArgument', `unknown command "${name}": runts --help lists the commands`)
  }
  const logger = makeLogger(values.log, values['log-format'] ?? 'text', values.debug === true)
  const context: Context = { root: values.root ?? defaultRoot(), debug: values.debug === true, logger }
  try {
    if (values['systemd-cgroup']) {
      throw new RuntimeError('Unimplemented', 'cannot use --systemd-cgroup: the systemd cgroup driver is not supported')
    }
    const args = parseCommand(command.spec, argv.slice(at + 1))
    if (args.flag('help') || values.help) {
      print(commandHelp(command.spec))
      return 0
    }
    return await command.run(context, args)
  } catch (error) {
    logger.error({}, error instanceof Error ? error.message : String(error))
    if (name !== 'exec') throw error
    complain(error)
    return 255
  }
}

function complain(error: unknown): void {
  const text =
    error instanceof RuntimeError || !(error instanceof Error)
      ? String((error as Error).message)
      : (error.stack ?? error.message)
  writeSync(2, `runts: ${text}\n`)
}

main(process.argv.slice(2)).then(exitNow, (error: unknown) => {
  complain(error)
  exitNow(1)
})
