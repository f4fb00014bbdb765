/**
 * The command line's grammar: one table per command serves parsing and help. Options come first or between positionals; where a command
 * takes a program (`rest`), everything from the program's name on belongs to it. Parsing itself is Node's util.parseArgs.
 */
import { parseArgs } from 'node:util'
import { RuntimeError } from '../index.ts'

/** One option of a command. */
export interface OptionSpec {
  readonly type: 'string' | 'boolean'
  readonly short?: string
  readonly multiple?: boolean
  /** placeholder of the value in the help text */
  readonly value?: string
  readonly doc: string
}

/** What a command accepts. */
export interface CommandSpec {
  readonly name: string
  readonly summary: string
  /** names of the positionals, optional ones in brackets */
  readonly positionals: readonly string[]
  /** the last positional takes all that follows, options too */
  readonly rest?: boolean
  readonly options: Readonly<Record<string, OptionSpec>>
}

/** The parsed arguments of one command. */
export interface ParsedArgs {
  readonly positionals: readonly string[]
  flag(name: string): boolean
  text(name: string): string | undefined
  texts(name: string): readonly string[]
}

function invalid(message: string): RuntimeError {
  return new RuntimeError('InvalidArgument', message)
}

/** The first sentence of what util.parseArgs says, in the form of our own messages. */
export function parseReason(error: unknown): string {
  const reason = error instanceof Error ? (error.message.split('. ')[0] ?? '').replace(/\.$/, '') : String(error)
  return `${reason.charAt(0).toLowerCase()}${reason.slice(1)}`
}

type Config = Record<string, { type: 'string' | 'boolean'; short?: string; multiple?: boolean }>

function config(spec: CommandSpec): Config {
  const all: Config = { help: { type: 'boolean', short: 'h' } }
  for (const [name, option] of Object.entries(spec.options)) {
    all[name] = {
      type: option.type,
      ...(option.short === undefined ? {} : { short: option.short }),
      ...(option.multiple === undefined ? {} : { multiple: option.multiple }),
    }
  }
  return all
}

/** Where the n-th positional stands in argv, or argv's length. */
function positionalIndex(spec: CommandSpec, argv: readonly string[], n: number): number {
  const { tokens } = parseArgs({
    args: [...argv],
    options: config(spec),
    strict: false,
    allowPositionals: true,
    tokens: true,
  })
  let seen = 0
  for (const token of tokens) {
    if (token.kind === 'option-terminator') return seen === n ? token.index : argv.length
    if (token.kind === 'positional' && seen++ === n) return token.index
  }
  return argv.length
}

/** Parses a command's arguments. @throws InvalidArgument naming the option or the missing argument */
export function parseCommand(spec: CommandSpec, argv: readonly string[]): ParsedArgs {
  const wanted = spec.positionals.length
  const cut = spec.rest === true ? positionalIndex(spec, argv, wanted - 1) : argv.length
  let values: Record<string, unknown>
  let positionals: string[]
  try {
    const parsed = parseArgs({ args: argv.slice(0, cut), options: config(spec), strict: true, allowPositionals: true })
    values = parsed.values
    positionals = parsed.positionals
  } catch (error) {
    throw invalid(`${spec.name}: ${parseReason(error)}`)
  }
  const rest = argv.slice(cut)
  if (rest[0] === '--') rest.shift()
  positionals = [...positionals, ...rest]
  const help = values['help'] === true
  const required = spec.positionals.filter((name) => !name.startsWith('['))
  if (!help && positionals.length < required.length) {
    throw invalid(`${spec.name}: missing argument <${required[positionals.length] ?? ''}>`)
  }
  const surplus = positionals[wanted]
  if (!help && spec.rest !== true && surplus !== undefined)
    throw invalid(`${spec.name}: unexpected argument "${surplus}"`)
  return {
    positionals,
    flag: (name) => values[name] === true,
    text: (name) => {
      const value = values[name]
      return typeof value === 'string' ? value : undefined
    },
    texts: (name) => {
      const value = values[name]
      return Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string') : []
    },
  }
}

/** Help text of one command. */
export function commandHelp(spec: CommandSpec): string {
  const words = spec.positionals.map((name) => (name.startsWith('[') ? name : `<${name}>`))
  const lines = [
    `usage: runts ${spec.name} [options] ${words.join(' ')}${spec.rest === true ? '...' : ''}`,
    '',
    spec.summary,
    '',
  ]
  const rows = Object.entries(spec.options).map(([name, option]) => {
    const long = `--${name}${option.type === 'string' ? ` ${option.value ?? 'VALUE'}` : ''}`
    return [option.short === undefined ? `    ${long}` : `-${option.short}, ${long}`, option.doc] as const
  })
  const width = Math.max(10, ...rows.map(([left]) => left.length))
  for (const [left, doc] of rows) lines.push(`  ${left.padEnd(width)}  ${doc}`)
  return `${lines.join('\n').trimEnd()}\n`
}
