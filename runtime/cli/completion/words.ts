/**
 * What completes the words of a command line, for every shell alike. It follows from the tables of the parser, so a
 * script offers what the parser accepts.
 */
import { constants } from 'node:os'
import type { CommandSpec, OptionSpec } from '../flags.ts'

/** The shells that have a script. */
const SHELLS = ['bash', 'zsh', 'fish'] as const

/** The name of such a shell. */
export type Shell = (typeof SHELLS)[number]

/** How a word is completed: paths, ids of containers, fixed words, or not at all. */
export type Completed =
  | { readonly kind: 'files' | 'folders' | 'ids' | 'none' }
  | { readonly kind: 'words'; readonly words: readonly string[] }

/** All that a script is made of. */
export interface CommandLine {
  readonly globals: Readonly<Record<string, OptionSpec>>
  /** with the options that every command has */
  readonly commands: readonly CommandSpec[]
}

const NONE: Completed = { kind: 'none' }

/** How the value of an option is completed; undefined for an option that takes none. */
export function completedValue({ type, value }: OptionSpec): Completed | undefined {
  if (type === 'boolean') return undefined
  if (value === 'FILE') return { kind: 'files' }
  if (value === 'DIR') return { kind: 'folders' }
  return value?.includes('|') ? { kind: 'words', words: value.split('|') } : NONE
}

/** Commands whose id is that of a container which does not exist yet. */
const MAKERS: ReadonlySet<string> = new Set(['create', 'run', 'restore'])

/** How the words after a command are completed, one after the other. */
export function positionalsOf({ name, positionals, rest }: CommandSpec): readonly Completed[] {
  return positionals.slice(0, rest === true ? -1 : undefined).map((word): Completed => {
    switch (word) {
      case 'ID':
        return MAKERS.has(name) ? NONE : { kind: 'ids' }
      case '[SIGNAL]':
        return { kind: 'words', words: signalNames() }
      case '[BUNDLE]':
        return { kind: 'folders' }
      case 'SHELL':
        return { kind: 'words', words: SHELLS }
      default:
        return NONE
    }
  })
}

function signalNames(): string[] {
  // two names of one signal are both offered: users know it by either
  return Object.keys(constants.signals).map((name) => name.replace(/^SIG/, ''))
}

/** The long and the short name of an option, with their dashes. */
export function namesOf(name: string, { short }: OptionSpec): readonly string[] {
  return [`--${name}`, ...(short === undefined ? [] : [`-${short}`])]
}

/** The first words of a sentence, for a list. */
export function brief(text: string): string {
  return (/^.*?(?=; |: | \(|\. |\.$|$)/s.exec(text)?.[0] ?? text).trim()
}
