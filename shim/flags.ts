/**
 * The command line that the launcher gives us: Go-style flags (`-flag value`, `-flag=value`, one or two dashes), then the action.
 * It is a contract between two programs of one installation, so anything unknown is a mistake and refused by name.
 */

/** What this process is asked to be. */
export interface Flags {
  readonly action: 'serve' | 'delete'
  /** containerd's namespace */
  readonly namespace: string
  /** id of the container that this shim was started for */
  readonly id: string
  /** the daemon's gRPC socket, a path without scheme */
  readonly address: string
  /** the bundle; empty when the launcher was not told */
  readonly bundle: string
  /** the daemon's ttrpc socket, where events go; empty when there is none */
  readonly ttrpc: string
  /** path of our own socket */
  readonly socket: string
  readonly debug: boolean
}

const TEXT_FLAGS = ['namespace', 'id', 'address', 'bundle', 'ttrpc', 'socket'] as const
type TextFlag = (typeof TEXT_FLAGS)[number]

function isTextFlag(name: string): name is TextFlag {
  return TEXT_FLAGS.some((flag) => flag === name)
}

/** Reads the arguments after the script's name. @throws Error with one clear line */
export function parseFlags(argv: readonly string[]): Flags {
  const text: Record<TextFlag, string> = { namespace: '', id: '', address: '', bundle: '', ttrpc: '', socket: '' }
  let debug = false
  let at = 0
  for (; at < argv.length; at++) {
    const word = argv[at] ?? ''
    if (!word.startsWith('-')) break
    const [name = '', inline] = splitFlag(word)
    if (name === 'debug') {
      debug = inline === undefined || inline === 'true'
    } else if (isTextFlag(name)) {
      const value = inline ?? argv[++at]
      if (value === undefined) throw new Error(`flag needs an argument: -${name}`)
      text[name] = value
    } else throw new Error(`flag provided but not defined: ${word}`)
  }
  const action = argv[at]
  if (action !== 'serve' && action !== 'delete')
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
