/**
 * The shim's log. pino makes the records, and this file turns them into the text lines that containerd itself writes
 * (`time=… level=… msg=… key=value`). They go to fd 2, which is the bundle's `log` fifo.
 *
 * Loading pino takes about 10 ms, more than a container's Start. It is therefore loaded when the first line is to be
 * written. The life of an ordinary container without -debug never gets there.
 *
 * Invariants: a write never blocks, because the fifo is non-blocking. It never fails a caller: without a reader or
 * without room the line is dropped. A descriptor that is broken for good is given up after one attempt.
 */
import { writeSync } from 'node:fs'
import { constants } from 'node:os'
import type { LogFields, Logger } from '../runtime/index.ts'
import { errnoOf, logValue } from '../runtime/internal.ts'

/** How many lines may wait while pino is being loaded. More are dropped. */
const MAX_PENDING = 256

const LEVELS = ['debug', 'info', 'warn', 'error'] as const
type Level = (typeof LEVELS)[number]
const LEVEL_NAMES: Readonly<Record<number, string>> = {
  20: 'debug',
  30: 'info',
  40: 'warning',
  50: 'error',
  60: 'fatal',
}

/** A logger whose lines can be waited for before the process ends. */
export interface ShimLogger extends Logger {
  /** Resolves when everything that was logged has been handed to the descriptor. */
  flush(): Promise<void>
}

/** Writes a line; false when the descriptor can no longer be used. */
export type LineWriter = (line: string) => boolean

type Emit = (level: Level, fields: LogFields, message: string) => void

/** A logger that adds `fields` to every line; debug and info lines are written only with `debug`. */
export function createLogger(options: { debug: boolean; fields: LogFields; write?: LineWriter }): ShimLogger {
  const write = options.write ?? writeToStderr
  const lowest = LEVELS.indexOf(options.debug ? 'debug' : 'warn')
  const pending: { level: Level; fields: LogFields; message: string; at: number }[] = []
  let emit: Emit | undefined
  let loading: Promise<void> | undefined

  async function load(): Promise<void> {
    // a CommonJS module, of which a part of a bundle has this name alone
    const { default: pino } = await import('pino')
    let usable = true
    // pino passes everything: log() has already compared the levels
    const target = pino(
      {
        level: 'debug',
        base: plain(options.fields),
        timestamp: () => `,"time":${JSON.stringify(new Date().toISOString())}`,
      },
      {
        write(json: string) {
          if (usable) usable = write(formatLine(json))
        },
      },
    )
    emit = (level, fields, message) => target[level](plain(fields), message)
    for (const line of pending.splice(0))
      emit(line.level, { ...line.fields, loggedAt: new Date(line.at).toISOString() }, line.message)
  }

  function log(level: Level, fields: LogFields, message: string): void {
    if (LEVELS.indexOf(level) < lowest) return
    if (emit !== undefined) {
      emit(level, fields, message)
      return
    }
    if (pending.length < MAX_PENDING) pending.push({ level, fields, message, at: Date.now() })
    loading ??= load().catch(() => {
      // without its library the log stays silent, and the shim goes on
      pending.length = 0
    })
  }

  return {
    debug: (fields, message) => log('debug', fields, message),
    info: (fields, message) => log('info', fields, message),
    warn: (fields, message) => log('warn', fields, message),
    error: (fields, message) => log('error', fields, message),
    flush: async () => {
      if (loading !== undefined) await loading
    },
  }
}

/** JSON has no 64-bit integers, so they are logged as decimal text. */
function plain(fields: LogFields): Record<string, string | number | boolean | undefined> {
  return Object.fromEntries(
    Object.entries(fields).map(([key, value]) => [key, typeof value === 'bigint' ? value.toString() : value]),
  )
}

/** One line of pino's JSON as containerd's text. */
export function formatLine(json: string): string {
  const record: Record<string, unknown> = JSON.parse(json)
  const { level, time, msg, loggedAt, ...fields } = record
  const words = [
    `time=${logValue(String(loggedAt ?? time))}`,
    `level=${LEVEL_NAMES[Number(level)] ?? String(level)}`,
    `msg=${logValue(String(msg ?? ''))}`,
  ]
  for (const [key, value] of Object.entries(fields)) {
    words.push(`${key}=${logValue(typeof value === 'object' ? JSON.stringify(value) : String(value))}`)
  }
  return `${words.join(' ')}\n`
}

function writeToStderr(line: string): boolean {
  try {
    writeSync(2, line)
    return true
  } catch (error) {
    // The fifo is full, or containerd is down and may come back: this line is lost, and the next one may pass.
    const { EAGAIN, EINTR, EPIPE } = constants.errno
    return [EAGAIN, EINTR, EPIPE].includes(errnoOf(error))
  }
}
