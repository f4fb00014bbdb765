/**
 * The log of a command: lines as runc writes them, text or JSON, appended to a file or written to standard error. A line is written at
 * once and whole, so that several commands may share a file and nothing is lost when this one ends. (pino was used here before: loading
 * it cost more than most commands write, and its JSON had to be parsed again for the text format.) The level of what the container's
 * own side reports is set apart from that of the runtime.
 */
import { openSync, writeSync } from 'node:fs'
import { errnoName, errnoOf, type LogFields, type Logger, RuntimeError } from '../index.ts'

const LEVELS = ['debug', 'info', 'warning', 'error'] as const

/** How severe a line is; a log shows its level and what is worse. */
export type Level = (typeof LEVELS)[number]

/** How the lines look. */
export type LogFormat = 'text' | 'json'

/** The formats, for the help text. */
export const LOG_FORMATS: readonly LogFormat[] = ['text', 'json']

/** A level by its name; "warn" is a warning too. @throws InvalidArgument naming the option */
export function parseLevel(option: string, text: string): Level {
  const level = LEVELS.find((name) => name === (text === 'warn' ? 'warning' : text))
  if (level !== undefined) return level
  throw new RuntimeError('InvalidArgument', `invalid ${option} "${text}": must be ${LEVELS.join(', ')}`)
}

/** A log that is open. */
export interface Log extends Logger {
  readonly format: LogFormat
  /** whether its lines go to standard error, where the error of a command is printed anyway */
  readonly isStderr: boolean
  /** The same log with a level of its own. */
  at(level: Level): Logger
}

function bare(text: string): boolean {
  return /^[\w.@/^+-]+$/.test(text)
}

function line(format: LogFormat, level: Level, message: string, fields: LogFields): string {
  const time = new Date().toISOString()
  const entries = Object.entries(fields).flatMap(([key, value]) =>
    value === undefined ? [] : [[key, typeof value === 'bigint' ? String(value) : value] as const],
  )
  if (format === 'json') return `${JSON.stringify({ level, msg: message, time, ...Object.fromEntries(entries) })}\n`
  const words = entries.map(([key, value]) => {
    const text = String(value)
    return ` ${key}=${bare(text) ? text : JSON.stringify(text)}`
  })
  return `time="${time}" level=${level} msg=${JSON.stringify(message)}${words.join('')}\n`
}

/** Opens the log. @throws InvalidArgument when the format is unknown or the file cannot be opened */
export function openLog(options: { file?: string; format?: string; level: Level }): Log {
  const format = LOG_FORMATS.find((name) => name === (options.format ?? 'text'))
  if (format === undefined) {
    throw new RuntimeError('InvalidArgument', `invalid --log-format "${options.format}": must be text or json`)
  }
  const file = options.file === undefined || options.file === '' ? undefined : options.file
  let fd = 2
  try {
    if (file !== undefined) fd = openSync(file, 'a', 0o644)
  } catch (error) {
    throw new RuntimeError('InvalidArgument', `cannot open the log "${file}": ${errnoName(errnoOf(error))}`, {
      cause: error,
    })
  }
  let broken = false
  const at = (shown: Level): Logger => {
    const write = (level: Level, fields: LogFields, message: string): void => {
      if (broken || LEVELS.indexOf(level) < LEVELS.indexOf(shown)) return
      try {
        writeSync(fd, line(format, level, message, fields))
      } catch {
        // a full disk or a reader that is gone must not end a container: the log is given up
        broken = true
      }
    }
    return {
      debug: (fields, message) => write('debug', fields, message),
      info: (fields, message) => write('info', fields, message),
      warn: (fields, message) => write('warning', fields, message),
      error: (fields, message) => write('error', fields, message),
    }
  }
  return { ...at(options.level), format, isStderr: file === undefined, at }
}
