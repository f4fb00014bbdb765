/** What a stdio string of a request means; the schemes of shim v2. Pure: nothing is opened or looked at. */
import { RuntimeError } from '../../runtime/index.ts'

/** The streams of a process as the client named them. */
export interface StdioPaths {
  readonly stdin: string
  readonly stdout: string
  readonly stderr: string
  readonly terminal: boolean
}

/** A program that takes both outputs. `strict`: it must say that it is ready, not merely close the pipe on which it would. */
export interface LogProgram {
  readonly kind: 'program'
  readonly path: string
  readonly args: readonly string[]
  readonly strict: boolean
}

/**
 * Where a stream leads. `path` is a fifo that the client made, or any other file that is there; `file` is made when missing; `program`
 * is started.
 */
export type StreamTarget = FileTarget | LogProgram
/** Where a stream of its own leads. */
export type FileTarget =
  | { readonly kind: 'null' }
  | { readonly kind: 'path'; readonly path: string }
  | { readonly kind: 'file'; readonly path: string }

/** The streams of a process. A program as stdout takes stderr as well, whose own target is then `null`. */
export interface Streams {
  readonly stdin: FileTarget
  readonly stdout: StreamTarget
  readonly stderr: FileTarget
}

/** Reads one stdio string. @throws InvalidArgument */
export function parseStdio(uri: string): StreamTarget {
  if (uri === '') return { kind: 'null' }
  if (uri.includes('\0')) throw unusable(uri.replaceAll('\0', '\\0'), 'it holds a NUL')
  if (uri.startsWith('/')) return { kind: 'path', path: uri }
  const match = /^(?<scheme>[A-Za-z][A-Za-z0-9+.-]*):\/\/(?<path>[^?#]*)(?:\?(?<query>[^#]*))?/.exec(uri)
  const { scheme, path = '', query = '' } = match?.groups ?? {}
  switch (scheme) {
    case 'fifo':
      return { kind: 'path', path: absolute(path, uri) }
    case 'file':
      return { kind: 'file', path: absolute(path, uri) }
    case 'binary':
    case 'binary-v2':
      return { kind: 'program', path: absolute(path, uri), args: queryArgs(query, uri), strict: scheme === 'binary-v2' }
    case undefined:
      throw unusable(uri, 'it is neither an absolute path nor a URI')
    default:
      throw unusable(uri, `unknown STDIO scheme ${scheme}`)
  }
}

function unusable(uri: string, reason: string, cause?: unknown): RuntimeError {
  return new RuntimeError('InvalidArgument', `cannot use "${uri}" as a stream: ${reason}`, { cause })
}

function decode(text: string, uri: string, what: string): string {
  let decoded: string
  try {
    decoded = decodeURIComponent(text)
  } catch (error) {
    throw unusable(uri, `its ${what} is not properly escaped`, error)
  }
  if (decoded.includes('\0')) throw unusable(uri, `its ${what} holds a NUL`)
  return decoded
}

function absolute(path: string, uri: string): string {
  const decoded = decode(path, uri, 'path')
  if (!decoded.startsWith('/')) throw unusable(uri, 'its path is not absolute')
  return decoded
}

/** Each key of a query once, followed by its first value, escapes undone as in a form: that is how a log program gets its arguments. */
function queryArgs(query: string, uri: string): string[] {
  const values = new Map<string, string>()
  for (const pair of query.split('&')) {
    if (pair === '') continue
    const [key, value] = pair.replaceAll('+', ' ').split(/=(.*)/s, 2)
    const name = decode(key ?? '', uri, 'query')
    if (!values.has(name)) values.set(name, decode(value ?? '', uri, 'query'))
  }
  return [...values].flat()
}

/**
 * The three streams. With a terminal everything comes out of stdout; a file or program takes both outputs, wherever stderr pointed.
 * @throws InvalidArgument
 */
export function parseStreams(paths: StdioPaths): Streams {
  const stdin = parseStdio(paths.stdin)
  if (stdin.kind === 'program') throw unusable(paths.stdin, 'a program gives no input')
  const stdout = parseStdio(paths.stdout)
  if (paths.terminal || stdout.kind === 'program') return { stdin, stdout, stderr: { kind: 'null' } }
  if (stdout.kind === 'file') return { stdin, stdout, stderr: stdout }
  const stderr = parseStdio(paths.stderr)
  if (stderr.kind === 'program') throw unusable(paths.stderr, 'a program takes both outputs, so that stdout names it')
  return { stdin, stdout, stderr }
}
