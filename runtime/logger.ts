/**
 * The logger that library code gets by parameter: four methods, structured fields first. The caller makes it, with
 * log.ts or otherwise.
 */

/** Structured fields of a log line. Keys are fixed words of the runtime's, never outside data. */
export type LogFields = Readonly<Record<string, string | number | boolean | bigint | undefined>>

/** The severities of lines, the least severe first. */
export const LOG_LEVELS = ['debug', 'info', 'warning', 'error'] as const

/** A severity; a log shows lines of its own level and of more severe ones. */
export type LogLevel = (typeof LOG_LEVELS)[number]

/** The logger interface that runtime/ takes by parameter. */
export interface Logger {
  debug(fields: LogFields, message: string): void
  info(fields: LogFields, message: string): void
  warn(fields: LogFields, message: string): void
  error(fields: LogFields, message: string): void
}

function nothing(): void {}

/** A logger that drops everything. */
export const silentLogger: Logger = { debug: nothing, info: nothing, warn: nothing, error: nothing }

/** The same logger without the lines that are less severe than `level`. */
export function atLevel(logger: Logger, level: LogLevel): Logger {
  const least = LOG_LEVELS.indexOf(level)
  return {
    debug: least > 0 ? nothing : (fields, message) => logger.debug(fields, message),
    info: least > 1 ? nothing : (fields, message) => logger.info(fields, message),
    warn: least > 2 ? nothing : (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
  }
}

/** The same logger with these fields in each line. */
export function withFields(logger: Logger, more: LogFields): Logger {
  return {
    debug: (fields, message) => logger.debug({ ...more, ...fields }, message),
    info: (fields, message) => logger.info({ ...more, ...fields }, message),
    warn: (fields, message) => logger.warn({ ...more, ...fields }, message),
    error: (fields, message) => logger.error({ ...more, ...fields }, message),
  }
}
