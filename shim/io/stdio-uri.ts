/** What a stdio string of a request means: the URI schemes of shim v2. Pure: no file is opened or looked at. */
import { RuntimeError } from '../../runtime/index.ts'

/** The streams of a process as the client named them. */
export interface StdioPaths {
  readonly stdin: string
  readonly stdout: string
  readonly stderr: string
  readonly terminal: boolean
}

/**
 * A program that takes both outputs. It reports that it is ready by a byte on a pipe. With `strict`, a pipe that it
 * closes without a byte is a failure.
 */
export interface LogProgram {
  readonly kind: 'program'
  readonly path: string
  readonly args: readonly string[]
  readonly strict: boolean
}

/** Where a stream leads. */
export type StreamTarget = FileTarget | LogProgram
/**
 * Where a stream leads that is not a program's. `path` is a fifo or another file that exists; `file` is created when
 * missing.
 */
export type FileTarget =
  | { readonly kind: 'null' }
  | { readonly kind: 'path'; readonly path: string }
  | { readonly kind: 'file'; readonly path: string }

/** The streams of a process. When stdout is a program, it takes stderr as well, and the target of stderr is `null`. */
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

/**
 * The arguments of a log program: each key of the query once, followed by its first value. Escapes are decoded as in an
 * HTML form, where `+` is a space.
 */
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
 * Reads the three stdio strings of a process. With a terminal, all output comes out of stdout. A `file` or a program as
 * stdout takes both outputs, whatever stderr says.
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
