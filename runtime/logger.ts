/** What library code may log with: four methods, structured fields first. The entry points pass a real one; the library never makes one. */

/** Structured fields of a log line; keys are fixed words of ours, never outside data. */
export type LogFields = Readonly<Record<string, string | number | boolean | bigint | undefined>>

/** The logger interface that runtime/ takes by parameter. */
export interface Logger {
  debug(fields: LogFields, message: string): void
  info(fields: LogFields, message: string): void
  warn(fields: LogFields, message: string): void
  error(fields: LogFields, message: string): void
}

/** A logger that says nothing. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} }
