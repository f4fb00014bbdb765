/**
 * A log as lines, text or JSON, in runc's form, appended to a file or written to standard error. Each line is written
 * whole and at once, so several programs may share a file, and no line is lost when this process ends. pino is not used
 * here: loading it takes longer than most commands write, and its JSON would have to be parsed again for the text
 * format. ts-init's messages have a level of their own.
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import { RuntimeError } from './errors.ts'
import { atLevel, LOG_LEVELS, type LogFields, type Logger, type LogLevel, withFields } from './logger.ts'
import { reasonOf } from './sys/errno.ts'

/** The form of the lines. */
export type LogFormat = 'text' | 'json'

const LOG_FORMATS: readonly LogFormat[] = ['text', 'json']

/**
 * A level by its name; "warn" also means warning.
 * @throws InvalidArgument naming the option
 */
export function parseLogLevel(option: string, text: string): LogLevel {
  const level = LOG_LEVELS.find((name) => name === (text === 'warn' ? 'warning' : text))
  if (level !== undefined) return level
  throw new RuntimeError('InvalidArgument', `invalid ${option} "${text}": must be ${LOG_LEVELS.join(', ')}`)
}

/** An open log. */
export interface Log extends Logger {
  readonly format: LogFormat
  /** whether its lines go to standard error, where the error of a command is printed too */
  readonly isStderr: boolean
  /** The same log with another level. */
  at(level: LogLevel): Logger
  /** Closes the file; later lines are lost. */
  close(): void
}

/** A value of the text format: ordinary words as they are, all else quoted, so that a record is always one line. */
export function logValue(text: string): string {
  return /^[\w.@/^+-]+$/.test(text) ? text : JSON.stringify(text)
}

interface Line {
  readonly level: LogLevel
  readonly message: string
  readonly fields: LogFields
}

function line(format: LogFormat, { level, message, fields }: Line): string {
  const time = new Date().toISOString()
  const entries = Object.entries(fields).flatMap(([key, value]) =>
    value === undefined ? [] : [[key, typeof value === 'bigint' ? String(value) : value] as const],
  )
  if (format === 'json') return `${JSON.stringify({ level, msg: message, time, ...Object.fromEntries(entries) })}\n`
  const words = entries.map(([key, value]) => ` ${key}=${logValue(String(value))}`)
  return `time="${time}" level=${level} msg=${JSON.stringify(message)}${words.join('')}\n`
}

/**
 * Opens the log.
 * @throws InvalidArgument when the format is unknown or the file cannot be opened
 */
export function openLog(options: { file?: string; format?: string; level: LogLevel }): Log {
  const format = LOG_FORMATS.find((name) => name === (options.format ?? 'text'))
  if (format === undefined) {
    throw new RuntimeError('InvalidArgument', `invalid --log-format "${options.format}": must be text or json`)
  }
  const file = options.file === undefined || options.file === '' ? undefined : options.file
  let fd = 2
  try {
    if (file !== undefined) fd = openSync(file, 'a', 0o644)
  } catch (error) {
    throw new RuntimeError('InvalidArgument', `cannot open the log "${file}": ${reasonOf(error)}`, {
      cause: error,
    })
  }
  let broken = false
  const write = (level: LogLevel, fields: LogFields, message: string): void => {
    if (broken) return
    try {
      writeSync(fd, line(format, { level, message, fields }))
    } catch {
      // a full disk or a reader that is gone must not end a container: the log is no longer written
      broken = true
    }
  }
  const all: Logger = {
    debug: (fields, message) => write('debug', fields, message),
    info: (fields, message) => write('info', fields, message),
    warn: (fields, message) => write('warning', fields, message),
    error: (fields, message) => write('error', fields, message),
  }
  const at = (level: LogLevel): Logger => atLevel(all, level)
  const close = (): void => {
    if (file !== undefined && !broken) closeSync(fd)
    broken = true
  }
  return { ...at(options.level), format, isStderr: file === undefined, at, close }
}

/** The log settings of a program that embeds the runtime. */
export interface LogSettings {
  /** the file to append to; by default standard error */
  readonly path?: string
  readonly format?: LogFormat
  /** by default "warning" */
  readonly level?: LogLevel
  /** the level of ts-init's messages; by default that of the runtime */
  readonly containerLevel?: LogLevel
}

/** The two loggers that Container.create and exec take, on one log. */
export interface ConfiguredLog extends Disposable {
  readonly logger: Logger
  readonly containerLogger: Logger
}

/**
 * Opens one log for the runtime and its containers. Every line has the `command` (`cmd`) and, if given, the container
 * (`cid`).
 * @throws InvalidArgument
 */
export function configureLogging(command: string, settings: LogSettings = {}, containerId?: string): ConfiguredLog {
  const { path, format, level = 'warning', containerLevel = level } = settings
  const log = openLog({
    level,
    ...(path === undefined ? {} : { file: path }),
    ...(format === undefined ? {} : { format }),
  })
  const fields = { cid: containerId, cmd: command }
  return {
    logger: withFields(log, fields),
    containerLogger: withFields(log.at(containerLevel), fields),
    [Symbol.dispose]: log.close,
  }
}
