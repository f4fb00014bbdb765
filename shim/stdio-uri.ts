/** What a stdio string of a request means; the schemes of shim v2. Pure: nothing is opened or looked at. */
import { RuntimeError } from '../runtime/index.ts'

/** The streams of a process as the client named them. */
export interface StdioPaths {
  readonly stdin: string
  readonly stdout: string
  readonly stderr: string
  readonly terminal: boolean
}

/** Where a stream leads. `path` is a fifo that the client made, or any other file that is there; `file` is made when missing. */
export type StreamTarget =
  | { readonly kind: 'null' }
  | { readonly kind: 'path'; readonly path: string }
  | { readonly kind: 'file'; readonly path: string }

/** Reads one stdio string. @throws InvalidArgument, Unimplemented for schemes that need more than a file */
export function parseStdio(uri: string): StreamTarget {
  if (uri === '') return { kind: 'null' }
  if (uri.startsWith('/')) return { kind: 'path', path: uri }
  const match = /^(?<scheme>[A-Za-z][A-Za-z0-9+.-]*):\/\/(?<path>[^?#]*)/.exec(uri)
  const { scheme, path = '' } = match?.groups ?? {}
  switch (scheme) {
    case 'fifo':
      return { kind: 'path', path: absolute(path, uri) }
    case 'file':
      return { kind: 'file', path: absolute(path, uri) }
    case 'binary':
    case 'binary-v2':
      throw new RuntimeError('Unimplemented', `cannot log to "${uri}": ${scheme}:// is not supported`)
    case undefined:
      throw new RuntimeError(
        'InvalidArgument',
        `cannot use "${uri}" as a stream: it is neither an absolute path nor a URI`,
      )
    default:
      throw new RuntimeError('InvalidArgument', `cannot use "${uri}" as a stream: unknown STDIO scheme ${scheme}`)
  }
}

function absolute(path: string, uri: string): string {
  let decoded: string
  try {
    decoded = decodeURIComponent(path)
  } catch (error) {
    throw new RuntimeError('InvalidArgument', `cannot use "${uri}" as a stream: its path is not properly escaped`, {
      cause: error,
    })
  }
  if (!decoded.startsWith('/'))
    throw new RuntimeError('InvalidArgument', `cannot use "${uri}" as a stream: its path is not absolute`)
  return decoded
}

/** The three streams. With a terminal everything comes out of stdout; a file takes both outputs, wherever stderr pointed. */
export function parseStreams(paths: StdioPaths): { stdin: StreamTarget; stdout: StreamTarget; stderr: StreamTarget } {
  const stdin = parseStdio(paths.stdin)
  const stdout = parseStdio(paths.stdout)
  const stderr = paths.terminal
    ? ({ kind: 'null' } as const)
    : stdout.kind === 'file'
      ? stdout
      : parseStdio(paths.stderr)
  return { stdin, stdout, stderr }
}
