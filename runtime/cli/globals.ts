/** The options before the command, which all commands share, and the environment variables for some of them. */
import { type FeatureGates, type LogLevel, RuntimeError } from '../index.ts'
import { hostFacts, parseLogLevel } from '../internal.ts'
import { type Options, parsedArgs, type Values } from './flags.ts'

/** The values of the global options. */
export interface Globals {
  /** the folder with the state of containers */
  readonly root: string
  /** whether the user named it */
  readonly rootGiven: boolean
  readonly systemdCgroup: boolean
  readonly rootless: boolean | 'auto'
  /** parts of the isolation that are switched off for debugging */
  readonly gates: Partial<FeatureGates>
  /** the cgroup to which the command itself moves before it makes a container */
  readonly monitorCgroup?: string
  /** the level from which messages of ts-init are logged */
  readonly containerLogLevel: LogLevel
}

/** The names of the feature gates on the command line. */
const GATES: Readonly<Record<string, keyof FeatureGates>> = {
  seccomp: 'seccomp',
  capabilities: 'capabilities',
  apparmor: 'apparmor',
  'cgroup-devices': 'cgroupDevices',
}

const GATES_VARIABLE = 'RUNTS_FEATURES_OFF'
const LEVEL_WORDS = 'debug|info|warning|error'

/** The global options. */
export const GLOBAL_OPTIONS = {
  root: {
    type: 'string',
    value: 'DIR',
    doc: 'where the state of containers is kept (default /run/runts, for another user than root $XDG_RUNTIME_DIR/runts)',
  },
  log: { type: 'string', value: 'FILE', doc: 'append the log to FILE (default: standard error)' },
  'log-format': { type: 'string', value: 'text|json', doc: 'format of the log (default text)' },
  'log-level': {
    type: 'string',
    value: LEVEL_WORDS,
    doc: 'how much is logged (default info with --log, else warning)',
  },
  'container-log-level': {
    type: 'string',
    value: LEVEL_WORDS,
    doc: "how much of what the container's side of the set-up reports is logged (default: as --log-level)",
  },
  debug: { type: 'boolean', doc: 'the same as --log-level debug' },
  'systemd-cgroup': {
    type: 'boolean',
    doc: 'let systemd make the cgroup of a new container, as a scope that cgroupsPath names as slice:prefix:name',
  },
  'monitor-cgroup': {
    type: 'string',
    value: 'PATH',
    doc: 'move the command itself to this cgroup (from the mount point, made where it is missing), so that a `run` that waits is not counted where it was started',
  },
  rootless: {
    type: 'string',
    value: 'true|false|auto',
    doc: 'go on without a cgroup where there is no permission to make one (default auto: unless run by root)',
  },
  criu: { type: 'string', value: 'FILE', doc: 'accepted for compatibility, and ignored' },
  'features-off': {
    type: 'string',
    value: 'LIST',
    doc: `for debugging, by root only: run containers without some of ${Object.keys(GATES).join(', ')} (separated by commas; also ${GATES_VARIABLE} in the environment)`,
  },
  version: { type: 'boolean', short: 'v', doc: 'print the version' },
  help: { type: 'boolean', short: 'h', doc: 'print this text' },
} as const satisfies Options

function invalid(message: string): RuntimeError {
  return new RuntimeError('InvalidArgument', message)
}

function parseGates(where: string, list: string | undefined): Partial<FeatureGates> {
  const off = (list ?? '').split(',').filter((word) => word !== '')
  const gates = off.map((word) => {
    const gate = Object.hasOwn(GATES, word) ? GATES[word] : undefined
    if (gate === undefined) throw invalid(`invalid ${where} "${word}": must be ${Object.keys(GATES).join(', ')}`)
    return [gate, false] as const
  })
  return Object.fromEntries(gates)
}

function parseRootless(text: string): boolean | 'auto' {
  if (text === 'auto') return text
  if (text === 'true' || text === 'false') return text === 'true'
  throw invalid(`invalid --rootless "${text}": must be true, false or auto`)
}

function defaultRoot(): string {
  const runtimeDir = process.env['XDG_RUNTIME_DIR']
  if (!runtimeDir) return '/run/runts'
  // root of a user namespace is the user who made it, unless USER says root
  const user = process.geteuid?.() !== 0 || (process.env['USER'] !== 'root' && hostFacts().rootless)
  return user ? `${runtimeDir}/runts` : '/run/runts'
}

/** The level of the log. @throws InvalidArgument */
export function logLevel(values: Values): LogLevel {
  const args = parsedArgs([], values)
  if (args.flag('debug')) return 'debug'
  const level = args.text('log-level')
  if (level !== undefined) return parseLogLevel('--log-level', level)
  return args.text('log') ? 'info' : 'warning'
}

/**
 * Reads the global options.
 * @throws InvalidArgument
 */
export function readGlobals(values: Values): Globals {
  const args = parsedArgs([], values)
  const root = args.text('root')
  if (root === '') throw invalid('invalid --root "": must be a folder')
  const monitorCgroup = args.text('monitor-cgroup')
  const containerLevel = args.text('container-log-level')
  return {
    root: root ?? defaultRoot(),
    rootGiven: root !== undefined,
    systemdCgroup: args.flag('systemd-cgroup'),
    ...(monitorCgroup ? { monitorCgroup } : {}),
    rootless: parseRootless(args.text('rootless') ?? 'auto'),
    gates: {
      ...parseGates(GATES_VARIABLE, process.env[GATES_VARIABLE]),
      ...parseGates('--features-off', args.text('features-off')),
    },
    containerLogLevel:
      containerLevel === undefined ? logLevel(values) : parseLogLevel('--container-log-level', containerLevel),
  }
}
