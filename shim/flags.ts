/**
 * The command line that the launcher passes on: flags in the style of Go (`-flag value`, `-flag=value`, one or two
 * dashes), then the action. The two programs belong to one installation, so an unknown flag is a mistake and is refused
 * by name.
 */

import { ACTIONS, FLAGS } from '../proto/launch.ts'

/** The command line, read. */
export interface Flags {
  readonly action: (typeof ACTIONS)[keyof typeof ACTIONS]
  /** containerd's namespace */
  readonly namespace: string
  /** id of the container that this shim was started for */
  readonly id: string
  /** containerd's gRPC socket, a path without scheme */
  readonly address: string
  /** the bundle; empty when the launcher was not told */
  readonly bundle: string
  /** containerd's ttrpc socket, where events go; empty when there is none */
  readonly ttrpc: string
  /** path of the shim's own socket, for `serve` */
  readonly socket: string
  readonly debug: boolean
}

const { DEBUG, ...TEXT_FLAGS } = FLAGS
type TextFlag = (typeof TEXT_FLAGS)[keyof typeof TEXT_FLAGS]

function isTextFlag(name: string): name is TextFlag {
  return Object.values(TEXT_FLAGS).some((flag) => flag === name)
}

/** Reads the arguments after the script's name. @throws Error with a message of one line */
export function parseFlags(argv: readonly string[]): Flags {
  const text: Record<TextFlag, string> = { namespace: '', id: '', address: '', bundle: '', ttrpc: '', socket: '' }
  let debug = false
  let at = 0
  for (; at < argv.length; at++) {
    const word = argv[at] ?? ''
    if (!word.startsWith('-')) break
    const [name = '', inline] = splitFlag(word)
    if (name === DEBUG) {
      debug = inline === undefined || inline === 'true'
    } else if (isTextFlag(name)) {
      const value = inline ?? argv[++at]
      if (value === undefined) throw new Error(`flag needs an argument: -${name}`)
      text[name] = value
    } else throw new Error(`flag provided but not defined: ${word}`)
  }
  const action = argv[at]
  if (action !== ACTIONS.SERVE && action !== ACTIONS.DELETE && action !== ACTIONS.WORK)
    throw new Error(`unknown action "${action ?? ''}": expected "serve" or "delete"`)
  if (text.id === '') throw new Error('no container id given: -id is missing')
  if (text.namespace === '') throw new Error('no namespace given: -namespace is missing')
  return { ...text, action, debug }
}

function splitFlag(word: string): [string, string | undefined] {
  const bare = word.replace(/^--?/, '')
  const equals = bare.indexOf('=')
  return equals < 0 ? [bare, undefined] : [bare.slice(0, equals), bare.slice(equals + 1)]
}
