/**
 * The options of `update` for single limits, which are runc's, and the document that they stand for. That document goes
 * the way of every other one, so an option accepts what the field of config.json accepts. Invariant: a value is
 * understood as runc understands it, or refused by the name of its option.
 */
import { type LinuxResources, parseResources, RuntimeError, stringifyJson } from '../index.ts'
import type { Options, ParsedArgs } from './flags.ts'

/** How the text of an option becomes a value. */
type Reader = (text: string) => bigint | string

interface LimitOption {
  /** the place of the value in `linux.resources` */
  readonly field: readonly [part: string, name: string]
  readonly read: Reader
  readonly placeholder: string
  readonly doc: string
}

const UNITS: ReadonlyMap<string, bigint> = new Map(
  ['', 'k', 'm', 'g', 't', 'p'].map((letter, power) => [letter, 1024n ** BigInt(power)]),
)

/** The grammar of sizes is that of the package go-units: a fraction, and a binary unit with or without "iB" or "B". */
const SIZE = /^\+?(?<whole>\d*)(?:\.(?<part>\d*))? ?(?:b|(?<unit>[kmgtp])(?:i?b)?)?$/i

function wholeNumber(text: string): bigint {
  if (!/^[+-]?\d+$/.test(text)) throw new Error('it is not a whole number')
  return BigInt(text.replace(/^\+/, ''))
}

/** A size in bytes, "-1" for no limit. */
function size(text: string): bigint {
  if (text === '-1') return -1n
  const { whole = '', part = '', unit = '' } = SIZE.exec(text)?.groups ?? {}
  if (whole === '' && part === '') {
    throw new Error('it is not a size such as 1073741824, 512m, 1.5GiB, or -1 for no limit')
  }
  const factor = UNITS.get(unit.toLowerCase()) ?? 1n
  const scale = 10n ** BigInt(part.length)
  return (BigInt(whole + part) * factor) / scale
}

const verbatim: Reader = (text) => text

/** The options by name, in runc's order. */
const LIMITS: Readonly<Record<string, LimitOption>> = {
  'blkio-weight': {
    field: ['blockIO', 'weight'],
    read: wholeNumber,
    placeholder: 'N',
    doc: 'weight of block I/O, 10 to 1000',
  },
  'cpu-period': {
    field: ['cpu', 'period'],
    read: wholeNumber,
    placeholder: 'USEC',
    doc: 'the period of --cpu-quota, in microseconds',
  },
  'cpu-quota': {
    field: ['cpu', 'quota'],
    read: wholeNumber,
    placeholder: 'USEC',
    doc: 'processor time in each period, in microseconds; -1: no limit',
  },
  'cpu-burst': {
    field: ['cpu', 'burst'],
    read: wholeNumber,
    placeholder: 'USEC',
    doc: 'unused time that may be added to a period, in microseconds',
  },
  'cpu-share': {
    field: ['cpu', 'shares'],
    read: wholeNumber,
    placeholder: 'N',
    doc: 'weight among other groups, 2 to 262144; 1024 is usual',
  },
  'cpu-rt-period': {
    field: ['cpu', 'realtimePeriod'],
    read: wholeNumber,
    placeholder: 'USEC',
    doc: 'the period of --cpu-rt-runtime, in microseconds (cgroup v1)',
  },
  'cpu-rt-runtime': {
    field: ['cpu', 'realtimeRuntime'],
    read: wholeNumber,
    placeholder: 'USEC',
    doc: 'time of real-time processes in each of these periods (cgroup v1)',
  },
  'cpuset-cpus': {
    field: ['cpu', 'cpus'],
    read: verbatim,
    placeholder: 'LIST',
    doc: 'processors to use, such as 0-2,7',
  },
  'cpuset-mems': {
    field: ['cpu', 'mems'],
    read: verbatim,
    placeholder: 'LIST',
    doc: 'nodes of memory to use, such as 0,1',
  },
  'kernel-memory': {
    field: ['memory', 'kernel'],
    read: size,
    placeholder: 'BYTES',
    doc: 'obsolete: ignored with a warning, since the kernel has no such limit',
  },
  'kernel-memory-tcp': {
    field: ['memory', 'kernelTCP'],
    read: size,
    placeholder: 'BYTES',
    doc: 'obsolete, as --kernel-memory',
  },
  memory: {
    field: ['memory', 'limit'],
    read: size,
    placeholder: 'BYTES',
    doc: 'limit of memory: a number with a unit (k, m, g, t, p: powers of 1024) or without; -1: no limit',
  },
  'cpu-idle': {
    field: ['cpu', 'idle'],
    read: wholeNumber,
    placeholder: '0|1',
    doc: '1: run only when nothing else wants the processor (SCHED_IDLE)',
  },
  'memory-reservation': {
    field: ['memory', 'reservation'],
    read: size,
    placeholder: 'BYTES',
    doc: 'memory that is reclaimed from others first',
  },
  'memory-swap': {
    field: ['memory', 'swap'],
    read: size,
    placeholder: 'BYTES',
    doc: 'limit of memory and swap together; -1: no limit',
  },
  'pids-limit': {
    field: ['pids', 'limit'],
    read: wholeNumber,
    placeholder: 'N',
    doc: 'the most processes and threads; -1: no limit',
  },
}

/** The options, for the table of the command. */
export const LIMIT_OPTIONS: Options = Object.fromEntries(
  Object.entries(LIMITS).map(([name, { placeholder, doc }]) => [name, { type: 'string', value: placeholder, doc }]),
)

/**
 * The limits that the options name; one that is empty counts as left out, as with runc.
 * @throws InvalidArgument naming the option
 */
export function limitsOf(args: ParsedArgs): LinuxResources {
  let limits = parseResources('{}')
  const document: Record<string, Record<string, bigint | string>> = {}
  for (const [name, { field, read }] of Object.entries(LIMITS)) {
    const text = args.text(name)
    if (text === undefined || text === '') continue
    const [part, key] = field
    document[part] = { ...document[part], [key]: readValue(name, text, read) }
    try {
      // after each option, so that a value out of its range is refused by the name of the option
      limits = parseResources(stringifyJson(document))
    } catch (error) {
      throw invalid(name, text, error)
    }
  }
  return limits
}

function readValue(name: string, text: string, read: Reader): bigint | string {
  try {
    return read(text)
  } catch (error) {
    throw invalid(name, text, error)
  }
}

function invalid(name: string, text: string, error: unknown): RuntimeError {
  const reason = error instanceof Error ? error.message : String(error)
  return new RuntimeError('InvalidArgument', `update: invalid value for ${name}: "${text}": ${reason}`, {
    cause: error,
  })
}
