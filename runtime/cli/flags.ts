/**
 * The command line's grammar: one table per command serves parsing, help and completion. It is the grammar of Go's flag
 * package, on which runc's users and tools rely. Any name has one dash or two, a value is the next word or follows `=`,
 * and a switch takes `=true` too. util.parseArgs cannot do this: it reads `-root` as a cluster of letters, and the
 * value of `-f=json` as "=json".
 *
 * Options may stand between positionals. Where a command takes a program (`rest`), everything from the program on
 * belongs to it. A tool that appends what its user typed may rely on that; otherwise the user could set options of the
 * tool's call.
 */
import { RuntimeError } from '../index.ts'

/** One option of a command. */
export interface OptionSpec {
  /** a count is a whole number that is not negative */
  readonly type: 'string' | 'boolean' | 'count'
  readonly short?: string
  readonly multiple?: boolean
  /**
   * the placeholder of the value in the help text; completion offers files for FILE, folders for DIR, the words for a|b
   */
  readonly value?: string
  readonly doc: string
}

/** Options by name. */
export type Options = Readonly<Record<string, OptionSpec>>

/** The arguments that a command accepts. */
export interface CommandSpec {
  readonly name: string
  readonly summary: string
  /** further paragraphs of the help text */
  readonly details?: readonly string[]
  /** command lines that can be copied */
  readonly examples?: readonly string[]
  /** names of the positionals, optional ones in brackets */
  readonly positionals: readonly string[]
  /** the last positional takes every word after the one before it, options too */
  readonly rest?: boolean
  readonly options: Options
}

/** Option values as given on the command line, by name. */
export type Values = Map<string, string[]>

/** The parsed arguments of one command. */
export interface ParsedArgs {
  readonly positionals: readonly string[]
  flag(name: string): boolean
  text(name: string): string | undefined
  texts(name: string): readonly string[]
  /** The value of a count. */
  count(name: string): number | undefined
}

const HELP: OptionSpec = { type: 'boolean', short: 'h', doc: 'print this text' }
/** The words that Go's strconv.ParseBool knows. */
const BOOLEANS = new Map<string, boolean>([
  ...['1', 't', 'T', 'true', 'TRUE', 'True'].map((word) => [word, true] as const),
  ...['0', 'f', 'F', 'false', 'FALSE', 'False'].map((word) => [word, false] as const),
])

function invalid(message: string): RuntimeError {
  return new RuntimeError('InvalidArgument', message)
}

/** All options of a command, with the help that every one has. */
export function allOptions(options: Options): Options {
  return { ...options, help: HELP }
}

function lookUp(options: Options, name: string): [string, OptionSpec] | undefined {
  const option = Object.hasOwn(options, name) ? options[name] : undefined
  return option === undefined
    ? Object.entries(options).find(([, { short }]) => short === name && name !== '')
    : [name, option]
}

/** Where the options of a command line go, and where they end. */
export interface ReadTarget {
  /** on an error, it has what was read before */
  readonly values: Values
  /** more words than so many end the options; default: any number is read */
  readonly words?: number
  /** the last of the words ends the options at once, whatever follows; default: false */
  readonly eager?: boolean
}

/**
 * Reads options into `values`, until argv ends, or `--`, or more words than `words`. Returns the words and the index at
 * which the rest begins.
 * @throws InvalidArgument naming the option
 */
export function readOptions(
  options: Options,
  argv: readonly string[],
  { values, words = Number.POSITIVE_INFINITY, eager = false }: ReadTarget,
): { words: string[]; end: number } {
  const found: string[] = []
  let i = 0
  for (; i < argv.length && !(eager && found.length === words); i++) {
    const word = argv[i] ?? ''
    if (word === '--') return { words: found, end: i + 1 }
    const match = /^(--?[^=-][^=]*)(?:=(.*))?$/s.exec(word)
    if (match === null) {
      if (word.startsWith('--')) throw invalid(`unknown option '${word}'`)
      if (found.length === words) break
      found.push(word)
      continue
    }
    const [, typed = '', attached] = match
    const known = lookUp(options, typed.replace(/^--?/, ''))
    if (known === undefined) throw invalid(`unknown option '${typed}'`)
    const [name, option] = known
    let value = attached
    if (option.type === 'boolean') {
      value ??= 'true'
      if (!BOOLEANS.has(value)) throw invalid(`option '${typed}' is a switch: "${value}" is neither true nor false`)
    } else if (value === undefined) {
      value = argv[++i]
      if (value === undefined) throw invalid(`option '${typed}' needs a value: ${option.value ?? 'VALUE'}`)
    }
    if (option.type === 'count' && !/^\d{1,9}$/.test(value)) {
      throw invalid(`invalid --${name} "${value}": must be a number`)
    }
    values.set(name, option.multiple === true ? [...(values.get(name) ?? []), value] : [value])
  }
  return { words: found, end: i }
}

/** The interface for commands to read their values. */
export function parsedArgs(positionals: readonly string[], values: Values): ParsedArgs {
  const text = (name: string): string | undefined => values.get(name)?.at(-1)
  return {
    positionals,
    flag: (name) => BOOLEANS.get(text(name) ?? 'false') === true,
    text,
    texts: (name) => values.get(name) ?? [],
    count(name) {
      const value = text(name)
      return value === undefined ? undefined : Number(value)
    },
  }
}

/** Parses a command's arguments. @throws InvalidArgument naming the option or the missing argument */
export function parseCommand(spec: CommandSpec, argv: readonly string[]): ParsedArgs {
  const wanted = spec.positionals.length
  const values: Values = new Map()
  let positionals: string[]
  try {
    const rest = spec.rest === true
    const words = rest ? wanted - 1 : Number.POSITIVE_INFINITY
    const read = readOptions(allOptions(spec.options), argv, { values, words, eager: rest })
    positionals = [...read.words, ...argv.slice(read.end)]
  } catch (error) {
    // help is printed even if the other arguments are wrong
    if (argv.includes('--help') || argv.includes('-h')) return parsedArgs([], new Map([['help', ['true']]]))
    throw error instanceof RuntimeError ? invalid(`${spec.name}: ${error.message}`) : error
  }
  const args = parsedArgs(positionals, values)
  if (args.flag('help')) return args
  const missing = spec.positionals.filter((name) => !name.startsWith('['))[positionals.length]
  if (missing !== undefined) throw invalid(`${spec.name}: missing argument <${missing}>`)
  const surplus = positionals[wanted]
  if (spec.rest !== true && surplus !== undefined) throw invalid(`${spec.name}: unexpected argument "${surplus}"`)
  return args
}
