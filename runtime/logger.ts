/** What library code may log with: four methods, structured fields first. The entry points pass a real one; the library never makes one. */

/** Structured fields of a log line; keys are fixed words of ours, never outside data. */
export type LogFields = Readonly<Record<string, string | number | boolean | bigint | undefined>>

/** How severe a line is. */
export const LOG_LEVELS = ['debug', 'info', 'warning', 'error'] as const

/** One of them; a log shows its own level and what is worse. */
export type LogLevel = (typeof LOG_LEVELS)[number]

/** The logger interface that runtime/ takes by parameter. */
export interface Logger {
  debug(fields: LogFields, message: string): void
  info(fields: LogFields, message: string): void
  warn(fields: LogFields, message: string): void
  error(fields: LogFields, message: string): void
}

function nothing(): void {}

/** A logger that says nothing. */
export const silentLogger: Logger = { debug: nothing, info: nothing, warn: nothing, error: nothing }

/** The same logger, but for what is less severe than `level`. */
export function atLevel(logger: Logger, level: LogLevel): Logger {
  const least = LOG_LEVELS.indexOf(level)
  return {
    debug: least > 0 ? nothing : (fields, message) => logger.debug(fields, message),
    info: least > 1 ? nothing : (fields, message) => logger.info(fields, message),
    warn: least > 2 ? nothing : (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
  }
}

/** The same logger, each line of which has these fields too. */
export function withFields(logger: Logger, more: LogFields): Logger {
  return {
    debug: (fields, message) => logger.debug({ ...more, ...fields }, message),
    info: (fields, message) => logger.info({ ...more, ...fields }, message),
    warn: (fields, message) => logger.warn({ ...more, ...fields }, message),
    error: (fields, message) => logger.error({ ...more, ...fields }, message),
  }
}
